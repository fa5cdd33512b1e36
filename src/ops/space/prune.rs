//! `system prune`: everything that can go, in the order in which it must.

use crate::ops::build;
use crate::ops::container as containers;
use crate::ops::container::prune::{Filters as ContainerFilters, Pruned as ContainerPruned};
use crate::ops::image::prune::{self, Options};
use crate::ops::space::SpaceError;
use crate::ops::volume::prune as volume_prune;
use crate::ops::{image::trash, space::gc, volume as volumes};
use crate::store::{GcPlan, Store};

/// What goes, in this order.
#[derive(Debug)]
pub struct Parts {
    /// Stopped containers.
    pub containers: ContainerPruned,
    /// What interrupted work has left.
    pub leftovers: GcPlan,
    /// Ephemeral volumes whose time has come.
    pub ended: gc::Ended,
    /// What was in the trash.
    pub trash: trash::Emptied,
    /// Images that nothing uses.
    pub images: prune::Pruned,
    /// Volumes that nothing uses.
    pub volumes: volume_prune::Pruned,
    /// What only builds keep.
    pub builds: build::prune::Pruned,
}

impl Parts {
    /// Space that comes back.
    pub fn bytes(&self) -> u64 {
        let parts = [
            self.containers.bytes,
            self.leftovers.bytes,
            self.ended.bytes,
            self.trash.bytes,
            self.images.bytes,
            self.volumes.bytes,
            self.builds.bytes,
        ];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// What is asked for, part by part.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Where.
    pub store: &'a Store,
    /// Unless what was asked for is a matter of images only.
    pub containers: Option<ContainerFilters>,
    /// Which images.
    pub images: Options,
    /// If volumes go too.
    pub volumes: Option<volume_prune::Options>,
    /// The cache of builds goes too.
    pub builds: bool,
}

impl Plan<'_> {
    /// What would go. Changes nothing.
    pub fn rehearse(&self) -> Result<Parts, SpaceError> {
        let containers = match &self.containers {
            Some(filters) => containers::prune::rehearse(self.store, filters)?,
            None => ContainerPruned::default(),
        };
        let images = Options {
            without: containers.ids(),
            ..self.images.clone()
        };
        let volumes = match &self.volumes {
            None => volume_prune::Pruned::default(),
            Some(options) => {
                let options = volume_prune::Options {
                    without: containers.ids(),
                    ..options.clone()
                };
                volume_prune::rehearse(self.store, &options)?
            }
        };
        let images = prune::rehearse(self.store, &images)?;
        let builds = self.builds(build::prune::Options {
            dry_run: true,
            without_images: images.images(),
            without_containers: containers.ids(),
            ..build::prune::Options::default()
        })?;
        Ok(Parts {
            containers,
            leftovers: gc::gc(self.store, true)?,
            ended: gc::end_volumes(self.store, true),
            trash: trash::rehearse(self.store)?,
            images,
            volumes,
            builds,
        })
    }

    /// What builds keep and nothing else has.
    fn builds(&self, options: build::prune::Options) -> Result<build::prune::Pruned, SpaceError> {
        match self.builds {
            true => Ok(build::prune::prune(self.store, &options)?),
            false => Ok(build::prune::Pruned::default()),
        }
    }

    /// Removes; with `shown` no more than that.
    pub fn apply(&self, shown: Option<&Parts>) -> Result<Parts, SpaceError> {
        let store = self.store;
        let ids = shown.map(|shown| shown.containers.ids());
        // Containers first: they keep images and volumes.
        let containers = match &self.containers {
            Some(filters) => containers::prune::prune(store, filters, ids.as_ref())?,
            None => ContainerPruned::default(),
        };
        // Leftovers before images: a removal takes them with it, and then they would not be counted.
        let leftovers = gc::gc(store, false)?;
        let ended = gc::end_volumes(store, false);
        let trash = trash::empty(store)?;
        let ids = shown.map(|shown| shown.images.images());
        let images = prune::prune(store, &self.images, ids.as_ref())?;
        let volumes = match &self.volumes {
            None => volume_prune::Pruned::default(),
            Some(options) => {
                let names = shown.map(|shown| shown.volumes.volumes.iter().cloned().collect());
                let tell = || volumes::tell(store);
                volume_prune::prune(store, options, names.as_ref(), &tell)?
            }
        };
        // By now the images that go are gone.
        let builds = self.builds(build::prune::Options::default())?;
        Ok(Parts {
            builds,
            containers,
            leftovers,
            ended,
            trash,
            images,
            volumes,
        })
    }
}
