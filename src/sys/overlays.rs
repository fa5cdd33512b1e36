//! The overlays among mounts, with the directories they stand on as whoever mounted them wrote them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::mountinfo::{DeviceId, MountInfo};

/// An overlay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Overlay {
    /// Its device number: one overlay can be mounted in many places.
    pub device: DeviceId,
    /// Where, as a process sees it that has it.
    pub mount_point: PathBuf,
    /// Top first.
    pub lower: Vec<Layer>,
    /// Where what is written goes.
    pub upper: Option<Layer>,
}

/// A directory that an overlay stands on. The kernel has a mount of its own on it, which no table shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layer {
    /// As it was written: relative to wherever the one who mounted it was; the kernel keeps the text.
    pub path: PathBuf,
    /// The file system that this path is on for those who see the overlay.
    pub device: Option<DeviceId>,
    /// And where in it, from its root.
    pub inside: Option<PathBuf>,
}

/// The overlays among the mounts of one namespace.
pub fn among(mounts: &[MountInfo]) -> Vec<Overlay> {
    let overlays = mounts
        .iter()
        .filter(|mount| mount.fs_type == OsStr::new("overlay"));
    let overlays = overlays.map(|mount| {
        let layer = |path: PathBuf| {
            let place = place_of(mounts, &path);
            Layer {
                device: place.as_ref().map(|(device, _)| *device),
                inside: place.map(|(_, inside)| inside),
                path,
            }
        };
        let options = mount.super_options.as_bytes();
        Overlay {
            lower: lower(options).into_iter().map(layer).collect(),
            upper: upper(options).map(layer),
            device: mount.device,
            mount_point: mount.mount_point.clone(),
        }
    });
    overlays.collect()
}

/// Where a path leads, by the mounts alone: file system, and the path from its root. Of two mounts at one place the later is on top.
fn place_of(mounts: &[MountInfo], path: &Path) -> Option<(DeviceId, PathBuf)> {
    let above = mounts.iter().filter(|m| path.starts_with(&m.mount_point));
    let nearest = above.max_by_key(|m| m.mount_point.components().count())?;
    let rest = path.strip_prefix(&nearest.mount_point).ok()?;
    let inside = match rest.as_os_str().is_empty() {
        true => nearest.root.clone(),
        false => nearest.root.join(rest),
    };
    Some((nearest.device, inside))
}

fn upper(options: &[u8]) -> Option<PathBuf> {
    let mut options = options.split(|&byte| byte == b',');
    options
        .find_map(|option| option.strip_prefix(b"upperdir="))
        .map(path)
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

    #[test]
    fn an_overlay_stands_on_places() {
        let table = b"20 1 0:5 / / rw - ext4 /dev/sda rw\n\
            21 20 0:42 / /m rw - fuse.mica mica rw\n\
            22 20 0:42 /images/b /b rw - fuse.mica mica rw\n\
            23 20 0:43 / /o rw - overlay none rw,lowerdir=/m/images/a/1:/b/2:rel,upperdir=/u/up,workdir=/u/w\n";
        let found = among(&super::super::mountinfo::parse(table));
        let [overlay] = found.as_slice() else {
            panic!("{found:?}");
        };
        let place = |layer: &Layer| Some((layer.device?.minor, layer.inside.clone()?));
        let lower: Vec<_> = overlay.lower.iter().map(place).collect();
        assert_eq!(
            lower,
            [
                Some((42, "/images/a/1".into())),
                Some((42, "/images/b/2".into())),
                None
            ]
        );
        assert_eq!(
            overlay.upper.as_ref().and_then(place),
            Some((5, "/u/up".into()))
        );
    }
}
