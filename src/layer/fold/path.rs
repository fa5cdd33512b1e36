//! Paths of entries: normalised, checked, and walked inside the layer's own tree.

use std::borrow::Cow;

use super::Folder;
use super::arena::{self, ROOT};
use crate::layer::error::Problem;
use crate::layer::format;
use crate::tree::NAME_MAX;
use crate::tree::whiteout::{self, Marker, PREFIX};

/// As many symbolic links as the kernel follows on one path.
pub(super) const MAX_SYMLINKS: usize = 40;

/// Components looked up for all entries of a layer together: a minute of work. A million entries 20 levels deep need a
/// fiftieth of it; entries that all lead through 40 long symbolic links would keep us busy for days.
const MAX_STEPS: u64 = 1 << 30;

/// A path that the tar spells, with each `..` and the component before it taken out, by the letters alone and never above
/// the root: Go's `filepath.Clean` of the path below `/`, which is what container tools unpack.
pub(super) fn clean(path: &[u8]) -> Cow<'_, [u8]> {
    let components = || path.split(|byte| *byte == b'/');
    if !components().any(|name| name == b"..") {
        return Cow::Borrowed(path);
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for name in components() {
        match name {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    Cow::Owned(kept.join(&b'/'))
}

/// What comes before the last component of a path, and that component.
type Split<'p> = (&'p [u8], &'p [u8]);

impl Folder {
    /// Cuts an entry's path into what comes before the last component, and that. `None`: the root directory.
    pub(super) fn split<'p>(&self, path: &'p [u8]) -> Result<Option<Split<'p>>, Problem> {
        if path.len() > self.limits.max_path_bytes {
            return Err(Problem::Limit {
                what: "bytes in one path",
                limit: u64::try_from(self.limits.max_path_bytes).unwrap_or(u64::MAX),
            });
        }
        if path.contains(&0) {
            return Err(Problem::Nul("the path"));
        }
        let mut rest = path;
        loop {
            let (parent, name) = match rest.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => {
                    let (parent, name) = rest.split_at(slash);
                    (parent, name.get(1..).unwrap_or(b""))
                }
                None => (&b""[..], rest),
            };
            match name {
                b"" | b"." if parent.is_empty() => return Ok(None),
                b"" | b"." => rest = parent,
                _ => return Ok(Some((parent, name))),
            }
        }
    }

    /// The directory `path` of an entry's parents, made if need be. `None`: it is inside AUFS bookkeeping, drop the
    /// entry.
    pub(super) fn parent(&mut self, path: &[u8]) -> Result<Option<u32>, Problem> {
        if let Some((last, dir)) = &self.last_parent
            && last == path
        {
            return Ok(Some(*dir));
        }
        let mut todo = Vec::new();
        if push_path(&mut todo, path, self.limits.max_depth)? == Walk::Aufs {
            return Ok(None);
        }
        let mut dir = ROOT;
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            self.step()?;
            if name == b".." {
                dir = self.arena.parent(dir);
                continue;
            }
            check_component(&name)?;
            let at = self.name(dir, &name)?;
            let dirent = *self.arena.dirent(at);
            if dirent.flags & format::DIRENT_NODE == 0 {
                if dirent.flags & format::DIRENT_LINK != 0 {
                    return Err(self.not_a_directory(dir, &name));
                }
                dir = self.imply(at)?;
                continue;
            }
            match self.arena.node(dirent.target).kind {
                format::KIND_DIRECTORY => dir = dirent.target,
                format::KIND_SYMLINK => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(Problem::SymlinkLoop);
                    }
                    if self.follow(dirent.target, &mut todo) {
                        dir = ROOT;
                    }
                }
                _ => return Err(self.not_a_directory(dir, &name)),
            }
        }
        self.last_parent = Some((path.to_vec(), dir));
        Ok(Some(dir))
    }

    /// Makes the directory that an entry takes for granted.
    fn imply(&mut self, at: u32) -> Result<u32, Problem> {
        let mut record = arena::empty_node(format::KIND_DIRECTORY);
        record.flags = format::NODE_IMPLICIT;
        record.mode = 0o755.into();
        record.extents = at.into();
        let node = self.arena.push_node(record)?;
        self.retarget(at, format::DIRENT_NODE, node);
        Ok(node)
    }

    /// Puts the components of a symbolic link's target in front of `todo`; `true`: they start at the root.
    pub(super) fn follow(&self, symlink: u32, todo: &mut Vec<Vec<u8>>) -> bool {
        let record = self.arena.node(symlink);
        // Offsets in the arena's strings are below 2^32.
        let offset = u32::try_from(record.place.get()).unwrap_or(0);
        let target = self.arena.text(offset, record.count.get());
        todo.extend(
            target
                .split(|byte| *byte == b'/')
                .filter(|name| !matches!(*name, b"" | b"."))
                .rev()
                .map(<[u8]>::to_vec),
        );
        target.first() == Some(&b'/')
    }

    pub(super) fn step(&mut self) -> Result<(), Problem> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Problem::Limit {
                what: "steps of path resolution",
                limit: MAX_STEPS,
            });
        }
        Ok(())
    }

    fn not_a_directory(&self, dir: u32, name: &[u8]) -> Problem {
        let mut path = self.arena.path_of(dir);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Problem::NotADirectory(path.into())
    }
}

/// Whether an entry below a path is of interest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Walk {
    Ordinary,
    Aufs,
}

/// Puts the components of a path that the tar spells in front of `todo`, last first, after checking them all.
pub(super) fn push_path(
    todo: &mut Vec<Vec<u8>>,
    path: &[u8],
    max_depth: usize,
) -> Result<Walk, Problem> {
    let mut walk = Walk::Ordinary;
    let mut depth = 0;
    for name in path.rsplit(|byte| *byte == b'/') {
        match name {
            b"" | b"." => continue,
            _ => {}
        }
        depth += 1;
        if depth >= max_depth {
            return Err(Problem::Limit {
                what: "levels of directories",
                limit: u64::try_from(max_depth).unwrap_or(u64::MAX),
            });
        }
        match whiteout::classify(name) {
            Some(Marker::AufsMetadata) => walk = Walk::Aufs,
            _ => check_component(name)?,
        }
        todo.push(name.to_vec());
    }
    Ok(walk)
}

/// A component on the way must be a name, and no marker.
fn check_component(name: &[u8]) -> Result<(), Problem> {
    if name.starts_with(PREFIX) {
        return Err(Problem::Whiteout);
    }
    if name.len() > NAME_MAX {
        return Err(Problem::NameTooLong);
    }
    Ok(())
}
