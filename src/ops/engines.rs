//! Container engines that stand on images of the store, and what of it they use.
//!
//! Three traces. A container that runs has an overlay on the layers, in whatever mount namespace; one that does not run, and an
//! image that the engine has built on ours, is in the engine's own storage, whose place `mica system connect` has noted; what
//! containerd has is in the store itself, as snapshots. All lead to the topmost layer of ours that is used, by the id that it
//! has below its parents. The image that ends with it is in use; if there is none (any more), every image that has it is.

pub mod containerd;
pub mod podman;
mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::mount_paths::STORES;
use crate::oci::{ChainId, DiffId, Digest, ImageId};
use crate::store::{ImageRecord, LeaseKind, LiveLease, Names};
use crate::sys::mountinfo::{self, DeviceId};
use crate::sys::overlays::{Layer, Overlay};

/// The id of a layer below its parents, as containers/image computes it (`storage/storage_image.go`): the first one's is its
/// diff_id. Not the OCI chain ID, which hashes other text.
pub fn layer_id(parent: Option<&Digest>, diff_id: &DiffId) -> Digest {
    match parent {
        None => diff_id.0,
        Some(parent) => Digest::of(format!("{}+{}", parent.hex(), diff_id.hex()).as_bytes()),
    }
}

/// The ids of an image's layers, bottom first.
pub fn layer_ids(image: &ImageRecord) -> Vec<Digest> {
    let ids = image.layers.iter().scan(None, |parent, diff_id| {
        let id = layer_id(parent.as_ref(), diff_id);
        *parent = Some(id);
        Some(id)
    });
    ids.collect()
}

/// 26 digits of base32 (RFC 4648) of a layer's id: its name in `overlay/l`. containers/storage draws them by lot, here they are
/// the same after each mount.
pub fn link(id: &Digest) -> Box<str> {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let seed = Digest::of(id.as_bytes());
    let bytes = seed.as_bytes().iter();
    let bits: Vec<usize> = bytes
        .flat_map(|byte| (0..8).rev().map(move |bit| usize::from(byte >> bit & 1)))
        .collect();
    let digits = bits.chunks_exact(5).take(26).map(|five| {
        let value = five.iter().fold(0, |value, bit| value << 1 | bit);
        char::from(DIGITS.get(value).copied().unwrap_or(b'A'))
    });
    digits.collect::<String>().into()
}

/// How a use is named of which no engine is known.
const OVERLAY: &str = "overlay ";

/// A layer in use, and who uses it, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Use {
    layer: Digest,
    who: String,
}

/// Which of a store's images are used by engines, and by whom. `mounted`: the overlays of all mount namespaces.
///
/// # Errors
/// The mounts cannot be read. Storage of an engine that cannot be read is logged: nothing is known of it.
pub fn by_image(
    leases: &[LiveLease],
    names: &Names,
    mounted: &[Overlay],
) -> Result<BTreeMap<ImageId, Vec<String>>, std::io::Error> {
    let roots: Vec<&Path> = leases
        .iter()
        .filter_map(|lease| match &lease.record.kind {
            LeaseKind::Engine { graphroot } => Some(graphroot.as_path()),
            _ => None,
        })
        .collect();
    let snapshots = || {
        leases.iter().filter_map(|lease| match &lease.record.kind {
            LeaseKind::Snapshot { chain, name } => Some((chain, name)),
            _ => None,
        })
    };
    if mounted.is_empty() && roots.is_empty() && snapshots().next().is_none() {
        return Ok(BTreeMap::new());
    }
    let layers = Layers::of(names);
    let places = Places::of(leases)?;
    // A container sees its overlay as `/`; its engine, where it has mounted it.
    let mut by_device: BTreeMap<(u32, u32), Use> = BTreeMap::new();
    for overlay in mounted {
        if let Some(used) = layers.under(overlay, &places) {
            let known = by_device.entry((overlay.device.major, overlay.device.minor));
            let known = known.or_insert_with(|| used.clone());
            if known.who.starts_with(OVERLAY) {
                *known = used;
            }
        }
    }
    let mut uses: Vec<Use> = by_device.into_values().collect();
    for root in roots {
        match storage::uses(root, &layers.known) {
            Ok(found) => uses.extend(found),
            Err(error) => log::warn!("the engine's storage {}: {error}", root.display()),
        }
    }
    uses.extend(snapshots().filter_map(|(chain, name)| {
        Some(Use {
            layer: *layers.by_chain.get(chain)?,
            who: format!("containerd snapshot {name}"),
        })
    }));
    let mut found: BTreeMap<ImageId, Vec<String>> = BTreeMap::new();
    for used in uses {
        for id in layers.images_with(&used.layer) {
            let users = found.entry(id).or_default();
            if !users.contains(&used.who) {
                users.push(used.who.clone());
            }
        }
    }
    Ok(found)
}

/// Where this store's layers are mounted for engines. Another store may have the same layers.
struct Places {
    paths: Vec<PathBuf>,
    devices: Vec<DeviceId>,
}

impl Places {
    fn of(leases: &[LiveLease]) -> std::io::Result<Places> {
        let points = leases.iter().filter_map(LiveLease::mountpoint);
        let paths: Vec<PathBuf> = points.map(|point| point.join(STORES)).collect();
        let mounts = mountinfo::of_self()?;
        let here = mounts.iter().filter(|m| paths.contains(&m.mount_point));
        Ok(Places {
            devices: here.map(|mount| mount.device).collect(),
            paths,
        })
    }

    /// A container may see the overlay and not what is below it: then the text is all there is. Of a relative path nobody knows any
    /// more where it began: the name of a layer of ours counts, wherever it was.
    fn has(&self, lower: &Layer) -> bool {
        let is_on = |device| self.devices.contains(&device);
        lower.path.is_relative()
            || lower.device.is_some_and(is_on)
            || self.paths.iter().any(|p| lower.path.starts_with(p))
    }
}

/// The layers of a store's images.
struct Layers {
    known: BTreeSet<Digest>,
    by_link: BTreeMap<Box<str>, Digest>,
    by_chain: BTreeMap<ChainId, Digest>,
    /// By every layer they have, and by the topmost.
    having: BTreeMap<Digest, Vec<ImageId>>,
    topped: BTreeMap<Digest, Vec<ImageId>>,
}

impl Layers {
    fn of(names: &Names) -> Layers {
        let mut layers = Layers {
            known: BTreeSet::new(),
            by_link: BTreeMap::new(),
            by_chain: BTreeMap::new(),
            having: BTreeMap::new(),
            topped: BTreeMap::new(),
        };
        for image in names.images.values() {
            let ids = layer_ids(image);
            let chains = ChainId::chain(&image.layers).into_iter();
            layers.by_chain.extend(chains.zip(ids.iter().copied()));
            for id in &ids {
                if layers.known.insert(*id) {
                    layers.by_link.insert(link(id), *id);
                }
                layers.having.entry(*id).or_default().push(image.id);
            }
            if let Some(top) = ids.last() {
                layers.topped.entry(*top).or_default().push(image.id);
            }
        }
        layers
    }

    fn images_with(&self, layer: &Digest) -> Vec<ImageId> {
        let found = self.topped.get(layer).or_else(|| self.having.get(layer));
        found.cloned().unwrap_or_default()
    }

    /// The topmost layer of ours that an overlay stands on: by the short name or the directory of the store for engines.
    fn under(&self, overlay: &Overlay, places: &Places) -> Option<Use> {
        let mut lower = overlay.lower.iter().filter(|lower| places.has(lower));
        let layer = lower.find_map(|lower| self.at(&lower.path))?;
        Some(Use {
            layer,
            who: storage::owner_of(&overlay.mount_point)
                .unwrap_or_else(|| format!("{OVERLAY}{}", overlay.mount_point.display())),
        })
    }

    fn at(&self, path: &Path) -> Option<Digest> {
        let mut names = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        match names.next()? {
            "diff" => {
                let id = Digest::from_hex(names.next()?).ok()?;
                self.known.contains(&id).then_some(id)
            }
            name => match names.next() {
                Some("chains") => {
                    let chain = ChainId(Digest::from_hex(name).ok()?);
                    self.by_chain.get(&chain).copied()
                }
                _ => self.by_link.get(name).copied(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixtures::image;

    fn digest(hex: &str) -> Digest {
        Digest::from_hex(hex).unwrap()
    }

    #[test]
    fn layers_have_the_ids_that_podman_gives_them() {
        // Two layers of an image that buildah 1.28 built.
        let first = digest("47366eac5ff50c202b0a4ef22e69bf7b5aec54d15a84a828e0600691efd4e6d1");
        let second = digest("3a318670bced3913206f4340b1c461754b473c190e0ac5a0256a956ebfb53c9d");
        assert_eq!(layer_id(None, &DiffId(first)), first);
        assert_eq!(
            layer_id(Some(&first), &DiffId(second)).hex(),
            "f59c7762704081da2513736d462381cc598c578902303ed38b2624ba8466243f"
        );
    }

    #[test]
    fn links_are_26_digits_of_base32() {
        let one = link(&Digest::of(b"1"));
        assert_eq!(one.len(), 26);
        let is_digit = |b: u8| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b);
        assert!(one.bytes().all(is_digit));
        assert_eq!(one, link(&Digest::of(b"1")));
        assert_ne!(one, link(&Digest::of(b"2")));
    }

    #[test]
    fn an_overlay_uses_the_image_that_ends_with_its_topmost_layer() {
        let base = image("base", &["base:1"], &["a", "b"]);
        let app = image("app", &["app:1"], &["a", "b", "c"]);
        let mut names = Names::default();
        names.images.insert(base.id, base.clone());
        names.images.insert(app.id, app.clone());
        let layers = Layers::of(&names);
        let ids = layer_ids(&app);
        let on = |lower: Vec<String>| {
            let overlay = Overlay {
                device: DeviceId { major: 0, minor: 9 },
                mount_point: "/x".into(),
                lower: lower
                    .into_iter()
                    .map(|path| Layer {
                        path: path.into(),
                        device: None,
                        inside: None,
                    })
                    .collect(),
                upper: None,
            };
            let places = Places {
                paths: vec!["/m/stores".into()],
                devices: Vec::new(),
            };
            layers
                .under(&overlay, &places)
                .map(|used| layers.images_with(&used.layer))
        };
        let l = |n: usize| format!("/m/stores/containers/overlay/l/{}", link(&ids[n]));
        assert_eq!(on(vec![l(1), l(0)]), Some(vec![base.id]));
        // Of two of the engine's own and ours the first of ours counts.
        let own = || "l/AAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
        assert_eq!(on(vec![own(), l(2), l(1), l(0)]), Some(vec![app.id]));
        assert_eq!(
            on(vec![format!("/m/stores/c/overlay/{}/diff", ids[2].hex())]),
            Some(vec![app.id])
        );
        assert_eq!(on(vec![own(), "/usr/diff".to_owned()]), None);
        // From a working directory that nobody knows.
        assert_eq!(
            on(vec![format!("l/{}", link(&ids[1]))]),
            Some(vec![base.id])
        );
        let relative = format!("{}/diff", ids[2].hex());
        assert_eq!(on(vec![relative]), Some(vec![app.id]));
        // The same layer, of another store.
        assert_eq!(on(vec![l(2).replace("/m/", "/other/")]), None);
        // The image that ended with it is gone: whoever has the layer keeps it.
        let mut names = Names::default();
        names.images.insert(app.id, app.clone());
        assert_eq!(Layers::of(&names).images_with(&ids[1]), [app.id]);
    }
}
