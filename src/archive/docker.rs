//! docker's `manifest.json`: a list of images, each with the paths of its config and layers, and its names.

use serde::Deserialize;

use crate::oci::{Digest, Reference, TagRef};

use crate::archive::catalog::Catalog;
use crate::archive::error::{ArchiveError, Problem};
use crate::archive::image::{ArchiveImage, ArchiveLayer};
use crate::archive::path;
use crate::text::shown;

const DOCUMENT: &str = "manifest.json";

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

/// Whether a `manifest.json` is docker's list; skopeo's `dir:` has a manifest of that name.
pub(super) fn is_list(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{')
}

/// The images of a docker-archive.
pub(super) fn images(catalog: &Catalog, bytes: &[u8]) -> Result<Vec<ArchiveImage>, ArchiveError> {
    let entries = parse(catalog, bytes)?;
    if entries.is_empty() {
        return Err(catalog.fail(Problem::Nothing {
            document: DOCUMENT.to_owned(),
        }));
    }
    entries
        .into_iter()
        .map(|entry| image(catalog, entry))
        .collect()
}

/// Adds the names that `manifest.json` knows to images found by `index.json`.
pub(super) fn add_names(
    catalog: &Catalog,
    bytes: &[u8],
    images: &mut [ArchiveImage],
) -> Result<(), ArchiveError> {
    for entry in parse(catalog, bytes)? {
        let tags = tags(catalog, entry.repo_tags)?;
        let promised = path::normalise(&entry.config).and_then(|name| promised_config(&name));
        if let Some(image) = images.iter_mut().find(|i| Some(i.config.id.0) == promised) {
            image.tags.extend(tags);
            if !image.tags.is_empty() {
                image.notes.clear();
            }
        }
    }
    Ok(())
}

fn parse(catalog: &Catalog, bytes: &[u8]) -> Result<Vec<Entry>, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|e| {
        catalog.fail(Problem::Document {
            document: DOCUMENT.to_owned(),
            reason: e.to_string(),
        })
    })
}

fn image(catalog: &Catalog, entry: Entry) -> Result<ArchiveImage, ArchiveError> {
    let missing = |what, name: &str| {
        catalog.fail(Problem::Missing {
            document: DOCUMENT.to_owned(),
            what,
            name: shown(name),
        })
    };
    let tags = tags(catalog, entry.repo_tags)?;
    let found = catalog
        .locate(&entry.config)?
        .ok_or_else(|| missing("config", &entry.config))?;
    let config = catalog.config(&found, promised_config(&found.member))?;
    let paths = entry.layers.unwrap_or_default();
    catalog.check_count(DOCUMENT, &config, paths.len())?;
    let mut layers = Vec::with_capacity(paths.len());
    for (name, diff_id) in paths.iter().zip(&config.diff_ids) {
        let found = catalog
            .locate(name)?
            .ok_or_else(|| missing("layer", name))?;
        let blob = path::promised_blob(&found.member).and_then(|hex| Digest::from_hex(hex).ok());
        layers.push(ArchiveLayer {
            member: found.member,
            content: found.content,
            diff_id: *diff_id,
            blob,
        });
    }
    Ok(ArchiveImage {
        config,
        layers,
        alternatives: Vec::new(),
        tags,
        origins: Vec::new(),
        notes: Vec::new(),
    })
}

/// A config is named by its digest: `<hex>.json` or `blobs/sha256/<hex>`.
fn promised_config(member: &str) -> Option<Digest> {
    let hex = path::promised_blob(member)
        .or_else(|| member.strip_suffix(".json").filter(|hex| path::is_hex(hex)))?;
    Digest::from_hex(hex).ok()
}

/// As docker: each name must have a tag and no digest.
fn tags(catalog: &Catalog, names: Option<Vec<String>>) -> Result<Vec<TagRef>, ArchiveError> {
    let mut tags = Vec::new();
    for name in names.unwrap_or_default() {
        let reason = match Reference::parse(&name) {
            Ok(Reference {
                repository,
                tag: Some(tag),
                digest: None,
            }) => {
                tags.push(TagRef { repository, tag });
                continue;
            }
            Ok(_) => "it must be NAME:TAG".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(catalog.fail(Problem::Name {
            document: DOCUMENT.to_owned(),
            name: shown(&name),
            reason,
        }));
    }
    Ok(tags)
}
