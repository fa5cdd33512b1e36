//! Who holds parts of some file systems: one pass over `/proc` for several of them, exact about which part.
//!
//! A process may see a file by another name than we do, or by none: through a bind mount in a namespace of its own, below a
//! `chroot`, on a mount that was detached. So a place is told by the mount a descriptor is on (`statx` gives its id, `mountinfo`
//! of any namespace which part of the file system it shows), and by the path only below that. Where even that fails the place is
//! unknown, which is an answer: whoever deletes by this must take it for a use.
//!
//! The one look at what others use: for removals, unmounting, ephemeral volumes, engines and the verb `users`. Looking never sends a
//! request to a file system asked about (`statx` with `AT_STATX_DONT_SYNC`), so a FUSE daemon may look for its own users, even from
//! a request. A process that ends meanwhile is left out. What keeps a mount without being a process (a loop device,
//! a descriptor on its way through a socket, a mount namespace that no process is in) is not found.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};

use super::mountinfo::{self, DeviceId, MountInfo};
use super::overlays::{self, Overlay};
use super::proc;

/// How something is held.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum How {
    /// Working directory.
    Cwd,
    /// Root directory.
    Root,
    /// An open file.
    Open,
    /// An open directory.
    OpenDirectory,
    /// A mapped file.
    Mapped,
    /// A mount in the process's namespace.
    Mount,
    /// An overlay in the process's namespace stands on it.
    Overlay,
}

/// Where in a file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// The path from its root, `/` first.
    At(PathBuf),
    /// Somewhere.
    Unknown,
}

impl Place {
    /// The path, if it is known.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Place::At(path) => Some(path),
            Place::Unknown => None,
        }
    }
}

/// One thing held by one process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Process id.
    pub pid: u32,
    /// How.
    pub how: How,
    /// On which of the file systems asked about.
    pub device: DeviceId,
    /// Where in it.
    pub place: Place,
    /// Inode number, where the kernel tells it.
    pub inode: Option<u64>,
    /// The path as `/proc` shows it; of an overlay where that is mounted.
    pub shown: PathBuf,
    /// It is seen through a mount of a part, which is found itself.
    pub through_part: bool,
}

/// What one pass found.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Everything held.
    pub held: Vec<Held>,
    /// Processes that this one may not look into.
    pub hidden: Vec<u32>,
    /// Every overlay of every mount namespace, if asked for; in each namespace once.
    pub overlays: Vec<Overlay>,
}

/// How far to look; cheaper is less.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Depth {
    /// Mounts, and what overlays stand on.
    #[default]
    Mounts,
    /// Those, working and root directories: what attaches a directory.
    Attached,
    /// Those, and what is open.
    Open,
    /// Those, and mappings: everything. Not for a thread that serves requests of one of the file systems: `/proc/<pid>/maps` can
    /// wait for a page that it is to deliver.
    Mapped,
}

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct Question<'a> {
    /// The file systems that are asked about as a whole: everything on them is found.
    pub whole: &'a [DeviceId],
    /// A directory of the host's file system; what is held on that file system is found only if it lies below, or if it cannot be
    /// told where it lies.
    pub below: Option<Below<'a>>,
    /// How far.
    pub depth: Depth,
    /// What this process holds, too.
    pub own: bool,
    /// All overlays are wanted.
    pub overlays: bool,
}

/// A directory by all that can be known of it.
#[derive(Clone, Copy, Debug)]
pub struct Below<'a> {
    /// As mountinfo and statx name its file system.
    pub device: DeviceId,
    /// The path from the root of that file system.
    pub inside: &'a Path,
    /// The path that we see.
    pub shown: &'a Path,
}

/// Where a directory lies: its file system, and the path from the root of that.
pub fn locate(directory: &Path) -> io::Result<(DeviceId, PathBuf)> {
    let stat = statx(CWD, directory, AtFlags::empty(), StatxFlags::MNT_ID)?;
    let mount = mountinfo::of_self()?;
    let mount = mount.into_iter().find(|mount| mount.id == stat.stx_mnt_id);
    let mount = mount.ok_or(io::ErrorKind::NotFound)?;
    let below = directory.strip_prefix(&mount.mount_point);
    let below = below.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let device = DeviceId {
        major: stat.stx_dev_major,
        minor: stat.stx_dev_minor,
    };
    Ok((device, mount.root.join(below)))
}

/// Everything that processes hold of what is asked about.
pub fn holders(question: &Question<'_>) -> io::Result<Holders> {
    let pids = proc::all()?;
    let mut pass = Pass {
        question,
        mounts: HashMap::new(),
        found: Holders::default(),
    };
    let mut namespaces: HashSet<PathBuf> = HashSet::new();
    let me = std::process::id();
    // Mounts first: descriptors are told by them. A process without a private namespace costs one readlink.
    for &pid in &pids {
        let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else {
            continue;
        };
        // Mounts belong to the namespace; each is told with the first process seen in it.
        if namespaces.insert(namespace) {
            let mounts = mountinfo::of_process(pid).unwrap_or_default();
            for overlay in overlays::among(&mounts) {
                pass.overlay(pid, overlay);
            }
            for mount in mounts {
                pass.mount(pid, mount);
            }
        }
    }
    if question.depth >= Depth::Attached {
        for &pid in pids.iter().filter(|&&pid| question.own || pid != me) {
            pass.process(pid);
        }
    }
    Ok(pass.found)
}

struct Pass<'a> {
    question: &'a Question<'a>,
    /// Every mount of every namespace seen, by its id.
    mounts: HashMap<u64, MountInfo>,
    found: Holders,
}

impl Pass<'_> {
    fn is_whole(&self, device: DeviceId) -> bool {
        self.question.whole.contains(&device)
    }

    /// Takes a mount down, and tells it if it shows a part: of a whole file system anything but the root.
    fn mount(&mut self, pid: u32, mount: MountInfo) {
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
    fn overlay(&mut self, pid: u32, overlay: Overlay) {
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

    fn process(&mut self, pid: u32) {
        let base = PathBuf::from(format!("/proc/{pid}"));
        if let Err(error) = fs::read_link(base.join("cwd"))
            && error.kind() == io::ErrorKind::PermissionDenied
        {
            self.found.hidden.push(pid);
            return;
        }
        self.link(pid, How::Cwd, &base.join("cwd"));
        self.link(pid, How::Root, &base.join("root"));
        if self.question.depth < Depth::Open {
            return;
        }
        // Unreadable now: it has just ended.
        let fds = fs::read_dir(base.join("fd")).into_iter().flatten();
        for entry in fds.flatten() {
            self.link(pid, How::Open, &entry.path());
        }
        if self.question.depth >= Depth::Mapped {
            self.maps(pid, &base);
        }
    }

    /// One magic link of `/proc`.
    fn link(&mut self, pid: u32, how: How, link: &Path) {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        // An empty mask is answered even where FUSE refuses this user; device and mount are told in any case.
        let Ok(stat) = statx(CWD, link, flags, StatxFlags::empty()) else {
            return;
        };
        let device = DeviceId {
            major: stat.stx_dev_major,
            minor: stat.stx_dev_minor,
        };
        let whole = self.is_whole(device);
        let below = self.question.below.filter(|below| below.device == device);
        if !whole && below.is_none() {
            return;
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
                return;
            }
        }
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        if !whole && matches!(place, Place::Unknown) && !is_file_or_directory(kind) {
            return;
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
fn inside(mount: &MountInfo, shown: &Path) -> Place {
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
fn parse_mapping(line: &[u8]) -> Option<(&str, DeviceId, u64, PathBuf)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn found(dir: &Path, pid: u32, maps: bool) -> Vec<(How, PathBuf)> {
        let (device, inside) = locate(dir).unwrap();
        let below = Below {
            device,
            inside: &inside,
            shown: dir,
        };
        let depth = match maps {
            true => Depth::Mapped,
            false => Depth::Open,
        };
        let question = Question {
            below: Some(below),
            depth,
            ..Question::default()
        };
        let held = holders(&question).unwrap().held;
        let ours = held.into_iter().filter(|held| held.pid == pid);
        let mut ours: Vec<_> = ours
            .filter_map(|held| match held.place {
                Place::At(path) => Some((held.how, path.strip_prefix(&inside).unwrap().to_owned())),
                Place::Unknown => None,
            })
            .collect();
        ours.sort();
        ours
    }

    #[test]
    fn a_directory_on_the_host_has_holders() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir(dir.join("in")).unwrap();
        fs::write(dir.join("in/f"), "x").unwrap();
        let child = Command::new("sleep")
            .arg("60")
            .current_dir(dir.join("in"))
            .stdin(fs::File::open(dir.join("in/f")).unwrap())
            .stdout(fs::File::open(dir.join("in")).unwrap())
            .spawn()
            .unwrap();
        let child = Killed(child);
        let expected = [
            (How::Cwd, PathBuf::from("in")),
            (How::Open, PathBuf::from("in/f")),
            (How::OpenDirectory, PathBuf::from("in")),
        ];
        assert_eq!(found(&dir, child.0.id(), false), expected);
        drop(child);

        fs::copy("/bin/sleep", dir.join("prog")).unwrap();
        let child = Killed(Command::new(dir.join("prog")).arg("60").spawn().unwrap());
        let mapped = found(&dir, child.0.id(), true);
        assert!(
            mapped.contains(&(How::Mapped, PathBuf::from("prog"))),
            "{mapped:?}"
        );
        assert_eq!(found(&dir, child.0.id(), false), []);
    }

    #[test]
    fn a_place_is_told_by_mount_and_path() {
        let mount = |root: &str, point: &str| {
            let line = format!("1 0 0:42 {root} {point} rw - fuse.mica mica rw\n");
            mountinfo::parse(line.as_bytes()).remove(0)
        };
        let table = [
            ("/", "/m/volumes", "/m/volumes/x/f", Some("/x/f")),
            ("/", "/m/volumes", "/m/volumes", Some("/")),
            ("/x", "/mnt", "/mnt/f", Some("/x/f")),
            ("/x", "/mnt", "/mnt", Some("/x")),
            // Below a chroot, as the outside sees it.
            ("/", "/volumes", "/jail/volumes/x/f", Some("/x/f")),
            // Moved out of sight: only the part that is mounted is known, or nothing.
            ("/x", "/mnt", "/f", Some("/x")),
            ("/", "/m/volumes", "/x/f", None),
        ];
        for (root, point, shown, expected) in table {
            let place = match expected {
                Some(path) => Place::At(path.into()),
                None => Place::Unknown,
            };
            assert_eq!(
                inside(&mount(root, point), Path::new(shown)),
                place,
                "{shown}"
            );
        }
    }

    #[test]
    fn mapping_lines() {
        let line = b"7f00-7f01 r-xp 00000000 00:2a 1234                       /a b";
        let device = DeviceId {
            major: 0,
            minor: 42,
        };
        let expected = ("7f00-7f01", device, 1234, PathBuf::from("/a b"));
        assert_eq!(parse_mapping(line), Some(expected));
        assert_eq!(parse_mapping(b""), None);
    }
}
