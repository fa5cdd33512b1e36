//! The tree of images: M itself, and `M/stores` on a connection of its own.
//!
//! [`Superblock`] is what answers. Its methods stand in the files of what they are about: `own_..` of nodes of our own (directories
//! of names, files about images), `tree_..` of directories of images and layers, `leaf_..` of files in them. Where to start reading:
//!
//! | module | what |
//! |---|---|
//! | `dispatch` | each operation, by kind of node |
//! | `inode` | what an inode number says |
//! | `namespace` | the names of the store as directories, aliases, and what differs between two moments; pure |
//! | `nodes`, `names_dir`, `info` | nodes of our own: directories of names, files about images |
//! | `trees`, `open_layers`, `image_dir` | trees of images and layers, and the layers that are open |
//! | `removal`, `renaming`, `pins` | what changes the store |
//! | `last_use` | noticing that an image is used |
//! | `lasting`, `again` | what the next server of the same connection knows of this one, and how it answers |
//! | `stores` | the images as an additional image store of podman and its kin, on a connection of its own |
//! | `superblock` | all of it together, and the way of a change from the store into the kernel's caches |

mod again;
mod attr;
mod dispatch;
mod image_dir;
mod info;
mod inode;
mod last_use;
mod lasting;
mod names_dir;
mod namespace;
mod nodes;
mod open_layers;
mod orphans;
mod pins;
mod probes;
mod removal;
mod renaming;
mod space;
mod stores;
mod superblock;
#[cfg(test)]
mod tests;
mod trees;

pub use lasting::Lasting;
pub use superblock::{FsOptions, Shape, Superblock};
