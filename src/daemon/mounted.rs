//! A mount of this process: how it is made, and that it ends with it.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::MountPlan;
use crate::sys::mount::{FuseFlags, MountError, Mounted};
use crate::sys::mountinfo::DeviceId;

/// A stat or a shell's completion that happens to be inside passes: so often and so long the unmount is tried again.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// Readahead of the mount in KiB (root can set it; 128 otherwise): one request of the largest size.
const READ_AHEAD_KB: &str = "1024";

/// Our mount; detached if it is still there when this is dropped.
pub(super) struct OwnMount {
    mounted: Option<Mounted>,
    /// It does not end with this process.
    kept: bool,
}

impl OwnMount {
    pub(super) fn new(mounted: Mounted) -> Self {
        OwnMount {
            mounted: Some(mounted),
            kept: false,
        }
    }

    /// One that does not end with this process.
    pub(super) fn kept(mounted: Mounted) -> Self {
        OwnMount {
            mounted: Some(mounted),
            kept: true,
        }
    }

    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// It ends with this process after all.
    pub(super) fn give_up(&mut self) {
        self.kept = false;
    }

    pub(super) fn get(&self) -> Option<&Mounted> {
        self.mounted.as_ref()
    }

    /// Unmounts; one that is busy again, some times.
    pub(super) fn unmount_patiently(&self) -> Result<(), MountError> {
        let mut result = self.unmount(false);
        for _ in 1..BUSY_TRIES {
            if !matches!(result, Err(MountError::Busy(_))) {
                break;
            }
            thread::sleep(BUSY_PAUSE);
            result = self.unmount(false);
        }
        result
    }

    pub(super) fn place(&self) -> anyhow::Result<(PathBuf, DeviceId)> {
        let mounted = self.get().context("not mounted")?;
        Ok((mounted.path.clone(), mounted.device))
    }

    pub(super) fn shown(&self) -> String {
        let mounted = self.get();
        mounted.map_or_else(String::new, |m| m.path.display().to_string())
    }

    pub(super) fn unmount(&self, lazy: bool) -> Result<(), MountError> {
        match self.get() {
            Some(mounted) => mounted.unmount(lazy),
            None => Ok(()),
        }
    }

    pub(super) fn forget(&mut self) {
        self.mounted = None;
    }
}

impl Drop for OwnMount {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match self.unmount(true) {
            Ok(()) | Err(MountError::NotMounted(_)) => {}
            Err(error) => log::error!("{error}"),
        }
    }
}

/// Root lets everybody in and has the kernel check modes; an ordinary user is alone with the mount.
pub(super) fn flags(plan: &MountPlan) -> FuseFlags {
    let root = rustix::process::geteuid().is_root();
    let allow_other = plan.options.allow_other.unwrap_or(root);
    FuseFlags {
        read_only: plan.options.read_only,
        allow_other,
        default_permissions: allow_other,
        suid: plan.options.suid,
        dev: plan.options.dev,
    }
}

/// Only root may, and it only costs speed.
pub(super) fn read_ahead(device: DeviceId) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KB) {
        log::debug!("{path}: {error}");
    }
}
