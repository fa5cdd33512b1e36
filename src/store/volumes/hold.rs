//! Which mounts may keep in mind what they have seen of a volume's data.
//!
//! A mount that is alone with a volume lets the kernel keep names and attributes of it. Whoever changes the data of a volume (by
//! another mount, or mounted directly into a container) holds it too, shared; a mount that is alone is asked first, over its
//! control socket, and lets the others in when its kernel has forgotten everything.
//!
//! The hold is a lock of the open file description on `volumes/<id>/lock` (for reading: shared; for writing: alone): it ends with
//! its holder, however that ends, and turns from one into the other in one step. A daemon that was killed has lost its lock and,
//! with `/dev/fuse`, its connection: its mount opens, lists and writes nothing any more (`ENOTCONN`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::ids::LeaseId;
use super::super::{Store, StoreError, notify};
use super::{VolumeId, VolumeName};
use crate::sys::beneath::{self, LockKind, Range};

/// Name of the file in the volume's directory.
const LOCK: &str = "lock";
/// How long a newcomer waits for a mount that is alone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries, after everybody has been asked.
const PAUSE: Duration = Duration::from_millis(20);
/// The whole file.
const ALL: Range = Range {
    start: 0,
    end: u64::MAX,
};

/// A hold on a volume; ends when dropped, and with the process.
#[derive(Debug)]
pub struct VolumeHold(File);

impl VolumeHold {
    /// Takes everything, if nobody else holds it.
    pub fn try_alone(&self) -> io::Result<bool> {
        let alone = self.set(LockKind::Write)?;
        if alone {
            let holder = format!("{}\n", std::process::id());
            // For messages only.
            let _ = self
                .0
                .set_len(0)
                .and(self.0.write_all_at(holder.as_bytes(), 0));
        }
        Ok(alone)
    }

    /// Lets others in; or comes in, if nobody is alone with it.
    pub fn try_share(&self) -> io::Result<bool> {
        self.set(LockKind::Read)
    }

    /// Holds nothing.
    pub fn let_go(&self) -> io::Result<()> {
        self.set(LockKind::Unlock).map(|_| ())
    }

    fn set(&self, kind: LockKind) -> io::Result<bool> {
        match beneath::set_lock(&self.0, kind, &ALL) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves the hold to the program that this process becomes.
    pub fn keep_over_exec(self) -> io::Result<()> {
        rustix::io::fcntl_setfd(&self.0, rustix::io::FdFlags::empty())?;
        std::mem::forget(self);
        Ok(())
    }

    fn holder(&self) -> u32 {
        let mut text = [0; 16];
        let length = self.0.read_at(&mut text, 0).unwrap_or(0);
        let text = text.get(..length).unwrap_or_default();
        let text = std::str::from_utf8(text).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl AsFd for VolumeHold {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// That of a process before this one, whose holds it goes on with.
impl From<OwnedFd> for VolumeHold {
    fn from(file: OwnedFd) -> Self {
        VolumeHold(file.into())
    }
}

impl Store {
    /// The means to hold a volume whose data lies in the store; holds nothing yet.
    pub fn volume_hold(&self, id: &VolumeId) -> Result<VolumeHold, StoreError> {
        let path = self.layout().volume(id).join(LOCK);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| StoreError::io("open", &path)(error.into()))?;
        Ok(VolumeHold(file.into()))
    }

    /// Comes into a volume, as one of those who may change its data. A mount that is alone with it is asked to let others in; one
    /// that does not is [`StoreError::VolumeKept`]. `own`: a daemon's own lease, which need not be asked.
    pub fn share_volume(
        &self,
        hold: &VolumeHold,
        id: &VolumeId,
        name: &VolumeName,
        own: Option<&LeaseId>,
    ) -> Result<(), StoreError> {
        let path = self.layout().volume(id).join(LOCK);
        let until = Instant::now() + PATIENCE;
        while !hold.try_share().map_err(StoreError::io("lock", &path))? {
            let mut refused = None;
            for lease in self.live_leases()? {
                if !lease.is_daemon() || Some(&lease.id) == own {
                    continue;
                }
                if let Err(error) = notify::share(&lease, id, until) {
                    log::debug!("volume {name}: {}: {error}", lease.id.as_str());
                    refused = Some(error);
                }
            }
            if Instant::now() >= until {
                return Err(StoreError::VolumeKept {
                    name: name.clone(),
                    pid: hold.holder(),
                    reason: refused.map_or_else(|| "no answer".to_owned(), |e| e.to_string()),
                });
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Comes into volumes, each, for somebody who has them mounted without a daemon; binds are nobody's.
    pub fn share_volumes(&self, names: &[VolumeName]) -> Result<Vec<VolumeHold>, StoreError> {
        let volumes = self.volume_set()?;
        let mut holds = Vec::new();
        for name in names {
            let volume = volumes.get(name);
            let volume = volume.ok_or_else(|| StoreError::NoSuchVolume(name.clone()))?;
            if volume.kind.is_ours() {
                let hold = self.volume_hold(&volume.id)?;
                self.share_volume(&hold, &volume.id, name, None)?;
                holds.push(hold);
            }
        }
        Ok(holds)
    }
}
