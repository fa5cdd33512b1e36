//! Opening, by users with descriptors left of their share.

use super::super::api::{Caller, InodeNo};
use super::VolumeTree;
use super::attr::{Attr, FileNo, VolumeError};
use super::files::Opened;

type Result<T> = std::result::Result<T, VolumeError>;

impl VolumeTree {
    /// Opens a file with the flags of open(2).
    pub fn open(&self, caller: &Caller, ino: InodeNo, flags: u32) -> Result<Opened> {
        let share = self.budget.take(caller.uid)?;
        let opened = self.open_host(caller, ino, flags)?;
        self.budget.charge(opened.file, share);
        Ok(opened)
    }

    /// Makes a file and opens it; opens the one that somebody else has made meanwhile, unless `O_EXCL`.
    pub fn create(
        &self,
        caller: &Caller,
        parent: InodeNo,
        name: &[u8],
        (mode, umask): (u32, u32),
        flags: u32,
    ) -> Result<(Attr, Opened)> {
        let share = self.budget.take(caller.uid)?;
        let (attr, opened) = self.create_host(caller, parent, name, (mode, umask), flags)?;
        self.budget.charge(opened.file, share);
        Ok((attr, opened))
    }

    /// Opens a directory for listing.
    pub fn open_directory(&self, caller: &Caller, ino: InodeNo) -> Result<FileNo> {
        let share = self.budget.take(caller.uid)?;
        let opened = self.open_directory_host(caller.uid, ino)?;
        self.budget.charge(opened, share);
        Ok(opened)
    }
}
