//! What a container sees: its root, the pseudo file systems, and what is mounted into it.
//!
//! Every mount is made detached and put on a descriptor, and every place is looked up below the new root
//! (`RESOLVE_IN_ROOT`): a symbolic link of the image leads nowhere else, absolute ones included.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat, openat2,
    statx, utimensat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::{Fails, Failure};
use crate::sys::container::{MountLimits, limit_mount};

/// What kernel files a container does not see: they tell of the host, or change it.
const MASKED: [&str; 13] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/kernel/debug",
];
/// What it can only read.
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];
/// The devices it has; each is the host's own node.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const SAFE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// The new root while it is being put together.
pub(super) struct Tree {
    root: OwnedFd,
    shown: PathBuf,
    /// Links followed so far that led nowhere.
    links: u32,
    /// What was made on the way, as the container sees it.
    pub(super) made: Vec<String>,
}

/// So many links that lead nowhere are followed; an image can have them in a circle.
const MAX_LINKS: u32 = 64;

/// What has to be at a place that something is mounted on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl Tree {
    /// The root that is mounted at `path`.
    pub(super) fn open(path: &Path) -> Result<Tree, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).fails("opening the root")?;
        let shown = fs::read_link(proc_path(&root)).fails("opening the root")?;
        Ok(Tree {
            root,
            shown,
            links: 0,
            made: Vec::new(),
        })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What is at `path`, if anything; symbolic links are followed, inside.
    pub(super) fn find(&self, path: &Path) -> Result<Option<OwnedFd>, Failure> {
        match self.look(path) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).fails(path.display()),
        }
    }

    fn look(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = match path.strip_prefix("/").unwrap_or(path) {
            empty if empty.as_os_str().is_empty() => Path::new("."),
            path => path,
        };
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        loop {
            match openat2(
                &self.root,
                path,
                flags,
                Mode::empty(),
                ResolveFlags::IN_ROOT,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// The place `path`, made if it is not there.
    pub(super) fn place(&mut self, path: &Path, kind: Kind) -> Result<OwnedFd, Failure> {
        if let Some(found) = self.find(path)? {
            let is_dir = is_directory(&found).fails(path.display())?;
            return match (is_dir, kind) {
                (true, Kind::Directory) | (false, Kind::File) => Ok(found),
                (true, Kind::File) => Err(Failure::start(format!(
                    "cannot mount a file on {}: it is a directory",
                    path.display()
                ))),
                (false, Kind::Directory) => Err(Failure::start(format!(
                    "cannot mount a directory on {}: not a directory",
                    path.display()
                ))),
            };
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Failure::start(format!(
                "cannot mount on {}",
                path.display()
            )));
        };
        let dir = self.place(parent, Kind::Directory)?;
        let shown = path.display();
        let times = times_of(&dir).fails(shown.to_string())?;
        let made = match kind {
            Kind::Directory => mkdirat(&dir, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&dir, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // A symbolic link that leads nowhere yet: what it leads to is made, inside.
                let target =
                    rustix::fs::readlinkat(&dir, name, Vec::new()).fails(shown.to_string())?;
                let target = parent.join(std::ffi::OsStr::from_bytes(target.as_bytes()));
                self.links = self.links.saturating_add(1);
                if self.links > MAX_LINKS {
                    return Err(Failure::start(format!(
                        "cannot mount on {shown}: too many links"
                    )));
                }
                return self.place(&target, kind);
            }
            Err(error) => return Err(error).fails(format!("making {shown}")),
        }
        // Making something to mount on is no change of the directory it is in.
        utimensat(CWD, proc_path(&dir), &times, AtFlags::empty()).fails(shown.to_string())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(&dir, name, flags, Mode::empty()).fails(shown.to_string())?;
        let real = fs::read_link(proc_path(&place)).fails(shown.to_string())?;
        if let Ok(inside) = real.strip_prefix(&self.shown) {
            self.made.push(format!("/{}", inside.display()));
        }
        Ok(place)
    }

    /// Puts a detached mount on `path`.
    pub(super) fn attach(
        &mut self,
        mount: &OwnedFd,
        path: &Path,
        kind: Kind,
    ) -> Result<(), Failure> {
        let place = self.place(path, kind)?;
        put(mount, &place).fails(format!("mounting {}", path.display()))
    }

    /// `/proc`, `/dev` with what belongs below it, and `/sys`.
    pub(super) fn pseudo(&mut self, rootless: bool, single_id: bool) -> Result<(), Failure> {
        let proc = new("proc", &[], SAFE).map_err(|error| match error {
            Errno::PERM => Failure::start(
                "mounting /proc: the kernel does not allow it here (is this a container whose own /proc is masked?)"
                    .to_owned(),
            ),
            error => Failure::start(format!("mounting /proc: {error}")),
        })?;
        self.attach(&proc, Path::new("/proc"), Kind::Directory)?;
        self.devices(single_id)?;
        self.sys(rootless)?;
        for path in MASKED {
            self.mask(Path::new(path))?;
        }
        for path in READ_ONLY {
            if let Some(found) = self.find(Path::new(path))? {
                let mount = clone(&found, true).fails(path)?;
                limit_mount(mount.as_fd(), read_only(), true).fails(path)?;
                put(&mount, &found).fails(path)?;
            }
        }
        Ok(())
    }

    fn devices(&mut self, single_id: bool) -> Result<(), Failure> {
        let no_exec_no_suid = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let options = [("mode", "755"), ("size", "65536k")];
        let dev = new(
            "tmpfs",
            &options,
            no_exec_no_suid | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )
        .fails("mounting /dev")?;
        self.attach(&dev, Path::new("/dev"), Kind::Directory)?;
        let dev = self.look(Path::new("dev")).fails("/dev")?;
        for name in DEVICES {
            let source = Path::new("/dev").join(name);
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let node = open_tree(CWD, &source, flags).fails(source.display())?;
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&dev, name, flags, Mode::from_raw_mode(0o666)).fails(source.display())?;
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let place = openat(&dev, name, flags, Mode::empty()).fails(source.display())?;
            put(&node, &place).fails(source.display())?;
        }
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
            ("ptmx", "pts/ptmx"),
        ] {
            rustix::fs::symlinkat(target, &dev, name).fails(name)?;
        }
        for name in ["pts", "shm", "mqueue"] {
            mkdirat(&dev, name, Mode::from_raw_mode(0o755)).fails(name)?;
        }
        let mut options = vec![("ptmxmode", "0666"), ("mode", "0620")];
        if !single_id {
            options.push(("gid", "5"));
        }
        let no_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let pts = new("devpts", &options, no_exec).fails("mounting /dev/pts")?;
        self.attach(&pts, Path::new("/dev/pts"), Kind::Directory)?;
        let options = [("mode", "1777"), ("size", "65536k")];
        let shm = new("tmpfs", &options, SAFE).fails("mounting /dev/shm")?;
        self.attach(&shm, Path::new("/dev/shm"), Kind::Directory)?;
        // Kernels without POSIX message queues exist.
        if let Ok(queues) = new("mqueue", &[], SAFE) {
            self.attach(&queues, Path::new("/dev/mqueue"), Kind::Directory)?;
        }
        Ok(())
    }

    /// Root's own view of the kernel's objects; an ordinary user's is the host's, and both can only be read.
    fn sys(&mut self, rootless: bool) -> Result<(), Failure> {
        let sys = match rootless {
            false => new("sysfs", &[], SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)
                .fails("mounting /sys")?,
            true => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_RECURSIVE;
                let sys = open_tree(CWD, "/sys", flags).fails("mounting /sys")?;
                let limits = MountLimits {
                    read_only: true,
                    no_suid: true,
                    no_dev: true,
                    no_exec: true,
                };
                limit_mount(sys.as_fd(), limits, true).fails("mounting /sys")?;
                sys
            }
        };
        self.attach(&sys, Path::new("/sys"), Kind::Directory)
    }

    /// Covers a file with `/dev/null`, a directory with an empty one.
    fn mask(&mut self, path: &Path) -> Result<(), Failure> {
        let found = match self.look(path) {
            Ok(found) => found,
            // What may not even be looked up needs no mask.
            Err(Errno::NOENT | Errno::ACCESS | Errno::PERM) => return Ok(()),
            Err(error) => return Err(error).fails(path.display()),
        };
        let shown = path.display();
        let cover = if is_directory(&found).fails(shown.to_string())? {
            new("tmpfs", &[], SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY)
        } else {
            let null = self.look(Path::new("dev/null")).fails("/dev/null")?;
            clone(&null, false)
        };
        let cover = cover.fails(shown.to_string())?;
        put(&cover, &found).fails(shown.to_string())
    }
}

/// A copy of the mount at a place, not attached to anything yet.
fn clone(at: &OwnedFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(at, "", flags)
}

/// The directory or file `source` of the host as a mount of its own, with what is mounted below it.
pub(super) fn bind(source: &Path, limited: bool) -> Result<(OwnedFd, Kind), Failure> {
    let shown = source.display();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let mount = open_tree(CWD, source, flags).fails(format!("mounting {shown}"))?;
    let limits = MountLimits {
        read_only: limited,
        no_suid: false,
        no_dev: true,
        no_exec: false,
    };
    limit_mount(mount.as_fd(), limits, true).fails(format!("mounting {shown}"))?;
    let kind = match is_directory(&mount).fails(shown.to_string())? {
        true => Kind::Directory,
        false => Kind::File,
    };
    Ok((mount, kind))
}

/// A part of a mounted tree of images, `tree`, by a path that may not leave it.
pub(super) fn bind_beneath(tree: &OwnedFd, subpath: &Path) -> Result<(OwnedFd, Kind), Failure> {
    let shown = subpath.display();
    let inside: PathBuf = subpath
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .collect();
    let inside = match inside.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => inside,
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = openat2(tree, &inside, flags, Mode::empty(), ResolveFlags::IN_ROOT)
        .fails(format!("mounting {shown}"))?;
    let mount = clone(&found, false).fails(format!("mounting {shown}"))?;
    let kind = match is_directory(&mount).fails(shown.to_string())? {
        true => Kind::Directory,
        false => Kind::File,
    };
    Ok((mount, kind))
}

/// A new tmpfs.
pub(super) fn tmpfs(size: Option<u64>, mode: u32, read_only: bool) -> rustix::io::Result<OwnedFd> {
    let mode = format!("{mode:o}");
    let size = size.map(|size| size.to_string());
    let mut options = vec![("mode", mode.as_str())];
    if let Some(size) = &size {
        options.push(("size", size));
    }
    let mut attributes = SAFE;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, read_only);
    new("tmpfs", &options, attributes)
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
pub(super) fn put(mount: &OwnedFd, place: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

pub(super) fn read_only() -> MountLimits {
    MountLimits {
        read_only: true,
        ..MountLimits::default()
    }
}

pub(super) fn is_directory(fd: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(FileType::from_raw_mode(stat.stx_mode.into()).is_dir())
}

fn times_of(fd: &OwnedFd) -> rustix::io::Result<rustix::fs::Timestamps> {
    let flags = StatxFlags::ATIME | StatxFlags::MTIME;
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, flags)?;
    let time = |t: rustix::fs::StatxTimestamp| rustix::fs::Timespec {
        tv_sec: t.tv_sec,
        tv_nsec: t.tv_nsec.into(),
    };
    Ok(rustix::fs::Timestamps {
        last_access: time(stat.stx_atime),
        last_modification: time(stat.stx_mtime),
    })
}

/// A path that leads to what a descriptor is open on.
pub(super) fn proc_path(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
