//! The overlays that are mounted anywhere, with their lower directories as whoever mounted them wrote them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::mountinfo::{self, DeviceId, MountInfo};
use super::proc;

/// An overlay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Overlay {
    /// Its device number: one overlay can be mounted in many places.
    pub device: DeviceId,
    /// Where, as a process sees it that has it.
    pub mount_point: PathBuf,
    /// Top first.
    pub lower: Vec<Lower>,
}

/// A lower directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lower {
    /// As it was written: relative to wherever the one who mounted it was; the kernel keeps the text.
    pub path: PathBuf,
    /// The file system that this path is on for those who see the overlay.
    pub device: Option<DeviceId>,
}

/// The overlays in every mount namespace that this process may look into; each once a namespace.
///
/// # Errors
/// `/proc` cannot be read.
pub fn all() -> io::Result<Vec<Overlay>> {
    let mut found = Vec::new();
    let mut namespaces = Vec::new();
    for pid in proc::all()? {
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else {
            continue;
        };
        if namespaces.contains(&namespace) {
            continue;
        }
        namespaces.push(namespace);
        // It may have ended.
        let mounts = mountinfo::of_process(pid).unwrap_or_default();
        let is_overlay = |mount: &&MountInfo| mount.fs_type == OsStr::new("overlay");
        found.extend(mounts.iter().filter(is_overlay).map(|mount| {
            let paths = lower(mount.super_options.as_bytes()).into_iter();
            let lower = paths.map(|path| Lower {
                device: device_of(&mounts, &path),
                path,
            });
            Overlay {
                lower: lower.collect(),
                device: mount.device,
                mount_point: mount.mount_point.clone(),
            }
        }));
    }
    Ok(found)
}

/// Where a path leads, by the mounts alone; of two at one place the later is on top.
fn device_of(mounts: &[MountInfo], path: &Path) -> Option<DeviceId> {
    let above = mounts.iter().filter(|m| path.starts_with(&m.mount_point));
    let nearest = above.max_by_key(|m| m.mount_point.components().count());
    nearest.map(|mount| mount.device)
}

/// `lowerdir=A:B` and, one by one, `lowerdir+=A`. A colon that belongs to a path has a backslash before it.
fn lower(options: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for option in options.split(|&byte| byte == b',') {
        if let Some(one) = option.strip_prefix(b"lowerdir+=") {
            found.push(path(one));
        } else if let Some(list) = option.strip_prefix(b"lowerdir=") {
            found.extend(colons(list).iter().map(|one| path(one)));
        }
    }
    found
}

fn colons(list: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, parts.last_mut()) {
            (b':', _) => parts.push(Vec::new()),
            (b'\\', Some(part)) => part.extend(bytes.next()),
            (byte, Some(part)) => part.push(byte),
            (_, None) => {}
        }
    }
    // `::` stands before lower directories of data only.
    parts.retain(|part| !part.is_empty());
    parts
}

fn path(bytes: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(bytes)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_directories_are_read_from_the_options() {
        let of = |text: &str| {
            let found = lower(text.as_bytes());
            found
                .iter()
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of("rw,lowerdir=l/A:/m/l/B,upperdir=/u"), ["l/A", "/m/l/B"]);
        assert_eq!(of("ro,lowerdir+=/a,lowerdir+=/b:c"), ["/a", "/b:c"]);
        assert_eq!(of("lowerdir=/a\\:b:/c::/data"), ["/a:b", "/c", "/data"]);
        assert!(of("rw,upperdir=/u").is_empty());
    }
}
