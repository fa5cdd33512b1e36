//! The directories on the way to an entry, open, and those that get their mode and time when all is in them.
//!
//! Who has filled the source decides how many directories there are and how deep they lie, so neither costs more than itself: the next
//! entry's way goes on from the last one's, and of a directory its own name is kept, not its path.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{CopyError, at};
use crate::sys::beneath::{self, Host};
use crate::sys::source;

/// Extended attributes, by name.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a directory becomes.
#[derive(Debug)]
pub(super) struct Facts {
    pub mode: u16,
    pub owner: (u32, u32),
    pub time: (i64, u32),
    pub xattrs: Xattrs,
}

/// A directory that an entry has named, or one on the way to it.
#[derive(Debug)]
pub(super) struct Listed {
    above: Option<usize>,
    name: Vec<u8>,
    /// `None`: it is as it is.
    pub facts: Option<Facts>,
}

/// The components of one of these directories.
pub(super) fn way_of(listed: &[Listed], number: usize) -> Vec<&[u8]> {
    let mut way = Vec::new();
    let mut next = Some(number);
    while let Some(directory) = next.and_then(|number| listed.get(number)) {
        way.push(directory.name.as_slice());
        next = directory.above;
    }
    way.reverse();
    way
}

struct Level {
    name: Vec<u8>,
    open: Rc<OwnedFd>,
    /// Its place among those listed, if it has one.
    number: Option<usize>,
}

pub(super) struct Ways<'a> {
    host: &'a Host,
    /// Symbolic links on the way are followed.
    inside: bool,
    top: Rc<OwnedFd>,
    open: Vec<Level>,
    listed: Vec<Listed>,
}

impl<'a> Ways<'a> {
    pub(super) fn new(host: &'a Host, inside: bool, top: OwnedFd) -> Ways<'a> {
        Ways {
            host,
            inside,
            top: Rc::new(top),
            open: Vec::new(),
            listed: Vec::new(),
        }
    }

    /// The directory with these components, made if it is not there. `path` is what an error names.
    pub(super) fn open(&mut self, way: &[&[u8]], path: &[u8]) -> Result<Rc<OwnedFd>, CopyError> {
        let same = self.open.iter().zip(way);
        let same = same
            .take_while(|(level, name)| level.name == **name)
            .count();
        self.open.truncate(same);
        for name in way.get(same..).unwrap_or_default() {
            let open = self.step(&self.here(), name).map_err(at(path))?;
            let number = self.newest(name);
            self.open.push(Level {
                name: name.to_vec(),
                open: Rc::new(open),
                number,
            });
        }
        Ok(self.here())
    }

    fn here(&self) -> Rc<OwnedFd> {
        let last = self.open.last().map(|level| &level.open);
        Rc::clone(last.unwrap_or(&self.top))
    }

    fn step(&self, here: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        let next = match self.host.child(here, name) {
            Err(Errno::NOENT) => {
                beneath::mkdir(here, name, 0o755)?;
                self.host.child(here, name)
            }
            found => found,
        }?;
        match beneath::kind(&beneath::stat(&next)?) {
            FileType::Directory => Ok(next),
            FileType::Symlink if self.inside => {
                source::open(here, name, OFlags::DIRECTORY, ResolveFlags::NO_MAGICLINKS)
            }
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// The number of this directory of the last one that is open, if it is the one listed last: its entries follow it.
    fn newest(&self, name: &[u8]) -> Option<usize> {
        let above = self.open.last().map(|level| level.number);
        let last = self.listed.last()?;
        let is_it = last.name == name && above.is_none_or(|number| number.is_some());
        (is_it && last.above == above.flatten()).then(|| self.listed.len() - 1)
    }

    /// Notes what a directory in the last opened one becomes.
    pub(super) fn list(&mut self, name: &[u8], facts: Facts) {
        let mut above = None;
        for level in &mut self.open {
            let number = *level.number.get_or_insert_with(|| {
                self.listed.push(Listed {
                    above,
                    name: level.name.clone(),
                    facts: None,
                });
                self.listed.len() - 1
            });
            above = Some(number);
        }
        self.listed.push(Listed {
            above,
            name: name.to_vec(),
            facts: Some(facts),
        });
    }

    /// All that was noted.
    pub(super) fn take(&mut self) -> Vec<Listed> {
        std::mem::take(&mut self.listed)
    }
}
