//! From the documents of an archive to its images: documents checked, layers located.

use std::collections::HashMap;

use serde::Deserialize;

use crate::archive::catalog::{Catalog, Located};
use crate::archive::error::{ArchiveError, Problem};
use crate::archive::image::ArchiveImage;
use crate::archive::{docker, oci};
use crate::oci::{Digest, ImageConfig, Platform, TagRef};
use crate::text::shown;

impl Catalog {
    /// The images of this archive. `platform` is what the user asked for; without, nested choices fall to this machine's.
    pub fn images(&self, platform: Option<&Platform>) -> Result<Vec<ArchiveImage>, ArchiveError> {
        self.check_layout_version()?;
        let index = self.document("index.json")?;
        let manifest = self.document("manifest.json")?;
        let images = match (index, manifest) {
            (Some(index), manifest) => {
                let mut images = oci::images(self, &index, platform)?;
                if let Some(manifest) = manifest.filter(|m| docker::is_list(m)) {
                    docker::add_names(self, &manifest, &mut images)?;
                }
                images
            }
            (None, Some(manifest)) if docker::is_list(&manifest) => {
                docker::images(self, &manifest)?
            }
            (None, Some(manifest)) => vec![oci::single(self, &manifest, platform)?],
            (None, None) => return Err(self.fail(Problem::NoImages)),
        };
        if let Some(wanted) = platform {
            for image in &images {
                let has = &image.config.platform;
                if !wanted.matches(has) {
                    let (document, available) =
                        (format!("config {}", image.config.id), has.to_string());
                    return Err(self.fail(Problem::Platform {
                        document,
                        wanted: wanted.to_string(),
                        available,
                    }));
                }
            }
        }
        self.merge(images)
    }

    fn check_layout_version(&self) -> Result<(), ArchiveError> {
        #[derive(Deserialize)]
        struct Layout {
            #[serde(rename = "imageLayoutVersion")]
            version: String,
        }
        let Some(bytes) = self.document("oci-layout")? else {
            return Ok(());
        };
        let document = "oci-layout".to_owned();
        let layout: Layout = serde_json::from_slice(&bytes).map_err(|e| {
            self.fail(Problem::Document {
                document: document.clone(),
                reason: e.to_string(),
            })
        })?;
        match layout.version.split('.').next() {
            Some("1") => Ok(()),
            _ => {
                let reason = format!("unknown image layout version {}", shown(&layout.version));
                Err(self.fail(Problem::Unsupported { document, reason }))
            }
        }
    }

    /// Joins the entries of one image, and refuses two images of one name.
    fn merge(&self, images: Vec<ArchiveImage>) -> Result<Vec<ArchiveImage>, ArchiveError> {
        let mut merged: Vec<ArchiveImage> = Vec::new();
        for image in images {
            let Some(known) = merged.iter_mut().find(|m| m.config.id == image.config.id) else {
                merged.push(image);
                continue;
            };
            known.alternatives.push(image.layers);
            known.tags.extend(image.tags);
            known.notes.extend(image.notes);
            for origin in image.origins {
                if !known
                    .origins
                    .iter()
                    .any(|o| o.digest == origin.digest && o.repository == origin.repository)
                {
                    known.origins.push(origin);
                }
            }
        }
        let mut owners: HashMap<TagRef, String> = HashMap::new();
        for image in &mut merged {
            let id = image.config.id.to_string();
            let mut unique: Vec<TagRef> = Vec::new();
            for tag in image.tags.drain(..) {
                match owners.insert(tag.clone(), id.clone()) {
                    None => unique.push(tag),
                    Some(other) if other == id => {}
                    Some(first) => {
                        let name = tag.familiar();
                        return Err(ArchiveError::new(
                            self.label(),
                            Problem::DuplicateName {
                                name,
                                first,
                                second: id,
                            },
                        ));
                    }
                }
            }
            image.tags = unique;
        }
        Ok(merged)
    }

    /// Parses a config and checks its digest.
    pub(super) fn config(
        &self,
        found: &Located,
        expected: Option<Digest>,
    ) -> Result<ImageConfig, ArchiveError> {
        self.count_config(found)?;
        let bytes = self.bytes(found)?;
        self.check_digest(&found.member, &bytes, expected)?;
        ImageConfig::parse(&bytes).map_err(|e| {
            self.fail(Problem::Document {
                document: format!("config {}", shown(&found.member)),
                reason: e.to_string(),
            })
        })
    }

    pub(super) fn check_digest(
        &self,
        member: &str,
        bytes: &[u8],
        expected: Option<Digest>,
    ) -> Result<(), ArchiveError> {
        let Some(expected) = expected else {
            return Ok(());
        };
        let actual = Digest::of(bytes);
        if actual == expected {
            return Ok(());
        }
        Err(self.fail(Problem::Digest {
            name: shown(member),
            expected,
            actual,
        }))
    }

    /// docker's check that a manifest and its config speak of the same layers.
    pub(super) fn check_count(
        &self,
        document: &str,
        config: &ImageConfig,
        layers: usize,
    ) -> Result<(), ArchiveError> {
        let expected = config.diff_ids.len();
        if expected == layers {
            return Ok(());
        }
        Err(self.fail(Problem::LayerCount {
            document: document.to_owned(),
            expected,
            actual: layers,
        }))
    }
}
