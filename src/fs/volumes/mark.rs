//! `user.mica.ephemeral`, an attribute of a volume's root directory that no file system holds: what `volumes.json` says, to be read
//! by everybody who may look, and to be set (`1`) and removed by the owner of the store and by root.
//!
//! It can be read by name and is not listed, so that copying a volume with its attributes copies no mark. What is found under
//! `user.mica.` on the host's directory is neither shown nor obeyed: a container that owns the directory could have set it.

use rustix::io::Errno;

use super::super::api::{Caller, FsError};
use super::VolumeTree;
use super::attr::VolumeError;
use super::nodes::Node;
use crate::ops::volume as volumes;
use crate::store::Volume;

type Result<T> = std::result::Result<T, VolumeError>;

/// What attributes of ours begin with.
const OURS: &[u8] = b"user.mica.";
/// The mark.
const EPHEMERAL: &[u8] = b"user.mica.ephemeral";

/// Whether an attribute of this node is ours and not the host's.
fn is_ours(node: &Node, name: &[u8]) -> bool {
    node.top && name.starts_with(OURS)
}

impl VolumeTree {
    /// The value of one of our attributes; `None`: it is the host's to say.
    pub(super) fn mark(&self, node: &Node, name: &[u8]) -> Option<Result<Vec<u8>>> {
        is_ours(node, name).then(|| {
            let volume = self.volume_of(&node.volume);
            let ephemeral = volume.is_some_and(|volume| volume.kind.is_ephemeral());
            match name == EPHEMERAL && ephemeral {
                true => Ok(b"1".to_vec()),
                false => Err(Errno::NODATA.into()),
            }
        })
    }

    /// A list of the host's attributes (each ended by a zero byte) without those that would be taken for ours.
    pub(super) fn without_marks(node: &Node, list: Vec<u8>) -> Vec<u8> {
        if !node.top {
            return list;
        }
        let names = list.split_inclusive(|byte| *byte == 0);
        names
            .filter(|name| !name.starts_with(OURS))
            .flatten()
            .copied()
            .collect()
    }

    /// Sets the mark, or with `None` removes it; `None`: the attribute is the host's.
    pub(super) fn set_mark(
        &self,
        caller: &Caller,
        node: &Node,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Option<Result<()>> {
        is_ours(node, name).then(|| self.change_mark(caller, node, name, value))
    }

    fn change_mark(
        &self,
        caller: &Caller,
        node: &Node,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        if name != EPHEMERAL || (caller.uid != 0 && caller.uid != self.options.uid) {
            return Err(Errno::PERM.into());
        }
        let store = self.store.on_behalf_of(caller.cause());
        let volume: Volume = self.volume_of(&node.volume).ok_or(Errno::STALE)?;
        match value {
            Some(b"" | b"1") => volumes::demote(&store, &volume.name)?,
            Some(_) => {
                let reason = "the value of this mark is 1".to_owned();
                return Err(FsError::Invalid(reason).into());
            }
            None if volume.kind.is_ephemeral() => volumes::keep(&store, &volume.name)?,
            None => return Err(Errno::NODATA.into()),
        }
        self.peers.tell();
        Ok(())
    }
}
