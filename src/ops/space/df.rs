//! `system df`: what the images take on disk, and what of it would come back.
//!
//! Bytes are those allocated on disk: tars, indexes and documents together. Reclaimable is what removing every image that
//! nobody uses or has pinned would free: what only such images have, each thing counted once. Names and sizes are read, no content.

mod table;

pub use table::{COLUMNS, HEADER, Named, table, values, verbose};

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::oci::{Digest, ImageId};
use crate::store::containers::ContainerId;
use crate::store::{ImageRecord, LeaseKind, LiveLease, Names, Store, StoreError, gc};

use crate::ops::build;
use crate::ops::container as containers;
use crate::ops::image::list::Users;
use crate::ops::space::SpaceError;
use crate::ops::usage::volumes::Look;
use crate::ops::volume as volumes;
use crate::ops::volume::VolumeError;
use crate::ops::volume::list::{Filters, Row as VolumeRow};

/// Disk use of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Df {
    /// Images, with what they share counted once.
    pub images: Line,
    /// Containers: what they have changed.
    pub containers: Line,
    /// Volumes, without binds' data.
    pub volumes: Line,
    /// What builds keep for later builds; what images and containers have too is not counted.
    pub builds: Line,
    /// What interrupted work has left, for `mica gc`: files, and directories of files.
    pub leftovers: Line,
    /// Images that can be brought back; what other images have too is not counted.
    pub trash: Line,
    /// Imports in flight, in bytes: what has come so far of images that have no name yet.
    pub imports: u64,
    /// Everything in the store, its list of names included.
    pub total: u64,
    /// What each image has.
    pub of_image: BTreeMap<ImageId, OfImage>,
    /// What each container has changed, in bytes.
    pub of_container: HashMap<ContainerId, u64>,
    /// What each volume has, by name.
    pub of_volume: Vec<VolumeRow>,
}

/// One row of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Line {
    /// How many.
    pub count: usize,
    /// How many are in use.
    pub active: usize,
    /// Bytes on disk.
    pub size: u64,
    /// Bytes that would come back.
    pub reclaimable: u64,
}

/// Bytes of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OfImage {
    /// That other images have too.
    pub shared: u64,
    /// That removing this image alone would free.
    pub unique: u64,
}

/// Measures a store. `users`: how many use each image; see [`crate::ops::usage::images::by_image`].
pub fn of(
    store: &Store,
    names: &Names,
    leases: &[LiveLease],
    users: &Users,
) -> Result<Df, SpaceError> {
    let mut df = images(store, names, leases, users)?;
    df.add(walk(store, leases)?);
    Ok(df)
}

/// The same without what only a walk over every file of containers and volumes tells: [`walk`].
pub fn images(
    store: &Store,
    names: &Names,
    leases: &[LiveLease],
    users: &Users,
) -> Result<Df, StoreError> {
    let usage = store.disk_usage()?;
    let mut df = measure(&store.blob_sizes()?, names, leases, users);
    let layout = store.layout();
    let (mut private, mut elsewhere) = (usage.tmp_bytes, 0u64);
    for (path, bytes) in gc::estimate(store)? {
        df.leftovers.count += 1;
        df.leftovers.size += bytes;
        df.leftovers.reclaimable += bytes;
        // What is not of a dead import is of one in flight.
        if [layout.tmp(), layout.partial()]
            .iter()
            .any(|dir| path.starts_with(dir))
        {
            private = private.saturating_sub(bytes);
        } else {
            elsewhere += bytes;
        }
    }
    df.imports = df.imports.saturating_add(private);
    df.total = usage.total().saturating_add(elsewhere);
    Ok(df)
}

/// What containers, volumes and builds take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walked {
    containers: Line,
    volumes: Line,
    builds: Line,
    /// Directories that builds have mounted.
    mounts: u64,
    of_container: HashMap<ContainerId, u64>,
    of_volume: Vec<VolumeRow>,
}

/// Looks at every file of every container and volume: with many that takes long, and nobody may wait for it who serves others.
pub fn walk(store: &Store, leases: &[LiveLease]) -> Result<Walked, VolumeError> {
    #[cfg(test)]
    WALKS.set(WALKS.get() + 1);
    let mut walked = Walked::default();
    measure_containers(store, &mut walked)?;
    let cache = build::prune::usage(store)?;
    walked.builds = Line {
        count: cache.count,
        active: cache.active,
        size: cache.size,
        reclaimable: cache.size,
    };
    walked.mounts = cache.mounts;
    measure_volumes(store, leases, &mut walked)?;
    Ok(walked)
}

#[cfg(test)]
thread_local! {
    /// How often this thread has walked.
    pub(crate) static WALKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Df {
    /// Takes in what a walk has told.
    pub fn add(&mut self, walked: Walked) {
        let more = [walked.containers.size, walked.mounts, walked.volumes.size];
        self.total = more.into_iter().fold(self.total, u64::saturating_add);
        self.containers = walked.containers;
        self.volumes = walked.volumes;
        self.builds = walked.builds;
        self.of_container = walked.of_container;
        self.of_volume = walked.of_volume;
    }
}

fn measure_containers(store: &Store, df: &mut Walked) -> Result<(), VolumeError> {
    for container in store.containers()? {
        let size = containers::size(&container);
        df.containers.count += 1;
        df.containers.size += size;
        match container.is_running() {
            true => df.containers.active += 1,
            false => df.containers.reclaimable += size,
        }
        df.of_container.insert(container.record.id, size);
    }
    Ok(())
}

/// A daemon looks at this too: mappings are not looked at, since they can wait for what it is to deliver.
fn measure_volumes(
    store: &Store,
    leases: &[LiveLease],
    df: &mut Walked,
) -> Result<(), VolumeError> {
    let found = crate::ops::usage::volumes::find(store, leases, Look::default())?;
    df.of_volume = volumes::list::list(store, &Filters::default(), Some(&found), true)?;
    for row in &df.of_volume {
        let (size, used) = (row.size.unwrap_or(0), row.users.unwrap_or(0) > 0);
        df.volumes.count += 1;
        df.volumes.size += size;
        match used {
            true => df.volumes.active += 1,
            false => df.volumes.reclaimable += size,
        }
    }
    Ok(())
}

/// The same from the sizes of all blobs; without what is not a blob.
fn measure(sizes: &HashMap<Digest, u64>, names: &Names, leases: &[LiveLease], users: &Users) -> Df {
    let size = |digest: &Digest| sizes.get(digest).copied().unwrap_or(0);
    let is_used = |id: &ImageId| users.get(id).is_some_and(|count| *count > 0);
    let blobs = |image: &ImageRecord| image.blobs().collect::<BTreeSet<Digest>>();
    let held: BTreeSet<Digest> = leases.iter().flat_map(|l| &l.held).copied().collect();

    let trashed: BTreeSet<Digest> = names.trash.blobs().collect();

    // How many images have a blob; whether one of them is in use or pinned: pruning leaves both alone.
    let mut owners: HashMap<Digest, (usize, bool)> = HashMap::new();
    for image in names.images.values() {
        for digest in blobs(image) {
            let (count, used) = owners.entry(digest).or_default();
            *count += 1;
            *used |= is_used(&image.id) || image.tags.iter().any(|tag| names.is_pinned(tag));
        }
    }
    let mut images = Line {
        count: names.images.len(),
        active: names.images.keys().filter(|id| is_used(id)).count(),
        ..Line::default()
    };
    for (digest, (_, used)) in &owners {
        images.size += size(digest);
        if !used && !held.contains(digest) && !trashed.contains(digest) {
            images.reclaimable += size(digest);
        }
    }
    let of_image = names.images.values().map(|image| {
        let mut of_image = OfImage::default();
        for digest in blobs(image) {
            let alone = owners.get(&digest).is_some_and(|(count, _)| *count == 1);
            match alone && !held.contains(&digest) && !trashed.contains(&digest) {
                true => of_image.unique += size(&digest),
                false => of_image.shared += size(&digest),
            }
        }
        (image.id, of_image)
    });
    let of_image = of_image.collect();
    let mut trash = Line {
        count: names.trash.images.len(),
        ..Line::default()
    };
    for digest in trashed
        .iter()
        .filter(|d| !owners.contains_key(d) && !held.contains(d))
    {
        trash.size += size(digest);
    }
    trash.reclaimable = trash.size;
    let kept = leases.iter().filter(|l| l.record.kind == LeaseKind::Builds);
    let kept: BTreeSet<&Digest> = kept.flat_map(|l| &l.held).collect();
    let imports = held
        .iter()
        .filter(|digest| !owners.contains_key(digest) && !kept.contains(digest));
    let imports = imports.map(size).sum();
    let mut leftovers = Line::default();
    for (digest, size) in sizes {
        if !owners.contains_key(digest) && !held.contains(digest) && !trashed.contains(digest) {
            leftovers.count += 1;
            leftovers.size += size;
            leftovers.reclaimable += size;
        }
    }
    Df {
        images,
        containers: Line::default(),
        builds: Line::default(),
        volumes: Line::default(),
        leftovers,
        trash,
        imports,
        total: 0,
        of_image,
        of_container: HashMap::new(),
        of_volume: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fixtures::{diff_id, id, image, names};

    #[test]
    fn what_comes_back_is_counted_once() {
        let names = names([
            image("a", &["a"], &["base", "idle", "a"]),
            image("b", &["b", "b:2"], &["base", "idle", "b"]),
            image("c", &["c"], &["base", "c"]),
        ]);
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        for (layer, size) in [("base", 1000), ("idle", 200), ("a", 30), ("b", 4), ("c", 5)] {
            sizes.insert(diff_id(layer).0, size);
        }
        sizes.insert(Digest::of(b"stray"), 70_000);
        let users = Users::from([(id("c"), 2)]);
        let df = measure(&sizes, &names, &[], &users);
        assert_eq!(
            df.images,
            Line {
                count: 3,
                active: 1,
                size: 1239,
                reclaimable: 234
            }
        );
        assert_eq!(
            df.of_image[&id("a")],
            OfImage {
                shared: 1200,
                unique: 30
            }
        );
        assert_eq!(
            table(&df),
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          3         1         1.239kB   234B (18%)\n\
             Containers      0         0         0B        0B\n\
             Local Volumes   0         0         0B        0B\n\
             Build Cache     0         0         0B        0B\n\
             Leftovers       1         0         70kB      70kB (100%)\n"
        );
        let nobody = measure(&sizes, &names, &[], &Users::new());
        assert_eq!(nobody.images.reclaimable, nobody.images.size);
    }

    #[test]
    fn nothing_has_no_share() {
        let df = measure(&HashMap::new(), &Names::default(), &[], &Users::new());
        assert_eq!(
            table(&df),
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          0         0         0B        0B\n\
             Containers      0         0         0B        0B\n\
             Local Volumes   0         0         0B        0B\n\
             Build Cache     0         0         0B        0B\n"
        );
    }
}
