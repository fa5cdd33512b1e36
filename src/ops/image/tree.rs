//! `tree`: the layers of images as one tree, so that what is shared is seen once.
//!
//! A node is a layer on all that is below it; images stand where their stack ends. Sizes are those of a layer's files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::oci::{DiffId, ImageId};
use crate::store::{Names, Store};

use crate::ops::image::ImageError;
use crate::ops::image::list::Row;
use crate::text::format;

/// A layer in one place of the tree.
#[derive(Debug, Default)]
struct Node<'a> {
    above: BTreeMap<Order, Node<'a>>,
    layer: Option<DiffId>,
    rows: Vec<&'a Row>,
}

/// Where a layer is among its neighbours: as the images that first need it are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order(usize);

/// How it is printed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Whole IDs.
    pub no_trunc: bool,
}

/// The tree of the images in `rows`, in their order.
pub fn of(store: &Store, names: &Names, rows: &[Row], style: Style) -> Result<String, ImageError> {
    let mut root = Node::default();
    let mut sizes: BTreeMap<DiffId, u64> = BTreeMap::new();
    let mut seen: BTreeSet<ImageId> = BTreeSet::new();
    for row in rows {
        let Some(image) = names.images.get(&row.id) else {
            continue;
        };
        let mut node = &mut root;
        for layer in &image.layers {
            let known = node.above.iter().find(|(_, n)| n.layer == Some(*layer));
            let at = known.map_or(Order(node.above.len()), |(order, _)| *order);
            node = node.above.entry(at).or_default();
            node.layer = Some(*layer);
            if seen.contains(&row.id) {
                continue;
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = sizes.entry(*layer) {
                entry.insert(store.layer_index(layer)?.content_size());
            }
        }
        node.rows.push(row);
        seen.insert(row.id);
    }
    let mut text = String::new();
    // Images without any layer.
    for line in images(&root.rows, style) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    for node in root.above.values() {
        print(node, "", "", &sizes, style, &mut text);
    }
    Ok(text)
}

/// `first` is put before the node's own line, `rest` before all that follow.
fn print(
    node: &Node<'_>,
    first: &str,
    rest: &str,
    sizes: &BTreeMap<DiffId, u64>,
    style: Style,
    text: &mut String,
) {
    let layer = node.layer.unwrap_or(DiffId(crate::oci::Digest::of(b"")));
    let size = sizes.get(&layer).copied().unwrap_or(0);
    let name = match style.no_trunc {
        true => layer.to_string(),
        false => layer.hex().chars().take(12).collect(),
    };
    let images = images(&node.rows, style).join("; ");
    let line = format!("{first}{name}  {}  {images}", format::human_size(size));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
    let last = node.above.len().saturating_sub(1);
    for (number, above) in node.above.values().enumerate() {
        let (branch, below) = match number == last {
            true => ("└── ", "    "),
            false => ("├── ", "│   "),
        };
        let (first, rest) = (format!("{rest}{branch}"), format!("{rest}{below}"));
        print(above, &first, &rest, sizes, style, text);
    }
}

/// The images that end at one place: ID and names of each.
fn images(rows: &[&Row], style: Style) -> Vec<String> {
    let mut texts: Vec<(ImageId, String)> = Vec::new();
    for row in rows {
        let name = match (&row.repository, &row.tag) {
            (Some(_), Some(_)) => format!("{}:{}", row.repository_text(), row.tag_text()),
            (Some(_), None) => row.repository_text(),
            (None, _) => "<none>".to_owned(),
        };
        match texts.iter_mut().find(|(id, _)| *id == row.id) {
            Some((_, text)) => {
                // Writing to a String cannot fail.
                let _ = write!(text, ", {name}");
            }
            None => texts.push((row.id, name)),
        }
    }
    let id = |id: &ImageId| match style.no_trunc {
        true => id.to_string(),
        false => id.short(),
    };
    let text = |(image, names): &(ImageId, String)| format!("{names} ({})", id(image));
    texts.iter().map(text).collect()
}
