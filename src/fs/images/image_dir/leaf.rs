//! Leaves: everything in a tree but directories. A leaf is known by its layer and its node there, whatever image it is in.

use std::sync::Arc;

use crate::fs::api::{AttrReply, FsError, InodeNo, Ttl};
use crate::fs::images::Superblock;
use crate::fs::images::attr;
use crate::fs::images::inode::SlotNo;
use crate::fs::images::open_layers::Slot;
use crate::fs::images::places::Subject;
use crate::layer::{LayerFile, NodeNo};

impl Superblock {
    /// A leaf of a layer and the slot it is in.
    pub(in crate::fs::images) fn leaf(
        &self,
        slot: SlotNo,
    ) -> Result<(Arc<Slot>, Arc<LayerFile>), FsError> {
        let found = self
            .slots
            .get(slot)
            .ok_or(FsError::Stale(u64::from(slot.0)))?;
        match self.slots.open(&found) {
            Ok(file) => Ok((found, file)),
            Err(error) => match (error.into(), Subject::Layer(found.diff_id)) {
                (FsError::Corrupt { .. }, layer) if self.is_gone(&layer) => {
                    Err(match self.lasting {
                        // An earlier server of the connection had it open.
                        Some(_) => FsError::Stale(u64::from(slot.0)),
                        None => FsError::NotFound,
                    })
                }
                (error, _) => Err(error),
            },
        }
    }

    pub(in crate::fs::images) fn leaf_attr(
        &self,
        ino: InodeNo,
        slot: SlotNo,
        node: NodeNo,
    ) -> Result<AttrReply, FsError> {
        let (_, file) = self.leaf(slot)?;
        Ok(AttrReply {
            attr: attr::of_leaf(ino, &file.index.attributes(node)?),
            ttl: Ttl::Forever,
        })
    }

    /// Verified content. A blob found damaged may have been loaded again: then the new one is read.
    pub(in crate::fs::images) fn leaf_read(
        &self,
        slot: SlotNo,
        node: NodeNo,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, FsError> {
        let (slot, file) = self.leaf(slot)?;
        match file.read_at(node, offset, into) {
            Ok(length) => Ok(length),
            Err(error) => match self.slots.reopen(&slot, &file) {
                Some(file) => Ok(file.read_at(node, offset, into)?),
                None => {
                    let mut error = FsError::from(error);
                    if let FsError::Corrupt { what, .. } = &mut error {
                        let path = self.store.blob_path(&slot.diff_id.0);
                        *what = format!("{what}; file {} of blob {}", node.0, path.display());
                    }
                    Err(error)
                }
            },
        }
    }
}
