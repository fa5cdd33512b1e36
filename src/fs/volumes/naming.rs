//! What changes `M/volumes`: each operation is the one of the command line (`ops::volume`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::super::api::{Caller, FsError, Timestamp};
use super::VolumeTree;
use super::attr::{Attr, VolumeError};
use crate::ops::usage::volumes::Look;
use crate::ops::volume::{self as volumes, Create, CreateKind, Removal};
use crate::store::{Ownership, Volume, VolumeKind, VolumeName};
use crate::sys::proc;

type Result<T> = std::result::Result<T, VolumeError>;

/// A name to be given; docker's words where it cannot be.
fn new_name(name: &[u8]) -> Result<VolumeName> {
    let invalid = |reason: String| VolumeError::Tree(FsError::Invalid(reason));
    let text = String::from_utf8_lossy(name);
    VolumeName::parse(&text).map_err(|error| invalid(format!("create {text}: {error}")))
}

impl VolumeTree {
    fn may_change(&self) -> Result<()> {
        if self.options.read_only {
            return Err(Errno::ROFS.into());
        }
        Ok(())
    }

    fn removal(&self, caller: &Caller, volume: &Volume) -> Removal {
        Removal {
            only_empty: true,
            look: Look {
                maps: false,
                except: proc::thread_group(caller.pid),
            },
            open_files: self.activity.of(&volume.id).map_or(0, |files| files.open),
        }
    }

    pub(super) fn volume_mkdir(&self, caller: &Caller, name: &[u8], mode: u32) -> Result<Attr> {
        self.may_change()?;
        let mut create = Create::new(Some(new_name(name)?), CreateKind::Persistent);
        create.ownership = Some(Ownership {
            uid: caller.uid,
            gid: caller.gid,
            mode: mode & 0o777,
        });
        let volume = volumes::create_new(&self.store.on_behalf_of(caller.cause()), &create)?;
        self.known.changed(&volume.name, Some(&volume.id));
        self.peers.tell();
        self.visit(&volume, name)
    }

    /// The kernel wants a symbolic link for an answer, and gets one that is nothing: the next lookup gives the volume.
    pub(super) fn volume_bind(&self, caller: &Caller, name: &[u8], target: &[u8]) -> Result<Attr> {
        self.may_change()?;
        let kind = CreateKind::Bind {
            source: PathBuf::from(OsStr::from_bytes(target)),
            read_only: false,
        };
        let create = Create::new(Some(new_name(name)?), kind);
        let volume = volumes::create_new(&self.store.on_behalf_of(caller.cause()), &create)?;
        self.known.changed(&volume.name, Some(&volume.id));
        self.peers.tell();
        let now = Timestamp::now();
        Ok(Attr {
            fresh: false,
            ino: self.nodes.nothing(),
            kind: FileType::Symlink,
            mode: 0o777,
            nlink: 1,
            uid: caller.uid,
            gid: caller.gid,
            device: (0, 0),
            size: u64::try_from(target.len()).unwrap_or(0),
            blocks: 0,
            block_size: 4096,
            atime: now,
            mtime: now,
            ctime: now,
        })
    }

    /// Only a bind of a file is no directory: it is detached.
    pub(super) fn volume_unlink(&self, caller: &Caller, name: &[u8]) -> Result<()> {
        let volume = self.named(name)?;
        match volume.kind {
            VolumeKind::Bind { file: true, .. } => self.remove(caller, &volume),
            _ => Err(Errno::ISDIR.into()),
        }
    }

    pub(super) fn volume_rmdir(&self, caller: &Caller, name: &[u8]) -> Result<()> {
        let volume = self.named(name)?;
        match volume.kind {
            VolumeKind::Bind { file: true, .. } => Err(Errno::NOTDIR.into()),
            _ => self.remove(caller, &volume),
        }
    }

    fn remove(&self, caller: &Caller, volume: &Volume) -> Result<()> {
        self.may_change()?;
        let removal = self.removal(caller, volume);
        let store = self.store.on_behalf_of(caller.cause());
        volumes::remove(&store, &volume.name, &removal, &|| {
            self.known.changed(&volume.name, None);
            self.peers.tell();
        })?;
        Ok(())
    }

    pub(super) fn volume_rename(
        &self,
        caller: &Caller,
        from: &[u8],
        to: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        self.may_change()?;
        if !flags.difference(RenameFlags::NOREPLACE).is_empty() {
            return Err(Errno::INVAL.into());
        }
        let volume = self.named(from)?;
        let to = new_name(to)?;
        let removal = self.removal(caller, &volume);
        let store = self.store.on_behalf_of(caller.cause());
        volumes::rename(&store, &volume.name, &to, &removal)?;
        self.known.changed(&volume.name, None);
        self.known.changed(&to, Some(&volume.id));
        self.peers.tell();
        Ok(())
    }
}
