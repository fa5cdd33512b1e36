//! Something of the host by a path: looked up once, and from then on a descriptor.
//!
//! Between a look at a path and its use, whoever may write one of the directories on the way can make it lead elsewhere. So
//! the look is the opening (`O_PATH`), what is asked afterwards is asked of the descriptor, and what is mounted is what it
//! stands for, whatever has become of the path.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx,
};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::sys::fd;

/// So often a look-up is tried again that the kernel gave up because something else was being renamed meanwhile: enough for a
/// busy machine, and an end for who renames on purpose.
const MAX_TRIES: u32 = 4096;
/// So far up is looked for what something lies in. Deeper than any path; it ends for who goes on making directories above.
const MAX_LEVELS: u32 = 65_536;

/// What a file or directory is, whatever it is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
}

/// Something that was found.
#[derive(Debug)]
pub struct Source {
    node: OwnedFd,
    identity: Identity,
    directory: bool,
    /// Where it was found; not for directories, which know.
    parent: Option<OwnedFd>,
}

impl Source {
    /// What a path leads to. Symbolic links are followed, as for any program that is given a path by its user.
    pub fn follow(path: &Path) -> Result<Source, Errno> {
        for _ in 0..MAX_TRIES {
            let node = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let (identity, directory) = look(&node)?;
            if directory {
                return Ok(Source::directory(node, identity));
            }
            // A file does not know its directory; where the kernel says it is must be where it is.
            match Source::straight(&path_of(&node)?) {
                Ok(source) if source.identity == identity => return Ok(source),
                // It has been replaced or removed since.
                Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::AGAIN)
    }

    /// What an absolute path leads to that has no symbolic link in it: one is `ELOOP`.
    pub fn straight(path: &Path) -> Result<Source, Errno> {
        let straight = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let Some(name) = path.file_name() else {
            // The root, or something with `..`, which is a directory.
            let node = open(CWD, path, OFlags::DIRECTORY, straight)?;
            let (identity, _) = look(&node)?;
            return Ok(Source::directory(node, identity));
        };
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent = open(CWD, parent, OFlags::DIRECTORY, straight)?;
        let node = open(&parent, name, OFlags::empty(), straight)?;
        let (identity, directory) = look(&node)?;
        Ok(Source {
            node,
            identity,
            directory,
            parent: (!directory).then_some(parent),
        })
    }

    /// What a relative path leads to in the directory `root`; a symbolic link on the way is `ELOOP`.
    pub fn within(root: impl AsFd, path: &Path) -> Result<Source, Errno> {
        let straight = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Source::at(root, path, straight)
    }

    /// What a relative path leads to in the directory `root`, and never out of it, symbolic links on the way or not.
    pub fn below(root: impl AsFd, path: &Path) -> Result<Source, Errno> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        Source::at(root, path, beneath)
    }

    fn at(root: impl AsFd, path: &Path, resolve: ResolveFlags) -> Result<Source, Errno> {
        let node = open(root, path, OFlags::empty(), resolve)?;
        let (identity, directory) = look(&node)?;
        Ok(Source {
            node,
            identity,
            directory,
            parent: None,
        })
    }

    fn directory(node: OwnedFd, identity: Identity) -> Source {
        Source {
            node,
            identity,
            directory: true,
            parent: None,
        }
    }

    /// The descriptor; it was opened with `O_PATH`.
    pub fn node(&self) -> &OwnedFd {
        &self.node
    }

    /// Only the descriptor.
    pub fn into_node(self) -> OwnedFd {
        self.node
    }

    /// What it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.directory
    }

    /// Whether it is `other`, or anywhere in it.
    pub fn lies_in(&self, other: Identity) -> Result<bool, Errno> {
        if self.identity == other {
            return Ok(true);
        }
        let start = self.parent.as_ref().unwrap_or(&self.node);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if !self.directory && self.parent.is_none() {
            return Err(Errno::NOTDIR);
        }
        let mut at = openat(start, c".", flags, Mode::empty())?;
        let mut before = place(&at)?;
        for _ in 0..MAX_LEVELS {
            if before.0 == other {
                return Ok(true);
            }
            at = openat(&at, c"..", flags, Mode::empty())?;
            let now = place(&at)?;
            // Only the root is its own parent.
            if now == before {
                return Ok(false);
            }
            before = now;
        }
        Err(Errno::LOOP)
    }
}

/// `openat2` for a place, tried again while the kernel could not tell; `EAGAIN` from someone who keeps it from telling.
pub fn open(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    open_as(root, path, flags | OFlags::PATH | OFlags::CLOEXEC, resolve)
}

/// The same for other descriptors than those of places.
pub fn open_as(
    root: impl AsFd,
    path: impl Arg + Copy,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    for _ in 0..MAX_TRIES {
        match openat2(&root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Where the kernel says that something is, for whoever reads it: what is there by now can be something else.
pub fn path_of(node: &OwnedFd) -> Result<PathBuf, Errno> {
    let path = rustix::fs::readlink(fd::path(&node), Vec::new())?;
    Ok(std::ffi::OsString::from_vec(path.into_bytes()).into())
}

fn look(node: &OwnedFd) -> Result<(Identity, bool), Errno> {
    let flags = AtFlags::EMPTY_PATH;
    let stat = statx(node, c"", flags, StatxFlags::TYPE | StatxFlags::INO)?;
    let identity = Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
    };
    let directory = FileType::from_raw_mode(stat.stx_mode.into()).is_dir();
    Ok((identity, directory))
}

/// A directory, and the mount it is seen through: the same one can be mounted in itself.
fn place(node: &OwnedFd) -> Result<(Identity, u64), Errno> {
    let flags = AtFlags::EMPTY_PATH;
    let stat = statx(node, c"", flags, StatxFlags::INO | StatxFlags::MNT_ID)?;
    let identity = Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
    };
    Ok((identity, stat.stx_mnt_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn world() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("store/volumes/in")).unwrap();
        fs::create_dir_all(top.join("out/deep")).unwrap();
        fs::write(top.join("store/file"), "").unwrap();
        fs::write(top.join("out/file"), "").unwrap();
        symlink("store/file", top.join("link")).unwrap();
        symlink("../store", top.join("out/up")).unwrap();
        symlink("deep", top.join("out/inside")).unwrap();
        (dir, top)
    }

    #[test]
    fn what_lies_in_a_directory_is_told_by_descriptor() {
        let (_dir, top) = world();
        let store = Source::straight(&top.join("store")).unwrap();
        let id = store.identity();
        for (path, expected) in [
            ("store", true),
            ("store/volumes/in", true),
            ("link", true),
            ("out/up/file", true),
            ("out/up/volumes/../..", false),
            ("out/file", false),
            ("out/deep", false),
        ] {
            let source = Source::follow(&top.join(path)).unwrap();
            assert_eq!(source.lies_in(id).unwrap(), expected, "{path}");
        }
        let above = Source::follow(&top).unwrap().identity();
        assert!(store.lies_in(above).unwrap());
        assert!(!Source::follow(Path::new("/")).unwrap().lies_in(id).unwrap());
        assert!(
            !Source::follow(Path::new("/dev/null"))
                .unwrap()
                .lies_in(id)
                .unwrap()
        );
    }

    #[test]
    fn links_are_followed_only_where_that_was_asked_for() {
        let (_dir, top) = world();
        assert_eq!(
            Source::straight(&top.join("link")).unwrap_err(),
            Errno::LOOP
        );
        assert_eq!(
            Source::straight(&top.join("out/up/file")).unwrap_err(),
            Errno::LOOP
        );
        assert!(Source::straight(&top.join("out/file")).is_ok());
        let root = Source::straight(&top.join("out")).unwrap();
        let below = |path: &str| Source::below(root.node(), Path::new(path)).map(drop);
        assert_eq!(below("deep"), Ok(()));
        assert_eq!(below("inside"), Ok(()));
        assert_eq!(below("deep/../file"), Ok(()));
        assert_eq!(below("up"), Err(Errno::XDEV));
        assert_eq!(below("../out"), Err(Errno::XDEV));
        assert_eq!(below("/etc"), Err(Errno::XDEV));
        assert_eq!(below("missing"), Err(Errno::NOENT));
    }

    #[test]
    fn what_is_found_stays_what_it_was() {
        let (_dir, top) = world();
        let source = Source::follow(&top.join("out/deep")).unwrap();
        fs::rename(top.join("out/deep"), top.join("moved")).unwrap();
        symlink("../store", top.join("out/deep")).unwrap();
        let id = Source::straight(&top.join("store")).unwrap().identity();
        assert!(!source.lies_in(id).unwrap());
        assert_eq!(
            source.identity(),
            Source::straight(&top.join("moved")).unwrap().identity()
        );
    }
}
