//! The host, as far as the container shall see any of it: the only place in the child that knows paths of the host.
//!
//! [`open`] runs in the child's own mount namespace before anything is mounted, looks everything up once, checks what it has
//! found by descriptor, and makes mounts of it that are attached to nothing. After it there is no path of the host left in
//! this process: whoever changes directories of the host while a container starts changes nothing that it sees.

use std::fmt::Display;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::oci::ImageId;
use crate::ops::container::run::mounts::{ReadyMount, ReadySource};
use crate::runtime::failure::{Fails, Failure};
use crate::runtime::files;
use crate::sys::container::{MountLimits, limit_mount};
use crate::sys::pause::pause;
use crate::sys::source::Source;

/// Where on the host everything is.
#[derive(Debug)]
pub(in crate::runtime) struct Paths {
    /// The store.
    pub(in crate::runtime) store: PathBuf,
    /// The container's directory, seen from there.
    pub(in crate::runtime) directory: PathBuf,
    /// Made by an ordinary user.
    pub(in crate::runtime) rootless: bool,
    /// Parents before what is below them.
    pub(in crate::runtime) mounts: Vec<ReadyMount>,
}

/// What of the host the container is made of.
#[derive(Debug)]
pub(super) struct Host {
    /// The container's directory.
    pub(super) directory: OwnedFd,
    /// The files of `/etc` that are its own, by name: mounts.
    pub(super) files: Vec<(&'static str, OwnedFd)>,
    /// The devices it has, by name: mounts.
    pub(super) devices: Vec<(&'static str, OwnedFd)>,
    /// The host's view of the kernel's objects, for who has no own: a mount.
    pub(super) sys: Option<OwnedFd>,
    /// What else it sees, in order.
    pub(super) mounts: Vec<Mount>,
}

/// Something that the container sees.
#[derive(Debug)]
pub(in crate::runtime) struct Mount {
    /// Where, in the container.
    pub(in crate::runtime) destination: PathBuf,
    pub(in crate::runtime) what: What,
    pub(in crate::runtime) read_only: bool,
    /// A volume: not for places of the kernel's own file systems.
    pub(in crate::runtime) volume: bool,
}

#[derive(Debug)]
pub(in crate::runtime) enum What {
    /// Of the host: a mount, attached to nothing.
    Bound {
        mount: OwnedFd,
        kind: Kind,
        /// The directory itself, if it is to get the image's content while it is empty.
        fill: Option<OwnedFd>,
    },
    /// In memory.
    Tmpfs {
        size: Option<u64>,
        mode: u32,
        options: Vec<String>,
    },
    /// A part of an image.
    Image { image: ImageId, subpath: PathBuf },
    /// A file in memory.
    Text {
        content: Vec<u8>,
        mode: u32,
        owner: (u32, u32),
    },
}

/// What has to be at a place that something is mounted on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::runtime) enum Kind {
    Directory,
    File,
}

impl Kind {
    fn of(source: &Source) -> Kind {
        match source.is_directory() {
            true => Kind::Directory,
            false => Kind::File,
        }
    }
}

/// The devices; each is the host's own node.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Opens all of it, and a connection to the kernel's FUSE.
pub(super) fn open(paths: Paths) -> Result<(Host, OwnedFd), Failure> {
    pause("sources");
    let shown = paths.store.display();
    let store = Source::follow(&paths.store).fails(&shown)?;
    let directory = Source::within(store.node(), &paths.directory).fails(&shown)?;
    let directory = directory.into_node();
    let mut files = Vec::new();
    for name in files::FILES {
        let file = Source::within(&directory, Path::new(name)).fails(name)?;
        files.push((name, mount_of(&file, false).fails(name)?));
    }
    let mut devices = Vec::new();
    for name in DEVICES {
        let path = Path::new("/dev").join(name);
        let source = Source::follow(&path).fails(path.display())?;
        let node = clone(source.node(), false).fails(path.display())?;
        // It can be written to all the same. But its mode and owner are the host's, and not the container's to change.
        let limits = MountLimits {
            read_only: true,
            ..MountLimits::default()
        };
        limit_mount(node.as_fd(), limits, false).fails(path.display())?;
        devices.push((name, node));
    }
    let sys = match paths.rootless {
        false => None,
        true => {
            let source = Source::follow(Path::new("/sys")).fails("mounting /sys")?;
            Some(clone(source.node(), true).fails("mounting /sys")?)
        }
    };
    let mounts = paths.mounts.into_iter().map(|mount| one(mount, &store));
    let mounts = mounts.collect::<Result<_, Failure>>()?;
    let host = Host {
        directory,
        files,
        devices,
        sys,
        mounts,
    };
    Ok((host, fuse()?))
}

/// The same for a command of the host, which sees the rest of the host anyway: what is mounted for it, and the store's directory.
pub(in crate::runtime) fn open_mounts(
    store: &Path,
    mounts: Vec<ReadyMount>,
) -> Result<(Source, Vec<Mount>), Failure> {
    pause("sources");
    let store = Source::follow(store).fails(store.display())?;
    let mounts = mounts.into_iter().map(|mount| one(mount, &store));
    let mounts = mounts.collect::<Result<_, Failure>>()?;
    Ok((store, mounts))
}

/// A new connection to the kernel's FUSE.
pub(in crate::runtime) fn fuse() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, "/dev/fuse", flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Err(Failure::start(
            "no /dev/fuse: the kernel has no FUSE support loaded (modprobe fuse)".to_owned(),
        )),
        Err(Errno::ACCESS | Errno::PERM) => Err(Failure::start(
            "opening /dev/fuse: permission denied: root lets everybody open it with chmod 0666 /dev/fuse (for good: a udev rule KERNEL==\"fuse\", MODE=\"0666\")".to_owned(),
        )),
        other => other.fails("opening /dev/fuse"),
    }
}

fn one(mount: ReadyMount, store: &Source) -> Result<Mount, Failure> {
    let read_only = mount.read_only;
    let (what, volume) = match mount.source {
        ReadySource::Bind { source } => {
            let found = Source::follow(&source).map_err(|error| missing(error, &source))?;
            outside(&found, store, &source)?;
            (bound(&found, false, read_only, &source)?, false)
        }
        ReadySource::BindVolume { source, subpath } => {
            let found = Source::straight(&source).map_err(|error| missing(error, &source))?;
            outside(&found, store, &source)?;
            let found = part(found, &subpath)?;
            (bound(&found, false, read_only, &source)?, true)
        }
        ReadySource::Volume {
            data,
            subpath,
            fill,
        } => {
            let found = Source::within(store.node(), &data).fails(data.display())?;
            let found = part(found, &subpath)?;
            (bound(&found, fill, read_only, &data)?, true)
        }
        ReadySource::Tmpfs {
            size,
            mode,
            options,
        } => (
            What::Tmpfs {
                size,
                mode,
                options,
            },
            false,
        ),
        ReadySource::Image { image, subpath } => (What::Image { image, subpath }, false),
        ReadySource::Text {
            content,
            mode,
            owner,
        } => {
            let text = What::Text {
                content,
                mode,
                owner,
            };
            (text, false)
        }
    };
    Ok(Mount {
        destination: mount.destination,
        what,
        read_only,
        volume,
    })
}

fn refused(why: impl Display) -> Failure {
    Failure::start(format!("invalid mount config for type \"bind\": {why}"))
}

fn missing(error: Errno, path: &Path) -> Failure {
    let shown = path.display();
    match error {
        Errno::NOENT => refused(format!("bind source path does not exist: {shown}")),
        Errno::LOOP => refused(format!(
            "{shown} leads through a symbolic link that was not there when the volume was made; make the volume anew if that is meant"
        )),
        error => refused(format!("{shown}: {error}")),
    }
}

/// The container must not see the store, in which it would find itself and others.
fn outside(found: &Source, store: &Source, path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let looking = |error| refused(format!("{shown}: looking for where it is: {error}"));
    if found.lies_in(store.identity()).map_err(looking)? {
        return Err(refused(format!("{shown} is part of the store")));
    }
    if found.is_directory() && store.lies_in(found.identity()).map_err(looking)? {
        return Err(refused(format!(
            "{shown} contains the store: the container would see its own root in it"
        )));
    }
    Ok(())
}

/// What is at a path in a volume, which its users may change at any time.
fn part(volume: Source, subpath: &Path) -> Result<Source, Failure> {
    match subpath.as_os_str().is_empty() {
        true => Ok(volume),
        false => Source::below(volume.node(), subpath).map_err(|error| {
            Failure::start(format!(
                "cannot access path {:?} in the volume: {error}",
                subpath.display().to_string()
            ))
        }),
    }
}

fn bound(found: &Source, fill: bool, read_only: bool, path: &Path) -> Result<What, Failure> {
    pause("found");
    let what = || format!("mounting {}", path.display());
    let fill = match fill && found.is_directory() {
        true => Some(found.node().try_clone().fails(what())?),
        false => None,
    };
    Ok(What::Bound {
        mount: mount_of(found, read_only).fails(what())?,
        kind: Kind::of(found),
        fill,
    })
}

/// What was found as a mount of its own, with what is mounted below it. Device nodes in it do nothing.
fn mount_of(source: &Source, read_only: bool) -> std::io::Result<OwnedFd> {
    let mount = clone(source.node(), true)?;
    let limits = MountLimits {
        read_only,
        no_suid: false,
        no_dev: true,
        no_exec: false,
    };
    limit_mount(mount.as_fd(), limits, true)?;
    Ok(mount)
}

/// A copy of the mount at a place, not attached to anything yet.
pub(super) fn clone(at: &OwnedFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(at, "", flags)
}
