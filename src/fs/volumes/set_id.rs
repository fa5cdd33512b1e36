//! Set-id bits at changes of content, owner and ACL: what the host leaves of them goes by the caller, not by the daemon.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Statx};

use super::super::api::Caller;
use super::VolumeTree;
use super::attr::VolumeError;
use crate::sys::beneath::{self, Keeps};

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

/// Whether the file has a bit that a change may cost it.
pub(super) fn has_set_id(stat: &Statx) -> bool {
    u32::from(stat.stx_mode) & SET_ID != 0 && beneath::kind(stat) != FileType::Symlink
}

impl VolumeTree {
    /// Runs a change of `node` as the caller, as far as set-id bits are concerned.
    pub(super) fn changing<T>(
        &self,
        caller: &Caller,
        node: impl AsFd,
        change: impl FnOnce() -> beneath::Result<T>,
    ) -> Result<T, VolumeError> {
        let keeps = |group| beneath::keeps(caller.pid, caller.uid, caller.gid, group);
        self.judged(keeps, node, change)
    }

    /// Runs a change as somebody who keeps that much.
    pub(super) fn changing_as<T>(
        &self,
        keeps: Keeps,
        node: impl AsFd,
        change: impl FnOnce() -> beneath::Result<T>,
    ) -> Result<T, VolumeError> {
        self.judged(|_| keeps, node, change)
    }

    fn judged<T>(
        &self,
        keeps: impl FnOnce(u32) -> Keeps,
        node: impl AsFd,
        change: impl FnOnce() -> beneath::Result<T>,
    ) -> Result<T, VolumeError> {
        // Without privilege the daemon is the caller.
        if !self.privileges.many_users() {
            return Ok(change()?);
        }
        let stat = beneath::stat(&node)?;
        if !has_set_id(&stat) {
            return Ok(change()?);
        }
        let group = stat.stx_gid;
        Ok(self.privileges.keeping(keeps(group), group, change)?)
    }
}
