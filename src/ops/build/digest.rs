//! What a copy step depends on, as one digest: names, attributes but for times, and content. Files of a context are read by as
//! many threads as there are processors; nothing is held in memory but a piece of each.

use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};

use super::BuildError;
use super::copy::{Content, Item};
use crate::layer::from_dir;
use crate::layer::merged::{Image, NodeRef};
use crate::oci::Digest;
use crate::sys::threads;
use crate::tree::NodeKind;

/// Read at once from a file.
const BUFFER: usize = 256 << 10;
/// More threads than this wait for each other.
const MAX_THREADS: usize = 8;

/// A digest over several fields, each with its length.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields(Sha256);

impl Fields {
    /// Adds one.
    pub(super) fn add(&mut self, field: &[u8]) -> &mut Fields {
        self.0.update((field.len() as u64).to_le_bytes());
        self.0.update(field);
        self
    }

    /// Adds several, and how many they are.
    pub(super) fn list<T: AsRef<[u8]>>(&mut self, fields: &[T]) -> &mut Fields {
        self.0.update((fields.len() as u64).to_le_bytes());
        for field in fields {
            self.add(field.as_ref());
        }
        self
    }

    /// The digest.
    pub(super) fn finish(&self) -> Digest {
        Digest::from_bytes(self.0.clone().finalize().into())
    }
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;
type Found = Result<(Option<Digest>, Xattrs), BuildError>;

/// Reads what the items hold; their extended attributes are known then.
pub(super) fn fill(items: &mut [Item]) -> Result<Digest, BuildError> {
    let found = look(items);
    let mut fields = Fields::default();
    for (number, found) in found.into_iter().enumerate() {
        let (content, xattrs) = found?;
        let link = items.get(number).and_then(|item| item.link);
        let link = link
            .and_then(|first| items.get(first))
            .map(|first| first.path.clone());
        let Some(item) = items.get_mut(number) else {
            continue;
        };
        item.xattrs = xattrs;
        let at = &item.attributes;
        fields.add(&item.path);
        fields.add(&[at.kind as u8]);
        for value in [at.mode, at.uid, at.gid, at.rdev_major, at.rdev_minor] {
            fields.add(&value.to_le_bytes());
        }
        fields.add(&link.unwrap_or_default());
        match (&item.content, content) {
            (Content::Target(target), _) => fields.add(target),
            (_, Some(digest)) => fields.add(digest.as_bytes()),
            _ => fields.add(b""),
        };
        for (name, value) in &item.xattrs {
            fields.add(name).add(value);
        }
    }
    Ok(fields.finish())
}

fn look(items: &[Item]) -> Vec<Found> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        let mut done: Vec<(usize, Found)> = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at).filter(|_| !failed.load(Ordering::Relaxed)) else {
                return done;
            };
            let found = read(item, &mut buffer);
            if found.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            done.push((at, found));
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let most = processors.min(MAX_THREADS).min(items.len() / 16);
    let mut found: Vec<Found> = Vec::new();
    found.resize_with(items.len(), || Ok((None, Vec::new())));
    let mut put = |done: Vec<(usize, Found)>| {
        for (at, one) in done {
            if let Some(slot) = found.get_mut(at) {
                *slot = one;
            }
        }
    };
    std::thread::scope(|scope| {
        // What does not start is done by those who did.
        let others = (1..most).map_while(|_| threads::beside(scope, "digest", work).ok());
        let others: Vec<_> = others.collect();
        put(work());
        for other in others {
            put(other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    found
}

fn read(item: &Item, buffer: &mut [u8]) -> Found {
    let regular = item.attributes.kind == NodeKind::Regular;
    match &item.content {
        Content::Nothing | Content::Target(_) => Ok((None, Vec::new())),
        Content::Bytes(bytes) => Ok((Some(Digest::of(bytes)), Vec::new())),
        Content::File(file) => {
            let digest =
                hash(file, buffer).map_err(|error| BuildError::Failed(error.to_string()))?;
            Ok((Some(digest), Vec::new()))
        }
        Content::Context(context, number) => {
            let file = context.open(*number)?;
            let failed = |error| context.cannot_read(*number, error);
            let xattrs = from_dir::attributes_of(&file).map_err(failed)?;
            if !regular {
                return Ok((None, xattrs));
            }
            let digest = hash(&file, buffer).map_err(failed)?;
            context.check(*number, &file)?;
            Ok((Some(digest), xattrs))
        }
        Content::Layer(image, node) => {
            let mut xattrs = Vec::new();
            for xattr in image.xattrs(*node)? {
                let (name, value) = xattr?;
                xattrs.push((name.to_vec(), value.to_vec()));
            }
            match regular {
                true => Ok((Some(hash_node(image, *node, item, buffer)?), xattrs)),
                false => Ok((None, xattrs)),
            }
        }
    }
}

/// The digest of a file's content; of one with holes that of where it has data, and of the data.
fn hash(mut file: &File, buffer: &mut [u8]) -> std::io::Result<Digest> {
    let size = file.metadata()?.len();
    let segments = from_dir::data_of(file, size)?;
    let mut hasher = Sha256::new();
    let whole = [(0, u64::MAX)];
    for (offset, length) in segments.as_deref().unwrap_or(&whole) {
        if segments.is_some() {
            hasher.update(offset.to_le_bytes());
            hasher.update(length.to_le_bytes());
        }
        rustix::fs::seek(file, rustix::fs::SeekFrom::Start(*offset))?;
        let mut left = *length;
        while left > 0 {
            let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            match file.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => break,
                Ok(got) => {
                    hasher.update(buffer.get(..got).unwrap_or_default());
                    left -= got as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

fn hash_node(
    image: &Image,
    node: NodeRef,
    item: &Item,
    buffer: &mut [u8],
) -> Result<Digest, BuildError> {
    let file = image.layer(node.layer);
    let segments = super::emit::holes(image, node, item.attributes.size)?;
    let mut hasher = Sha256::new();
    let whole = [(0, item.attributes.size)];
    for (offset, length) in segments.as_deref().unwrap_or(&whole) {
        if segments.is_some() {
            hasher.update(offset.to_le_bytes());
            hasher.update(length.to_le_bytes());
        }
        let (mut at, end) = (*offset, offset.saturating_add(*length));
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let piece = buffer.len().min(left);
            let piece = buffer.get_mut(..piece).unwrap_or_default();
            let got = file.read_at(node.node, at, piece)?;
            if got == 0 {
                return Err(file.index.size_disagrees().into());
            }
            hasher.update(piece.get(..got).unwrap_or_default());
            at += got as u64;
        }
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}
