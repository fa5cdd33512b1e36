//! Going on with the volumes that an earlier process has served: what its record says, of the descriptors that its holder has kept.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::VolumeTree;
use super::again::Unanswered;
use super::attached::Attached;
use super::attr::{FileNo, VolumeError};
use super::files;
use super::record::{Count, Found, Kind, Record};
use crate::fs::InodeNo;
use crate::store::VolumeName;

/// What an earlier process has left.
#[derive(Debug)]
pub struct Before {
    /// What it has recorded.
    pub record: Arc<Record>,
    /// What it had open, by the numbers that it had.
    pub descriptors: Vec<(u32, OwnedFd)>,
}

/// A file that the kernel has open.
#[derive(Clone, Copy, Debug)]
pub struct Inherited {
    /// Its node.
    pub ino: InodeNo,
    /// Its number.
    pub file: FileNo,
    /// The kernel's backing id, if it is read and written through one.
    pub backing: Option<u32>,
}

/// In which order they are taken in: files stand on nodes, what is open for writing on holds.
const ORDER: [Kind; 5] = [
    Kind::Node,
    Kind::Hold,
    Kind::File,
    Kind::Directory,
    Kind::Lock,
];

impl VolumeTree {
    pub(super) fn inherits(&self) -> bool {
        self.inherits.load(Ordering::Relaxed)
    }

    /// Takes in what an earlier process of the connection has left; before any request. What cannot be taken in is stale to the kernel,
    /// and said.
    pub fn inherit(&self, before: Before) -> Result<Vec<Inherited>, VolumeError> {
        let Some(record) = &self.files.record else {
            return Ok(Vec::new());
        };
        self.inherits.store(true, Ordering::Relaxed);
        for count in [Count::NextFile, Count::Invented, Count::NextVolume] {
            if let Some(now) = record.count(count) {
                now.fetch_max(before.record.get(count), Ordering::AcqRel);
            }
        }
        *self.unanswered.lock() = Unanswered::of(&before.record, record);
        let mut found: HashMap<u8, Vec<(Found, OwnedFd)>> = HashMap::new();
        for (number, descriptor) in before.descriptors {
            if let Some(slot) = before.record.find(number) {
                let of_kind = found.entry(slot.kind as u8).or_default();
                of_kind.push((slot, descriptor));
            }
        }
        let volumes = self.known.restore(&before.record);
        self.nodes.restore_spaces(before.record.spaces());
        let mut files = Vec::new();
        let mut lost = 0;
        for kind in ORDER {
            for (slot, descriptor) in found.remove(&(kind as u8)).unwrap_or_default() {
                if let Err(error) = self.take_in(&volumes, &slot, descriptor, &mut files) {
                    log::warn!("volumes: {slot:?} does not outlive its process: {error}");
                    lost += 1;
                }
            }
        }
        self.name_tops();
        log::info!(
            "volumes: going on with {} inodes and {} open files; {lost} lost",
            self.nodes.len(),
            files.len()
        );
        // Changes that were done and not answered are not what the kernel keeps.
        for volume in self.known.all() {
            if let Some(keep) = volume.keep.as_ref() {
                self.have_forgotten(&volume, keep);
            }
        }
        Ok(files)
    }

    /// The kernel knows volumes by the names of then: the first look at the store finds what is different now.
    fn name_tops(&self) {
        for volume in self.known.all() {
            let nodes = self.nodes.of(volume.number);
            let names = nodes.iter().filter(|node| node.top);
            for (_, name) in names.filter_map(|node| node.last_name()) {
                let name = std::str::from_utf8(&name).ok().map(VolumeName::parse);
                if let Some(Ok(name)) = name {
                    self.known.changed(&name, Some(&volume.id));
                }
            }
        }
    }

    fn take_in(
        &self,
        volumes: &HashMap<u32, Arc<Attached>>,
        slot: &Found,
        descriptor: OwnedFd,
        files: &mut Vec<Inherited>,
    ) -> Result<(), VolumeError> {
        let facts = slot.facts;
        let stale = VolumeError::from(rustix::io::Errno::STALE);
        let Some(volume) = volumes.get(&facts.volume) else {
            return Err(stale);
        };
        let ino = facts.inode();
        match slot.kind {
            Kind::Node => {
                let known = self.budget.know(facts.user);
                self.nodes.restore(volume, descriptor, slot, Some(known))?;
            }
            Kind::Hold => self.restore_hold(volume, descriptor.into(), facts.of),
            Kind::File => {
                let node = self.nodes.get(ino)?;
                let in_use = match files::writes(&facts) {
                    true => Some(self.using(volume)?),
                    false => None,
                };
                let file = FileNo(facts.number);
                let share = self.budget.take(facts.user)?;
                self.keep_as(node, descriptor, facts, in_use);
                self.budget.charge(file, share);
                if facts.request != 0 {
                    let mut unanswered = self.unanswered.lock();
                    unanswered.put_file(facts.request, ino, file);
                }
                let backing = facts.of.checked_sub(1);
                files.push(Inherited {
                    ino,
                    file,
                    backing: backing.and_then(|id| u32::try_from(id).ok()),
                });
            }
            Kind::Directory => {
                let share = self.budget.take(facts.user)?;
                self.restore_directory(self.nodes.get(ino)?, descriptor, &facts);
                self.budget.charge(FileNo(facts.number), share);
            }
            Kind::Lock => self.locks.restore(descriptor, &facts)?,
        }
        Ok(())
    }
}
