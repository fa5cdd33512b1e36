//! [`Names`] as an OCI image index.
//!
//! One entry per tag; a dangling image has one entry without `org.opencontainers.image.ref.name`. The first
//! entry of an image carries its facts (`io.mica.image.*`); the others only its ID. Times are RFC 3339 with
//! nanoseconds, layers are hex digits separated by blanks, origins a JSON array. Entries that say less, or
//! something twice, make the whole file damaged: mica guesses no names.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::names::{ImageRecord, Names, Origin, TagRecord, manifest_descriptor};
use crate::oci::{DiffId, Digest, ImageId, Platform, Repository, TagRef};

const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const FULL_NAME: &str = "io.containerd.image.name";
const TAGGED: &str = "io.mica.tagged";
const IMAGE: &str = "io.mica.image";
const LAYERS: &str = "io.mica.image.layers";
const CREATED: &str = "io.mica.image.created";
const SIZE: &str = "io.mica.image.size";
const ADDED: &str = "io.mica.image.added";
const ORIGINS: &str = "io.mica.image.origins";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<EntryPlatform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct EntryPlatform {
    architecture: String,
    os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct EntryOrigin {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    digest: Digest,
    #[serde(rename = "mediaType")]
    media_type: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unproved: Vec<u16>,
}

/// The bytes of `index.json` for `names`.
pub fn write(names: &Names) -> Result<Vec<u8>, String> {
    let mut manifests = Vec::with_capacity(names.tags.len());
    for image in names.images.values() {
        let mut facts = Some(image_facts(image)?);
        let mut entry = |name: BTreeMap<String, String>| {
            let mut annotations = facts.take().unwrap_or_default();
            annotations.insert(IMAGE.to_owned(), image.id.to_string());
            annotations.extend(name);
            Entry {
                media_type: image.manifest.media_type.0.clone(),
                digest: image.manifest.digest,
                size: image.manifest.size,
                platform: image.manifest.platform.as_ref().map(|p| EntryPlatform {
                    architecture: p.architecture.clone(),
                    os: p.os.clone(),
                    variant: p.variant.clone(),
                }),
                annotations,
            }
        };
        if image.tags.is_empty() {
            manifests.push(entry(BTreeMap::new()));
        }
        for tag in &image.tags {
            let record = names
                .tags
                .get(tag)
                .ok_or_else(|| format!("tag {tag} has no record"))?;
            manifests.push(entry(BTreeMap::from([
                (REF_NAME.to_owned(), tag.familiar()),
                (FULL_NAME.to_owned(), tag.canonical()),
                (TAGGED.to_owned(), time_text(record.tagged)?),
            ])));
        }
    }
    let document = Document {
        schema_version: 2,
        media_type: MEDIA_TYPE.to_owned(),
        manifests,
    };
    let mut bytes = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn image_facts(image: &ImageRecord) -> Result<BTreeMap<String, String>, String> {
    let layers: Vec<String> = image.layers.iter().map(DiffId::hex).collect();
    let mut facts = BTreeMap::from([
        (LAYERS.to_owned(), layers.join(" ")),
        (SIZE.to_owned(), image.size.to_string()),
        (ADDED.to_owned(), time_text(image.added)?),
    ]);
    if let Some(created) = image.created {
        facts.insert(CREATED.to_owned(), created.to_string());
    }
    if !image.origins.is_empty() {
        let origins: Vec<EntryOrigin> = image
            .origins
            .iter()
            .map(|origin| EntryOrigin {
                repository: origin.repository.as_ref().map(Repository::canonical),
                digest: origin.digest,
                media_type: origin.media_type.clone(),
                unproved: origin.unproved.clone(),
            })
            .collect();
        let text = serde_json::to_string(&origins).map_err(|error| error.to_string())?;
        facts.insert(ORIGINS.to_owned(), text);
    }
    Ok(facts)
}

/// Reads `index.json`; the error says what is wrong with which entry.
pub fn parse(bytes: &[u8]) -> Result<Names, String> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if document.schema_version != 2 {
        return Err(format!("schema version {}", document.schema_version));
    }
    let mut names = Names::default();
    for (number, entry) in document.manifests.into_iter().enumerate() {
        add(&mut names, entry).map_err(|reason| format!("entry {number}: {reason}"))?;
    }
    Ok(names)
}

fn add(names: &mut Names, mut entry: Entry) -> Result<(), String> {
    let id: ImageId = field(&entry, IMAGE)?
        .parse()
        .map_err(|error| format!("{IMAGE}: {error}"))?;
    if let Some(image) = names.images.get(&id) {
        if image.manifest.digest != entry.digest || image.manifest.size != entry.size {
            return Err(format!("image {id} has two manifests"));
        }
        if !entry.annotations.contains_key(REF_NAME) || image.tags.is_empty() {
            return Err(format!("image {id} is listed twice without a tag"));
        }
    } else {
        let platform = entry.platform.take().map(|p| Platform {
            os: p.os,
            architecture: p.architecture,
            variant: p.variant,
        });
        let mut manifest = manifest_descriptor(entry.digest, entry.size, platform);
        manifest.media_type.0 = std::mem::take(&mut entry.media_type);
        let image = read_facts(&entry, id, manifest)?;
        names.images.insert(id, image);
    }
    if entry.annotations.contains_key(REF_NAME) {
        let text = field(&entry, REF_NAME)?;
        let tag = TagRef::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
        let tagged = parse_time(field(&entry, TAGGED)?)?;
        if let Some(image) = names.images.get_mut(&id) {
            image.tags.insert(tag.clone());
        }
        if names.tags.insert(tag, TagRecord { id, tagged }).is_some() {
            return Err(format!("tag {text:?} is there twice"));
        }
    }
    Ok(())
}

fn read_facts(
    entry: &Entry,
    id: ImageId,
    manifest: crate::oci::Descriptor,
) -> Result<ImageRecord, String> {
    let mut layers = Vec::new();
    for hex in field(entry, LAYERS)?.split_ascii_whitespace() {
        let digest = Digest::from_hex(hex).map_err(|error| format!("{LAYERS}: {error}"))?;
        layers.push(DiffId(digest));
    }
    let created = match entry.annotations.get(CREATED) {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|error| format!("{CREATED}: {error}"))?,
        ),
    };
    let size = field(entry, SIZE)?
        .parse()
        .map_err(|error| format!("{SIZE}: {error}"))?;
    let origins = match entry.annotations.get(ORIGINS) {
        None => Vec::new(),
        Some(text) => parse_origins(text).map_err(|error| format!("{ORIGINS}: {error}"))?,
    };
    Ok(ImageRecord {
        id,
        manifest,
        layers,
        created,
        size,
        added: parse_time(field(entry, ADDED)?)?,
        origins,
        tags: Default::default(),
    })
}

fn parse_origins(text: &str) -> Result<Vec<Origin>, String> {
    let entries: Vec<EntryOrigin> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    entries
        .into_iter()
        .map(|entry| {
            let repository = match entry.repository {
                None => None,
                Some(name) => {
                    Some(Repository::parse(&name).map_err(|error| format!("{name:?}: {error}"))?)
                }
            };
            Ok(Origin {
                repository,
                digest: entry.digest,
                media_type: entry.media_type,
                unproved: entry.unproved,
            })
        })
        .collect()
}

fn field<'a>(entry: &'a Entry, key: &str) -> Result<&'a str, String> {
    entry
        .annotations
        .get(key)
        .map(String::as_str)
        .ok_or_else(|| format!("no annotation {key}"))
}

fn time_text(time: SystemTime) -> Result<String, String> {
    jiff::Timestamp::try_from(time)
        .map(|time| time.to_string())
        .map_err(|error| error.to_string())
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    text.parse::<jiff::Timestamp>()
        .map(SystemTime::from)
        .map_err(|error| format!("{text:?}: {error}"))
}
