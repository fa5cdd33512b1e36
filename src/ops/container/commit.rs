//! `mica commit`: what a container has changed becomes a layer, its configuration that of a new image.
//!
//! Plan: the container, its image's layers held against collection, the changes to the configuration parsed. Apply: the
//! upper directory streams through scanner and hash straight into the store; then one step names the image. Volumes and
//! other mounts are not in the upper directory, so they are never part of it.
//!
//! As docker's: the configuration is the container's (its environment, command and user, not only the image's), then the
//! changes, and nothing that only that run had; the new step of the history says the container's command; a container that has changed nothing adds a step
//! without a layer.

pub(in crate::ops) mod upper;

use jiff::Timestamp;

use crate::layer::from_dir::{self, FromDirError};
use crate::layer::merged::Image;
use crate::layer::{IndexError, Limits};
use crate::oci::change::{self, Change, ChangeError};
use crate::oci::config::Step;
use crate::oci::{DocumentError, ImageConfig, ImageId, RunConfig, TagRef};
use crate::ops::container::run::env;
use crate::ops::transfer::ingest::{self as intake, IntakeError, ProduceError};
use crate::store::containers::{Container, ContainerRecord, MountSource};
use crate::store::{Event, NewImage, Store, StoreError};
use crate::sys::freeze::{self, Frozen};

/// What to commit and as what.
#[derive(Debug)]
pub struct Options<'a> {
    /// The container.
    pub container: &'a Container,
    /// The new image's name; without one it is dangling.
    pub target: Option<TagRef>,
    /// Who made it.
    pub author: &'a str,
    /// What for.
    pub message: &'a str,
    /// Changes to its configuration.
    pub changes: Vec<Change>,
    /// When.
    pub now: Timestamp,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The new image.
    pub id: ImageId,
    /// Sockets that no layer can hold.
    pub sockets: u64,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A change that does not apply.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// What the container left cannot be read, or is no layer.
    #[error("container {name}: {source}")]
    Upper {
        /// Its name.
        name: String,
        /// Why not.
        source: Box<FromDirError>,
    },
    /// The layer that it makes is refused.
    #[error("container {name}: {reason}")]
    Layer {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Its processes cannot be stopped.
    #[error("cannot pause container {name}: {source} (--pause=false commits without)")]
    Pause {
        /// Its name.
        name: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The new configuration is none.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The image's layers do not fit together.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store refuses or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommitError {
    /// Whether docker's daemon says this.
    pub fn is_daemons(&self) -> bool {
        match self {
            CommitError::Change(_) => true,
            CommitError::Upper { .. }
            | CommitError::Layer { .. }
            | CommitError::Pause { .. }
            | CommitError::Document(_)
            | CommitError::Index(_)
            | CommitError::Store(_) => false,
        }
    }
}

/// Makes an image of a container; what was [`pause`]d goes on as soon as its files are read. The mounts are for the caller
/// to notify.
pub fn commit(
    store: &Store,
    options: &Options<'_>,
    frozen: Option<Frozen>,
) -> Result<Committed, CommitError> {
    let container = options.container;
    let record = &container.record;
    let config = store.config(&record.image)?;
    let mut run = configuration(&config.run, record);
    change::apply(&options.changes, &mut run)?;

    let import = store.begin_import()?;
    for layer in &record.layers {
        // Held from now on; if it is not there, opening it says so.
        import.has_layer(layer)?;
    }
    let layers = record.layers.iter().map(|layer| store.open_layer(layer));
    let base = Image::new(layers.collect::<Result<_, _>>()?)?;
    let directory = container.upper();
    let source = upper::source(container, &directory, &base);
    // It is the user's own, and on the same disk already.
    let limits = Limits {
        max_total_bytes: u64::MAX,
        keep_free: Some(0),
        ..Limits::default()
    };
    let streamed = intake::produce(&import, &limits, |out| from_dir::write(&source, out));
    drop(frozen);
    let (layer, written) = streamed.map_err(|error| failed(error, &record.name))?;

    let layer = (written.entries > 0).then_some(layer);
    let created_by = record.config.cmd.as_deref().unwrap_or_default().join(" ");
    let step = Step {
        created: options.now,
        author: options.author,
        comment: options.message,
        created_by: &created_by,
        layer,
        run: &run,
    };
    let config = ImageConfig::child(Ok(&config), &step)?;
    let id = config.id;
    let new = NewImage {
        layers: config.diff_ids.clone(),
        config,
        tags: options.target.iter().cloned().collect(),
        origins: Vec::new(),
    };
    import.commit_from(Some(record.image), vec![new])?;
    let event = Event::now("container", "commit", record.id.as_str())
        .with("name", &record.name)
        .with("image", &record.image_name)
        .with("imageID", id)
        .with("comment", options.message);
    store.note(&[event]);
    Ok(Committed {
        id,
        sockets: written.sockets,
    })
}

/// As the error of committing the container `name`.
fn failed(error: ProduceError<FromDirError>, name: &str) -> CommitError {
    let layer = |reason: String| CommitError::Layer {
        name: name.to_owned(),
        reason,
    };
    match error {
        ProduceError::Producer(source) => CommitError::Upper {
            name: name.to_owned(),
            source: Box::new(source),
        },
        ProduceError::Intake(IntakeError::Store(error)) => error.into(),
        ProduceError::Intake(error) => layer(error.to_string()),
    }
}

/// The image's configuration with what `run` was told.
fn configuration(image: &RunConfig, record: &ContainerRecord) -> RunConfig {
    let own = &record.config;
    let mut run = RunConfig {
        user: own.user.clone(),
        env: env::with_values(&own.env).cloned().collect(),
        entrypoint: own.entrypoint.clone(),
        cmd: own.cmd.clone(),
        working_dir: own.working_dir.clone(),
        labels: own.labels.clone(),
        stop_signal: own.stop_signal.clone(),
        ..image.clone()
    };
    // docker: `-v /path` is part of the configuration, volumes with a name are the host's business.
    for mount in &record.mounts {
        if let MountSource::Volume {
            anonymous: true, ..
        } = mount.source
            && let Some(path) = mount.destination.to_str()
        {
            run.volumes.push(path.to_owned());
        }
    }
    run.volumes.sort();
    run.volumes.dedup();
    run
}

/// Stops the processes of a container that runs, until the answer is dropped.
pub fn pause(container: &Container) -> Result<Option<Frozen>, CommitError> {
    let Some(pid) = container.state.status.pid() else {
        return Ok(None);
    };
    if container.is_paused() {
        // They stand still, and shall afterwards.
        return Ok(None);
    }
    let frozen = freeze::freeze(pid).map_err(|source| CommitError::Pause {
        name: container.record.name.clone(),
        source,
    })?;
    Ok(Some(frozen))
}
