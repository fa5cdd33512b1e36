//! One pass over `/proc`: first the mounts, then what each process holds, identified by the mount it is on.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::io::Errno;

use super::{Below, Depth, Held, Holders, How, Place, Question};
use crate::sys::mountinfo::{DeviceId, MountInfo};
use crate::sys::overlays::Overlay;

pub(super) struct Pass<'a> {
    pub(super) question: &'a Question<'a>,
    /// Every mount of every namespace seen, by its id.
    pub(super) mounts: HashMap<u64, MountInfo>,
    pub(super) found: Holders,
}

impl Pass<'_> {
    fn is_whole(&self, device: DeviceId) -> bool {
        self.question.whole.contains(&device)
    }

    /// Takes a mount down, and tells it if it shows a part: of a whole file system anything but the root.
    pub(super) fn mount(&mut self, pid: u32, mount: MountInfo) {
        let part = match self.question.below {
            _ if self.is_whole(mount.device) => mount.root != Path::new("/"),
            Some(below) => mount.root.starts_with(below.inside) && is_on(below, mount.device),
            None => false,
        };
        if part {
            self.found.held.push(Held {
                pid,
                how: How::Mount,
                device: mount.device,
                place: Place::At(mount.root.clone()),
                inode: None,
                shown: mount.mount_point.clone(),
                through_part: false,
            });
        }
        self.mounts.insert(mount.id, mount);
    }

    /// Takes an overlay down, and tells which of its directories are asked about.
    pub(super) fn overlay(&mut self, pid: u32, overlay: Overlay) {
        for layer in overlay.lower.iter().chain(&overlay.upper) {
            let (Some(device), Some(place)) = (layer.device, &layer.inside) else {
                continue;
            };
            let asked = match self.question.below {
                _ if self.is_whole(device) => true,
                Some(below) => place.starts_with(below.inside) && is_on(below, device),
                None => false,
            };
            if asked {
                self.found.held.push(Held {
                    pid,
                    how: How::Overlay,
                    device,
                    place: Place::At(place.clone()),
                    inode: None,
                    shown: overlay.mount_point.clone(),
                    through_part: false,
                });
            }
        }
        if self.question.overlays {
            self.found.overlays.push(overlay);
        }
    }

    pub(super) fn process(&mut self, pid: u32) {
        let base = PathBuf::from(format!("/proc/{pid}"));
        // Of all processes, at each removal: as few calls for each as can be.
        if self.link(pid, How::Cwd, &base.join("cwd")) == Err(Errno::ACCESS) {
            self.found.hidden.push(pid);
            return;
        }
        self.link_if_any(pid, How::Root, &base.join("root"));
        if self.question.depth < Depth::Open {
            return;
        }
        // Unreadable now: it has just ended.
        let fds = fs::read_dir(base.join("fd")).into_iter().flatten();
        for entry in fds.flatten() {
            self.link_if_any(pid, How::Open, &entry.path());
        }
        if self.question.depth >= Depth::Mapped {
            self.maps(pid, &base);
        }
    }

    /// One magic link of `/proc`, unless the process has just ended.
    fn link_if_any(&mut self, pid: u32, how: How, link: &Path) {
        // Who may not be looked into is known by the first of them.
        let _ = self.link(pid, how, link);
    }

    /// One magic link of `/proc`.
    fn link(&mut self, pid: u32, how: How, link: &Path) -> Result<(), Errno> {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        // An empty mask is answered even where FUSE refuses this user; device and mount are told in any case.
        let stat = statx(CWD, link, flags, StatxFlags::empty())?;
        let device = DeviceId {
            major: stat.stx_dev_major,
            minor: stat.stx_dev_minor,
        };
        let whole = self.is_whole(device);
        let below = self.question.below.filter(|below| below.device == device);
        if !whole && below.is_none() {
            return Ok(());
        }
        let shown = fs::read_link(link).unwrap_or_default();
        let mount = self.mounts.get(&stat.stx_mnt_id);
        let through_part = mount.is_some_and(|mount| mount.root != Path::new("/"));
        let place = match (mount, below) {
            (Some(mount), _) => inside(mount, &shown),
            // Detached. A name that only the directory has says enough.
            (None, Some(below)) => match shown.strip_prefix(below.shown) {
                Ok(rest) => Place::At(below.inside.join(rest)),
                Err(_) => Place::Unknown,
            },
            (None, None) => Place::Unknown,
        };
        if !whole && let (Some(below), Place::At(path)) = (below, &place) {
            // On a bind mount of something else, or plainly elsewhere.
            if !path.starts_with(below.inside) {
                return Ok(());
            }
        }
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if !whole && matches!(place, Place::Unknown) && !is_file_or_directory(kind) {
            return Ok(());
        }
        let how = match how {
            How::Open if kind == FileType::Directory => How::OpenDirectory,
            how => how,
        };
        self.found.held.push(Held {
            pid,
            how,
            device,
            place,
            inode: Some(stat.stx_ino).filter(|inode| *inode != 0),
            shown,
            through_part,
        });
        Ok(())
    }

    fn maps(&mut self, pid: u32, base: &Path) {
        let Ok(text) = fs::read(base.join("maps")) else {
            return;
        };
        let mut seen = HashSet::new();
        for line in text.split(|&b| b == b'\n') {
            let Some((range, device, inode, shown)) = parse_mapping(line) else {
                continue;
            };
            let below = self.question.below;
            let named = below.filter(|below| shown.starts_with(below.shown));
            if !self.is_whole(device) && named.is_none() || !seen.insert((device, inode)) {
                continue;
            }
            if let Some(below) = named.filter(|_| !self.is_whole(device)) {
                let rest = shown.strip_prefix(below.shown).unwrap_or(Path::new(""));
                let place = Place::At(below.inside.join(rest));
                self.mapped(pid, below.device, inode, place, shown);
                continue;
            }
            // Tells the mount; needs privileges.
            let link = base.join("map_files").join(range);
            let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
            let mount = statx(CWD, &link, flags, StatxFlags::empty()).ok();
            let mount = mount.and_then(|stat| self.mounts.get(&stat.stx_mnt_id));
            let place = match mount {
                Some(mount) => inside(mount, &shown),
                None => self.by_name(device, &shown),
            };
            self.mapped(pid, device, inode, place, shown);
        }
    }

    fn mapped(&mut self, pid: u32, device: DeviceId, inode: u64, place: Place, shown: PathBuf) {
        self.found.held.push(Held {
            pid,
            how: How::Mapped,
            device,
            place,
            inode: Some(inode),
            shown,
            through_part: false,
        });
    }

    /// By the path alone: the deepest mount of that file system that the path is below.
    fn by_name(&self, device: DeviceId, shown: &Path) -> Place {
        let mounts = self
            .mounts
            .values()
            .filter(|mount| mount.device == device && shown.starts_with(&mount.mount_point));
        let deepest = mounts.max_by_key(|mount| mount.mount_point.as_os_str().len());
        deepest.map_or(Place::Unknown, |mount| inside(mount, shown))
    }
}

/// `st_dev` and mountinfo disagree on file systems with subvolumes; the path then has to say it.
fn is_on(below: Below<'_>, device: DeviceId) -> bool {
    below.device == device || below.inside.components().count() > 2
}

fn is_file_or_directory(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory)
}

/// The place of a path on a mount. The path is as this process sees it, the mount point as another does: below a `chroot` the
/// mount point is only a part of it.
pub(super) fn inside(mount: &MountInfo, shown: &Path) -> Place {
    let path = |rest: &Path| match rest.as_os_str().is_empty() {
        true => Place::At(mount.root.clone()),
        false => Place::At(mount.root.join(rest)),
    };
    if let Ok(rest) = shown.strip_prefix(&mount.mount_point) {
        return path(rest);
    }
    let point: Vec<Component<'_>> = mount.mount_point.components().skip(1).collect();
    let parts: Vec<Component<'_>> = shown.components().collect();
    let start = parts
        .windows(point.len().max(1))
        .position(|part| part == point);
    match start {
        Some(start) if !point.is_empty() => {
            let rest = parts.get(start + point.len()..).unwrap_or_default();
            path(&rest.iter().collect::<PathBuf>())
        }
        // Which part of the file system is known at least, if it is one.
        _ if mount.root != Path::new("/") => Place::At(mount.root.clone()),
        _ => Place::Unknown,
    }
}

/// `7f00-7f01 r-xp 00000000 00:2a 1234    /path`: range, device, inode and path of a line of `maps`.
pub(super) fn parse_mapping(line: &[u8]) -> Option<(&str, DeviceId, u64, PathBuf)> {
    let mut fields = line.splitn(6, |&b| b == b' ');
    let range = std::str::from_utf8(fields.next()?).ok()?;
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let device = DeviceId {
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
    };
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    Some((range, device, inode, PathBuf::from(OsStr::from_bytes(path))))
}
