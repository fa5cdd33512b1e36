//! [`Names`] as an OCI image index.
//!
//! One entry per tag; a dangling image has one entry without `org.opencontainers.image.ref.name`. The first
//! entry of an image carries its facts (`io.mica.image.*`); the others only its ID. An image in the trash has one entry, too. Times are RFC 3339 with
//! nanoseconds, layers are hex digits separated by blanks, origins a JSON array. Entries that say less, or
//! something twice, make the whole file damaged: mica guesses no names. So does a checksum that does not fit.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::image_record::{ImageRecord, Origin};
use super::names::{Names, TagRecord, manifest_descriptor};
use super::sum::Place;
use super::trash::Trashed;
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
const PARENT: &str = "io.mica.image.parent";
const PINNED: &str = "io.mica.pinned";
/// What was removed and can be brought back, as a JSON array, with the facts of its image.
const TRASH: &str = "io.mica.image.trash";
/// On an image that is itself in the trash.
const IN_TRASH: &str = "io.mica.image.in-trash";
/// An annotation of the index itself.
const SUM: Place = Place {
    before: "{\"annotations\":{\"io.mica.sum\":\"",
    after: "\"},",
};

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

#[derive(Serialize, Deserialize)]
struct EntryTrashed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    removed: jiff::Timestamp,
    until: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    origins: Vec<EntryOrigin>,
}

/// The bytes of `index.json` for `names`.
///
/// It is written at each change, whole: what all entries of an image have in common is made once, and a tag's own part is text.
pub(super) fn write(names: &Names) -> Result<Vec<u8>, String> {
    let empty = Document {
        schema_version: 2,
        media_type: MEDIA_TYPE.to_owned(),
        manifests: Vec::new(),
    };
    let mut bytes = SUM.begin(names.tags.len().saturating_mul(512));
    let empty = open(&empty, "]}")?;
    bytes.extend_from_slice(empty.strip_prefix(b"{").unwrap_or(&empty));
    let begin = bytes.len();
    let mut time = LastTime::default();
    let mut repository = LastRepository::default();
    let images = names.images.values().map(|image| (image, false));
    let trashed = names.trash.images.values().map(|image| (image, true));
    for (image, in_trash) in images.chain(trashed) {
        let mut facts = image_facts(image)?;
        facts.extend(trash_facts(names, &image.id, in_trash)?);
        let facts = open(&entry(image, facts), "}}")?;
        let plain = open(&entry(image, BTreeMap::new()), "}}")?;
        let next = |bytes: &mut Vec<u8>, first: bool| {
            if bytes.len() > begin {
                bytes.push(b',');
            }
            bytes.extend_from_slice(if first { &facts } else { &plain });
        };
        if image.tags.is_empty() || in_trash {
            next(&mut bytes, true);
            bytes.extend_from_slice(b"}}");
            continue;
        }
        // As a rule the next tag of the image is the next of all.
        let mut all = names.tags.iter();
        for (number, tag) in image.tags.iter().enumerate() {
            let mut found = all.next().filter(|(next, _)| *next == tag);
            if found.is_none() {
                all = names.tags.range_from(tag);
                found = all.next().filter(|(next, _)| *next == tag);
            }
            let (_, record) = found.ok_or_else(|| format!("tag {tag} has no record"))?;
            next(&mut bytes, number == 0);
            let (familiar, canonical) = repository.text(&tag.repository)?;
            annotate(&mut bytes, REF_NAME, &[familiar, ":", tag.tag.as_str()]);
            annotate(&mut bytes, FULL_NAME, &[canonical, ":", tag.tag.as_str()]);
            annotate(&mut bytes, TAGGED, &[time.text(record.tagged)?]);
            if record.pinned {
                annotate(&mut bytes, PINNED, &["true"]);
            }
            bytes.extend_from_slice(b"}}");
        }
    }
    bytes.extend_from_slice(b"]}\n");
    SUM.finish(&mut bytes);
    Ok(bytes)
}

/// An entry of `image` with its ID and these annotations.
fn entry(image: &ImageRecord, mut annotations: BTreeMap<String, String>) -> Entry {
    annotations.insert(IMAGE.to_owned(), image.id.to_string());
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
}

/// `value` without its `end`: more of what it ends with can follow.
fn open(value: &impl Serialize, end: &str) -> Result<Vec<u8>, String> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    match bytes.ends_with(end.as_bytes()) {
        true => bytes.truncate(bytes.len() - end.len()),
        false => return Err(format!("an entry does not end with {end}")),
    }
    Ok(bytes)
}

/// One more annotation, behind others; of texts that are in JSON what they are.
fn annotate(bytes: &mut Vec<u8>, key: &str, value: &[&str]) {
    bytes.extend_from_slice(b",\"");
    bytes.extend_from_slice(key.as_bytes());
    bytes.extend_from_slice(b"\":\"");
    for part in value {
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.push(b'"');
}

/// The texts of the last repository, as they are between quotes in JSON; a tag has nothing that would be another text there.
#[derive(Default)]
struct LastRepository(Option<(Repository, String, String)>);

impl LastRepository {
    fn text(&mut self, repository: &Repository) -> Result<(&str, &str), String> {
        if self.0.as_ref().is_none_or(|(last, ..)| last != repository) {
            let text = |name: String| {
                let text = serde_json::to_string(&name).map_err(|error| error.to_string())?;
                Ok::<_, String>(text.trim_matches('"').to_owned())
            };
            let (familiar, canonical) = (repository.familiar(), repository.canonical());
            self.0 = Some((repository.clone(), text(familiar)?, text(canonical)?));
        }
        let texts = self.0.as_ref().map(|(_, one, two)| (&**one, &**two));
        Ok(texts.unwrap_or_default())
    }
}

/// The text of the last time: one verb tags many at one moment.
#[derive(Default)]
struct LastTime(Option<(SystemTime, String)>);

impl LastTime {
    fn text(&mut self, time: SystemTime) -> Result<&str, String> {
        if self.0.as_ref().is_none_or(|(last, _)| *last != time) {
            self.0 = Some((time, time_text(time)?));
        }
        Ok(self.0.as_ref().map_or("", |(_, text)| text))
    }
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
    if let Some(parent) = image.parent {
        facts.insert(PARENT.to_owned(), parent.to_string());
    }
    if !image.origins.is_empty() {
        let origins = entry_origins(&image.origins);
        let text = serde_json::to_string(&origins).map_err(|error| error.to_string())?;
        facts.insert(ORIGINS.to_owned(), text);
    }
    Ok(facts)
}

fn entry_origins(origins: &[Origin]) -> Vec<EntryOrigin> {
    let entry = |origin: &Origin| EntryOrigin {
        repository: origin.repository.as_ref().map(Repository::canonical),
        digest: origin.digest,
        media_type: origin.media_type.clone(),
        unproved: origin.unproved.clone(),
    };
    origins.iter().map(entry).collect()
}

/// What the trash has of an image.
fn trash_facts(
    names: &Names,
    id: &ImageId,
    in_trash: bool,
) -> Result<BTreeMap<String, String>, String> {
    let mut facts = BTreeMap::new();
    let of_image = names.trash.entries.iter().filter(|entry| entry.id == *id);
    let entry = |entry: &Trashed| {
        Ok(EntryTrashed {
            name: entry.name.as_ref().map(TagRef::familiar),
            removed: timestamp(entry.removed)?,
            until: timestamp(entry.until)?,
            origins: entry_origins(&entry.origins),
        })
    };
    let entries: Vec<EntryTrashed> = of_image.map(entry).collect::<Result<_, String>>()?;
    if !entries.is_empty() {
        let text = serde_json::to_string(&entries).map_err(|error| error.to_string())?;
        facts.insert(TRASH.to_owned(), text);
    }
    if in_trash {
        facts.insert(IN_TRASH.to_owned(), "true".to_owned());
    }
    Ok(facts)
}

/// Reads `index.json`; the error says what is wrong with which entry.
pub(super) fn parse(bytes: &[u8]) -> Result<Names, String> {
    SUM.verify(bytes)?;
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
    if names.trash.images.contains_key(&id) {
        return Err(format!("image {id} is in the trash and listed again"));
    }
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
        if let Some(text) = entry.annotations.get(TRASH) {
            let entries = parse_trash(text, id).map_err(|error| format!("{TRASH}: {error}"))?;
            names.trash.entries.extend(entries);
        }
        if entry.annotations.contains_key(IN_TRASH) {
            if entry.annotations.contains_key(REF_NAME) {
                return Err(format!("image {id} is in the trash and has a tag"));
            }
            names.trash.images.insert(id, image);
            return Ok(());
        }
        names.images.insert(id, image);
    }
    if entry.annotations.contains_key(REF_NAME) {
        let text = field(&entry, REF_NAME)?;
        let tag = TagRef::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
        let tagged = parse_time(field(&entry, TAGGED)?)?;
        if let Some(image) = names.images.get_mut(&id) {
            image.tags.insert(tag.clone());
        }
        let pinned = entry.annotations.contains_key(PINNED);
        let record = TagRecord { id, tagged, pinned };
        if names.tags.insert(tag, record).is_some() {
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
    let parent = match entry.annotations.get(PARENT) {
        None => None,
        Some(text) => Some(text.parse().map_err(|error| format!("{PARENT}: {error}"))?),
    };
    Ok(ImageRecord {
        id,
        parent,
        manifest,
        layers,
        created,
        size,
        added: parse_time(field(entry, ADDED)?)?,
        origins,
        tags: Default::default(),
    })
}

fn parse_trash(text: &str, id: ImageId) -> Result<Vec<Trashed>, String> {
    let entries: Vec<EntryTrashed> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let entry = |entry: EntryTrashed| {
        let name = entry.name.as_deref().map(TagRef::parse).transpose();
        Ok(Trashed {
            name: name.map_err(|error| error.to_string())?,
            id,
            removed: entry.removed.into(),
            until: entry.until.into(),
            origins: origins_of(entry.origins)?,
        })
    };
    entries.into_iter().map(entry).collect()
}

fn parse_origins(text: &str) -> Result<Vec<Origin>, String> {
    origins_of(serde_json::from_str(text).map_err(|e| e.to_string())?)
}

fn origins_of(entries: Vec<EntryOrigin>) -> Result<Vec<Origin>, String> {
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
    timestamp(time).map(|time| time.to_string())
}

fn timestamp(time: SystemTime) -> Result<jiff::Timestamp, String> {
    jiff::Timestamp::try_from(time).map_err(|error| error.to_string())
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    text.parse::<jiff::Timestamp>()
        .map(SystemTime::from)
        .map_err(|error| format!("{text:?}: {error}"))
}
