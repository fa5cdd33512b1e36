//! Manifests, indexes and descriptors (OCI image spec, docker schema 2), told apart by content and media type.
//!
//! Content decides what a document is; every media type that is stated, outside or inside, must agree with it
//! (CVE-2021-41190). Only values that passed leave this module: digests are sha256, sizes fit 63 bits, layers are tars.
//! Whether the config and the layers belong together is for whoever imports them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::digest::Digest;
use super::document::{DocumentError, MAX_LAYERS, MAX_MANIFEST_BYTES};
pub use super::media_type::MediaType;
use super::media_type::{
    DOCKER_CONFIG, DOCKER_FOREIGN, DOCKER_LAYER, Kind, MEANINGLESS, OCI_CONFIG, OCI_EMPTY,
    OCI_FOREIGN, OCI_LAYER,
};
use super::platform::Platform;
use super::{fields, json};

/// How a layer blob is compressed, as its media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerEncoding {
    /// A plain tar.
    Tar,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
    /// The media type says nothing: look at the bytes.
    Unknown,
}

/// A validated descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type; empty when the document gave none.
    pub media_type: MediaType,
    /// Digest.
    pub digest: Digest,
    /// Bytes; at most 2^63 - 1.
    pub size: u64,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Platform, in an index.
    pub platform: Option<Platform>,
}

/// An image manifest. Its config and layers are of an image's types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// Layers, bottom first.
    pub layers: Vec<Descriptor>,
}

/// What a manifest blob turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Manifest),
    /// A list of manifests, in the order of the document. Entries may be indexes again, and may be no images.
    Index(Vec<Descriptor>),
}

/// How types of layers begin. Those that may not be distributed are here all the same, or they are not found.
const LAYERS: [&str; 4] = [OCI_LAYER, DOCKER_LAYER, OCI_FOREIGN, DOCKER_FOREIGN];

impl Descriptor {
    /// How the layer is compressed; an error when this is no layer mica can read.
    pub fn layer_encoding(&self) -> Result<LayerEncoding, DocumentError> {
        let unsupported = || DocumentError::LayerMediaType {
            digest: self.digest,
            media_type: self.media_type.clone(),
        };
        let text = self.media_type.as_str();
        if MEANINGLESS.contains(&text) {
            return Ok(LayerEncoding::Unknown);
        }
        let suffix = LAYERS.iter().find_map(|prefix| text.strip_prefix(prefix));
        match suffix.ok_or_else(unsupported)? {
            "" => Ok(LayerEncoding::Tar),
            "+gzip" | ".gzip" => Ok(LayerEncoding::Gzip),
            "+zstd" | ".zstd" => Ok(LayerEncoding::Zstd),
            _ => Err(unsupported()),
        }
    }

    /// Whether it is called a layer of an image, whatever becomes of it.
    fn is_of_an_image(&self) -> bool {
        let text = self.media_type.as_str();
        MEANINGLESS.contains(&text) || LAYERS.iter().any(|prefix| text.starts_with(prefix))
    }

    /// Whether an index lists this as an attestation about another entry (buildkit's provenance and SBOM).
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown")
    }
}

impl Platform {
    /// The descriptors of an index that may lead to an image for this platform: first those for it, the best match first; then
    /// those that state no platform (their config or their own entries decide). Attestations and other entries for
    /// `unknown/unknown` never match.
    pub fn candidates<'a>(&self, index: &'a [Descriptor]) -> Vec<&'a Descriptor> {
        let rank = |d: &&Descriptor| d.platform.as_ref().and_then(|p| self.rank(p));
        let mut found: Vec<_> = index.iter().filter(|d| rank(d).is_some()).collect();
        // The first of equals wins, as in docker.
        found.sort_by_key(|d| std::cmp::Reverse(rank(d)));
        let silent = |d: &&Descriptor| d.platform.is_none() && !d.is_attestation();
        found.extend(index.iter().filter(silent));
        found
    }

    /// The first of [`Platform::candidates`].
    pub fn choose<'a>(&self, index: &'a [Descriptor]) -> Option<&'a Descriptor> {
        self.candidates(index).into_iter().next()
    }
}

impl ManifestOrIndex {
    /// Reads a manifest or an index. `declared` is the media type from the descriptor or the HTTP header, if any.
    pub fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<Self, DocumentError> {
        let raw: RawDocument = json::read(bytes, MAX_MANIFEST_BYTES, &fields::MANIFEST)?;
        let embedded = raw.media_type.as_deref().map(|t| MediaType(t.to_owned()));
        let kinds =
            [declared, embedded.as_ref()].map(|t| t.map_or(Kind::Meaningless, MediaType::kind));
        if raw.fs_layers.is_some()
            || raw.schema_version == Some(1)
            || kinds.contains(&Kind::Schema1)
        {
            return Err(DocumentError::Schema1);
        }
        let is_manifest = raw.config.is_some() || raw.layers.is_some();
        let found = match (is_manifest, raw.manifests.is_some()) {
            (true, true) => return Err(DocumentError::Ambiguous),
            (true, false) => Kind::Manifest,
            (false, true) => Kind::Index,
            // `"manifests": null` of an empty index; only a media type can tell.
            (false, false) if kinds.contains(&Kind::Index) && !kinds.contains(&Kind::Manifest) => {
                Kind::Index
            }
            (false, false) => return Err(DocumentError::NotAManifest),
        };
        for (media_type, kind) in [declared, embedded.as_ref()].into_iter().zip(kinds) {
            let Some(media_type) = media_type else {
                continue;
            };
            if kind == Kind::Other {
                return Err(DocumentError::UnsupportedMediaType(media_type.clone()));
            }
            if kind != Kind::Meaningless && kind != found {
                return Err(DocumentError::MediaTypeMismatch {
                    declared: media_type.clone(),
                    found: if found == Kind::Index {
                        "an index"
                    } else {
                        "an image manifest"
                    },
                });
            }
        }
        if let (Some(declared), Some(embedded)) = (declared, embedded)
            && kinds.iter().all(|k| *k != Kind::Meaningless)
            && declared.0.split(';').next().map(str::trim) != Some(embedded.as_str())
        {
            return Err(DocumentError::MediaTypeConflict {
                declared: declared.clone(),
                embedded,
            });
        }
        match raw.schema_version {
            None | Some(2) => {}
            Some(other) => return Err(DocumentError::SchemaVersion(other)),
        }
        match found {
            Kind::Index => {
                let entries = raw.manifests.unwrap_or_default().into_iter();
                let entries = entries
                    .map(|d| d.validate("manifests"))
                    .collect::<Result<_, _>>()?;
                Ok(ManifestOrIndex::Index(entries))
            }
            _ => Manifest::validate(raw).map(ManifestOrIndex::Manifest),
        }
    }
}

impl Manifest {
    /// Reads a manifest; an index is refused.
    pub fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<Self, DocumentError> {
        match ManifestOrIndex::parse(bytes, declared)? {
            ManifestOrIndex::Manifest(manifest) => Ok(manifest),
            ManifestOrIndex::Index(_) => Err(DocumentError::MediaTypeMismatch {
                declared: declared.cloned().unwrap_or_else(MediaType::oci_manifest),
                found: "an index",
            }),
        }
    }

    fn validate(raw: RawDocument) -> Result<Self, DocumentError> {
        let artifact = || MediaType(raw.artifact_type.clone().unwrap_or_default());
        let Some(config) = raw.config.clone() else {
            return Err(DocumentError::Artifact(artifact()));
        };
        let config = config.validate("config")?;
        match config.media_type.as_str() {
            OCI_CONFIG | DOCKER_CONFIG => {}
            text if MEANINGLESS.contains(&text) => {}
            OCI_EMPTY if raw.artifact_type.is_some() => {
                return Err(DocumentError::Artifact(artifact()));
            }
            _ => return Err(DocumentError::Artifact(config.media_type)),
        }
        let layers = raw.layers.unwrap_or_default();
        if layers.len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers(layers.len()));
        }
        let layers = layers
            .into_iter()
            .map(|d| d.validate("layers"))
            .collect::<Result<Vec<_>, _>>()?;
        // A signature has the config of an image and nothing of its layers.
        if let Some(first) = layers.first()
            && !layers.iter().any(Descriptor::is_of_an_image)
        {
            return Err(DocumentError::Artifact(first.media_type.clone()));
        }
        for layer in &layers {
            layer.layer_encoding()?;
        }
        Ok(Manifest { config, layers })
    }
}

/// Every field that tells one kind of document from another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default, deserialize_with = "json::nullable")]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: i64,
    #[serde(default, deserialize_with = "json::nullable")]
    annotations: BTreeMap<String, Option<String>>,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize, Clone)]
struct RawPlatform {
    #[serde(default, deserialize_with = "json::nullable")]
    os: String,
    #[serde(default, deserialize_with = "json::nullable")]
    architecture: String,
    variant: Option<String>,
}

impl RawDescriptor {
    fn validate(self, field: &'static str) -> Result<Descriptor, DocumentError> {
        let digest = self
            .digest
            .parse()
            .map_err(|error| DocumentError::Digest { field, error })?;
        let size = u64::try_from(self.size).map_err(|_| DocumentError::Size {
            field,
            size: self.size,
        })?;
        let annotations = self
            .annotations
            .into_iter()
            .map(|(k, v)| (k, v.unwrap_or_default()));
        let platform = self.platform.map(|p| Platform {
            os: p.os,
            architecture: p.architecture,
            variant: p.variant.filter(|v| !v.is_empty()),
        });
        Ok(Descriptor {
            media_type: MediaType(self.media_type),
            digest,
            size,
            annotations: annotations.collect(),
            // An empty platform object says as little as none.
            platform: platform.filter(|p| !(p.os.is_empty() && p.architecture.is_empty())),
        })
    }
}

#[cfg(test)]
mod tests;
