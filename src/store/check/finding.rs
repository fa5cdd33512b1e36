//! What a check can find.

use std::fmt;
use std::path::PathBuf;

use crate::oci::{DiffId, Digest, ImageId};
use crate::store::volumes::VolumeName;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// Whether the check mended it.
    pub repaired: bool,
}

impl Finding {
    /// Whether an image is harmed, as opposed to space being wasted.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self.problem,
            Problem::Unreferenced { .. }
                | Problem::DeadLease { .. }
                | Problem::Leftover { .. }
                | Problem::Foreign { .. }
                | Problem::VolumeStray { .. }
        )
    }
}

/// What a blob is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A layer's tar.
    Layer,
    /// An image's config.
    Config,
    /// An image's manifest.
    Manifest,
    /// A manifest as a registry or archive had it.
    Origin,
}

/// The kinds of findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// `index.json` cannot be understood.
    NamesDamaged {
        /// Why.
        reason: String,
    },
    /// `volumes.json` cannot be understood.
    VolumesDamaged {
        /// Why.
        reason: String,
    },
    /// A volume's directory is not there.
    VolumeMissing {
        /// Which.
        name: VolumeName,
        /// Where it should be.
        path: PathBuf,
    },
    /// A directory that no volume names: a creation cut short, or a volume that an older copy of `volumes.json` does not know.
    /// Never removed.
    VolumeStray {
        /// Which.
        path: PathBuf,
    },
    /// Something that a snapshot of containerd's needs is not there.
    Snapshot {
        /// What.
        fault: String,
    },
    /// A blob that images need is not there.
    BlobMissing {
        /// Which.
        digest: Digest,
        /// What it is for.
        role: Role,
        /// Who needs it.
        images: Vec<ImageId>,
    },
    /// A blob's bytes are not those of its name.
    BlobDamaged {
        /// Which.
        digest: Digest,
        /// What it is for.
        role: Role,
        /// Who needs it.
        images: Vec<ImageId>,
        /// The digest of what is there; `None` if it cannot be read at all.
        found: Option<Digest>,
    },
    /// A layer's tar is the right one, yet cannot be understood by this version.
    LayerUnreadable {
        /// Which.
        layer: DiffId,
        /// Why.
        reason: String,
    },
    /// A layer's index is missing or not what its tar gives.
    IndexDamaged {
        /// Which.
        layer: DiffId,
        /// What is wrong.
        reason: String,
    },
    /// What `index.json` says of an image disagrees with its documents.
    RecordWrong {
        /// Which.
        image: ImageId,
        /// How.
        reason: String,
    },
    /// A file that nothing reaches.
    Unreferenced {
        /// Which.
        path: PathBuf,
        /// Disk space.
        bytes: u64,
    },
    /// A lease whose holder is dead.
    DeadLease {
        /// Its file.
        path: PathBuf,
    },
    /// Something a dead process left.
    Leftover {
        /// Where.
        path: PathBuf,
    },
    /// A file that is not mica's. Never removed.
    Foreign {
        /// Where.
        path: PathBuf,
    },
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Layer => "layer",
            Role::Config => "config",
            Role::Manifest => "manifest",
            Role::Origin => "original manifest",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)?;
        if self.repaired {
            f.write_str(" (repaired)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::NamesDamaged { reason } => write!(
                f,
                "index.json is damaged: {reason}; put a good copy in its place"
            ),
            Problem::VolumesDamaged { reason } => write!(
                f,
                "volumes.json is damaged: {reason}; put a good copy in its place (the data under volumes/ is untouched)"
            ),
            Problem::VolumeMissing { name, path } => write!(
                f,
                "volume {name} has lost its data: {} is missing; put it back or remove the volume",
                path.display()
            ),
            Problem::VolumeStray { path } => write!(
                f,
                "{} belongs to no volume that volumes.json names; remove it if nothing in it is needed",
                path.display()
            ),
            Problem::Snapshot { fault } => {
                write!(
                    f,
                    "{fault}; remove what containerd has of it, and pull again"
                )
            }
            Problem::BlobMissing {
                digest,
                role,
                images,
            } => {
                write!(
                    f,
                    "{role} {digest} is missing; load again: {}",
                    list(images)
                )
            }
            Problem::BlobDamaged {
                digest,
                role,
                images,
                found,
            } => {
                write!(f, "{role} {digest} is damaged")?;
                match found {
                    Some(found) => write!(f, " (its bytes are {found})")?,
                    None => f.write_str(" (it cannot be read)")?,
                }
                write!(f, "; load again: {}", list(images))
            }
            Problem::LayerUnreadable { layer, reason } => {
                write!(f, "layer {layer} cannot be understood: {reason}")
            }
            Problem::IndexDamaged { layer, reason } => write!(
                f,
                "the index of layer {layer} is damaged: {reason}; `mica check --repair` rebuilds it"
            ),
            Problem::RecordWrong { image, reason } => write!(f, "image {image}: {reason}"),
            Problem::Unreferenced { path, bytes } => write!(
                f,
                "{} is used by nothing ({bytes} bytes); `mica gc` removes it",
                path.display()
            ),
            Problem::DeadLease { path } => {
                write!(f, "{} was left by a process that died", path.display())
            }
            Problem::Leftover { path } => {
                write!(f, "{} was left by a process that died", path.display())
            }
            Problem::Foreign { path } => write!(f, "{:?} is not mica's", path),
        }
    }
}

fn list(images: &[ImageId]) -> String {
    let short: Vec<String> = images.iter().map(ImageId::short).collect();
    short.join(", ")
}
