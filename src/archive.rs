//! Image archives: what `docker save`, `podman save`, `skopeo copy` and `buildah push` write, as a tar file, a
//! compressed tar, a stream, or a directory.
//!
//! Two documents describe the images of an archive. An OCI `index.json` wins where both exist (it knows manifests,
//! platforms and digests); docker's `manifest.json` then only adds names. The legacy `repositories` file is ignored.
//!
//! - A directory and an uncompressed tar in a regular file are read by offset: [`open`] gives [`Opened::Catalog`],
//!   having read nothing but tar headers.
//! - A compressed tar, a pipe or a socket can be read once only: [`Opened::Stream`]. [`stream::Stream::catalog`] walks it in one
//!   pass whatever the order of its members: small members stay in memory, members that look like layers are handed to
//!   the caller as they go by, others are skipped.
//!
//! Either way a [`Catalog`] comes out, and [`Catalog::images`] resolves its documents: every document that has a digest
//! has been checked against it. Layers are only located; whoever reads them checks them.
//!
//! Strictness: a tar that ends without its two zero blocks is truncated; member names with `..` are refused; of two
//! members of one name the last counts; data after the end marker is ignored, as every tar does.

mod catalog;
mod docker;
mod error;
mod image;
mod names;
mod oci;
mod path;
mod resolve;
pub mod stream;
#[cfg(test)]
mod tests;
mod walk;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::layer::compress::{self, Compression};
use crate::sys::source;

pub use crate::archive::catalog::{Catalog, Content, Located};
pub use crate::archive::error::{ArchiveError, Problem};
pub use crate::archive::image::{ArchiveImage, ArchiveLayer, OriginDocument};
pub use crate::archive::stream::Stream;

/// Most members of one archive. A real one has a handful per layer; each costs memory for its name.
pub(crate) const MAX_MEMBERS: usize = 200_000;
/// Largest JSON document: the largest index and configs seen are below 1 MiB.
pub(crate) const MAX_DOCUMENT: u64 = 8 << 20;
/// All configs of one archive together; they are in memory at once. A real one is some 10 KiB.
pub(crate) const MAX_CONFIGS: u64 = 48 << 20;

/// Where an archive comes from.
#[derive(Debug)]
pub enum Input {
    /// A file or a directory.
    Path(PathBuf),
    /// Standard input or any other open file, read from its current offset.
    Stream(OwnedFd),
}

/// An archive, ready to be read.
pub enum Opened {
    /// Readable by offset, in any order.
    Catalog(Catalog),
    /// Readable once, from front to end.
    Stream(Stream),
}

impl Opened {
    /// The archive as the user named it.
    pub fn label(&self) -> &str {
        match self {
            Opened::Catalog(catalog) => catalog.label(),
            Opened::Stream(stream) => stream.label(),
        }
    }
}

/// Opens an archive and finds out how it can be read.
pub fn open(input: Input) -> Result<Opened, ArchiveError> {
    match input {
        Input::Path(path) => open_path(&path),
        Input::Stream(fd) => open_file("stdin".to_owned(), File::from(fd)),
    }
}

fn open_path(path: &Path) -> Result<Opened, ArchiveError> {
    let label = crate::text::shown(&path.to_string_lossy());
    let fail = |error: std::io::Error| ArchiveError::new(&label, Problem::Open(error));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
    let stat = rustix::fs::fstat(&fd).map_err(|e| fail(e.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(Opened::Catalog(Catalog::of_directory(label, fd))),
        _ => open_file(label, File::from(fd)),
    }
}

fn open_file(label: String, mut file: File) -> Result<Opened, ArchiveError> {
    let fail = |error: std::io::Error| ArchiveError::new(&label, Problem::Read(error));
    let meta = file.metadata().map_err(fail)?;
    if meta.is_file() {
        let start = std::io::Seek::stream_position(&mut file).map_err(fail)?;
        let mut head = [0u8; 512];
        let got = read_at_most(&file, &mut head, start).map_err(fail)?;
        let head = head.get(..got).unwrap_or_default();
        if head.is_empty() {
            return Err(ArchiveError::new(&label, Problem::Empty));
        }
        if compress::sniff(head) == Compression::None {
            return Catalog::of_tar(label, Arc::new(file), start, meta.len()).map(Opened::Catalog);
        }
    }
    Ok(Opened::Stream(Stream::new(label, file)))
}

/// Reads until `buf` is full or the file ends.
pub(crate) fn read_at_most(file: &File, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Reads until `buf` is full or the stream ends.
pub(crate) fn fill(reader: &mut dyn Read, buf: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0usize;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Opens a regular file beneath a directory; symlinks are followed as long as they stay inside.
pub(crate) fn open_beneath(dir: impl AsFd, path: &str) -> rustix::io::Result<Option<(File, u64)>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match source::open_as(dir, path, flags, resolve) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd)?;
            match (
                FileType::from_raw_mode(stat.st_mode),
                u64::try_from(stat.st_size),
            ) {
                (FileType::RegularFile, Ok(size)) => Ok(Some((File::from(fd), size))),
                _ => Ok(None),
            }
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}
