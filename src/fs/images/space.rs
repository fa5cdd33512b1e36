//! What `df` shows of each place.
//!
//! | place | used | free |
//! |---|---|---|
//! | `images/`, `by-id/`, the root ... | the store on disk, removed layers that are still open included | of the file system below |
//! | a repository | content of its layers, each once | the same |
//! | an image | its SIZE | none: it is read-only |
//! | a layer | its content | none |

use std::collections::BTreeSet;

use super::Superblock;
use super::namespace::is_below;
use super::places::{Place, Subject};
use crate::fs::api::{FsError, StatFs};
use crate::oci::DiffId;

/// Units of the answers.
const BLOCK: u32 = 4096;

impl Superblock {
    pub(super) fn own_statfs(&self, place: &Place) -> Result<StatFs, FsError> {
        match place {
            Place::Repo(path) | Place::InfoRepo(path) if !path.is_empty() => {
                let view = self.view();
                let tags = view.names.tags.iter();
                let inside = tags.filter(|(tag, _)| is_below(&tag.repository.familiar(), path));
                let images = inside.filter_map(|(_, record)| view.names.images.get(&record.id));
                let layers: BTreeSet<DiffId> = images
                    .flat_map(|image| image.layers.iter().copied())
                    .collect();
                self.writable(self.content(&layers)?)
            }
            _ => {
                let (_, held) = self.slots.held(&self.view().names.layers());
                self.writable(self.store.disk_usage()?.total() + held)
            }
        }
    }

    pub(super) fn tree_statfs(&self, subject: &Subject) -> Result<StatFs, FsError> {
        let view = self.view();
        let used = match subject {
            Subject::Layer(layer) | Subject::Chained(_, layer) => {
                self.content(&BTreeSet::from([*layer]))?
            }
            Subject::Chain(_, layers) => self.content(&layers.iter().copied().collect())?,
            subject => {
                let image = subject.image().and_then(|id| view.names.images.get(&id));
                image.map_or(0, |image| image.size)
            }
        };
        Ok(StatFs {
            block_size: BLOCK,
            blocks: used.div_ceil(u64::from(BLOCK)),
            ..StatFs::default()
        })
    }

    /// Bytes in files of these layers.
    fn content(&self, layers: &BTreeSet<DiffId>) -> Result<u64, FsError> {
        layers.iter().try_fold(0u64, |sum, layer| {
            let index = self.store.layer_index(layer)?;
            Ok(sum.saturating_add(index.content_size()))
        })
    }

    /// `used` bytes, and what is free on the store's file system.
    fn writable(&self, used: u64) -> Result<StatFs, FsError> {
        let below = rustix::fs::statvfs(self.store.path()).map_err(|error| FsError::Io {
            context: format!("statvfs {}", self.store.path().display()),
            source: error.into(),
        })?;
        let unit = below.f_frsize.max(1);
        let scaled = |blocks: u64| blocks.saturating_mul(unit) / u64::from(BLOCK);
        let free = scaled(below.f_bfree);
        Ok(StatFs {
            block_size: BLOCK,
            blocks: used.div_ceil(u64::from(BLOCK)).saturating_add(free),
            free,
            available: scaled(below.f_bavail),
            files: 0,
            files_free: 0,
        })
    }
}
