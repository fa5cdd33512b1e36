//! Mounting and unmounting our own FUSE file system.
//!
//! - A mount point is resolved once, to a descriptor and an absolute path, without a request to whatever is mounted there: a
//!   dead FUSE mount (`ENOTCONN`) can be looked at and taken away.
//! - `mount(2)` is tried first (root, or root of a user namespace), then the setuid helper `fusermount3`.
//! - [`Mounted`] is an identity: mount id, device number, file system type, and the unique mount id where the kernel has one
//!   (6.8). Unmounting compares them first and never touches anything else, whatever stands at the path by now. The kernel uses
//!   mount ids and device numbers again at once: on an older kernel only the owner of the connection, who knows that it still
//!   stands, can be sure. (Between the look and `umount2` another process could still swap the mount; the kernel offers no
//!   call that closes this gap for anything but a lazy unmount.)

pub mod placeholder;

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::fusermount::{self, HelperError};
use super::mountinfo::{self, DeviceId, MountInfo};

use crate::sys::fd;

/// File system type as mountinfo and `findmnt` show it.
pub const FS_TYPE: &str = "fuse.mica";
/// The source they show unless another is asked for.
pub const SOURCE: &str = "mica";

/// Why something could not be mounted or unmounted. Paths are the resolved ones where they could be resolved.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point does not exist.
    #[error("{0}: no such directory; make it first: mkdir -p {0}")]
    Missing(PathBuf),
    /// The mount point is not a directory.
    #[error("{0}: not a directory")]
    NotDirectory(PathBuf),
    /// The mount point has entries that the mount would hide.
    #[error("{0}: directory is not empty")]
    NotEmpty(PathBuf),
    /// A dead file system that is not ours stands there.
    #[error("{path}: the {fs_type} file system mounted there no longer answers; unmount it first")]
    DeadForeign {
        /// Mount point.
        path: PathBuf,
        /// Its type.
        fs_type: String,
    },
    /// No `/dev/fuse`, or no FUSE in the kernel.
    #[error("no /dev/fuse: the kernel has no FUSE support loaded (modprobe fuse)")]
    NoFuse,
    /// Nothing of ours is mounted (any more).
    #[error("{0}: not mounted")]
    NotMounted(PathBuf),
    /// Another file system has been mounted over ours.
    #[error("{path}: a {fs_type} file system is mounted over it; unmount that first")]
    Covered {
        /// Mount point.
        path: PathBuf,
        /// Type of the file system on top.
        fs_type: String,
    },
    /// Something has files, directories or mounts in it open.
    #[error("{0}: busy")]
    Busy(PathBuf),
    /// The setuid helper failed.
    #[error("{path}: {reason}")]
    Helper {
        /// Mount point.
        path: PathBuf,
        /// What it said.
        reason: HelperError,
    },
    /// A system call failed.
    #[error("{path}: {action}: {reason}")]
    Io {
        /// Mount point.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        reason: io::Error,
    },
}

impl MountError {
    fn io(path: &Path, action: &'static str, reason: impl Into<io::Error>) -> Self {
        MountError::Io {
            path: path.to_owned(),
            action,
            reason: reason.into(),
        }
    }
}

/// How long a mount's daemon may take to say that it is there.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// What the daemon of a mount says when it is asked for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It answers, or nothing is mounted that could be silent.
    Alive,
    /// It is gone.
    Gone,
    /// Nothing: it is stopped, or hangs.
    Silent,
}

/// A resolved mount point.
#[derive(Debug)]
pub struct MountPoint {
    directory: OwnedFd,
    path: PathBuf,
}

impl MountPoint {
    /// Resolves `path`, which must be a directory.
    pub fn open(path: &Path) -> Result<Self, MountError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty()).map_err(|e| match e {
            Errno::NOENT => MountError::Missing(path.to_owned()),
            Errno::NOTDIR => MountError::NotDirectory(path.to_owned()),
            e => MountError::io(path, "opening the mount point", e),
        })?;
        let resolved = fs::read_link(fd::path(&directory))
            .map_err(|e| MountError::io(path, "resolving the mount point", e))?;
        Ok(MountPoint {
            directory,
            path: resolved,
        })
    }

    /// Absolute path without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The topmost mount whose root is this very directory; `None` if it lies within a file system.
    pub fn mounted_here(&self) -> Result<Option<MountInfo>, MountError> {
        let error = |e| MountError::io(&self.path, "looking at the mount point", e);
        let id = mount_id(&self.directory).map_err(error)?;
        let mounts = mountinfo::of_self().map_err(error)?;
        Ok(mounts
            .into_iter()
            .find(|m| m.id == id && m.mount_point == self.path))
    }

    /// False if a FUSE file system is mounted here whose daemon is gone. Never answered from a cache.
    pub fn answers(&self) -> bool {
        self.answer() != Answer::Gone
    }

    /// As [`MountPoint::answers`], and tells a daemon that lives and says nothing. Waits for it, but not for ever.
    pub fn answer(&self) -> Answer {
        let (sender, heard) = std::sync::mpsc::channel();
        let asked = self.directory.try_clone().and_then(|directory| {
            let thread = std::thread::Builder::new()
                .name("mica-answer".to_owned())
                .stack_size(128 * 1024);
            // Left behind if there is no answer: the wait ends with the process.
            thread.spawn(move || {
                let answer = rustix::fs::fstatfs(&directory);
                drop(directory);
                // Nobody waits any longer.
                let _ = sender.send(answer.map(drop));
            })
        });
        let answer = match asked {
            Ok(_) => heard.recv_timeout(ANSWER_PATIENCE),
            // No thread to be had: ask here.
            Err(_) => Ok(rustix::fs::fstatfs(&self.directory).map(drop)),
        };
        match answer {
            Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Answer::Gone,
            Ok(_) => Answer::Alive,
            Err(_) => Answer::Silent,
        }
    }

    /// The identity of `mount`, which [`MountPoint::mounted_here`] has found.
    pub fn identify(&self, mount: &MountInfo) -> Mounted {
        Mounted {
            path: self.path.clone(),
            id: mount.id,
            unique: unique_mount_id(&self.directory),
            device: mount.device,
        }
    }

    /// Makes sure that the directory has no entries, or what may be there while nothing is mounted ([`placeholder`]).
    pub fn check_empty(&self) -> Result<(), MountError> {
        // Through the descriptor: the same directory, whatever the path means by now.
        let mut entries =
            fs::read_dir(fd::path(&self.directory)).map_err(|e| match self.mounted_here() {
                Ok(Some(mount)) if !self.answers() => MountError::DeadForeign {
                    path: self.path.clone(),
                    fs_type: mount.fs_type.to_string_lossy().into_owned(),
                },
                _ => MountError::io(&self.path, "reading the mount point", e),
            })?;
        match entries.next() {
            None => Ok(()),
            Some(_) if placeholder::is_all(&self.directory).unwrap_or(false) => Ok(()),
            Some(_) => Err(MountError::NotEmpty(self.path.clone())),
        }
    }

    /// Has engines that were told of this mount find a store without images while it is not there.
    pub fn make_placeholder(&self) -> io::Result<()> {
        placeholder::make(&self.directory)
    }
}

/// What of the mount the caller chooses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FuseFlags {
    /// Mount read-only.
    pub read_only: bool,
    /// Let users other than the mounting one in.
    pub allow_other: bool,
    /// Let the kernel check modes and owners.
    pub default_permissions: bool,
    /// Honour set-user-id bits and file capabilities.
    pub suid: bool,
    /// Honour device nodes.
    pub dev: bool,
}

/// Our mount, to be found again: see the module's header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mounted {
    /// Where it was mounted.
    pub path: PathBuf,
    /// Its mount id.
    pub id: u64,
    /// Its mount id that is never used again.
    pub unique: Option<u64>,
    /// `st_dev` of everything inside.
    pub device: DeviceId,
}

/// Mounts a new FUSE connection at `at`, shown as coming from `source` (no comma, no backslash); returns the connection's descriptor (blocking, close-on-exec) and the mount.
pub fn mount(
    at: &MountPoint,
    flags: &FuseFlags,
    source: &str,
) -> Result<(OwnedFd, Mounted), MountError> {
    let connection = match mount_directly(at, flags, source)? {
        Some(connection) => connection,
        None => {
            let options = helper_options(flags, source);
            fusermount::mount(&at.path, &options).map_err(|reason| MountError::Helper {
                path: at.path.clone(),
                reason,
            })?
        }
    };
    let on_top = MountPoint::open(&at.path)?;
    let mount = on_top
        .mounted_here()?
        .filter(|m| m.fs_type == FS_TYPE)
        .ok_or_else(|| MountError::NotMounted(at.path.clone()))?;
    Ok((connection, on_top.identify(&mount)))
}

/// `None`: the kernel wants the helper for this.
fn mount_directly(
    at: &MountPoint,
    flags: &FuseFlags,
    source: &str,
) -> Result<Option<OwnedFd>, MountError> {
    let open_flags = OFlags::RDWR | OFlags::CLOEXEC;
    let connection = match openat(CWD, "/dev/fuse", open_flags, Mode::empty()) {
        Ok(connection) => connection,
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => return Err(MountError::NoFuse),
        Err(Errno::ACCESS | Errno::PERM) => return Ok(None),
        Err(e) => return Err(MountError::io(&at.path, "opening /dev/fuse", e)),
    };
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        connection.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if flags.allow_other {
        data.push_str(",allow_other");
    }
    if flags.default_permissions {
        data.push_str(",default_permissions");
    }
    let mut mount_flags = MountFlags::empty();
    mount_flags.set(MountFlags::RDONLY, flags.read_only);
    mount_flags.set(MountFlags::NOSUID, !flags.suid);
    mount_flags.set(MountFlags::NODEV, !flags.dev);
    let data = std::ffi::CString::new(data)
        .map_err(|e| MountError::io(&at.path, "composing mount options", e))?;
    // Through the descriptor: what has been checked is what gets mounted on.
    let target = fd::path(&at.directory);
    match rustix::mount::mount(source, &target, FS_TYPE, mount_flags, data.as_c_str()) {
        Ok(()) => Ok(Some(connection)),
        Err(Errno::PERM) => Ok(None),
        Err(Errno::NODEV) => Err(MountError::NoFuse),
        Err(e) => Err(MountError::io(&at.path, "mounting", e)),
    }
}

fn helper_options(flags: &FuseFlags, source: &str) -> String {
    let mut options = format!("fsname={source},subtype=mica");
    for (set, name) in [
        (flags.read_only, ",ro"),
        (flags.allow_other, ",allow_other"),
        (flags.default_permissions, ",default_permissions"),
        (!flags.suid, ",nosuid"),
        (flags.suid, ",suid"),
        (!flags.dev, ",nodev"),
        (flags.dev, ",dev"),
    ] {
        if set {
            options.push_str(name);
        }
    }
    options
}

impl Mounted {
    /// This mount as it is now, moved or not; `None` if it is gone from this mount namespace.
    pub fn find(&self) -> io::Result<Option<MountInfo>> {
        let mounts = mountinfo::of_self()?;
        Ok(mounts
            .into_iter()
            .find(|m| m.id == self.id && m.device == self.device && m.fs_type == FS_TYPE))
    }

    /// Unmounts this mount and nothing else. Lazily: it vanishes from the tree now, and ends with its last user.
    pub fn unmount(&self, lazy: bool) -> Result<(), MountError> {
        let error = |e| MountError::io(&self.path, "looking for the mount", e);
        let Some(now) = self.find().map_err(error)? else {
            return Err(MountError::NotMounted(self.path.clone()));
        };
        let path = now.mount_point;
        let point = MountPoint::open(&path)?;
        match point.mounted_here()? {
            Some(top) if top.id == self.id => {
                // Only a number that is there and differs tells another mount from ours.
                let unique = unique_mount_id(&point.directory);
                if unique.is_some() && self.unique.is_some() && unique != self.unique {
                    return Err(MountError::NotMounted(path));
                }
            }
            Some(top) => {
                return Err(MountError::Covered {
                    path,
                    fs_type: top.fs_type.to_string_lossy().into_owned(),
                });
            }
            // The path leads elsewhere, for instance into a mount over a parent directory.
            None => return Err(MountError::NotMounted(path)),
        }
        // It would keep the mount busy.
        drop(point);
        let mut flags = UnmountFlags::NOFOLLOW;
        flags.set(UnmountFlags::DETACH, lazy);
        match rustix::mount::unmount(&path, flags) {
            Ok(()) => Ok(()),
            Err(Errno::BUSY) => Err(MountError::Busy(path)),
            Err(Errno::PERM) => match fusermount::unmount(&path, lazy) {
                Ok(()) => Ok(()),
                Err(HelperError::Busy) => Err(MountError::Busy(path)),
                Err(reason) => Err(MountError::Helper { path, reason }),
            },
            Err(Errno::INVAL | Errno::NOENT) => Err(MountError::NotMounted(path)),
            Err(e) => Err(MountError::io(&path, "unmounting", e)),
        }
    }
}

/// The mount that descriptor `fd` was opened through.
fn mount_id(fd: &OwnedFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .and_then(|id| id.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no mnt_id in fdinfo"))
}

/// The mount id that no other mount gets until the next boot; `None` before Linux 6.8, and where FUSE lets this user ask nothing.
fn unique_mount_id(fd: &OwnedFd) -> Option<u64> {
    /// `STATX_MNT_ID_UNIQUE`, which rustix has no name for.
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, "", flags, UNIQUE).ok()?;
    (stat.stx_mask & UNIQUE.bits() != 0).then_some(stat.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_resolved_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        fs::create_dir(real.join("m")).unwrap();
        std::os::unix::fs::symlink("m", real.join("link")).unwrap();
        let point = MountPoint::open(&real.join("link/../link")).unwrap();
        assert_eq!(point.path(), real.join("m"));
        assert_eq!(point.mounted_here().unwrap(), None);
        assert!(point.answers());
        point.check_empty().unwrap();

        let missing = MountPoint::open(&real.join("x")).unwrap_err().to_string();
        assert!(missing.contains("no such directory"), "{missing}");
        fs::write(real.join("m/file"), "").unwrap();
        assert!(matches!(point.check_empty(), Err(MountError::NotEmpty(_))));
        let file = MountPoint::open(&real.join("m/file")).unwrap_err();
        assert!(matches!(file, MountError::NotDirectory(_)));
    }

    #[test]
    fn what_is_gone_is_never_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let gone = Mounted {
            path: dir.path().to_owned(),
            id: u64::MAX,
            unique: None,
            device: DeviceId { major: 0, minor: 1 },
        };
        assert!(matches!(
            gone.unmount(false),
            Err(MountError::NotMounted(_))
        ));
    }

    #[test]
    fn the_root_directory_is_a_mount() {
        let root = MountPoint::open(Path::new("/")).unwrap();
        assert_eq!(
            root.mounted_here().unwrap().unwrap().mount_point,
            Path::new("/")
        );
    }

    #[test]
    fn options_for_the_helper() {
        let flags = FuseFlags {
            read_only: true,
            allow_other: true,
            ..FuseFlags::default()
        };
        assert_eq!(
            helper_options(&flags, SOURCE),
            "fsname=mica,subtype=mica,ro,allow_other,nosuid,nodev"
        );
    }
}
