//! What a command of the host is to see: `mica hold -v` and `--mount`.

use std::collections::BTreeSet;

use crate::oci::ImageId;
use crate::ops::container::run::RunError;
use crate::ops::container::run::mounts::{Wanted, WantedSource};
use crate::ops::image::resolve;
use crate::ops::volume::VolumeError;
use crate::store::containers::{MountSource, MountUse};
use crate::store::{Store, VolumeName};

/// What to mount, and what has to stay for that.
#[derive(Debug, Default)]
pub struct Shown {
    /// Everything, as a container's record would have it.
    pub mounts: Vec<MountUse>,
    /// The volumes among it.
    pub volumes: Vec<VolumeName>,
    /// The images among it.
    pub images: Vec<ImageId>,
}

/// Finds what is wanted: volumes and images, nothing is made.
pub fn shown(store: &Store, wanted: &[Wanted]) -> Result<Shown, RunError> {
    let mut shown = Shown::default();
    let mut given = BTreeSet::new();
    for wanted in wanted {
        let at = wanted.destination.display();
        if !given.insert(&wanted.destination) {
            return Err(RunError::Refused(format!("Duplicate mount point: {at}")));
        }
        let source = match &wanted.source {
            WantedSource::Named { name, subpath } => {
                let missing = || VolumeError::NoSuch(name.clone());
                let parsed = VolumeName::parse(name).map_err(|_| missing())?;
                store.volume(&parsed)?.ok_or_else(missing)?;
                shown.volumes.push(parsed);
                MountSource::Volume {
                    name: name.clone(),
                    anonymous: false,
                    subpath: subpath.clone(),
                }
            }
            WantedSource::Image { image, subpath } => {
                let image = resolve::image(&*store.names()?, image)?.id;
                shown.images.push(image);
                MountSource::Image {
                    image,
                    subpath: subpath.clone(),
                }
            }
            WantedSource::Anonymous | WantedSource::Bind(_) | WantedSource::Tmpfs { .. } => {
                return Err(RunError::Refused(format!(
                    "{at}: a command of the host gets volumes and images, -v NAME:{at} or --mount type=image,src=IMAGE,dst={at}"
                )));
            }
        };
        shown.mounts.push(MountUse {
            destination: wanted.destination.clone(),
            source,
            read_only: wanted.read_only,
            no_copy: true,
        });
    }
    shown.volumes.sort();
    shown.volumes.dedup();
    Ok(shown)
}
