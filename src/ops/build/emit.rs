//! Writing the entries of a copy step as a tar.

use std::fs::File;
use std::io::{Read as _, Write};

use super::BuildError;
use super::copy::{Content, Item};
use crate::layer::from_dir;
use crate::layer::merged::{Image, NodeRef};
use crate::layer::{TarMember, TarWriter};
use crate::tree::{Attributes, NodeKind};

/// Read at once from a file.
const BUFFER: usize = 256 << 10;

/// Writes all of them, and the end.
pub(super) fn write(items: &[Item], out: &mut dyn Write) -> Result<(), BuildError> {
    let mut out = TarWriter::new(out);
    let mut buffer = vec![0; BUFFER];
    for item in items {
        let first = item.link.and_then(|first| items.get(first));
        entry(item, first, &mut out, &mut buffer)?;
    }
    out.finish()?;
    Ok(())
}

/// Writes a layer in which these paths are deleted, and the end.
pub(super) fn whiteouts(paths: &[Vec<u8>], out: &mut dyn Write) -> Result<(), BuildError> {
    let mut out = TarWriter::new(out);
    let attributes = Attributes {
        kind: NodeKind::Regular,
        mode: 0o644,
        nlink: 1,
        ..Attributes::IMPLICIT_DIRECTORY
    };
    for path in paths {
        let name = path
            .iter()
            .rposition(|byte| *byte == b'/')
            .map_or(0, |at| at + 1);
        let (above, name) = path.split_at(name);
        out.entry(&TarMember {
            path: &[above, b".wh.", name].concat(),
            attributes: &attributes,
            target: b"",
            hard_link: None,
            xattrs: &[],
            segments: None,
        })?;
    }
    out.finish()?;
    Ok(())
}

fn entry(
    item: &Item,
    first: Option<&Item>,
    out: &mut TarWriter<&mut dyn Write>,
    buffer: &mut [u8],
) -> Result<(), BuildError> {
    // A reader that sets a link's owner takes its file's capabilities away: links repeat them.
    let named = first.unwrap_or(item);
    let xattrs = named.xattrs.iter();
    let xattrs: Vec<(&[u8], &[u8])> = xattrs.map(|(k, v)| (k.as_slice(), v.as_slice())).collect();
    let regular = item.attributes.kind == NodeKind::Regular && item.link.is_none();
    let opened = match &item.content {
        Content::Context(context, number) if regular => Some(context.open(*number)?),
        _ => None,
    };
    let segments = match (&item.content, &opened) {
        (Content::Context(context, number), Some(file)) => {
            let size = item.attributes.size;
            from_dir::data_of(file, size).map_err(|error| context.cannot_read(*number, error))?
        }
        (Content::Layer(image, node), _) if regular => holes(image, *node, item.attributes.size)?,
        _ => None,
    };
    let member = TarMember {
        path: &item.path,
        attributes: &item.attributes,
        target: match &item.content {
            Content::Target(target) => target,
            _ => b"",
        },
        hard_link: first.map(|first| first.path.as_slice()),
        xattrs: &xattrs,
        segments: segments.as_deref(),
    };
    out.entry(&member)?;
    if !regular {
        return Ok(());
    }
    let whole = [(0, item.attributes.size)];
    for (offset, length) in segments.as_deref().unwrap_or(&whole) {
        match (&item.content, &opened) {
            (Content::Context(context, number), Some(file)) => {
                let copied = copy(file, *offset, *length, out, buffer);
                match copied? {
                    Copied::Whole => {}
                    Copied::Short => context.check(*number, file)?,
                    Copied::Failed(error) => return Err(context.cannot_read(*number, error)),
                }
            }
            (Content::Layer(image, node), _) => {
                copy_node(image, *node, *offset, *length, out, buffer)?
            }
            (Content::Bytes(bytes), _) => out.content(bytes)?,
            (Content::File(file), _) => {
                if let Copied::Failed(error) = copy(file, *offset, *length, out, buffer)? {
                    return Err(error.into());
                }
            }
            _ => {}
        }
    }
    if let (Content::Context(context, number), Some(file)) = (&item.content, &opened) {
        context.check(*number, file)?;
    }
    Ok(())
}

/// How the reading of a file has ended.
enum Copied {
    Whole,
    /// It has become shorter.
    Short,
    Failed(std::io::Error),
}

fn copy(
    mut file: &File,
    offset: u64,
    length: u64,
    out: &mut TarWriter<&mut dyn Write>,
    buffer: &mut [u8],
) -> Result<Copied, BuildError> {
    if let Err(error) = rustix::fs::seek(file, rustix::fs::SeekFrom::Start(offset)) {
        return Ok(Copied::Failed(error.into()));
    }
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = buffer.get_mut(..most).unwrap_or_default();
        match file.read(part) {
            Ok(0) => return Ok(Copied::Short),
            Ok(got) => {
                out.content(part.get(..got).unwrap_or_default())?;
                left -= got as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Copied::Failed(error)),
        }
    }
    Ok(Copied::Whole)
}

/// Where a file of a layer has data, if it has holes.
pub(super) fn holes(
    image: &Image,
    node: NodeRef,
    size: u64,
) -> Result<Option<Vec<(u64, u64)>>, BuildError> {
    let mut segments = Vec::new();
    for extent in image.layer(node.layer).index.extents(node.node)? {
        let extent = extent?;
        segments.push((extent.file_offset, extent.length));
    }
    let whole = match *segments {
        [] => size == 0,
        [(offset, length)] => offset == 0 && length == size,
        _ => false,
    };
    Ok((!whole).then_some(segments))
}

fn copy_node(
    image: &Image,
    node: NodeRef,
    mut offset: u64,
    length: u64,
    out: &mut TarWriter<&mut dyn Write>,
    buffer: &mut [u8],
) -> Result<(), BuildError> {
    let file = image.layer(node.layer);
    let end = offset.saturating_add(length);
    while offset < end {
        let wanted = usize::try_from(end - offset).map_or(buffer.len(), |n| n.min(buffer.len()));
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let got = file.read_at(node.node, offset, part)?;
        let bytes = part.get(..got).filter(|bytes| !bytes.is_empty());
        out.content(bytes.ok_or_else(|| file.index.size_disagrees())?)?;
        offset += got as u64;
    }
    Ok(())
}
