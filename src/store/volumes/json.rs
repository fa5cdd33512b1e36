//! [`Volumes`] as `volumes.json`. Keys that this version does not know are kept; a volume that says less than it
//! must, a name or id that is there twice, or a checksum that does not fit makes the whole file damaged.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::sum::Place;

use super::{Volume, VolumeId, VolumeKind, VolumeName, Volumes};

/// Another number is another layout of the file.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    volumes: Vec<Entry>,
    #[serde(default)]
    removed: Vec<VolumeId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    making: Vec<VolumeId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ended: BTreeMap<VolumeName, jiff::Timestamp>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: VolumeName,
    id: VolumeId,
    created: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    anonymous: bool,
    #[serde(flatten)]
    kind: Kind,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Kind {
    Persistent,
    Ephemeral {
        since: jiff::Timestamp,
        used: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle: Option<jiff::Timestamp>,
    },
    Bind {
        #[serde(with = "crate::store::files::path_text")]
        source: PathBuf,
        #[serde(rename = "readOnly", default)]
        read_only: bool,
        #[serde(default)]
        file: bool,
    },
}

/// The file's first key. A mica that does not know it keeps it, as the last.
const SUM: Place = Place {
    before: "{\n  \"sum\": \"",
    after: "\",",
};
const SUM_KEY: &str = "sum";

/// Keys of [`Entry`] that belong to a kind: not to be kept when the kind has changed.
const KIND_KEYS: &[&str] = &[
    "kind", "since", "used", "idle", "source", "readOnly", "file",
];

/// The bytes of `volumes.json`.
pub(super) fn write(volumes: &Volumes) -> Result<Vec<u8>, String> {
    let entries = volumes.by_name.values().map(|volume| Entry {
        name: volume.name.clone(),
        id: volume.id.clone(),
        created: volume.created,
        labels: volume.labels.clone(),
        anonymous: volume.anonymous,
        kind: match volume.kind.clone() {
            VolumeKind::Persistent => Kind::Persistent,
            VolumeKind::Ephemeral { since, used, idle } => Kind::Ephemeral { since, used, idle },
            VolumeKind::Bind {
                source,
                read_only,
                file,
            } => Kind::Bind {
                source,
                read_only,
                file,
            },
        },
        other: volume.other.clone(),
    });
    let document = Document {
        format: FORMAT,
        volumes: entries.collect(),
        removed: volumes.removed.iter().cloned().collect(),
        making: volumes.making.iter().cloned().collect(),
        ended: volumes.ended.clone(),
        other: volumes.other.clone(),
    };
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(|error| error.to_string())?;
    bytes.push(b'\n');
    Ok(SUM.seal(&bytes))
}

/// Reads `volumes.json`; the error says what is wrong.
pub(super) fn parse(bytes: &[u8]) -> Result<Volumes, String> {
    SUM.verify(bytes)?;
    let version: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version.format != FORMAT {
        return Err(format!(
            "format {} is not of this mica, use a newer one",
            version.format
        ));
    }
    let mut document: Document =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    document.other.remove(SUM_KEY);
    let mut volumes = Volumes {
        removed: document.removed.into_iter().collect(),
        making: document.making.into_iter().collect(),
        ended: document.ended,
        other: document.other,
        ..Volumes::default()
    };
    for mut entry in document.volumes {
        entry
            .other
            .retain(|key, _| !KIND_KEYS.contains(&key.as_str()));
        let volume = Volume {
            name: entry.name,
            id: entry.id,
            created: entry.created,
            labels: entry.labels,
            anonymous: entry.anonymous,
            kind: match entry.kind {
                Kind::Persistent => VolumeKind::Persistent,
                Kind::Ephemeral { since, used, idle } => {
                    VolumeKind::Ephemeral { since, used, idle }
                }
                Kind::Bind {
                    source,
                    read_only,
                    file,
                } => VolumeKind::Bind {
                    source,
                    read_only,
                    file,
                },
            },
            other: entry.other,
        };
        if let VolumeKind::Bind { source, .. } = &volume.kind
            && !source.is_absolute()
        {
            return Err(format!(
                "volume {}: its source is not absolute",
                volume.name
            ));
        }
        let same_id = volumes.by_name.values().any(|other| other.id == volume.id);
        let dead = volumes.removed.contains(&volume.id) || volumes.making.contains(&volume.id);
        if same_id || dead {
            return Err(format!("volume {}: its id is there twice", volume.name));
        }
        let name = volume.name.clone();
        if volumes.by_name.insert(name.clone(), volume).is_some() {
            return Err(format!("volume {name} is there twice"));
        }
    }
    Ok(volumes)
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}
