//! `M/volumes` itself: its entries are the volumes of the store. What changes them is in `naming`.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{FileType, StatVfs};
use rustix::io::Errno;

use super::super::api::{FsError, InodeNo};
use super::VolumeTree;
use super::attached::{Attached, Keep};
use super::attr::{Attr, Name, VolumeError};
use super::record::{Count, Record};
use crate::store::{Volume, VolumeId, VolumeKind, VolumeName};
use crate::sys::beneath;
use crate::sys::pause::pause;

type Result<T> = std::result::Result<T, VolumeError>;

/// What a listing shows for the number of a volume: only the visit of one tells.
const LISTED: u64 = 1 << 62;

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<VolumeId, Arc<Attached>>,
    /// Those that are in no list any more. Who ends a volume and finds a user gives it back, and then it is still the same one.
    ended: HashMap<VolumeId, Weak<Attached>>,
    next: u32,
    /// The names as of the last refresh, and what they stood for.
    names: HashMap<VolumeName, VolumeId>,
}

/// The volumes that have been visited.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Table>, Option<Arc<Record>>);

/// In the record of a volume.
const READ_ONLY: u64 = 1;
const OURS: u64 = 2;

impl Known {
    /// Those that are recorded for the next process.
    pub(super) fn recorded(record: Option<Arc<Record>>) -> Known {
        Known(Mutex::default(), record)
    }

    /// Volumes that an earlier process has visited.
    pub(super) fn restore(&self, before: &Record) -> HashMap<u32, Arc<Attached>> {
        let mut table = self.0.lock();
        let mut all = HashMap::new();
        for (number, id, flags) in before.volumes() {
            let attached = Arc::new(Attached {
                id: id.clone(),
                number,
                read_only: flags & READ_ONLY != 0,
                keep: (flags & OURS != 0).then(Keep::new),
            });
            self.put(number, &attached);
            table.by_id.insert(id, Arc::clone(&attached));
            all.insert(number, attached);
        }
        table.next = u32::try_from(before.get(Count::NextVolume)).unwrap_or(u32::MAX);
        all
    }

    fn put(&self, number: u32, attached: &Attached) {
        let Some(record) = &self.1 else {
            return;
        };
        let flags = [
            (attached.read_only, READ_ONLY),
            (attached.keep.is_some(), OURS),
        ];
        let flags = flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, flag)| flag)
            .sum();
        record.put_volume(number, &attached.id, flags);
        if let Some(next) = record.count(Count::NextVolume) {
            next.fetch_max(u64::from(number) + 1, Ordering::AcqRel);
        }
    }

    fn attach(&self, volume: &Volume) -> Arc<Attached> {
        let mut table = self.0.lock();
        if let Some(known) = table.by_id.get(&volume.id) {
            return Arc::clone(known);
        }
        let ended = table.ended.remove(&volume.id);
        if let Some(known) = ended.and_then(|ended| ended.upgrade()) {
            table.by_id.insert(volume.id.clone(), Arc::clone(&known));
            return known;
        }
        let number = table.next;
        table.next = number.saturating_add(1);
        let attached = Arc::new(Attached {
            id: volume.id.clone(),
            number,
            read_only: matches!(
                volume.kind,
                VolumeKind::Bind {
                    read_only: true,
                    ..
                }
            ),
            keep: volume.kind.is_ours().then(Keep::new),
        });
        self.put(number, &attached);
        table.by_id.insert(volume.id.clone(), Arc::clone(&attached));
        attached
    }
}

impl Known {
    pub(super) fn by_id(&self, id: &VolumeId) -> Option<Arc<Attached>> {
        let table = self.0.lock();
        let ended = || table.ended.get(id).and_then(Weak::upgrade);
        table.by_id.get(id).cloned().or_else(ended)
    }

    pub(super) fn all(&self) -> Vec<Arc<Attached>> {
        self.0.lock().by_id.values().cloned().collect()
    }

    /// Takes note of a name that was changed through this mount, of which the kernel knows.
    pub(super) fn changed(&self, name: &VolumeName, now: Option<&VolumeId>) {
        let mut table = self.0.lock();
        match now {
            Some(id) => table.names.insert(name.clone(), id.clone()),
            None => table.names.remove(name),
        };
    }
}

/// The name, as far as it is one.
fn parse(name: &[u8]) -> Option<VolumeName> {
    VolumeName::parse(std::str::from_utf8(name).ok()?).ok()
}

pub(super) fn statvfs(store: &Path) -> Result<StatVfs> {
    Ok(rustix::fs::statvfs(store)?)
}

impl VolumeTree {
    pub(super) fn named(&self, name: &[u8]) -> Result<Volume> {
        let name = parse(name).ok_or(Errno::NOENT)?;
        let volume = self.store.volume(&name)?;
        Ok(volume.ok_or(Errno::NOENT)?)
    }

    pub(super) fn volume_lookup(&self, name: &[u8]) -> Result<Attr> {
        if name.len() > 255 {
            return Err(Errno::NAMETOOLONG.into());
        }
        let volume = self.named(name)?;
        self.visit(&volume, name)
    }

    /// Enters the top of a volume.
    pub(super) fn visit(&self, volume: &Volume, name: &[u8]) -> Result<Attr> {
        pause("volume found");
        let top = self.open_top(volume)?;
        let stat = beneath::stat(&top)?;
        let attached = self.known.attach(volume);
        self.try_alone(&attached);
        let found_as = (InodeNo::ROOT, name);
        // Under another name it is only after a rename, of which the kernel is told.
        let (node, attr, _) = self
            .nodes
            .enter(&attached, top, &stat, true, found_as, || None);
        self.has_entered(node.ino);
        pause("volume entered");
        Ok(attr)
    }

    /// The data of a volume. A bind is followed by path: what is there now counts, if it is still of the same sort.
    fn open_top(&self, volume: &Volume) -> Result<OwnedFd> {
        let (path, wants_file) = match &volume.kind {
            VolumeKind::Bind { source, file, .. } => (source.clone(), *file),
            VolumeKind::Persistent | VolumeKind::Ephemeral { .. } => (self.data_of(volume), false),
        };
        let own = !matches!(volume.kind, VolumeKind::Bind { .. });
        let top = self.host.root(&path).map_err(|error| match error {
            // It has ended since we looked at the list.
            Errno::NOENT if own && self.has_ended(volume) => Errno::NOENT.into(),
            // Data of ours that is not there is damage, not absence.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP if own => {
                VolumeError::Tree(FsError::Store(format!(
                    "the data of volume {} is not at {}",
                    volume.name,
                    path.display()
                )))
            }
            Errno::NOTDIR => Errno::NOENT.into(),
            error => error.into(),
        })?;
        let kind = beneath::kind(&beneath::stat(&top)?);
        let fits = match kind {
            FileType::Directory => !wants_file,
            FileType::Symlink => false,
            _ => wants_file,
        };
        if fits {
            Ok(top)
        } else {
            Err(Errno::NOENT.into())
        }
    }

    fn has_ended(&self, volume: &Volume) -> bool {
        let volumes = self.store.volume_set();
        volumes.is_ok_and(|volumes| volumes.by_id(&volume.id).is_none())
    }

    fn data_of(&self, volume: &Volume) -> PathBuf {
        let path = self.store.volume_root(volume);
        match path.strip_prefix(self.store.path()) {
            Ok(inside) => self.store_path.join(inside),
            Err(_) => path,
        }
    }

    pub(super) fn root_attr(&self) -> Result<Attr> {
        let volumes = self.store.volume_set()?;
        let directories = volumes.iter().filter(|volume| !is_file(volume)).count();
        Ok(Attr {
            fresh: false,
            ino: InodeNo::ROOT,
            kind: FileType::Directory,
            mode: 0o755,
            nlink: u32::try_from(directories)
                .unwrap_or(u32::MAX)
                .saturating_add(2),
            uid: self.options.uid,
            gid: self.options.gid,
            device: (0, 0),
            size: 0,
            blocks: 0,
            block_size: 4096,
            atime: self.started,
            mtime: self.changed(),
            ctime: self.changed(),
        })
    }

    /// When the names last changed.
    fn changed(&self) -> super::super::api::Timestamp {
        let changed = std::fs::metadata(self.store_path.join("volumes.json"));
        changed
            .and_then(|stat| stat.modified())
            .map_or(self.started, Into::into)
    }

    pub(super) fn root_listing(&self) -> Result<Vec<Name>> {
        let dots = [&b"."[..], b".."].map(|name| (name.into(), InodeNo::ROOT, FileType::Directory));
        let volumes = self.store.volume_set()?;
        let entries = volumes.iter().zip(1..).map(|(volume, number)| {
            let kind = if is_file(volume) {
                FileType::Unknown
            } else {
                FileType::Directory
            };
            let name = volume.name.as_str().as_bytes().into();
            (name, InodeNo(LISTED | number), kind)
        });
        Ok(dots.into_iter().chain(entries).collect())
    }

    /// The volume as it is now, whatever it is called.
    pub(super) fn volume_of(&self, attached: &Attached) -> Option<Volume> {
        let volumes = self.store.volume_set().ok()?;
        volumes.by_id(&attached.id).cloned()
    }

    /// Reads the names again and queues what the kernel has to forget.
    pub fn refresh(&self) -> Result<()> {
        let volumes = self.store.volume_set()?;
        let now: HashMap<_, _> = volumes
            .iter()
            .map(|volume| (volume.name.clone(), volume.id.clone()))
            .collect();
        let mut table = self.known.0.lock();
        let table = &mut *table;
        for (name, id) in &table.names {
            if now.get(name) != Some(id) {
                self.cache
                    .invalidate_entry(InodeNo::ROOT, name.as_str().as_bytes());
            }
        }
        table.names = now;
        let there: HashSet<_> = volumes.iter().map(|volume| &volume.id).collect();
        table.ended.retain(|_, ended| ended.strong_count() > 0);
        for (id, attached) in table.by_id.extract_if(|id, _| !there.contains(id)) {
            self.nodes.ended(attached.number);
            table.ended.insert(id, Arc::downgrade(&attached));
        }
        self.cache.invalidate_inode(InodeNo::ROOT, true);
        Ok(())
    }
}

fn is_file(volume: &Volume) -> bool {
    matches!(volume.kind, VolumeKind::Bind { file: true, .. })
}
