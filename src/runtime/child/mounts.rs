//! What a container sees: its root, the pseudo file systems, and what is mounted into it.
//!
//! Every mount is made detached and put on a descriptor, and every place is looked up below the new root
//! (`RESOLVE_IN_ROOT`): a symbolic link of the image leads nowhere else, absolute ones included.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat, statx,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::devices::{Terminal, directory_in, file_in, terminal};
use super::filesystems::{SAFE, new, put, read_only};
use super::sources::{Host, Kind, clone};
use crate::ops::container::run::masks;
use crate::runtime::failure::{Fails, Failure};
use crate::sys::beneath::{Host as Descriptors, SetTime};
use crate::sys::container::{MountLimits, limit_mount};
use crate::sys::pause::pause;
use crate::sys::source;

/// The new root while it is being put together.
pub(super) struct Tree {
    root: OwnedFd,
    descriptors: Descriptors,
    /// Where the kernel says that the root is.
    shown: PathBuf,
    /// Where the kernel's own file systems are, as the container sees it.
    kernels: Vec<PathBuf>,
    /// The container's `/dev/null`.
    null: Option<OwnedFd>,
    /// Links followed so far that led nowhere.
    links: u32,
    /// What was made on the way, as the container sees it.
    pub(super) made: Vec<String>,
}

/// So many links that lead nowhere are followed; an image can have them in a circle.
const MAX_LINKS: u32 = 64;

impl Tree {
    /// The root that is mounted on `name` in `directory`.
    pub(super) fn open(directory: &OwnedFd, name: &str) -> Result<Tree, Failure> {
        let what = "opening the root";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(directory, name, flags, Mode::empty()).fails(what)?;
        Ok(Tree {
            shown: source::path_of(&root).fails(what)?,
            descriptors: Descriptors::new().fails(what)?,
            root,
            kernels: Vec::new(),
            null: None,
            links: 0,
            made: Vec::new(),
        })
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory at `path` in the image's own file system, if there is one; symbolic links are followed, inside. Before
    /// anything else is mounted.
    pub(super) fn directory_of_image(&self, path: &Path) -> Result<Option<OwnedFd>, Failure> {
        let own = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        match source::open(&self.root, inside(path), OFlags::DIRECTORY, own) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).fails(path.display()),
        }
    }

    /// What is at `path`, if anything; symbolic links are followed, inside.
    fn find(&self, path: &Path) -> Result<Option<OwnedFd>, Failure> {
        match self.look(path) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error).fails(path.display()),
        }
    }

    fn look(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        source::open(&self.root, inside(path), OFlags::empty(), resolve)
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
        let (accessed, changed) = times_of(&dir).fails(shown.to_string())?;
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
        self.descriptors
            .set_times(&dir, accessed, changed)
            .fails(shown.to_string())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(&dir, name, flags, Mode::empty()).fails(shown.to_string())?;
        let real = self.seen(&place).fails(shown.to_string())?;
        self.made
            .extend(real.map(|path| path.display().to_string()));
        Ok(place)
    }

    /// Where something is, as the container sees it.
    fn seen(&self, place: &OwnedFd) -> rustix::io::Result<Option<PathBuf>> {
        let real = source::path_of(place)?;
        let inside = real.strip_prefix(&self.shown).ok();
        Ok(inside.map(|inside| Path::new("/").join(inside)))
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

    /// The same for what the image or the user wants. What the kernel shows of itself stays as it is, unless the user has
    /// named it: a volume there, or anything that a link of the image has led there, would be taken for it.
    pub(super) fn attach_asked(
        &mut self,
        mount: &OwnedFd,
        path: &Path,
        kind: Kind,
        volume: bool,
    ) -> Result<(), Failure> {
        let shown = path.display();
        let place = self.place(path, kind)?;
        if volume {
            pause("place");
        }
        let seen = self.seen(&place).fails(shown.to_string())?;
        let kernels = seen.filter(|seen| self.kernels.iter().any(|own| seen.starts_with(own)));
        let named = path.starts_with("/proc") || path.starts_with("/sys");
        if let Some(seen) = kernels
            && (volume || !named)
        {
            let seen = seen.display();
            return Err(Failure::start(match named {
                true => {
                    format!("cannot mount a volume on {shown}: the kernel's own files are there")
                }
                false => format!(
                    "cannot mount on {shown}: in this image that is {seen}, where the kernel's own files are"
                ),
            }));
        }
        put(mount, &place).fails(format!("mounting {shown}"))
    }

    /// `/proc`, `/dev` with what belongs below it, and `/sys`; with a terminal if there is to be one.
    pub(super) fn pseudo(
        &mut self,
        host: &Host,
        single_id: bool,
        tty: bool,
        shm_size: Option<u64>,
    ) -> Result<Option<Terminal>, Failure> {
        let proc = new("proc", &[], SAFE).map_err(|error| match error {
            Errno::PERM => Failure::start(
                "mounting /proc: the kernel does not allow it here (is this a container whose own /proc is masked?)"
                    .to_owned(),
            ),
            error => Failure::start(format!("mounting /proc: {error}")),
        })?;
        self.kernel(&proc, "/proc")?;
        let terminal = self.devices(host, single_id, tty, shm_size)?;
        self.sys(host)?;
        for path in masks::masked() {
            self.mask(Path::new(&path))?;
        }
        for path in masks::READ_ONLY {
            if let Some(found) = self.find(Path::new(path))? {
                let mount = clone(&found, true).fails(path)?;
                limit_mount(mount.as_fd(), read_only(), true).fails(path)?;
                put(&mount, &found).fails(path)?;
            }
        }
        Ok(terminal)
    }

    fn kernel(&mut self, mount: &OwnedFd, path: &str) -> Result<(), Failure> {
        let place = self.place(Path::new(path), Kind::Directory)?;
        put(mount, &place).fails(format!("mounting {path}"))?;
        self.kernels.extend(self.seen(&place).fails(path)?);
        Ok(())
    }

    fn devices(
        &mut self,
        host: &Host,
        single_id: bool,
        tty: bool,
        shm_size: Option<u64>,
    ) -> Result<Option<Terminal>, Failure> {
        let no_exec_no_suid = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let options = [("mode", "755"), ("size", "65536k")];
        let dev = new(
            "tmpfs",
            &options,
            no_exec_no_suid | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )
        .fails("mounting /dev")?;
        self.attach(&dev, Path::new("/dev"), Kind::Directory)?;
        // From here on by descriptor: whatever /dev of the image leads to, this is what was mounted.
        for (name, node) in &host.devices {
            let shown = format!("/dev/{name}");
            put(node, &file_in(&dev, name, 0o666).fails(&shown)?).fails(&shown)?;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = openat(&dev, "null", flags, Mode::empty()).fails("/dev/null")?;
        self.null = Some(null);
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
        let mut options = vec![("ptmxmode", "0666"), ("mode", "0620")];
        if !single_id {
            options.push(("gid", "5"));
        }
        let no_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let pts = new("devpts", &options, no_exec).fails("mounting /dev/pts")?;
        put(&pts, &directory_in(&dev, "pts").fails("/dev/pts")?).fails("mounting /dev/pts")?;
        let size = shm_size.map_or_else(|| "65536k".to_owned(), |size| size.to_string());
        let options = [("mode", "1777"), ("size", size.as_str())];
        let shm = new("tmpfs", &options, SAFE).fails("mounting /dev/shm")?;
        put(&shm, &directory_in(&dev, "shm").fails("/dev/shm")?).fails("mounting /dev/shm")?;
        let queue = directory_in(&dev, "mqueue").fails("/dev/mqueue")?;
        // Kernels without POSIX message queues exist.
        if let Ok(queues) = new("mqueue", &[], SAFE) {
            put(&queues, &queue).fails("mounting /dev/mqueue")?;
        }
        match tty {
            true => terminal(&dev, &pts).fails("opening a terminal").map(Some),
            false => Ok(None),
        }
    }

    /// Root's own view of the kernel's objects; an ordinary user's is the host's, and both can only be read.
    fn sys(&mut self, host: &Host) -> Result<(), Failure> {
        let what = "mounting /sys";
        let Some(sys) = &host.sys else {
            let sys = new("sysfs", &[], SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY).fails(what)?;
            return self.kernel(&sys, "/sys");
        };
        let limits = MountLimits {
            read_only: true,
            no_suid: true,
            no_dev: true,
            no_exec: true,
        };
        limit_mount(sys.as_fd(), limits, true).fails(what)?;
        self.kernel(sys, "/sys")
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
            self.null
                .as_ref()
                .map_or(Err(Errno::NOENT), |null| clone(null, false))
        };
        let cover = cover.fails(shown.to_string())?;
        put(&cover, &found).fails(shown.to_string())
    }
}

/// Seen from the root.
fn inside(path: &Path) -> &Path {
    match path.strip_prefix("/").unwrap_or(path) {
        empty if empty.as_os_str().is_empty() => Path::new("."),
        path => path,
    }
}

/// A part of the tree of an image, by a path that may not leave it.
pub(in crate::runtime) fn part_of(
    image: &OwnedFd,
    subpath: &Path,
) -> Result<(OwnedFd, Kind), Failure> {
    let what = || format!("mounting {} of the image", subpath.display());
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = source::open(image, inside(subpath), OFlags::empty(), beneath).fails(what())?;
    let mount = clone(&found, false).fails(what())?;
    let kind = match is_directory(&mount).fails(what())? {
        true => Kind::Directory,
        false => Kind::File,
    };
    Ok((mount, kind))
}

fn is_directory(fd: &OwnedFd) -> rustix::io::Result<bool> {
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?;
    Ok(FileType::from_raw_mode(stat.stx_mode.into()).is_dir())
}

fn times_of(fd: &OwnedFd) -> rustix::io::Result<(SetTime, SetTime)> {
    let flags = StatxFlags::ATIME | StatxFlags::MTIME;
    let stat = statx(fd, "", AtFlags::EMPTY_PATH, flags)?;
    let time = |t: rustix::fs::StatxTimestamp| SetTime::At(t.tv_sec, t.tv_nsec);
    Ok((time(stat.stx_atime), time(stat.stx_mtime)))
}
