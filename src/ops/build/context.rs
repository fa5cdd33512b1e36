//! A directory as the context of a build: what is in it and not ignored, walked once, by descriptors.
//!
//! Only names, sizes and times are kept; content is read when a step copies it. A file is then opened from the context's root,
//! through no symbolic link, and must be what the walk saw.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2};
use rustix::io::Errno;

use super::BuildError;
use super::moving::{Moving, Watcher};
use crate::oci::dockerfile::ignore::{Ignore, Matched};
use crate::tree::{Attributes, NodeKind};

/// Entries of a context; each costs about 150 bytes of memory.
const MAX_ENTRIES: usize = 10_000_000;

/// A context, walked.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    path: PathBuf,
    nodes: Vec<Node>,
    /// Bytes of the tar that docker would send.
    pub size: u64,
}

/// One entry; the root is number 0.
#[derive(Debug)]
pub struct Node {
    name: Box<[u8]>,
    parent: usize,
    /// Owners are root's, links counted as on disk.
    pub attributes: Attributes,
    /// Of a symbolic link.
    pub target: Box<[u8]>,
    /// Device and inode.
    pub inode: (u64, u64),
    /// Sorted by name.
    pub children: Vec<usize>,
    /// Is no file that a layer takes from a context: a pipe or a device.
    pub special: bool,
    changed: (i64, i64),
}

impl Context {
    /// Opens and walks the directory `path`.
    pub fn walk(path: &Path, ignore: &Ignore, watcher: &Watcher) -> Result<Context, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = openat(CWD, path, flags, Mode::empty()).and_then(|root| {
            let stat = rustix::fs::fstat(&root)?;
            Ok((root, stat))
        });
        let (root, stat) = opened.map_err(|error| unreadable("open", path, error.into()))?;
        let mut context = Context {
            root,
            path: path.to_owned(),
            nodes: vec![node(b"", 0, &stat)],
            size: 1024,
        };
        context.fill(ignore, watcher)?;
        Ok(context)
    }

    fn fill(&mut self, ignore: &Ignore, watcher: &Watcher) -> Result<(), BuildError> {
        // A directory, its path, and what the rules say of it; `only`: it is left out itself, what is taken in again is not.
        let mut todo: Vec<(usize, Vec<u8>, Matched)> = vec![(0, Vec::new(), ignore.root())];
        while let Some((parent, path, above)) = todo.pop() {
            watcher.tell(Moving::Context {
                entries: self.nodes.len(),
                bytes: self.size,
            });
            let directory = self.open_directory(&path)?;
            let failed = |error: Errno| self.unreadable("read", &path, error.into());
            let mut names: Vec<Box<[u8]>> = Vec::new();
            for entry in Dir::read_from(&directory).map_err(failed)? {
                match entry.map_err(failed)?.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => names.push(name.into()),
                }
            }
            names.sort_unstable();
            for name in names {
                let below = join(&path, &name);
                let (left_out, matched) = match ignore.is_empty() {
                    true => (false, above.clone()),
                    false => ignore.look(&below, &above),
                };
                if left_out && !ignore.may_take_in_below(&below) {
                    continue;
                }
                let here = std::ffi::OsStr::from_bytes(&name);
                let stat = rustix::fs::statat(&directory, here, AtFlags::SYMLINK_NOFOLLOW);
                let stat = match stat {
                    // It went after the listing.
                    Err(Errno::NOENT) => return Err(self.changed(&below)),
                    stat => stat.map_err(|e| self.unreadable("stat", &below, e.into()))?,
                };
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Socket || (left_out && kind != FileType::Directory) {
                    continue;
                }
                let mut node = node(&name, parent, &stat);
                if kind == FileType::Symlink {
                    let target = rustix::fs::readlinkat(&directory, here, Vec::new());
                    let target = target.map_err(|e| self.unreadable("read", &below, e.into()))?;
                    node.target = target.into_bytes().into();
                }
                let number = self.nodes.len();
                if number >= MAX_ENTRIES {
                    return Err(BuildError::Context(format!(
                        "the build context has more than {MAX_ENTRIES} files; exclude some in .dockerignore"
                    )));
                }
                self.size += 512 + node.attributes.size.next_multiple_of(512);
                self.nodes.push(node);
                if let Some(parent) = self.nodes.get_mut(parent) {
                    parent.children.push(number);
                }
                if kind == FileType::Directory {
                    todo.push((number, below, matched));
                }
            }
        }
        if !ignore.is_empty() {
            self.prune(ignore);
        }
        Ok(())
    }

    /// Takes out directories that are left out and in which nothing was taken in again.
    fn prune(&mut self, ignore: &Ignore) {
        for number in (1..self.nodes.len()).rev() {
            let Some(node) = self.nodes.get(number) else {
                continue;
            };
            let empty = node.attributes.kind == NodeKind::Directory && node.children.is_empty();
            let parent = node.parent;
            if empty && ignore.excludes(&self.path_of(number)) {
                if let Some(parent) = self.nodes.get_mut(parent) {
                    parent.children.retain(|child| *child != number);
                }
                self.size -= 512;
            }
        }
    }

    /// One entry.
    pub fn node(&self, number: usize) -> Option<&Node> {
        self.nodes.get(number)
    }

    /// The entry `name` of a directory.
    pub fn child(&self, directory: usize, name: &[u8]) -> Option<usize> {
        let children = &self.nodes.get(directory)?.children;
        let name_of = |child: &usize| self.nodes.get(*child).map_or(&[][..], |node| &node.name);
        let at = children
            .binary_search_by(|child| name_of(child).cmp(name))
            .ok()?;
        children.get(at).copied()
    }

    /// The name of an entry.
    pub fn name_of(&self, number: usize) -> &[u8] {
        self.nodes.get(number).map_or(b"", |node| &node.name)
    }

    /// The path of an entry, without leading slash.
    pub fn path_of(&self, mut number: usize) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = Vec::new();
        while let Some(node) = self.nodes.get(number).filter(|_| number != 0) {
            parts.push(&node.name);
            number = node.parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// Opens a regular file or a directory, which must be as the walk saw it.
    pub fn open(&self, number: usize) -> Result<File, BuildError> {
        let path = self.path_of(number);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let file = File::from(self.open_at(&path, flags)?);
        self.check(number, &file)?;
        Ok(file)
    }

    /// That an open file is what the walk saw, and has not changed since.
    pub fn check(&self, number: usize, file: &File) -> Result<(), BuildError> {
        let path = || self.path_of(number);
        let stat =
            rustix::fs::fstat(file).map_err(|e| self.unreadable("stat", &path(), e.into()))?;
        let Some(seen) = self.nodes.get(number) else {
            return Err(self.changed(&path()));
        };
        let now = node(b"", 0, &stat);
        let same = (now.inode, now.attributes.kind, now.attributes.mode)
            == (seen.inode, seen.attributes.kind, seen.attributes.mode);
        let directory = seen.attributes.kind == NodeKind::Directory;
        if same
            && (directory
                || (now.changed, now.attributes.size) == (seen.changed, seen.attributes.size))
        {
            return Ok(());
        }
        Err(self.changed(&path()))
    }

    /// The error of reading an entry.
    pub fn cannot_read(&self, number: usize, error: io::Error) -> BuildError {
        self.unreadable("read", &self.path_of(number), error)
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, BuildError> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    }

    fn open_at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, BuildError> {
        let relative = match path {
            b"" => Path::new("."),
            path => Path::new(std::ffi::OsStr::from_bytes(path)),
        };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(
                &self.root,
                relative,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                how,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::LOOP | Errno::NOTDIR | Errno::NOENT | Errno::NXIO) => {
                    return Err(self.changed(path));
                }
                other => return other.map_err(|e| self.unreadable("open", path, e.into())),
            }
        }
    }

    fn unreadable(&self, what: &str, path: &[u8], error: io::Error) -> BuildError {
        unreadable(
            what,
            &self.path.join(std::ffi::OsStr::from_bytes(path)),
            error,
        )
    }

    fn changed(&self, path: &[u8]) -> BuildError {
        let path = self.path.join(std::ffi::OsStr::from_bytes(path));
        BuildError::Context(format!(
            "{:?} changed while it was read; build again when nothing writes there",
            path.display().to_string()
        ))
    }
}

fn unreadable(what: &str, path: &Path, error: io::Error) -> BuildError {
    let path = path.display().to_string();
    BuildError::Context(format!(
        "error checking context: cannot {what} {path:?}: {error}"
    ))
}

/// Reads a file of a context that the build itself needs, such as `.dockerignore`; `None`: it is not there. A link may lead to
/// another file of the context only.
pub fn read_file(context: &Path, name: &Path, most: u64) -> Result<Option<Vec<u8>>, BuildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, context, flags, Mode::empty());
    let root = root.map_err(|error| unreadable("open", context, error.into()))?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let shown = context.join(name);
    match openat2(&root, name, flags, Mode::empty(), how) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(Errno::XDEV) => Err(BuildError::Context(format!(
            "{:?} leads out of the build context",
            shown.display().to_string()
        ))),
        Err(error) => Err(unreadable("open", &shown, error.into())),
        Ok(file) => read_whole(File::from(file), &shown, most).map(Some),
    }
}

/// Reads an open file, which must be one and not too long.
pub fn read_whole(file: File, shown: &Path, most: u64) -> Result<Vec<u8>, BuildError> {
    let failed = |error| unreadable("read", shown, error);
    let name = shown.display().to_string();
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(BuildError::Context(format!(
            "{name:?} is not a regular file"
        )));
    }
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(BuildError::Context(format!(
            "{name:?} is longer than {most} bytes"
        )));
    }
    Ok(bytes)
}

pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    match path.is_empty() {
        true => name.to_vec(),
        false => [path, b"/", name].concat(),
    }
}

fn node(name: &[u8], parent: usize, stat: &Stat) -> Node {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        FileType::Fifo => NodeKind::Fifo,
        _ => NodeKind::Regular,
    };
    let special = !matches!(
        kind,
        NodeKind::Directory | NodeKind::Symlink | NodeKind::Regular
    );
    Node {
        name: name.into(),
        parent,
        attributes: Attributes {
            kind,
            mode: match kind {
                NodeKind::Symlink => 0o777,
                _ => stat.st_mode & 0o7777,
            },
            uid: 0,
            gid: 0,
            rdev_major: 0,
            rdev_minor: 0,
            size: match kind {
                NodeKind::Regular => u64::try_from(stat.st_size).unwrap_or(0),
                _ => 0,
            },
            mtime_sec: stat.st_mtime,
            mtime_nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        },
        target: Box::default(),
        inode: (stat.st_dev, stat.st_ino),
        children: Vec::new(),
        special,
        changed: (
            stat.st_ctime,
            i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
        ),
    }
}
