//! The files of `info/` and beside a layer's `diff`: facts as text.
//!
//! Two kinds. A file whose content follows from the image is rendered when asked for, and the kernel may keep it. Any other is
//! rendered at each `stat`, and what is read is what that `stat` measured: its mtime moves exactly when the content does, which
//! makes the kernel drop its copy. (There is no OPEN to hang a version on, and a size that is wrong would be padded by zeros.)

mod events;
mod measured;
mod render;
mod users;

use std::sync::Arc;

pub(super) use events::Events;
pub(super) use measured::Measured;
pub(super) use users::UsersCache;

use super::Superblock;
use super::nodes::{Node, Rendered};
use super::places::{InfoFile, LayerFileName, TagFile};
use crate::fs::api::{AttrReply, FsError, InodeNo, Timestamp, Ttl};

/// Whether a file's content can change while its node is the same.
fn is_dynamic(file: &InfoFile) -> bool {
    match file {
        InfoFile::Df | InfoFile::Events | InfoFile::Version => true,
        InfoFile::Tag(_, _, file) => match file {
            TagFile::Id | TagFile::Config | TagFile::Layers | TagFile::Size | TagFile::History => {
                false
            }
            TagFile::Digest | TagFile::Manifest | TagFile::Inspect | TagFile::Users => true,
        },
        InfoFile::Layer(_, file) => match file {
            LayerFileName::Tar => false,
            LayerFileName::Info | LayerFileName::Users => true,
        },
    }
}

impl Superblock {
    pub(super) fn file_attr(&self, node: &Node, file: &InfoFile) -> Result<AttrReply, FsError> {
        let ino = node.ino;
        if let InfoFile::Layer(layer, LayerFileName::Tar) = file {
            let size = self.slots.open(&self.slots.of(layer))?.index.tar_size();
            let mtime = self.view().layers.mtime;
            let mut reply = self.file_reply(ino, size, mtime, Ttl::Forever);
            // It holds what the modes inside the image keep from others.
            reply.attr.mode = 0o400;
            return Ok(reply);
        }
        if !is_dynamic(file) {
            let size = length(&self.render(file)?);
            let mtime = match file {
                InfoFile::Tag(tag, ..) => self.view().tag(tag).map(|entry| entry.tagged.into()),
                _ => None,
            };
            return Ok(self.file_reply(ino, size, mtime.unwrap_or_default(), Ttl::Forever));
        }
        let rendered = self.rendered_now(node, file)?;
        Ok(self.file_reply(ino, length(&rendered.bytes), rendered.mtime, Ttl::Zero))
    }

    fn file_reply(&self, ino: InodeNo, size: u64, mtime: Timestamp, ttl: Ttl) -> AttrReply {
        AttrReply {
            attr: self.regular(ino, size, mtime),
            ttl,
        }
    }

    /// Renders a dynamic file anew; if that gives what it showed before, its time stays.
    fn rendered_now(&self, node: &Node, file: &InfoFile) -> Result<Rendered, FsError> {
        let bytes = self.render(file)?;
        let mut rendered = node.rendered.lock();
        let now = match rendered.take() {
            Some(old) if *old.bytes == *bytes => old,
            Some(old) => Rendered {
                bytes: bytes.into(),
                mtime: old.mtime.next(),
            },
            None => Rendered {
                bytes: bytes.into(),
                mtime: Timestamp::now(),
            },
        };
        *rendered = Some(now.clone());
        Ok(now)
    }

    /// Reads a file of ours.
    pub(super) fn file_read(
        &self,
        node: &Node,
        file: &InfoFile,
        offset: u64,
        size: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), FsError> {
        if let InfoFile::Layer(layer, LayerFileName::Tar) = file {
            let slot = self.slots.of(layer);
            let opened = self.slots.open(&slot)?;
            into.resize(size, 0);
            let length = match opened.read_tar_at(offset, into) {
                Ok(length) => length,
                // It may have been loaded again since.
                Err(error) => match self.slots.reopen(&slot, &opened) {
                    Some(opened) => opened.read_tar_at(offset, into)?,
                    None => return Err(error.into()),
                },
            };
            into.truncate(length);
            return Ok(());
        }
        let bytes: Arc<[u8]> = match is_dynamic(file) {
            false => self.render(file)?.into(),
            true => {
                let shown = node.rendered.lock().clone();
                match shown {
                    Some(rendered) => rendered.bytes,
                    None => self.rendered_now(node, file)?.bytes,
                }
            }
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = bytes.get(offset..).unwrap_or_default();
        into.extend_from_slice(rest.get(..size).unwrap_or(rest));
        Ok(())
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
