//! The image config document (OCI image spec config.md plus docker's fields), read leniently, never re-serialised.
//!
//! The exact bytes stay beside what was read from them: they are what the image ID is the digest of. Reading accepts
//! what Go's decoder accepts of docker's documents (`null` anywhere, a text for `Cmd`); a known field given twice is
//! refused. Whether history and layers agree is not checked: docker shows what is there.

mod child;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::digest::{DiffId, Digest, ImageId};
use super::document::{DocumentError, MAX_CONFIG_BYTES, MAX_LAYERS};
use super::fields;
use super::json::{self, nullable, nullable_list};
use super::platform::Platform;

pub use child::Step;

/// One line of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// RFC 3339 time as written, when given.
    pub created: Option<String>,
    /// The command.
    #[serde(deserialize_with = "nullable")]
    pub created_by: String,
    /// The comment.
    #[serde(deserialize_with = "nullable")]
    pub comment: String,
    /// The author.
    #[serde(deserialize_with = "nullable")]
    pub author: String,
    /// Whether the step made no layer.
    #[serde(deserialize_with = "nullable")]
    pub empty_layer: bool,
}

/// How containers of the image run: the `config` object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User, or user:group.
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    /// `80/tcp`, sorted.
    #[serde(deserialize_with = "set")]
    pub exposed_ports: Vec<String>,
    /// `NAME=value`, in order.
    #[serde(deserialize_with = "nullable_list")]
    pub env: Vec<String>,
    /// Entry point; `None` is another thing than an empty one.
    #[serde(deserialize_with = "text_or_list")]
    pub entrypoint: Option<Vec<String>>,
    /// Command; `None` is another thing than an empty one.
    #[serde(deserialize_with = "text_or_list")]
    pub cmd: Option<Vec<String>>,
    /// Mount points, sorted.
    #[serde(deserialize_with = "set")]
    pub volumes: Vec<String>,
    /// Working directory.
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "string_map")]
    pub labels: BTreeMap<String, String>,
    /// `SIGQUIT`.
    #[serde(deserialize_with = "nullable")]
    pub stop_signal: String,
    /// Windows: the command line is one escaped text.
    #[serde(deserialize_with = "nullable")]
    pub args_escaped: bool,
    /// How to probe the container's health.
    pub healthcheck: Option<Healthcheck>,
    /// Triggers for builds on top.
    #[serde(deserialize_with = "nullable_list")]
    pub on_build: Vec<String>,
    /// Shell for the shell form of RUN, CMD, ENTRYPOINT.
    #[serde(deserialize_with = "text_or_list")]
    pub shell: Option<Vec<String>>,
}

impl RunConfig {
    /// The shell of the shell form.
    pub fn shell_or_default(&self) -> Vec<String> {
        match &self.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }
}

/// docker's health check. Durations are nanoseconds; zero is "inherit".
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", ..]`, `["CMD-SHELL", ..]`.
    #[serde(deserialize_with = "nullable_list")]
    pub test: Vec<String>,
    /// Time between two probes.
    #[serde(deserialize_with = "nullable")]
    pub interval: i64,
    /// Time a probe may take.
    #[serde(deserialize_with = "nullable")]
    pub timeout: i64,
    /// Time before failures count.
    #[serde(deserialize_with = "nullable")]
    pub start_period: i64,
    /// Time between two probes during the start period.
    #[serde(deserialize_with = "nullable")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(deserialize_with = "nullable")]
    pub retries: i64,
}

/// A parsed image config beside its exact bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// sha256 of `bytes`.
    pub id: ImageId,
    /// The document as received.
    pub bytes: Vec<u8>,
    /// RFC 3339 time as written, when given.
    pub created: Option<String>,
    /// Who made it.
    pub author: String,
    /// docker's commit message.
    pub comment: String,
    /// Platform the image is for. What the document leaves out is the host's, as in docker.
    pub platform: Platform,
    /// Windows build number.
    pub os_version: String,
    /// How to run it.
    pub run: RunConfig,
    /// Layers, bottom first.
    pub diff_ids: Vec<DiffId>,
    /// History, oldest first; may be empty.
    pub history: Vec<HistoryEntry>,
}

impl ImageConfig {
    /// Reads a config; its ID is the digest of exactly these bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let raw: RawConfig = json::read(bytes, MAX_CONFIG_BYTES, &fields::CONFIG)?;
        let root_fs = raw.rootfs.ok_or(DocumentError::NoRootFs)?;
        if !matches!(root_fs.kind.as_str(), "" | "layers") {
            return Err(DocumentError::RootFsType(root_fs.kind));
        }
        if root_fs.diff_ids.len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers(root_fs.diff_ids.len()));
        }
        let field = "rootfs.diff_ids";
        let diff_ids = root_fs.diff_ids.iter().map(|text| text.parse::<DiffId>());
        let diff_ids = diff_ids
            .collect::<Result<_, _>>()
            .map_err(|error| DocumentError::Digest { field, error })?;
        let host = Platform::host();
        let or_host = |text: String, host: String| if text.is_empty() { host } else { text };
        Ok(ImageConfig {
            id: ImageId(Digest::of(bytes)),
            bytes: bytes.to_vec(),
            created: raw.created.filter(|text| !text.is_empty()),
            author: raw.author,
            comment: raw.comment,
            platform: Platform {
                os: or_host(raw.os, host.os),
                architecture: or_host(raw.architecture, host.architecture),
                variant: raw.variant.filter(|text| !text.is_empty()),
            },
            os_version: raw.os_version,
            run: raw.config,
            diff_ids,
            history: raw.history,
        })
    }

    /// When the image was made; `None` when the document does not say, or says no time.
    pub fn created_at(&self) -> Option<jiff::Timestamp> {
        self.created.as_deref().and_then(parse_time)
    }
}

impl HistoryEntry {
    /// When the step ran; `None` when the document does not say, or says no time.
    pub fn created_at(&self) -> Option<jiff::Timestamp> {
        self.created.as_deref().and_then(parse_time)
    }
}

/// RFC 3339 to a time. Go's zero time, year 1, stands for "not set".
fn parse_time(text: &str) -> Option<jiff::Timestamp> {
    const YEAR_1: i64 = -62_135_596_800;
    let time: jiff::Timestamp = text.parse().ok()?;
    (time.as_second() != YEAR_1).then_some(time)
}

#[derive(Deserialize)]
struct RawConfig {
    created: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    author: String,
    #[serde(default, deserialize_with = "nullable")]
    comment: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, rename = "os.version", deserialize_with = "nullable")]
    os_version: String,
    variant: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    config: RunConfig,
    rootfs: Option<RawRootFs>,
    #[serde(default, deserialize_with = "nullable_list")]
    history: Vec<HistoryEntry>,
}

#[derive(Deserialize)]
struct RawRootFs {
    #[serde(default, rename = "type", deserialize_with = "nullable")]
    kind: String,
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<String>,
}

/// Go's `map[string]struct{}`: only the keys matter.
fn set<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let map =
        Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(d)?.unwrap_or_default();
    Ok(map.into_keys().collect())
}

/// A map of texts that may be `null` and hold `null`s.
fn string_map<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = Option::<BTreeMap<String, Option<String>>>::deserialize(d)?.unwrap_or_default();
    Ok(map
        .into_iter()
        .map(|(k, v)| (k, v.unwrap_or_default()))
        .collect())
}

/// docker's `StrSlice`: a list, or one text for a list of one.
fn text_or_list<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum TextOrList {
        Text(String),
        List(Vec<Option<String>>),
    }
    Ok(
        Option::<TextOrList>::deserialize(d)?.map(|value| match value {
            TextOrList::Text(text) => vec![text],
            TextOrList::List(list) => list.into_iter().map(Option::unwrap_or_default).collect(),
        }),
    )
}

#[cfg(test)]
mod tests;
