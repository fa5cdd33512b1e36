//! Extended attributes of what a container left, and whose it is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::sys::fd;
use crate::sys::idmap::{self, IdMap};

/// Which attributes overlayfs keeps its own notes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayAttributes {
    /// `trusted.overlay.*`: mounted by root.
    Trusted,
    /// `user.overlay.*`: mounted with `userxattr`, in a user namespace.
    User,
}

impl OverlayAttributes {
    fn prefix(self) -> &'static [u8] {
        match self {
            OverlayAttributes::Trusted => b"trusted.overlay.",
            OverlayAttributes::User => b"user.overlay.",
        }
    }
}

/// How owners on disk become owners in the layer.
#[derive(Debug, Clone, Copy)]
pub enum Owners<'a> {
    /// As they are.
    Same,
    /// They are those outside of a user namespace: back to those inside.
    Mapped(&'a IdMap),
}

impl Owners<'_> {
    /// User and group; or which of them, and its number, has none inside.
    pub(super) fn inside(self, uid: u32, gid: u32) -> Result<(u32, u32), (&'static str, u32)> {
        match self {
            Owners::Same => Ok((uid, gid)),
            Owners::Mapped(map) => Ok((
                idmap::to_inside(&map.uids, uid).ok_or(("user", uid))?,
                idmap::to_inside(&map.gids, gid).ok_or(("group", gid))?,
            )),
        }
    }
}

/// What overlayfs noted about one node.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Notes {
    pub(super) whiteout: bool,
    pub(super) opaque: bool,
    /// A note that refers to the lower layers.
    pub(super) refers: Option<&'static str>,
}

/// One node's attributes.
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The attributes of a node that belong into a layer, sorted, and overlayfs' notes. `value` reads one.
pub(super) fn sort(
    names: &[u8],
    overlay: OverlayAttributes,
    owners: Owners<'_>,
    value: impl Fn(&[u8]) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<(Pairs, Notes)> {
    let names: BTreeSet<&[u8]> = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .collect();
    let (mut pairs, mut notes) = (Pairs::new(), Notes::default());
    for name in names {
        if let Some(note) = name.strip_prefix(overlay.prefix()) {
            match note {
                b"whiteout" => notes.whiteout = true,
                // `x` says only that whiteouts in it may be attributes.
                b"opaque" => notes.opaque = value(name)?.is_some_and(|value| value == b"y"),
                b"redirect" => notes.refers = Some("redirect"),
                b"metacopy" => notes.refers = Some("metacopy"),
                _ => {}
            }
            continue;
        }
        if !belongs(name) {
            continue;
        }
        // Removed between the two questions.
        let Some(mut value) = value(name)? else {
            continue;
        };
        if name == b"security.capability" {
            plain_capability(&mut value, owners);
        }
        pairs.push((name.to_vec(), value));
    }
    Ok((pairs, notes))
}

/// Whether an attribute is the file's own. Labels of this machine's security modules and access control lists, whose
/// ids nothing translates, are not.
pub(super) fn belongs(name: &[u8]) -> bool {
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    let own = name.starts_with(b"user.") || name.starts_with(b"trusted.");
    name == b"security.capability" || (own && !overlay)
}

/// A capability that is bound to a user namespace's root becomes an ordinary one inside that namespace.
fn plain_capability(value: &mut Vec<u8>, owners: Owners<'_>) {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    const BYTES_2: usize = 20;
    let Owners::Mapped(map) = owners else { return };
    let root = value
        .get(BYTES_2..BYTES_2 + 4)
        .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
        .map(u32::from_le_bytes);
    if let Some(root) = root
        && idmap::to_inside(&map.uids, root) == Some(0)
        && value.get(3) == Some(&REVISION_3)
    {
        value.truncate(BYTES_2);
        if let Some(revision) = value.get_mut(3) {
            *revision = REVISION_2;
        }
    }
}

/// Where the attributes of a node are asked for.
pub(super) enum Place<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in a directory that cannot be opened: a link, a device, a pipe.
    Name(PathBuf),
}

impl<'a> Place<'a> {
    pub(super) fn open(file: &'a impl AsFd) -> Place<'a> {
        Place::Open(file.as_fd())
    }

    pub(super) fn name(dir: &impl AsFd, name: &[u8]) -> Place<'static> {
        Place::Name(Path::new(&fd::path(&dir)).join(OsStr::from_bytes(name)))
    }

    /// All names, NUL behind each.
    pub(super) fn list(&self) -> io::Result<Vec<u8>> {
        let names = grow(|buffer| match self {
            Place::Open(file) => rustix::fs::flistxattr(file, buffer),
            Place::Name(path) => rustix::fs::llistxattr(path, buffer),
        })?;
        Ok(names.unwrap_or_default())
    }

    /// One value; `None`: it is not there any more.
    pub(super) fn get(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let name = OsStr::from_bytes(name);
        grow(|buffer| match self {
            Place::Open(file) => rustix::fs::fgetxattr(file, name, buffer),
            Place::Name(path) => rustix::fs::lgetxattr(path, name, buffer),
        })
    }
}

/// Asks with a buffer that is large enough.
fn grow(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    loop {
        match ask(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            // What Linux can hold at most.
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer.resize(64 << 10, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
