//! OCI image layouts: `index.json`, nested indexes, manifests.
//!
//! Every entry of `index.json` is an image, or an index of one image for several platforms. Entries of one name are
//! platforms of one image; entries without a name are images of their own. A sole manifest is loaded whatever its
//! platform, as docker does; where there is a choice the wanted platform decides, by default this machine's.
//!
//! What a blob is says its content; [`ManifestOrIndex::parse`] refuses those that are both. Attestations are passed over, and so are
//! artifacts (charts, signatures) beside images, which is said.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::oci::{
    Descriptor, Digest, DocumentError, Manifest, ManifestOrIndex, MediaType, Platform,
};

use crate::archive::catalog::Catalog;
use crate::archive::error::{ArchiveError, Problem};
use crate::archive::image::{ArchiveImage, ArchiveLayer, OriginDocument};
use crate::archive::names::{self, Named};
use crate::text::shown;

/// Deepest nesting of indexes; real ones nest once.
const MAX_NESTING: usize = 8;
/// A manifest found and checked.
struct Found {
    digest: Digest,
    media_type: MediaType,
    bytes: Arc<[u8]>,
    manifest: Manifest,
}

struct Choice<'a> {
    catalog: &'a Catalog,
    wanted: Platform,
    /// Indexes that have nothing for the platform: each is looked through once, however many lead to it.
    barren: RefCell<HashSet<Digest>>,
}

/// The images of an `index.json`.
pub(super) fn images(
    catalog: &Catalog,
    bytes: &[u8],
    platform: Option<&Platform>,
) -> Result<Vec<ArchiveImage>, ArchiveError> {
    let document = "index.json";
    let bad = |reason: String| {
        catalog.fail(Problem::Document {
            document: document.to_owned(),
            reason,
        })
    };
    let entries = match ManifestOrIndex::parse(bytes, Some(&MediaType::oci_index()))
        .map_err(|e| bad(e.to_string()))?
    {
        ManifestOrIndex::Index(entries) => entries,
        ManifestOrIndex::Manifest(_) => {
            return Err(bad("a manifest where an index belongs".to_owned()));
        }
    };
    let entries: Vec<Descriptor> = entries
        .into_iter()
        .filter(|d| !d.is_attestation())
        .collect();
    if entries.is_empty() {
        return Err(catalog.fail(Problem::Nothing {
            document: document.to_owned(),
        }));
    }
    let choice = Choice {
        catalog,
        wanted: platform.cloned().unwrap_or_else(Platform::host),
        barren: RefCell::default(),
    };
    let mut images: Vec<ArchiveImage> = Vec::new();
    // An image with many names has as many entries, and is read once.
    let mut known: HashMap<Digest, usize> = HashMap::new();
    let mut artifacts = Vec::new();
    for entry in choice.top_level(document, &entries)? {
        let named = names::read(&entry.annotations).map_err(|(name, reason)| {
            catalog.fail(Problem::Name {
                document: document.to_owned(),
                name,
                reason,
            })
        })?;
        if let Some(image) = known.get(&entry.digest).and_then(|at| images.get_mut(*at)) {
            name(image, named);
            continue;
        }
        let found = match choice.resolve(document, &entry, 0) {
            Err(error) if matches!(error.problem, Problem::Artifact { .. }) => {
                artifacts.push(error);
                continue;
            }
            found => found?,
        };
        let mut image = image(catalog, found)?;
        name(&mut image, named);
        known.insert(entry.digest, images.len());
        images.push(image);
    }
    match images.first_mut() {
        Some(first) => {
            let notes = artifacts.into_iter();
            let notes = notes.map(|error| format!("passed over: {}", error.problem));
            first.notes.extend(notes);
        }
        None => artifacts.into_iter().next().map_or(Ok(()), Err)?,
    }
    Ok(images)
}

/// The image of skopeo's `dir:`, whose `manifest.json` is a manifest or an index, or of a bare manifest.
pub(super) fn single(
    catalog: &Catalog,
    bytes: &Arc<[u8]>,
    platform: Option<&Platform>,
) -> Result<ArchiveImage, ArchiveError> {
    let document = "manifest.json";
    let choice = Choice {
        catalog,
        wanted: platform.cloned().unwrap_or_else(Platform::host),
        barren: RefCell::default(),
    };
    let digest = Digest::of(bytes);
    let found = choice.parse(document, bytes, digest, None, 0)?;
    image(catalog, found)
}

impl Choice<'_> {
    /// The entries of `index.json` that are images to load.
    fn top_level(
        &self,
        document: &str,
        entries: &[Descriptor],
    ) -> Result<Vec<Descriptor>, ArchiveError> {
        let mut groups: Vec<(Option<&str>, Vec<Descriptor>)> = Vec::new();
        let mut places: HashMap<Option<&str>, usize> = HashMap::new();
        for entry in entries {
            let key = names::key(&entry.annotations);
            let place = *places.entry(key).or_insert(groups.len());
            match groups.get_mut(place) {
                Some((_, group)) => group.push(entry.clone()),
                None => groups.push((key, vec![entry.clone()])),
            }
        }
        let mut chosen: Vec<Descriptor> = Vec::new();
        for (key, mut group) in groups {
            group.dedup_by_key(|e| e.digest);
            let a_choice = group.len() > 1 && group.iter().all(|e| e.platform.is_some());
            match (a_choice, key) {
                // Two images of one name are refused when both are known.
                (false, _) => chosen.extend(group),
                (true, Some(_)) => match self.wanted.choose(&group) {
                    Some(best) => chosen.push(best.clone()),
                    None => return Err(self.no_platform(document, &group)),
                },
                (true, None) => {
                    let (fitting, others): (Vec<_>, Vec<_>) = group
                        .into_iter()
                        .partition(|d| d.platform.as_ref().is_some_and(|p| self.wanted.matches(p)));
                    if fitting.is_empty() {
                        return Err(self.no_platform(document, &others));
                    }
                    chosen.extend(fitting);
                }
            }
        }
        Ok(chosen)
    }

    fn no_platform(&self, document: &str, entries: &[Descriptor]) -> ArchiveError {
        let mut available: Vec<String> = entries
            .iter()
            .filter(|d| !d.is_attestation())
            .filter_map(|d| d.platform.as_ref())
            .map(|p| shown(&p.to_string()))
            .collect();
        available.dedup();
        let available = if available.is_empty() {
            "none".to_owned()
        } else {
            available.join(", ")
        };
        let wanted = self.wanted.to_string();
        self.catalog.fail(Problem::Platform {
            document: document.to_owned(),
            wanted,
            available,
        })
    }

    /// Follows a descriptor to one manifest.
    fn resolve(
        &self,
        parent: &str,
        entry: &Descriptor,
        depth: usize,
    ) -> Result<Found, ArchiveError> {
        let catalog = self.catalog;
        let found = catalog.blob(&entry.digest)?.ok_or_else(|| {
            let name = entry.digest.to_string();
            catalog.fail(Problem::Missing {
                document: parent.to_owned(),
                what: "manifest",
                name,
            })
        })?;
        check_size(catalog, &found.member, entry.size, found.content.length())?;
        let bytes = catalog.bytes(&found)?;
        catalog.check_digest(&found.member, &bytes, Some(entry.digest))?;
        let document = format!("manifest {}", entry.digest);
        self.parse(
            &document,
            &bytes,
            entry.digest,
            Some(&entry.media_type),
            depth,
        )
    }

    fn parse(
        &self,
        document: &str,
        bytes: &Arc<[u8]>,
        digest: Digest,
        declared: Option<&MediaType>,
        depth: usize,
    ) -> Result<Found, ArchiveError> {
        let catalog = self.catalog;
        let parsed = ManifestOrIndex::parse(bytes, declared).map_err(|error| {
            let (document, reason) = (document.to_owned(), error.to_string());
            catalog.fail(match error {
                DocumentError::Artifact(_) => Problem::Artifact { document, reason },
                _ => Problem::Document { document, reason },
            })
        })?;
        let entries = match parsed {
            ManifestOrIndex::Manifest(manifest) => {
                let media_type = declared.filter(|m| !m.0.is_empty()).cloned();
                let media_type = media_type.unwrap_or_else(MediaType::oci_manifest);
                return Ok(Found {
                    digest,
                    media_type,
                    bytes: Arc::clone(bytes),
                    manifest,
                });
            }
            ManifestOrIndex::Index(entries) => entries,
        };
        if depth >= MAX_NESTING {
            return Err(catalog.fail(Problem::Nesting {
                document: document.to_owned(),
                limit: MAX_NESTING,
            }));
        }
        let mut nothing = None;
        for candidate in self.wanted.candidates(&entries) {
            if self.barren.borrow().contains(&candidate.digest) {
                continue;
            }
            match self.resolve(document, candidate, depth + 1) {
                Err(error) if matches!(error.problem, Problem::Platform { .. }) => {
                    self.barren.borrow_mut().insert(candidate.digest);
                    nothing.get_or_insert(error);
                }
                found => return found,
            }
        }
        Err(nothing.unwrap_or_else(|| self.no_platform(document, &entries)))
    }
}

fn check_size(
    catalog: &Catalog,
    member: &str,
    expected: u64,
    actual: u64,
) -> Result<(), ArchiveError> {
    if expected == actual {
        return Ok(());
    }
    Err(catalog.fail(Problem::Size {
        name: shown(member),
        expected,
        actual,
    }))
}

/// Checks what a manifest says of config and layers, and locates them.
fn image(catalog: &Catalog, found: Found) -> Result<ArchiveImage, ArchiveError> {
    let document = format!("manifest {}", found.digest);
    let missing = |what, digest: &Digest| {
        catalog.fail(Problem::Missing {
            document: document.clone(),
            what,
            name: digest.to_string(),
        })
    };
    let descriptor = &found.manifest.config;
    let located = catalog
        .blob(&descriptor.digest)?
        .ok_or_else(|| missing("config", &descriptor.digest))?;
    check_size(
        catalog,
        &located.member,
        descriptor.size,
        located.content.length(),
    )?;
    let config = catalog.config(&located, Some(descriptor.digest))?;
    catalog.check_count(&document, &config, found.manifest.layers.len())?;
    let mut layers = Vec::with_capacity(config.diff_ids.len());
    for (layer, diff_id) in found.manifest.layers.iter().zip(&config.diff_ids) {
        let located = catalog
            .blob(&layer.digest)?
            .ok_or_else(|| missing("layer", &layer.digest))?;
        check_size(
            catalog,
            &located.member,
            layer.size,
            located.content.length(),
        )?;
        layers.push(ArchiveLayer {
            member: located.member,
            content: located.content,
            diff_id: *diff_id,
            blob: Some(layer.digest),
        });
    }
    let origin = OriginDocument {
        bytes: found.bytes,
        digest: found.digest,
        media_type: found.media_type,
        repository: None,
    };
    Ok(ArchiveImage {
        config,
        layers,
        alternatives: Vec::new(),
        tags: Vec::new(),
        origins: vec![origin],
        notes: Vec::new(),
    })
}

/// Adds what one entry of `index.json` says of the image's names.
fn name(image: &mut ArchiveImage, named: Named) {
    image.tags.extend(named.tag);
    image.notes.extend(named.note);
    let Some((repository, digest)) = named.digest else {
        return;
    };
    // The digest may be that of an index around the manifest, which is not kept.
    let served = image.origins.iter().find(|o| o.digest == digest).cloned();
    image.origins.extend(served.map(|origin| OriginDocument {
        repository: Some(repository),
        ..origin
    }));
}
