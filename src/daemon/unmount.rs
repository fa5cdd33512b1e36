//! `mica umount`: from outside the daemon, by its owner or root.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::bail;

use crate::mount_paths::{STORES, VOLUMES};
use crate::ops::usage::keeping_busy as users;
use crate::sys::mount::{Answer, FS_TYPE, MountError, MountPoint, Mounted};
use crate::sys::mountinfo::DeviceId;
use crate::sys::proc::{self, Process};

/// How long the daemon may take to end after its mount is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a mount that nobody uses is tried again when it is busy, and after how long.
const GLANCES: usize = 50;
const GLANCE: Duration = Duration::from_millis(10);
/// How often the mounts inside may come back.
const RETURNS: u32 = 3;
/// Users of a busy mount that are named.
const MAX_NAMED: usize = 8;

/// Unmounts the mica file system at `path`, and waits for its daemon to end. Lazily: the mount vanishes now, and the daemon
/// serves on until its last user has gone.
pub fn unmount(path: &Path, lazy: bool) -> anyhow::Result<()> {
    let point = MountPoint::open(path)?;
    let shown = point.path().display().to_string();
    let Some(mount) = point.mounted_here()? else {
        bail!("{shown}: not a mount point");
    };
    if mount.fs_type != FS_TYPE {
        bail!(
            "{shown}: a {} file system, not mica; use umount",
            mount.fs_type.to_string_lossy()
        );
    }
    let me = rustix::process::geteuid();
    if let Some(owner) = mount.fuse_owner()
        && !me.is_root()
        && owner != me.as_raw()
    {
        bail!("{shown}: mounted by user {owner}; only that user and root can unmount it");
    }
    let mounted = point.identify(&mount);
    let is_inside = is_inside(point.path());
    // Found now: after the unmount nothing leads from the mount to its daemon. And the descriptor would make it busy.
    let daemon = proc::fuse_server(mount.device).and_then(|pid| Process::open(pid).ok().flatten());
    // What stands in a dead mount cannot be reached; it goes with it.
    let answer = point.answer();
    let dead = answer == Answer::Gone;
    drop(point);
    if answer == Answer::Silent && !lazy {
        let who = proc::fuse_server(mount.device)
            .map(|pid| format!(" (process {pid})"))
            .unwrap_or_default();
        bail!(
            "{shown}: its daemon{who} does not answer; `mica umount -l` detaches the mount, and killing that process ends it"
        );
    }
    let mut tries = 0..RETURNS;
    loop {
        if !lazy && !dead {
            unmount_inner(path, mount.device)?;
        }
        let is_back = || !lazy && !dead && !inner(path).is_empty();
        match unmount_settled(&mounted, lazy || dead, mount.device, is_back) {
            Ok(()) => break,
            // Slow enough for the daemon to have put back what was mounted inside.
            Err(MountError::Busy(_))
                if users(mount.device).is_empty() && tries.next().is_some() => {}
            // By the name that was typed, wherever it is mounted.
            Err(MountError::Busy(_)) => bail!(busy(path, mount.device)),
            Err(error) => return Err(error.into()),
        }
    }
    // Of a mount inside another the daemon goes on, and puts it back in a while.
    if let Some(daemon) = daemon.filter(|_| !lazy && !is_inside)
        && !daemon.wait(PATIENCE)?
    {
        // Another mount of the same connection (a bind mount) keeps it serving; nothing is wrong with that.
        log::info!("{shown}: unmounted; its daemon still serves another mount");
    }
    Ok(())
}

/// Whether this is the volumes or the stores of a mount, inside it. systemd takes those away before what they lie in.
fn is_inside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let around = || {
        let point = MountPoint::open(path.parent()?).ok()?;
        point.mounted_here().ok()?
    };
    name.is_some_and(|name| [VOLUMES, STORES].contains(&name))
        && around().is_some_and(|mount| mount.fs_type == FS_TYPE)
}

/// What is mounted inside, and where.
fn inner(path: &Path) -> Vec<(PathBuf, Mounted, DeviceId)> {
    let mounted = |inner: &str| {
        let at = path.join(inner);
        let point = MountPoint::open(&at).ok()?;
        let mount = point.mounted_here().ok()??;
        (mount.fs_type == FS_TYPE).then(|| (at, point.identify(&mount), mount.device))
    };
    [VOLUMES, STORES].into_iter().filter_map(mounted).collect()
}

/// Unmounts what is mounted inside, one right after the other: the daemon puts back what is missing for long. Not while anything
/// uses the mount around it: then all of it stays.
fn unmount_inner(path: &Path, outer: DeviceId) -> anyhow::Result<()> {
    let inner = inner(path);
    if !inner.is_empty() && !users(outer).is_empty() {
        bail!(busy(path, outer));
    }
    for (at, mounted, device) in inner {
        match unmount_settled(&mounted, false, device, || false) {
            Ok(()) | Err(MountError::NotMounted(_)) => {}
            Err(MountError::Busy(_)) => bail!(busy(&at, device)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whoever looks at what processes have open (`lsof`, another `mica`) keeps a mount busy for a moment without being a user. Not
/// waited for: a mount inside that is back.
fn unmount_settled(
    mounted: &Mounted,
    lazy: bool,
    device: DeviceId,
    is_back: impl Fn() -> bool,
) -> Result<(), MountError> {
    for _ in 0..GLANCES {
        match mounted.unmount(lazy) {
            Err(busy @ MountError::Busy(_)) if is_back() => return Err(busy),
            Err(MountError::Busy(_)) if users(device).is_empty() => thread::sleep(GLANCE),
            other => return other,
        }
    }
    mounted.unmount(lazy)
}

fn busy(path: &Path, device: DeviceId) -> String {
    let mut message = format!("{}: busy", path.display());
    for (i, user) in users(device).iter().take(MAX_NAMED).enumerate() {
        message.push_str(if i == 0 { ": " } else { ", " });
        message.push_str(&user.detail());
    }
    message.push_str("; `mica umount -l` detaches it now and lets them finish");
    message
}
