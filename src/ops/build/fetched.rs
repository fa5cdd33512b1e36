//! Sources that are no plain files: downloads, archives, and single files of a tree that the build itself reads.

use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::BuildError;
use super::source::{Place, Source};
use crate::layer::compress::{self, Compression};
use crate::layer::merged::{Image, MergedEntry, NodeRef};
use crate::layer::{LayerFile, Limits};
use crate::oci::Digest;
use crate::ops::transfer::ingest as intake;
use crate::store::{Import, Store};
use crate::tree::NodeKind;

/// A longer file is not downloaded.
const MAX_DOWNLOAD: u64 = 64 << 30;
/// So much of a file tells whether it is an archive.
const HEAD: usize = 512;

/// Whether ADD downloads this.
pub(super) fn is_url(text: &str) -> bool {
    let web = text.starts_with("http://") || text.starts_with("https://");
    web && !is_repository(text)
}

/// Whether docker would clone this.
pub(super) fn is_repository(text: &str) -> bool {
    let web = text.starts_with("http://") || text.starts_with("https://");
    let path = text.split(['#', '?']).next().unwrap_or(text);
    text.starts_with("git://")
        || text.starts_with("git@")
        || text.starts_with("ssh://")
        || (web && path.ends_with(".git"))
}

/// A file from the network.
#[derive(Debug)]
pub(super) struct Download {
    /// Its content, from the beginning.
    pub file: File,
    /// The last part of its URL.
    pub name: String,
    /// When its server says it was changed; 0 if it does not.
    pub modified: i64,
}

/// Downloads a file into `dir`, where it has no name. `checksum` is what its content must have.
pub(super) fn download(url: &str, checksum: Option<&str>, dir: &Path) -> Result<Download, String> {
    let wanted = match checksum {
        None => None,
        Some(text) => match text.strip_prefix("sha256:").map(Digest::from_hex) {
            Some(Ok(digest)) => Some(digest),
            _ => {
                return Err(format!(
                    "invalid checksum {text:?}: sha256:<64 hex digits> is expected"
                ));
            }
        },
    };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(std::time::Duration::from_secs(30)))
        .build()
        .into();
    let mut response = agent
        .get(url)
        .call()
        .map_err(|error| format!("{url}: {error}"))?;
    let modified = response
        .headers()
        .get("last-modified")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| jiff::fmt::rfc2822::parse(text).ok())
        .map_or(0, |time| time.timestamp().as_second());
    let failed = |error: io::Error| format!("{url}: {error}");
    let mut file = tempfile_in(dir).map_err(failed)?;
    let mut hasher = Sha256::new();
    let mut body = response.body_mut().as_reader().take(MAX_DOWNLOAD);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let got = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        let bytes = buffer.get(..got).unwrap_or_default();
        hasher.update(bytes);
        file.write_all(bytes).map_err(failed)?;
    }
    let found = Digest::from_bytes(hasher.finalize().into());
    if let Some(wanted) = wanted
        && wanted != found
    {
        return Err(format!(
            "digest mismatch for {url}: expected {wanted}, got {found}"
        ));
    }
    file.rewind().map_err(failed)?;
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, path)| path);
    let name = match path.rsplit_once('/') {
        Some((_, name)) if !matches!(name, "." | "..") => name.to_owned(),
        _ => String::new(),
    };
    Ok(Download {
        file,
        name,
        modified,
    })
}

/// A file that goes when it is closed.
fn tempfile_in(dir: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match openat(CWD, dir, flags, Mode::from_raw_mode(0o600)) {
        Ok(file) => Ok(File::from(file)),
        // A file system that cannot: a name for a moment, in a directory of our own.
        Err(_) => {
            let path = dir.join("download");
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
    }
}

/// The content of a file of a tree, links followed inside; `None`: it is not there.
pub(super) fn read(source: &Source, path: &[u8], most: u64) -> Result<Option<Vec<u8>>, BuildError> {
    let Some((path, place)) = source.find(path)? else {
        return Ok(None);
    };
    let shown = String::from_utf8_lossy(&path).into_owned();
    let attributes = source.attributes(&place)?;
    if attributes.kind != NodeKind::Regular {
        return Err(BuildError::Failed(format!(
            "{shown:?} is not a regular file"
        )));
    }
    if attributes.size > most {
        return Err(BuildError::Failed(format!(
            "{shown:?} is longer than {most} bytes"
        )));
    }
    let mut bytes = Vec::new();
    let mut reader = reader(source, &place)?;
    reader.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The content of a regular file of a tree.
fn reader(source: &Source, place: &Place) -> Result<Box<dyn Read + Send>, BuildError> {
    match (source, place) {
        (Source::Context(context), Place::Context(number)) => Ok(Box::new(context.open(*number)?)),
        (Source::Image(image), Place::Image(MergedEntry::Leaf(node))) => Ok(Box::new(NodeReader {
            layer: Arc::clone(image.layer(node.layer)),
            node: *node,
            at: 0,
        })),
        _ => Err(BuildError::Failed("not a regular file".to_owned())),
    }
}

struct NodeReader {
    layer: Arc<LayerFile>,
    node: NodeRef,
    at: u64,
}

impl Read for NodeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.layer.read_at(self.node.node, self.at, buffer);
        let got = got.map_err(io::Error::other)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// Takes an archive apart: the tree that a tar, plain or compressed, has; `None`: the file is none. Its entries become a layer
/// of the import, nothing is unpacked.
pub(super) fn archive(
    store: &Store,
    import: &Import,
    limits: &Limits,
    source: &Source,
    place: &Place,
) -> Result<Option<Source>, BuildError> {
    let mut head = vec![0; HEAD];
    let got = fill(&mut reader(source, place)?, &mut head)?;
    head.truncate(got);
    let tar = match compress::sniff(&head) {
        Compression::None => is_tar(&head),
        compression => {
            let mut plain = compress::reader(reader(source, place)?, compression);
            let mut inside = vec![0; HEAD];
            // Compressed, but what is inside cannot be read: a file as any other.
            match fill(&mut plain, &mut inside) {
                Ok(got) => is_tar(inside.get(..got).unwrap_or_default()),
                Err(_) => false,
            }
        }
    };
    if !tar {
        return Ok(None);
    }
    let mut content = reader(source, place)?;
    let (pumped, _) = intake::write(import, limits, &|_| {}, &mut content)?;
    let image = Image::new(vec![store.open_layer(&pumped.diff_id)?])?;
    Ok(Some(Source::Image(Arc::new(image))))
}

fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(got) => at += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// Whether bytes begin as a tar does: a header whose checksum is right.
pub fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..HEAD) else {
        return false;
    };
    let Some(field) = block.get(148..156) else {
        return false;
    };
    let text: String = field.iter().map(|byte| char::from(*byte)).collect();
    let text = text.trim_matches(['\0', ' ']);
    let sum = block.iter().enumerate().map(|(at, byte)| match at {
        148..156 => u64::from(b' '),
        _ => u64::from(*byte),
    });
    let named = block.first().is_some_and(|byte| *byte != 0);
    named && u64::from_str_radix(text, 8).is_ok_and(|wanted| wanted == sum.sum::<u64>())
}
