//! Pins through the mount: the attribute `user.mica.pin` of a tag directory, and its immutable flag (`chattr +i`). Both are the
//! store's pin: the tag can be neither removed nor renamed, by whomever, until it is let go.

use super::Superblock;
use super::places::Subject;
use super::trees::DirNode;
use crate::fs::api::{Caller, FsError};
use crate::oci::TagRef;

/// The attribute.
pub(super) const PIN: &[u8] = b"user.mica.pin";
/// `FS_IMMUTABLE_FL` of ioctl_iflags(2).
const IMMUTABLE: u32 = 0x10;

/// The tag whose directory this is.
fn tag_of(dir: &DirNode) -> Option<TagRef> {
    match dir.tree.subject() {
        Subject::Tag(tag, _) if dir.is_root() => Some(tag),
        _ => None,
    }
}

impl Superblock {
    /// Whether a directory is that of a pinned tag.
    pub(super) fn is_pinned(&self, dir: &DirNode) -> bool {
        tag_of(dir).is_some_and(|tag| self.view().names.is_pinned(&tag))
    }

    /// Sets the attribute to `value`, or removes it; `None` if it is none that can be set here.
    pub(super) fn set_pin_attribute(
        &self,
        caller: &Caller,
        dir: &DirNode,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Option<Result<(), FsError>> {
        let tag = tag_of(dir).filter(|_| name == PIN)?;
        Some(match value {
            Some(b"" | b"1") => self.set_pin(caller, &tag, true),
            Some(_) => Err(FsError::Invalid("the value of a pin is 1".to_owned())),
            None if !self.is_pinned(dir) => Err(FsError::NoAttribute),
            None => self.set_pin(caller, &tag, false),
        })
    }

    /// The flags of ioctl_iflags(2).
    pub(super) fn inode_flags(&self, dir: &DirNode) -> u32 {
        match self.is_pinned(dir) {
            true => IMMUTABLE,
            false => 0,
        }
    }

    /// Sets them; `None` if they cannot be set here.
    pub(super) fn set_inode_flags(
        &self,
        caller: &Caller,
        dir: &DirNode,
        flags: u32,
    ) -> Option<Result<(), FsError>> {
        let tag = tag_of(dir)?;
        Some(match flags & !IMMUTABLE {
            0 => self.set_pin(caller, &tag, flags & IMMUTABLE != 0),
            _ => Err(FsError::Unsupported),
        })
    }

    fn set_pin(&self, caller: &Caller, tag: &TagRef, pinned: bool) -> Result<(), FsError> {
        self.may_change(caller)?;
        let changing = self.changing();
        let store = self.store.on_behalf_of(caller.cause());
        let lock = store.lock()?;
        store.change(&lock, |names| names.set_pin(tag, pinned))?;
        drop(lock);
        if let Err(error) = self.take_in(&changing, &[]) {
            log::error!("the names have changed, but cannot be read: {error}");
        }
        drop(changing);
        self.notify_others();
        Ok(())
    }
}
