//! Hard links.
//!
//! The target is looked up as of now. What this layer does not have is a file of the layers below, unless something
//! of this layer has already hidden it there. Whether the layers below have it is for the import to check.

use super::arena::{DIRENT_DEVICE, Link, NONE, ROOT};
use super::path::{MAX_SYMLINKS, push_path};
use super::{Folded, Folder, set_common};
use crate::layer::error::Problem;
use crate::layer::format;
use crate::layer::tar::TarEntry;
use crate::tree::NAME_MAX;
use crate::tree::whiteout::PREFIX;

/// Where a hard link leads.
#[derive(Debug)]
enum Found {
    /// A name of this layer.
    Here(u32),
    /// A path of the layers below.
    Below(Vec<u8>),
}

impl Folder {
    pub(super) fn add_link(
        &mut self,
        entry: &TarEntry,
        parent: &[u8],
        name: &[u8],
    ) -> Result<Folded, Problem> {
        let refuse = |why| Problem::HardLink {
            target: entry.link.as_slice().into(),
            why,
        };
        let found = self.find_target(&super::path::clean(&entry.link))?;
        let Some(parent) = self.parent(parent)? else {
            return Ok(Folded::NoContent);
        };
        let at = self.name(parent, name)?;
        match found {
            Found::Here(target) if target == at => return Err(refuse("it links to itself")),
            Found::Here(target) if self.is_below(target, at) => {
                return Err(refuse("it would replace a parent of its target"));
            }
            Found::Here(target) => {
                let target = *self.arena.dirent(target);
                if target.flags & DIRENT_DEVICE != 0 {
                    self.retarget(at, 0, NONE);
                    self.arena.dirent_mut(at).flags |= format::DIRENT_WHITEOUT | DIRENT_DEVICE;
                    return Ok(Folded::NoContent);
                }
                if target.flags & format::DIRENT_LINK != 0 {
                    let Link {
                        target: (offset, length),
                        ..
                    } = *self.arena.link(target.target);
                    let path = self.arena.text(offset, length).to_vec();
                    self.link_below(at, parent, name, &path)?;
                    return Ok(Folded::NoContent);
                }
                self.retarget(at, format::DIRENT_NODE, target.target);
                let known = self.arena.node(target.target).xattrs.get();
                let xattrs = self.xattr_set(entry, known)?;
                let record = self.arena.node_mut(target.target);
                set_common(record, entry);
                record.xattrs = xattrs.into();
            }
            Found::Below(path) => {
                let own = self.join(parent, name);
                if own == path {
                    return Err(refuse("it links to itself"));
                }
                if path
                    .strip_prefix(&*own)
                    .is_some_and(|rest| rest.starts_with(b"/"))
                {
                    return Err(refuse("it would replace a parent of its target"));
                }
                self.link_below(at, parent, name, &path)?;
            }
        }
        Ok(Folded::NoContent)
    }

    /// Whether this layer has hidden, up to now, what the layers below have in `dir`.
    fn hides_lower(&self, mut dir: u32) -> bool {
        loop {
            let record = self.arena.node(dir);
            if record.flags & format::NODE_OPAQUE != 0 {
                return true;
            }
            let at = record.extents.get();
            if at == NONE {
                return false;
            }
            let dirent = self.arena.dirent(at);
            if dirent.flags & format::DIRENT_WHITEOUT != 0 {
                return true;
            }
            dir = dirent.parent;
        }
    }

    /// Whether the name `target` is somewhere in the directory that the name `at` stands for.
    fn is_below(&self, target: u32, at: u32) -> bool {
        let mut dir = self.arena.dirent(target).parent;
        while dir != ROOT {
            if self.arena.node(dir).extents.get() == at {
                return true;
            }
            dir = self.arena.parent(dir);
        }
        false
    }

    fn link_below(
        &mut self,
        at: u32,
        parent: u32,
        name: &[u8],
        target: &[u8],
    ) -> Result<(), Problem> {
        let own = self.join(parent, name);
        // Paths are at most as long as this layer's deepest directory and the tar's spelling.
        let length = |path: &[u8]| {
            u32::try_from(path.len()).map_err(|_| Problem::Limit {
                what: "bytes in one path",
                limit: u64::from(NONE),
            })
        };
        let link = Link {
            path: (self.string(&own)?, length(&own)?),
            target: (self.string(target)?, length(target)?),
        };
        let number = self.arena.push_link(link)?;
        self.retarget(at, format::DIRENT_LINK, number);
        Ok(())
    }

    fn join(&self, dir: u32, name: &[u8]) -> Vec<u8> {
        let mut path = self.arena.path_of(dir);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    fn find_target(&mut self, target: &[u8]) -> Result<Found, Problem> {
        let refuse = |why| Problem::HardLink {
            target: target.into(),
            why,
        };
        if target.contains(&0) {
            return Err(Problem::Nul("the hard link's target"));
        }
        if target.len() > self.limits.max_path_bytes {
            return Err(refuse("its path is too long"));
        }
        let mut todo = Vec::new();
        push_path(&mut todo, target, self.limits.max_depth).map_err(|problem| match problem {
            Problem::Whiteout => refuse("a whiteout is no file"),
            other => other,
        })?;
        if todo.is_empty() {
            return Err(refuse("no target"));
        }
        let mut dir = ROOT;
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            self.step()?;
            if name == b".." {
                dir = self.arena.parent(dir);
                continue;
            }
            if name.starts_with(PREFIX) || name.len() > NAME_MAX {
                return Err(refuse("no such file"));
            }
            let at = self.arena.find(dir, &name);
            let dirent = at.map(|at| *self.arena.dirent(at));
            let flags = dirent.map_or(0, |dirent| dirent.flags);
            let (Some(at), Some(dirent), true) = (
                at,
                dirent,
                flags & (format::DIRENT_NODE | format::DIRENT_LINK) != 0,
            ) else {
                if let Some(at) = at
                    && flags & DIRENT_DEVICE != 0
                    && todo.is_empty()
                {
                    return Ok(Found::Here(at));
                }
                // Not in this layer.
                if flags & format::DIRENT_WHITEOUT != 0 || self.hides_lower(dir) {
                    return Err(refuse("this layer has removed it"));
                }
                let mut path = self.join(dir, &name);
                while let Some(next) = todo.pop() {
                    if next == b".." {
                        return Err(refuse("its path cannot be resolved"));
                    }
                    path.push(b'/');
                    path.extend_from_slice(&next);
                }
                return Ok(Found::Below(path));
            };
            let kind = match flags & format::DIRENT_NODE {
                0 => None,
                _ => Some(self.arena.node(dirent.target).kind),
            };
            match kind {
                Some(format::KIND_DIRECTORY) if todo.is_empty() => {
                    return Err(refuse("it is a directory"));
                }
                Some(format::KIND_DIRECTORY) => dir = dirent.target,
                _ if todo.is_empty() => return Ok(Found::Here(at)),
                Some(format::KIND_SYMLINK) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(Problem::SymlinkLoop);
                    }
                    if self.follow(dirent.target, &mut todo) {
                        dir = ROOT;
                    }
                }
                _ => return Err(refuse("its parent is not a directory")),
            }
        }
        Err(refuse("it is a directory"))
    }
}
