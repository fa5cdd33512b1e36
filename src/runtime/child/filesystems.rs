//! File systems that are made for one container, detached: they are put on a descriptor.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::sources::clone;
use crate::sys::container::{MountLimits, limit_mount};

pub(super) const SAFE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A new tmpfs. Of `options` those with a value are the kernel's; the others say what the mount may be used for.
pub(super) fn tmpfs(
    size: Option<u64>,
    mode: u32,
    read_only: bool,
    more: &[String],
) -> rustix::io::Result<OwnedFd> {
    let mode = format!("{mode:o}");
    let size = size.map(|size| size.to_string());
    let mut options = vec![("mode", mode.as_str())];
    if let Some(size) = &size {
        options.push(("size", size));
    }
    let mut attributes = SAFE;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    for option in more {
        match (option.split_once('='), option.as_str()) {
            (Some(option), _) => options.push(option),
            (None, "exec") => attributes.remove(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (None, "suid") => attributes.remove(MountAttrFlags::MOUNT_ATTR_NOSUID),
            (None, "noatime") => attributes.insert(MountAttrFlags::MOUNT_ATTR_NOATIME),
            (None, "strictatime") => attributes.insert(MountAttrFlags::MOUNT_ATTR_STRICTATIME),
            (None, "nodiratime") => attributes.insert(MountAttrFlags::MOUNT_ATTR_NODIRATIME),
            (None, flag @ ("inode32" | "inode64")) => options.push((flag, "")),
            // What the kernel does anyway.
            (None, _) => {}
        }
    }
    new("tmpfs", &options, attributes)
}

/// A file that is in memory only, as a mount of its own. The file system it is in covers the overlay's work directory in the
/// container's `directory`, which nobody sees once the container's root is the root.
pub(super) fn text(
    directory: &OwnedFd,
    content: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
    limited: bool,
) -> std::io::Result<OwnedFd> {
    const NAME: &str = "text";
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let memory = new("tmpfs", &[("mode", "700")], attributes)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(&memory, NAME, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let owner = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(gid),
    );
    rustix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    drop(file);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    put(&memory, &openat(directory, "work", flags, Mode::empty())?)?;
    // A mount that is attached to nothing cannot be copied on every kernel: this one is attached.
    let mount = clone(&openat(&memory, NAME, flags, Mode::empty())?, false)?;
    if limited {
        limit_mount(mount.as_fd(), read_only(), false)?;
    }
    Ok(mount)
}

/// A new file system, not attached to anything yet.
pub(super) fn new(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", kind)?;
    for (key, value) in options {
        match value.is_empty() {
            true => fsconfig_set_flag(&context, *key)?,
            false => fsconfig_set_string(&context, *key, *value)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Attaches a mount to a place.
pub(in crate::runtime) fn put(mount: &OwnedFd, place: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

pub(super) fn read_only() -> MountLimits {
    MountLimits {
        read_only: true,
        ..MountLimits::default()
    }
}
