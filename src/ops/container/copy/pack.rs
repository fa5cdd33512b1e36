//! A file or a directory with all that is in it, as a tar.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, OFlags, Statx};
use rustix::io::Errno;

use super::{CopyError, MAX_DEPTH, Notes, at};
use crate::layer::{TarMember, TarWriter};
use crate::sys::beneath::{self, Host};
use crate::sys::idmap::{self, IdMap};
use crate::tree::{Attributes, NodeKind};

/// Read at once from a file.
const PIECE: usize = 256 << 10;
/// The largest value and list of names of extended attributes (limits.h).
const MAX_XATTR: usize = 65_536;

/// Whose files they are in the archive.
#[derive(Debug, Clone, Copy)]
pub enum Owners<'a> {
    /// As they are.
    Same,
    /// Those inside of a user namespace that they are outside; who is not in it is root.
    Inside(&'a IdMap),
}

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct Packing<'a> {
    /// The process' way to its descriptors.
    pub host: &'a Host,
    /// Whose they are.
    pub owners: Owners<'a>,
    /// Only the file system that it begins in: what is mounted below is an empty directory.
    pub one_file_system: bool,
}

/// Writes `node`, which is open as a place (`O_PATH`), under the name `name`; empty: what is in it.
pub fn pack(
    packing: Packing<'_>,
    node: OwnedFd,
    name: &[u8],
    out: &mut dyn Write,
) -> Result<Notes, CopyError> {
    let mut packer = Packer {
        packing,
        out: TarWriter::new(out),
        first_names: HashMap::new(),
        notes: Notes::default(),
        buffer: Vec::new(),
    };
    packer.add(
        node,
        None,
        &Rc::new(Place {
            above: None,
            name: name.to_vec(),
        }),
        0,
    )?;
    packer.out.finish().map_err(CopyError::Write)?;
    Ok(packer.notes)
}

/// Where something is: its own name and what it is in, so that a file that is remembered costs no more than its name, however deep
/// it lies.
struct Place {
    above: Option<Rc<Place>>,
    name: Vec<u8>,
}

impl Place {
    /// Its path in the archive.
    fn path(&self) -> Vec<u8> {
        let mut names = vec![self.name.as_slice()];
        let mut next = self.above.as_deref();
        while let Some(place) = next {
            names.push(place.name.as_slice());
            next = place.above.as_deref();
        }
        names.retain(|name| !name.is_empty());
        names.reverse();
        names.join(&b'/')
    }
}

struct Packer<'a> {
    packing: Packing<'a>,
    out: TarWriter<&'a mut dyn Write>,
    /// The first name of each file that has another one.
    first_names: HashMap<(u32, u32, u64), Rc<Place>>,
    notes: Notes,
    buffer: Vec<u8>,
}

/// Device and inode.
fn identity(stat: &Statx) -> (u32, u32, u64) {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

impl Packer<'_> {
    fn add(
        &mut self,
        node: OwnedFd,
        above: Option<&Statx>,
        place: &Rc<Place>,
        depth: usize,
    ) -> Result<(), CopyError> {
        let path = place.path();
        let failed = at(&path);
        let stat = beneath::stat(&node).map_err(&failed)?;
        let kind = match beneath::kind(&stat) {
            FileType::Directory => NodeKind::Directory,
            FileType::RegularFile => NodeKind::Regular,
            FileType::Symlink => NodeKind::Symlink,
            FileType::CharacterDevice => NodeKind::CharDevice,
            FileType::BlockDevice => NodeKind::BlockDevice,
            FileType::Fifo => NodeKind::Fifo,
            FileType::Socket | FileType::Unknown => {
                self.notes.sockets += 1;
                return Ok(());
            }
        };
        let mut attributes = self.attributes(kind, &stat);
        let same_device = above.is_none_or(|above| {
            let (one, other) = (identity(above), identity(&stat));
            (one.0, one.1) == (other.0, other.1)
        });
        let mut hard_link = None;
        if kind != NodeKind::Directory && stat.stx_nlink > 1 {
            match self.first_names.get(&identity(&stat)) {
                Some(first) => hard_link = Some(first.path()),
                None => drop(self.first_names.insert(identity(&stat), Rc::clone(place))),
            }
        }
        let target = match kind {
            NodeKind::Symlink => beneath::read_link(&node).map_err(&failed)?,
            _ => Vec::new(),
        };
        // Only what cannot act or block is opened. It is the node that was looked at, whatever its name is by now.
        let (mut file, mut segments, mut xattrs) = (None, None, Vec::new());
        if matches!(kind, NodeKind::Directory | NodeKind::Regular) && hard_link.is_none() {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let opened = self.packing.host.open(&node, flags).map_err(&failed)?;
            xattrs = attributes_of(&opened).map_err(&failed)?;
            if kind == NodeKind::Regular {
                if is_kernels(&opened) {
                    let name = super::shown(&path);
                    return Err(CopyError::Refused(format!(
                        "{name} is made by the kernel as it is read: mica exec CONTAINER cat FILE shows it"
                    )));
                }
                attributes.size = beneath::stat(&opened).map_err(&failed)?.stx_size;
                segments = data_of(&opened, attributes.size);
            }
            file = Some(opened);
        }
        let pairs: Vec<(&[u8], &[u8])> = xattrs
            .iter()
            .map(|(k, v)| (k.as_slice(), v.as_slice()))
            .collect();
        let member = TarMember {
            path: &path,
            attributes: &attributes,
            target: &target,
            hard_link: hard_link.as_deref(),
            xattrs: &pairs,
            segments: segments.as_deref(),
        };
        self.out.entry(&member).map_err(CopyError::Write)?;
        let Some(file) = file else { return Ok(()) };
        if kind == NodeKind::Regular {
            let whole = [(0, attributes.size)];
            for (offset, length) in segments.as_deref().unwrap_or(&whole) {
                self.content(&file, &path, *offset, *length)?;
            }
            return Ok(());
        }
        let apart = !same_device && (self.packing.one_file_system || is_kernels(&file));
        if apart {
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(at(&path)(Errno::NAMETOOLONG));
        }
        let names = names(&file).map_err(&failed)?;
        drop(file);
        for name in names {
            let found = self.packing.host.child(&node, &name);
            let below = Rc::new(Place {
                above: Some(Rc::clone(place)),
                name,
            });
            match found {
                Ok(child) => self.add(child, Some(&stat), &below, depth + 1)?,
                // Removed since.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(at(&below.path())(error)),
            }
        }
        Ok(())
    }

    fn attributes(&mut self, kind: NodeKind, stat: &Statx) -> Attributes {
        let mut inside = |ranges: &[idmap::IdRange], id: u32| {
            idmap::to_inside(ranges, id).unwrap_or_else(|| {
                self.notes.owners += 1;
                0
            })
        };
        let (uid, gid) = match self.packing.owners {
            Owners::Same => (stat.stx_uid, stat.stx_gid),
            Owners::Inside(map) => {
                let uid = inside(&map.uids, stat.stx_uid);
                (
                    uid,
                    idmap::to_inside(&map.gids, stat.stx_gid).unwrap_or_default(),
                )
            }
        };
        let device = matches!(kind, NodeKind::CharDevice | NodeKind::BlockDevice);
        Attributes {
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid,
            gid,
            rdev_major: if device { stat.stx_rdev_major } else { 0 },
            rdev_minor: if device { stat.stx_rdev_minor } else { 0 },
            size: 0,
            mtime_sec: stat.stx_mtime.tv_sec,
            mtime_nsec: stat.stx_mtime.tv_nsec,
            nlink: stat.stx_nlink,
        }
    }

    /// As many bytes as were announced: what is not there any more is zeros.
    fn content(
        &mut self,
        file: &OwnedFd,
        path: &[u8],
        offset: u64,
        length: u64,
    ) -> Result<(), CopyError> {
        let mut done = 0;
        let mut short = false;
        while done < length {
            let left = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
            self.buffer.clear();
            if !short {
                let from = offset.saturating_add(done);
                beneath::read(file, from, left, &mut self.buffer).map_err(at(path))?;
                short = self.buffer.len() < left;
                if short {
                    self.notes.changed += 1;
                }
            }
            self.buffer.resize(left, 0);
            self.out.content(&self.buffer).map_err(CopyError::Write)?;
            done += left as u64;
        }
        Ok(())
    }
}

/// The names in a directory that is open, sorted.
fn names(directory: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    beneath::list(directory.as_fd(), 0, &mut |entry| {
        let name = entry.name.to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
        true
    })?;
    names.sort_unstable();
    Ok(names)
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a file says of itself: users' attributes and capabilities. Notes of overlayfs and labels of this machine are not its own.
fn attributes_of(file: &OwnedFd) -> Result<Pairs, Errno> {
    let mut list = vec![0; MAX_XATTR];
    let length = match rustix::fs::flistxattr(file, list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        length => length?,
    };
    list.truncate(length);
    let mut names: Vec<&[u8]> = list.split(|byte| *byte == 0).collect();
    names.retain(|name| {
        (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
            || *name == b"security.capability"
    });
    names.sort_unstable();
    let mut pairs = Vec::new();
    for name in names {
        let mut value = vec![0; MAX_XATTR];
        match rustix::fs::fgetxattr(file, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                pairs.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pairs)
}

/// Where a file has data, if it has holes.
fn data_of(file: &OwnedFd, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match beneath::seek(file, offset, false) {
            Ok(start) if start < size => start,
            // Nothing but a hole up to the end.
            Ok(_) | Err(Errno::NXIO) => break,
            // The file system does not say.
            Err(_) => return None,
        };
        let end = beneath::seek(file, start, true).ok()?.min(size);
        if end <= start {
            return None;
        }
        found.push((start, end - start));
        offset = end;
    }
    match found.as_slice() {
        [(0, length)] if *length == size => None,
        [] if size == 0 => None,
        _ => Some(found),
    }
}

/// Whether something is on one of the kernel's own file systems, where files are made as they are read, and some never end.
fn is_kernels(file: &OwnedFd) -> bool {
    // statfs(2): proc, sysfs, devpts, cgroup, cgroup2, mqueue, debugfs, tracefs, securityfs, bpf.
    const KERNELS: [i64; 10] = [
        0x9fa0,
        0x6265_6572,
        0x1cd1,
        0x27_e0eb,
        0x6367_7270,
        0x1980_0202,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xcafe_4a11,
    ];
    rustix::fs::fstatfs(file).is_ok_and(|fs| KERNELS.contains(&fs.f_type))
}
