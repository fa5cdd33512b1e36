//! Looking at layers and images: helpers of the tests beside.

use std::sync::Arc;

use crate::layer::merged::{Image, MergedEntry};
use crate::layer::testing::{Tar, image};
use crate::layer::{LayerFile, LayerIndex, NodeNo};
use crate::tree::NodeKind;

/// The merged tree as text: one line per entry, sorted; content of files, targets of symlinks.
pub fn dump(image: &Image) -> Vec<String> {
    let mut out = Vec::new();
    image
        .walk(|path, entry| -> Result<(), crate::layer::ReadError> {
            let path = path.escape_ascii().to_string();
            let MergedEntry::Leaf(node) = entry else {
                out.push(format!("{path}/"));
                return Ok(());
            };
            let attributes = image.attributes(*node)?;
            out.push(match attributes.kind {
                NodeKind::Directory => panic!("a directory as leaf"),
                NodeKind::Regular => {
                    let mut content = vec![0; attributes.size as usize + 10];
                    let length = image
                        .layer(node.layer)
                        .read_at(node.node, 0, &mut content)?;
                    assert_eq!(length as u64, attributes.size);
                    format!("{path} = {}", content[..length].escape_ascii())
                }
                NodeKind::Symlink => {
                    format!("{path} -> {}", image.symlink_target(*node)?.escape_ascii())
                }
                NodeKind::CharDevice => {
                    format!(
                        "{path} c{}:{}",
                        attributes.rdev_major, attributes.rdev_minor
                    )
                }
                NodeKind::BlockDevice => {
                    format!(
                        "{path} b{}:{}",
                        attributes.rdev_major, attributes.rdev_minor
                    )
                }
                NodeKind::Fifo => format!("{path} fifo"),
            });
            Ok(())
        })
        .unwrap();
    out
}

#[track_caller]
pub fn shows(tars: &[Tar], expected: &[&str]) {
    let image = image(tars);
    image.verify_lower_links().unwrap();
    assert_eq!(dump(&image), expected);
}

pub fn tar() -> Tar {
    Tar::new()
}

pub fn node(index: &LayerIndex, path: &[&[u8]]) -> NodeNo {
    path.iter().fold(NodeNo::ROOT, |dir, name| {
        match index.find(dir, name).unwrap().unwrap().target {
            Some(crate::layer::Target::Node(node)) => node,
            other => panic!("{other:?}"),
        }
    })
}

pub fn content(layer: &Arc<LayerFile>, name: &[u8]) -> Vec<u8> {
    let file = node(&layer.index, &[name]);
    let mut out = vec![0xaa; layer.index.attributes(file).unwrap().size as usize];
    assert_eq!(layer.read_at(file, 0, &mut out).unwrap(), out.len());
    out
}
