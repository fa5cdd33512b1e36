//! Inode numbers: three kinds, told apart by their bits.
//!
//! | bits | node |
//! |---|---|
//! | below 2^32 | a node of the tree's own: `images`, a repository, a file of `info/`, a symlink (see `nodes`) |
//! | 0, slot (31, at least 1), node (32) | everything but directories in images and layers: stateless, the same in every image |
//! | 1, tree (19), layer (12), node (32) | a directory in an image or layer tree: tree number and topmost layer directory |
//!
//! So a file of a shared layer is one inode everywhere, and a directory keeps its number when the kernel has forgotten it in
//! between. The store keeps the numbers of layers and trees (`store::numbers`), so inode numbers are the same after a restart;
//! where it cannot, and for a directory that a staged `rmdir` has made dead, they are of this mount. Tree numbers are never shared between tags: the kernel marks a removed directory inode dead for every process.

use crate::fs::api::InodeNo;
use crate::layer::NodeNo;
use crate::store::NumberLimits;

/// Marks directories of images and layers.
const DIRECTORY: u64 = 1 << 63;
/// How many trees may be alive at once: 19 bits.
pub(super) const MAX_TREES: u32 = 1 << 19;
/// Numbers that the store keeps are below these; from there on they are of one mount only.
pub(super) const KEPT: NumberLimits = NumberLimits {
    layers: 1 << 30,
    trees: 1 << 18,
};
/// How many layers an image may have: 12 bits, `oci`'s own limit.
const MAX_LAYERS: u32 = 1 << 12;

/// Number of a layer, 1 to 2^31 - 1: the store's if it has one for it, else of this mount.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct SlotNo(pub u32);

impl SlotNo {
    pub(super) const MAX: u32 = (1 << 31) - 1;
}

/// Number of a tree (one tag's view of an image, one layer): below [`MAX_TREES`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct TreeNo(pub u32);

/// What an inode number stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Number {
    /// A node of the tree's own.
    Own,
    /// A leaf of a layer.
    Leaf(SlotNo, NodeNo),
    /// A directory of a tree; all that is known of it is in the table of directories.
    Directory,
}

/// What the number of a directory says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DirectoryNo {
    pub tree: TreeNo,
    pub layer: u16,
    pub node: NodeNo,
}

/// Of a directory in an image or layer tree.
pub(super) fn directory_no(ino: InodeNo) -> Option<DirectoryNo> {
    let layer = u16::try_from(low(ino.0 >> 32) & (MAX_LAYERS - 1)).ok()?;
    (ino.0 & DIRECTORY != 0).then(|| DirectoryNo {
        tree: TreeNo(low(ino.0 >> 44) & (MAX_TREES - 1)),
        layer,
        node: NodeNo(low(ino.0)),
    })
}

/// Low 32 bits; nothing is lost that the caller has not masked away.
fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

pub(super) fn decode(ino: InodeNo) -> Number {
    let high = low(ino.0 >> 32);
    match (ino.0 & DIRECTORY, high) {
        (0, 0) => Number::Own,
        (0, slot) => Number::Leaf(SlotNo(slot), NodeNo(low(ino.0))),
        _ => Number::Directory,
    }
}

pub(super) fn leaf(slot: SlotNo, node: NodeNo) -> InodeNo {
    InodeNo(u64::from(slot.0 & SlotNo::MAX) << 32 | u64::from(node.0))
}

/// `layer` is the position in the image, bottom first; positions beyond the limit cannot be (`oci` refuses such images).
pub(super) fn directory(tree: TreeNo, layer: u16, node: NodeNo) -> InodeNo {
    let tree = u64::from(tree.0 & (MAX_TREES - 1)) << 44;
    let layer = u64::from(u32::from(layer) & (MAX_LAYERS - 1)) << 32;
    InodeNo(DIRECTORY | tree | layer | u64::from(node.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_their_kind() {
        assert_eq!(decode(InodeNo::ROOT), Number::Own);
        assert_eq!(decode(InodeNo(u64::from(u32::MAX))), Number::Own);
        let file = leaf(SlotNo(SlotNo::MAX), NodeNo(u32::MAX));
        assert_eq!(
            decode(file),
            Number::Leaf(SlotNo(SlotNo::MAX), NodeNo(u32::MAX))
        );
        assert_eq!(
            decode(leaf(SlotNo(1), NodeNo(0))),
            Number::Leaf(SlotNo(1), NodeNo(0))
        );
        assert_eq!(
            decode(directory(TreeNo(0), 0, NodeNo(0))),
            Number::Directory
        );
    }

    #[test]
    fn a_directory_is_told_by_its_number() {
        let no = DirectoryNo {
            tree: TreeNo(MAX_TREES - 1),
            layer: 4095,
            node: NodeNo(u32::MAX - 1),
        };
        let ino = directory(no.tree, no.layer, no.node);
        assert_eq!(directory_no(ino), Some(no));
        assert_eq!(directory_no(leaf(SlotNo(1), NodeNo(1))), None);
    }

    #[test]
    fn directories_differ_by_tree_layer_and_node() {
        let all = [
            directory(TreeNo(1), 0, NodeNo(0)),
            directory(TreeNo(2), 0, NodeNo(0)),
            directory(TreeNo(1), 1, NodeNo(0)),
            directory(TreeNo(1), 4095, NodeNo(0)),
            directory(TreeNo(MAX_TREES - 1), 4095, NodeNo(u32::MAX)),
            directory(TreeNo(1), 0, NodeNo(1)),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
    }
}
