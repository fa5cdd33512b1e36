//! As whom a thread creates files.
//!
//! A daemon of root makes files for others: owner and group come from the file system ids of the thread, so set-group-id
//! directories, default ACLs and quotas work as if the caller had made the file. What the caller *may* do the kernel
//! has checked before it asked.
//!
//! Two capabilities are put down while a thread serves: with `CAP_FSETID` a write would leave set-id bits standing, with
//! `CAP_SYS_RESOURCE` it would use blocks kept for root and ignore quotas. Passthrough I/O runs with what a thread had when it
//! registered the file. Supplementary groups go for good: the host asks whether the thread is in a file's group.

use std::cell::Cell;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::Result;

/// Who makes a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Creator {
    /// Its owner to be.
    pub uid: u32,
    /// Its group, where the directory does not decide.
    pub gid: u32,
    /// Bits to leave out, where the directory has no default ACL.
    pub umask: u32,
}

/// What the host leaves of set-id bits when the content, owner or ACL of a file changes depends on who changes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keeps {
    /// Who has `CAP_FSETID`: as the kind of change has it, for any group.
    All,
    /// Who is in the file's group.
    Group,
    /// Anybody else.
    Nothing,
}

/// A group that no file has, for a thread that must not be taken for a member.
const NO_GROUP: u32 = u32::MAX - 2;

/// What this process may do for others.
#[derive(Clone, Copy, Debug)]
pub struct Privileges {
    /// The sets that threads serve with; `None`: an ordinary user, whose files are all that user's.
    serving: Option<CapabilitySets>,
}

thread_local! {
    /// What the calling thread is at the moment, once it has been prepared.
    static THREAD: Cell<Option<Creator>> = const { Cell::new(None) };
}

impl Privileges {
    /// Those of the process.
    pub fn new() -> Result<Self> {
        let all = rustix::thread::capabilities(None)?;
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::DAC_OVERRIDE;
        if !rustix::process::geteuid().is_root() || !all.effective.contains(needed) {
            return Ok(Privileges { serving: None });
        }
        let without = CapabilitySet::FSETID | CapabilitySet::SYS_RESOURCE;
        let serving = CapabilitySets {
            effective: all.effective.difference(without),
            ..all
        };
        Ok(Privileges {
            serving: Some(serving),
        })
    }

    /// Whether files are made as the caller.
    pub fn many_users(&self) -> bool {
        self.serving.is_some()
    }

    /// Prepares the calling thread to serve; does nothing the second time.
    pub fn enter(&self) -> Result<()> {
        if THREAD.get().is_some() {
            return Ok(());
        }
        own_umask()?;
        // What it was before does not matter.
        let _ = rustix::process::umask(Mode::empty());
        if let Some(sets) = self.serving {
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_capabilities(None, sets)?;
        }
        THREAD.set(Some(Creator {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: 0,
        }));
        Ok(())
    }

    /// Makes the calling thread, which has entered, create as `creator` until told otherwise.
    pub fn create_as(&self, creator: &Creator) -> Result<()> {
        let now = THREAD.get().ok_or(Errno::PERM)?;
        if now.umask != creator.umask {
            rustix::process::umask(Mode::from_raw_mode(creator.umask & 0o777));
            THREAD.set(Some(Creator {
                umask: creator.umask,
                ..now
            }));
        }
        let Some(sets) = self.serving else {
            return Ok(());
        };
        if (now.uid, now.gid) == (creator.uid, creator.gid) {
            return Ok(());
        }
        // Until it is known to be done, nobody's files may be made.
        THREAD.set(None);
        set_fs_ids(creator.uid, creator.gid)?;
        // The kernel takes capabilities away when the user id leaves 0.
        rustix::thread::set_capabilities(None, sets)?;
        THREAD.set(Some(*creator));
        Ok(())
    }

    /// Runs a change of a file of `group` that may cost it set-id bits, as somebody who keeps those.
    pub fn keeping<T>(
        &self,
        keeps: Keeps,
        group: u32,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.serving.is_none() {
            return change();
        }
        let now = THREAD.get().ok_or(Errno::PERM)?;
        match keeps {
            Keeps::All => return self.with_set_id(change),
            Keeps::Group => self.create_as(&Creator { gid: group, ..now })?,
            Keeps::Nothing if now.gid == group => self.create_as(&Creator {
                gid: NO_GROUP,
                ..now
            })?,
            Keeps::Nothing => {}
        }
        change()
    }

    /// Runs `change` with the right to set set-id bits for any group.
    pub fn with_set_id<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(sets) = self.serving else {
            return change();
        };
        let more = CapabilitySets {
            effective: sets.effective | (sets.permitted & CapabilitySet::FSETID),
            ..sets
        };
        rustix::thread::set_capabilities(None, more)?;
        let result = change();
        rustix::thread::set_capabilities(None, sets)?;
        result
    }
}

/// Gives the calling thread a umask of its own.
#[allow(unsafe_code)]
fn own_umask() -> Result<()> {
    // SAFETY: CLONE_FS concerns root, working directory and umask of the calling thread, none of which memory safety rests on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}

#[allow(unsafe_code)]
fn set_fs_ids(uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let set = |call: libc::c_long, id: u32| {
        // SAFETY: setfsuid and setfsgid take one number and touch no memory; the raw calls concern this thread only.
        let before = unsafe { libc::syscall(call, libc::c_ulong::from(id)) };
        // They report the old value only, which tells nothing: -1 is never set and so asks for the present one.
        let _ = before;
        // SAFETY: as above.
        let now = unsafe { libc::syscall(call, libc::c_ulong::from(u32::MAX)) };
        u32::try_from(now & 0xffff_ffff).ok() == Some(id)
    };
    if set(libc::SYS_setfsgid, gid.as_raw()) && set(libc::SYS_setfsuid, uid.as_raw()) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}
