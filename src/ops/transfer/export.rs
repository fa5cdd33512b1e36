//! `mica export`: the merged tree of an image as one tar.
//!
//! Exact: types, modes, owners, times, links, devices, extended attributes and holes are the image's; hard links are hard
//! links, the first name in the order of the archive holds the content. Directories come before what is in them, names are
//! sorted: the same image gives the same bytes. Content is verified as it is read.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::layer::merged::{Image, MergedEntry, NodeRef};
use crate::layer::{IndexError, ReadError, TarMember, TarWriter};
use crate::store::{MaybeMissing, Store, StoreError};
use crate::tree::{Attributes, NodeKind};

use crate::ops::image::ImageError;
use crate::ops::image::resolve;

/// Read at once from a file.
const BUFFER: usize = 1 << 20;

/// Why a tree could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The argument names no image, or the store fails.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The output takes no more.
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
    /// A layer's tree cannot be read.
    #[error("{0}")]
    Index(#[from] IndexError),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: ReadError,
    },
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        ExportError::Image(error.into())
    }
}

impl MaybeMissing for ExportError {
    fn is_missing(&self) -> bool {
        matches!(self, ExportError::Image(error) if error.is_missing())
    }
}

/// A tree to export, its layers open: a removal cannot disturb it any more.
#[derive(Debug)]
pub struct ExportPlan {
    tree: Image,
}

/// Finds what the argument means.
pub fn plan(store: &Store, name: &str) -> Result<ExportPlan, ExportError> {
    store.read(|names| {
        let id = resolve::image(names, name)?.id;
        let record = names.images.get(&id).ok_or(StoreError::NoSuchImage(id))?;
        let layers = record.layers.iter().map(|layer| store.open_layer(layer));
        let tree = Image::new(layers.collect::<Result<_, _>>()?)?;
        Ok(ExportPlan { tree })
    })
}

impl ExportPlan {
    /// Writes the archive.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), ExportError> {
        let mut export = Export {
            tree: &self.tree,
            out: TarWriter::new(out),
            links_below: self.has_links_below()?,
            first_names: HashMap::new(),
            buffer: vec![0; BUFFER],
        };
        let root = self.tree.root()?;
        export.entry(b"", &MergedEntry::Dir(root))?;
        self.tree.walk(|path, entry| export.entry(path, entry))?;
        export.out.finish().map_err(ExportError::Write)?;
        Ok(())
    }

    /// Whether a file may have more names than its own layer counts.
    fn has_links_below(&self) -> Result<bool, IndexError> {
        for layer in self.tree.layers() {
            if layer.index.lower_links()?.next().is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

struct Export<'a> {
    tree: &'a Image,
    out: TarWriter<&'a mut dyn Write>,
    links_below: bool,
    /// The first name of each file that may have another one.
    first_names: HashMap<NodeRef, Box<[u8]>>,
    buffer: Vec<u8>,
}

impl Export<'_> {
    fn entry(&mut self, path: &[u8], entry: &MergedEntry) -> Result<(), ExportError> {
        let tree = self.tree;
        let (attributes, described) = match entry {
            MergedEntry::Dir(dir) => (tree.attributes_of_dir(dir)?, tree.described_part(dir)?),
            MergedEntry::Leaf(node) => (tree.attributes(*node)?, Some(*node)),
        };
        let mut hard_link = None;
        if let MergedEntry::Leaf(node) = entry
            && (attributes.nlink > 1 || self.links_below)
        {
            match self.first_names.get(node) {
                Some(first) => hard_link = Some(first.clone()),
                None => drop(self.first_names.insert(*node, path.into())),
            }
        }
        let target = match (attributes.kind, described) {
            (NodeKind::Symlink, Some(node)) => tree.symlink_target(node)?,
            _ => b"",
        };
        let mut xattrs = Vec::new();
        if let Some(node) = described {
            for attribute in tree.xattrs(node)? {
                xattrs.push(attribute?);
            }
        }
        let content = match (attributes.kind, entry, &hard_link) {
            (NodeKind::Regular, MergedEntry::Leaf(node), None) => Some(*node),
            _ => None,
        };
        let segments = match content {
            Some(node) => self.segments(node, &attributes)?,
            None => None,
        };
        let member = TarMember {
            path,
            attributes: &attributes,
            target,
            hard_link: hard_link.as_deref(),
            xattrs: &xattrs,
            segments: segments.as_deref(),
        };
        self.out.entry(&member).map_err(ExportError::Write)?;
        match (content, segments) {
            (None, _) => Ok(()),
            (Some(node), None) => self.content(path, node, 0, attributes.size),
            (Some(node), Some(segments)) => segments
                .into_iter()
                .try_for_each(|(offset, length)| self.content(path, node, offset, length)),
        }
    }

    /// Where a file has data, if it has holes.
    fn segments(
        &self,
        node: NodeRef,
        attributes: &Attributes,
    ) -> Result<Option<Vec<(u64, u64)>>, IndexError> {
        let extents = self.tree.layer(node.layer).index.extents(node.node)?;
        let mut segments = Vec::new();
        for extent in extents {
            let extent = extent?;
            segments.push((extent.file_offset, extent.length));
        }
        let whole = match *segments {
            [] => attributes.size == 0,
            [(offset, length)] => offset == 0 && length == attributes.size,
            _ => false,
        };
        Ok((!whole).then_some(segments))
    }

    fn content(
        &mut self,
        path: &[u8],
        node: NodeRef,
        mut offset: u64,
        length: u64,
    ) -> Result<(), ExportError> {
        let file = self.tree.layer(node.layer);
        let end = offset.saturating_add(length);
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(BUFFER).min(BUFFER);
            let buf = self.buffer.get_mut(..wanted).unwrap_or_default();
            let read = file.read_at(node.node, offset, buf);
            let got = read.map_err(|source| ExportError::Read {
                path: String::from_utf8_lossy(path).into_owned(),
                source,
            })?;
            let bytes = buf.get(..got).filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or_else(|| file.index.size_disagrees())?;
            self.out.content(bytes).map_err(ExportError::Write)?;
            offset += got as u64;
        }
        Ok(())
    }
}
