//! Why a directory does not become a layer.

use std::io;
use std::path::PathBuf;

/// A directory that cannot be read as a layer. Paths are inside it, escaped for terminals.
#[derive(Debug, thiserror::Error)]
pub enum FromDirError {
    /// The directory itself.
    #[error("{}: {source}", path.display())]
    Root {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it cannot be read.
    #[error("cannot {action} \"/{}\": {source}", path.escape_ascii())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: Vec<u8>,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it was when its reading began.
    #[error("\"/{}\" changed while it was read (stop or pause what writes there)", .0.escape_ascii())]
    Changed(Vec<u8>),
    /// A name that means something else in a layer.
    #[error("\"/{}\": a layer cannot hold names that begin with \".wh.\"", .0.escape_ascii())]
    Name(Vec<u8>),
    /// An attribute of overlayfs that refers to lower directories.
    #[error("\"/{}\": its overlay attribute \"{attribute}\" refers to the layers below, which is not supported (mount with redirect_dir=off,metacopy=off)", path.escape_ascii())]
    Overlay {
        /// Where.
        path: Vec<u8>,
        /// Which.
        attribute: &'static str,
    },
    /// An owner that the user namespace does not have.
    #[error("\"/{}\" belongs to {what} {id}, which is not in the id map", path.escape_ascii())]
    Owner {
        /// Where.
        path: Vec<u8>,
        /// `user` or `group`.
        what: &'static str,
        /// Its number outside.
        id: u32,
    },
    /// The image below cannot be read.
    #[error(transparent)]
    Base(#[from] crate::layer::IndexError),
    /// Nobody takes the tar.
    #[error("cannot write the layer: {0}")]
    Output(#[from] io::Error),
}
