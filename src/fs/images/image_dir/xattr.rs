//! Extended attributes: the image's own are listed; ours can be read by name and are never listed.
//!
//! | name | on | value |
//! |---|---|---|
//! | `user.mica.id` | the root directory of an image | `sha256:..` |
//! | `user.mica.digest` | the same | digests it was served under, one per line; absent without any |
//! | `user.mica.created` | the same | RFC 3339; absent if the image does not say |
//! | `user.mica.size` | the same | bytes |
//! | `user.mica.kind` | the same | `image` |
//! | `user.mica.pin` | the same, of a pinned tag | `1`; can be set and removed |
//! | `user.mica.layer` | any file or directory | the layer that gave it |

use std::borrow::Cow;

use super::shifted;
use crate::fs::api::FsError;
use crate::fs::images::Superblock;
use crate::fs::images::inode::SlotNo;
use crate::fs::images::places::Subject;
use crate::fs::images::trees::{At, Content, DirNode, Open};
use crate::layer::{LayerIndex, NodeNo};
use crate::store::ImageRecord;

const OURS: &[u8] = b"user.mica.";
/// What marks an opaque directory for overlayfs, mounted with and without privileges. It asks by name; only the first is listed,
/// as a privileged overlay would show the other as an attribute of its own tree.
const OPAQUE: [&[u8]; 2] = [b"trusted.overlay.opaque", b"user.overlay.opaque"];

impl Superblock {
    pub(in crate::fs::images) fn tree_xattr(
        &self,
        dir: &DirNode,
        name: &[u8],
    ) -> Result<Vec<u8>, FsError> {
        let (content, at) = self.opened(dir)?;
        if let Some(ours) = name.strip_prefix(OURS) {
            if ours != b"layer" {
                return self.root_xattr(dir, ours);
            }
            let layer = match (content.open()?, &at) {
                (Open::Image(image), At::Merged(merged)) => {
                    let described = image.described_part(merged)?;
                    let part = described.or(merged.parts().first().copied());
                    part.map(|part| image.layer(part.layer).index.diff_id())
                }
                (Open::Layer(file, _), _) => Some(file.index.diff_id()),
                _ => None,
            };
            return Ok(layer.ok_or(FsError::NoAttribute)?.to_string().into_bytes());
        }
        if OPAQUE.contains(&name) && is_opaque(&content, &at)? {
            return Ok(b"y".to_vec());
        }
        match self.described(&content, &at)? {
            Some((layer, node)) => self.value(&layer.index, node, name),
            None => Err(FsError::NoAttribute),
        }
    }

    pub(in crate::fs::images) fn tree_xattrs(&self, dir: &DirNode) -> Result<Vec<u8>, FsError> {
        let (content, at) = self.opened(dir)?;
        let mut list = match self.described(&content, &at)? {
            Some((layer, node)) => self.names(&layer.index, node)?,
            None => Vec::new(),
        };
        if is_opaque(&content, &at)? {
            list.extend_from_slice(OPAQUE[0]);
            list.push(0);
        }
        Ok(list)
    }

    fn root_xattr(&self, dir: &DirNode, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if !dir.is_root() {
            return Err(FsError::NoAttribute);
        }
        let view = self.view();
        let subject = dir.tree.subject();
        let image = subject.image().and_then(|id| view.names.images.get(&id));
        let image = image.ok_or(FsError::NoAttribute)?;
        let text = match name {
            b"id" => Some(image.id.to_string()),
            b"digest" => digests(image, &subject),
            b"created" => image.created.map(|time| time.to_string()),
            b"size" => Some(image.size.to_string()),
            b"kind" => Some("image".to_owned()),
            b"pin" => self.is_pinned(dir).then(|| "1".to_owned()),
            _ => None,
        };
        Ok(text.ok_or(FsError::NoAttribute)?.into_bytes())
    }

    pub(in crate::fs::images) fn leaf_xattr(
        &self,
        slot: SlotNo,
        node: NodeNo,
        name: &[u8],
    ) -> Result<Vec<u8>, FsError> {
        let (slot, file) = self.leaf(slot)?;
        match name.strip_prefix(OURS) {
            Some(b"layer") => Ok(slot.diff_id.to_string().into_bytes()),
            Some(_) => Err(FsError::NoAttribute),
            None => self.value(&file.index, node, name),
        }
    }

    pub(in crate::fs::images) fn leaf_xattrs(
        &self,
        slot: SlotNo,
        node: NodeNo,
    ) -> Result<Vec<u8>, FsError> {
        let (_, file) = self.leaf(slot)?;
        self.names(&file.index, node)
    }
}

/// Whether a directory of a layer alone hides those of the layers below.
fn is_opaque(content: &Content, at: &At) -> Result<bool, FsError> {
    match (content.open()?, at) {
        (Open::Layer(file, _), At::Layer(node, _)) => Ok(file.index.is_opaque(*node)?),
        _ => Ok(false),
    }
}

/// The digests an image was served under for the tag's repository, or for any if the tree is of no tag.
fn digests(image: &ImageRecord, subject: &Subject) -> Option<String> {
    let served = image.origins.iter().filter(|origin| match subject {
        Subject::Tag(tag, _) => origin.repository.as_ref() == Some(&tag.repository),
        _ => origin.repository.is_some(),
    });
    let mut lines: Vec<String> = served.map(|origin| origin.digest.to_string()).collect();
    lines.sort();
    lines.dedup();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

impl Superblock {
    fn value(&self, index: &LayerIndex, node: NodeNo, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let found = index.xattrs(node)?.get(name)?;
        let found = found.and_then(|value| self.shifted_value(name, value));
        Ok(found.ok_or(FsError::NoAttribute)?.into_owned())
    }

    /// As this mount shows it, if it does.
    fn shifted_value<'a>(&self, name: &[u8], value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match &self.options.shift {
            Some(shift) => shifted::value(shift, name, value),
            None => Some(Cow::Borrowed(value)),
        }
    }

    /// Names, each with NUL behind. What an image has under our own prefix is hidden by ours.
    fn names(&self, index: &LayerIndex, node: NodeNo) -> Result<Vec<u8>, FsError> {
        let mut list = Vec::new();
        for attribute in index.xattrs(node)? {
            let (name, value) = attribute?;
            if !name.starts_with(OURS) && self.shifted_value(name, value).is_some() {
                list.extend_from_slice(name);
                list.push(0);
            }
        }
        Ok(list)
    }
}
