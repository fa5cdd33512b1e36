//! Making a container: its record, its volumes, its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::oci::{ImageConfig, Platform};
use crate::ops::container::run::mounts::{self, Wanted, WantedSource, check_bind};
use crate::ops::container::run::{RunError, env, names, security};
use crate::ops::{container as containers, image::resolve};
use crate::store::containers::{
    Container, ContainerConfig, ContainerId, ContainerLock, ContainerRecord, MountSource, MountUse,
    Security, Status, Ulimit,
};
use crate::store::volumes::{NewVolume, VolumeKind, VolumeName};
use crate::store::{Store, StoreLock};
use crate::sys::idmap::IdMap;

/// The options of `run`, read but not looked at.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--name`.
    pub name: Option<String>,
    /// `--rm`.
    pub auto_remove: bool,
    /// `-d`.
    pub detached: bool,
    /// `-i`.
    pub open_stdin: bool,
    /// `-t`.
    pub tty: bool,
    /// `-v`, `--mount`, `--tmpfs`, in order.
    pub mounts: Vec<Wanted>,
    /// `--volumes-from`.
    pub volumes_from: Vec<String>,
    /// `-w`.
    pub working_dir: Option<String>,
    /// `-e` and `--env-file`, `NAME=value`, in order.
    pub env: Vec<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--entrypoint`; an empty one takes the image's away.
    pub entrypoint: Option<String>,
    /// `-h`.
    pub hostname: Option<String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--init`.
    pub init: bool,
    /// `--stop-signal`.
    pub stop_signal: Option<String>,
    /// `--add-host`, as lines.
    pub extra_hosts: Vec<String>,
    /// Size of `/dev/shm`, if not the usual.
    pub shm_size: Option<u64>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// The platform that the image must be for.
    pub platform: Option<Platform>,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt`, read.
    pub security: Security,
    /// The ids of the container's user namespace; `None` for root.
    pub ids: Option<IdMap>,
}

/// A container made, ready to be started.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// The right to run it.
    pub lock: ContainerLock,
    /// Destinations of volumes that get the image's content if they are empty.
    pub fresh: BTreeSet<PathBuf>,
}

/// Makes a container of `image` that will run `command`, or what the image says.
pub fn create(
    store: &Store,
    image: &str,
    command: &[String],
    options: &Options,
) -> Result<Created, RunError> {
    if let Some(name) = &options.name
        && !names::is_valid(name)
    {
        return Err(RunError::Refused(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    let lock = store.lock()?;
    let all = store.names()?;
    let found = resolve::image(&all, image)?;
    let config = store.config(&found.id)?;
    check_platform(image, &config, options.platform.as_ref())?;
    let record_of = all.images.get(&found.id);
    let layers = record_of
        .map(|record| record.layers.clone())
        .unwrap_or_default();
    let others = store.containers()?;
    let taken = |name: &str| others.iter().find(|other| other.record.name == name);
    let name = match &options.name {
        Some(name) => match taken(name) {
            Some(other) => {
                return Err(RunError::NameTaken {
                    name: name.clone(),
                    id: other.record.id.clone(),
                });
            }
            None => name.clone(),
        },
        None => names::random(|name| taken(name).is_some())
            .map_err(RunError::io("naming the container"))?,
    };
    let id = ContainerId::random().map_err(RunError::io("naming the container"))?;
    let hostname = options
        .hostname
        .clone()
        .unwrap_or_else(|| id.short().to_owned());
    if hostname.is_empty()
        || hostname.len() > 63
        || hostname.bytes().any(|b| b.is_ascii_control() || b == b' ')
    {
        return Err(RunError::Refused(format!(
            "invalid hostname format: {hostname}"
        )));
    }
    let process = process(&config, command, options)?;
    let capabilities = security::capabilities(&options.cap_add, &options.cap_drop, |number| {
        security::is_available(number, options.ids.is_some())
    })?;
    let (uses, fresh) = uses(store, &lock, &config, options)?;
    let record = ContainerRecord {
        version: crate::store::containers::RECORD_VERSION,
        id,
        name,
        image: found.id,
        image_name: image.to_owned(),
        layers,
        created: jiff::Timestamp::now(),
        config: process,
        mounts: uses,
        auto_remove: options.auto_remove,
        detached: options.detached,
        read_only: options.read_only,
        init: options.init,
        hostname,
        extra_hosts: options.extra_hosts.clone(),
        shm_size: options.shm_size,
        ulimits: options.ulimits.clone(),
        capabilities,
        security: options.security.clone(),
        ids: options.ids.clone(),
    };
    let (container, held) = store.create_container(record, &lock)?;
    Ok(Created {
        container,
        lock: held,
        fresh,
    })
}

pub(in crate::ops) fn check_platform(
    image: &str,
    config: &ImageConfig,
    wanted: Option<&Platform>,
) -> Result<(), RunError> {
    if let Some(wanted) = wanted
        && !wanted.matches(&config.platform)
    {
        return Err(RunError::Refused(format!(
            "image {image} was found but its platform ({}) does not match the specified platform ({wanted})",
            config.platform
        )));
    }
    let host = Platform::host();
    let (have, want) = (&config.platform, &host);
    // A 64-bit x86 processor and its kernel run 32-bit programs.
    let runs = have.architecture == want.architecture
        || (want.architecture == "amd64" && have.architecture == "386");
    if have.os == want.os && runs {
        return Ok(());
    }
    Err(RunError::Refused(format!(
        "image {image} is for {have} and this machine is {want}: its programs do not run here; pull the image for this machine (--platform {want})"
    )))
}

/// The image's configuration with the options applied, as docker merges them.
fn process(
    image: &ImageConfig,
    command: &[String],
    options: &Options,
) -> Result<ContainerConfig, RunError> {
    let given = (!command.is_empty()).then(|| command.to_vec());
    let (entrypoint, cmd) = match &options.entrypoint {
        // Another entry point takes the image's command away too.
        Some(text) => ((!text.is_empty()).then(|| vec![text.clone()]), given),
        None => (
            image.run.entrypoint.clone(),
            given.or_else(|| image.run.cmd.clone()),
        ),
    };
    let args = entrypoint.iter().chain(&cmd).flatten().count();
    if args == 0 {
        return Err(RunError::Refused("no command specified".to_owned()));
    }
    // What was asked for and no more: the defaults of every container are added when it starts.
    let mut variables = Vec::new();
    for variable in image.run.env.iter().chain(&options.env) {
        env::set(&mut variables, variable);
    }
    let mut labels = image.run.labels.clone();
    labels.extend(options.labels.clone());
    let working_dir = options.working_dir.clone();
    if let Some(dir) = &working_dir
        && !dir.starts_with('/')
    {
        return Err(RunError::Refused(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        )));
    }
    Ok(ContainerConfig {
        user: options
            .user
            .clone()
            .unwrap_or_else(|| image.run.user.clone()),
        env: variables,
        entrypoint,
        cmd,
        working_dir: working_dir.unwrap_or_else(|| image.run.working_dir.clone()),
        labels,
        stop_signal: options
            .stop_signal
            .clone()
            .unwrap_or_else(|| image.run.stop_signal.clone()),
        tty: options.tty,
        open_stdin: options.open_stdin,
    })
}

/// What the container sees, in docker's order of precedence: what it inherits, what it is given, what its image asks for.
/// Volumes that do not exist yet are made.
fn uses(
    store: &Store,
    lock: &StoreLock,
    image: &ImageConfig,
    options: &Options,
) -> Result<(Vec<MountUse>, BTreeSet<PathBuf>), RunError> {
    let declared = image.run.volumes.len();
    if declared > MAX_VOLUMES {
        return Err(RunError::Refused(format!(
            "the image wants {declared} volumes, and more than {MAX_VOLUMES} are not made for a container"
        )));
    }
    let mut making = Making {
        store,
        new: Vec::new(),
    };
    let mut uses: BTreeMap<PathBuf, MountUse> = BTreeMap::new();
    for text in &options.volumes_from {
        let (name, read_only) = mounts::parse_volumes_from(text)?;
        let from = containers::find(store, name)?;
        for mount in &from.record.mounts {
            let mut mount = mount.clone();
            mount.read_only |= read_only;
            // It ended with all who used it, and the volume with it.
            if let MountSource::Volume {
                name,
                anonymous: true,
                ..
            } = &mount.source
                && store.volume(&volume_name(name)?)?.is_none()
            {
                mount.source = making.anonymous()?;
            }
            uses.insert(mount.destination.clone(), mount);
        }
    }
    let mut given = BTreeSet::new();
    let mut fresh = BTreeSet::new();
    for wanted in &options.mounts {
        if !given.insert(wanted.destination.clone()) {
            return Err(RunError::Refused(format!(
                "Duplicate mount point: {}",
                wanted.destination.display()
            )));
        }
        // Everything is looked at before anything is made.
        check(store, wanted)?;
    }
    for wanted in &options.mounts {
        let source = making.source(wanted)?;
        if matches!(source, MountSource::Volume { .. }) && !wanted.no_copy {
            fresh.insert(wanted.destination.clone());
        }
        uses.insert(
            wanted.destination.clone(),
            MountUse {
                destination: wanted.destination.clone(),
                source,
                read_only: wanted.read_only,
                no_copy: wanted.no_copy,
            },
        );
    }
    for text in &image.run.volumes {
        let destination = mounts::normal(text).map_err(RunError::Refused)?;
        if uses.contains_key(&destination) {
            continue;
        }
        let source = making.anonymous()?;
        fresh.insert(destination.clone());
        uses.insert(
            destination.clone(),
            MountUse {
                destination,
                source,
                read_only: false,
                no_copy: false,
            },
        );
    }
    making.finish(lock)?;
    let mut uses: Vec<MountUse> = uses.into_values().collect();
    uses.sort_by_key(|mount| mount.destination.components().count());
    Ok((uses, fresh))
}

fn check(store: &Store, wanted: &Wanted) -> Result<(), RunError> {
    match &wanted.source {
        WantedSource::Bind(path) => check_bind(store, path),
        WantedSource::Named { name, .. } => volume_name(name).map(drop),
        WantedSource::Image { image, .. } => {
            resolve::image(&*store.names()?, image)?;
            Ok(())
        }
        WantedSource::Anonymous | WantedSource::Tmpfs { .. } => Ok(()),
    }
}

fn volume_name(text: &str) -> Result<VolumeName, RunError> {
    VolumeName::parse(text).map_err(|error| RunError::Refused(error.to_string()))
}

/// So many volumes an image can ask for: each is a directory, made and synced while the store is locked.
const MAX_VOLUMES: usize = 128;

/// Volumes to be made, all in one step.
struct Making<'s> {
    store: &'s Store,
    new: Vec<NewVolume>,
}

impl Making<'_> {
    fn source(&mut self, wanted: &Wanted) -> Result<MountSource, RunError> {
        Ok(match &wanted.source {
            WantedSource::Bind(path) => MountSource::Bind {
                source: path.clone(),
            },
            WantedSource::Tmpfs {
                size,
                mode,
                options,
            } => MountSource::Tmpfs {
                options: options.clone(),
                size: *size,
                mode: *mode,
            },
            WantedSource::Image { image, subpath } => MountSource::Image {
                image: resolve::image(&*self.store.names()?, image)?.id,
                subpath: subpath.clone(),
            },
            WantedSource::Anonymous => self.anonymous()?,
            WantedSource::Named { name, subpath } => {
                let parsed = volume_name(name)?;
                let wanted = self.new.iter().any(|new| new.name == parsed);
                if !wanted && self.store.volume(&parsed)?.is_none() {
                    self.store.check_not_ended(&parsed)?;
                    self.new.push(NewVolume {
                        name: parsed,
                        kind: VolumeKind::Persistent,
                        labels: BTreeMap::new(),
                        anonymous: false,
                        ownership: None,
                    });
                }
                MountSource::Volume {
                    name: name.clone(),
                    anonymous: false,
                    subpath: subpath.clone(),
                }
            }
        })
    }

    /// A volume without a name, which goes with its last user.
    fn anonymous(&mut self) -> Result<MountSource, RunError> {
        let name = VolumeName::anonymous().map_err(RunError::io("naming a volume"))?;
        self.new.push(NewVolume {
            name: name.clone(),
            kind: VolumeKind::ephemeral(),
            labels: BTreeMap::new(),
            anonymous: true,
            ownership: None,
        });
        Ok(MountSource::Volume {
            name: name.as_str().to_owned(),
            anonymous: true,
            subpath: String::new(),
        })
    }

    fn finish(self, lock: &StoreLock) -> Result<(), RunError> {
        match self.new.is_empty() {
            true => Ok(()),
            false => Ok(self.store.create_volumes(lock, self.new).map(drop)?),
        }
    }
}

/// Makes the anonymous volumes of a container anew that have gone since it last ran; the destinations of those, and of all volumes
/// of one that has never run: what is empty there gets the image's content.
pub(crate) fn renew_volumes(
    store: &Store,
    container: &Container,
) -> Result<(Vec<MountUse>, BTreeSet<PathBuf>), RunError> {
    let mut uses = container.record.mounts.clone();
    let is_new = matches!(container.state.status, Status::Created);
    let volumes = uses.iter().filter(|mount| {
        is_new && !mount.no_copy && matches!(mount.source, MountSource::Volume { .. })
    });
    let mut fresh: BTreeSet<PathBuf> = volumes.map(|mount| mount.destination.clone()).collect();
    let lock = store.lock()?;
    let mut making = Making {
        store,
        new: Vec::new(),
    };
    for mount in &mut uses {
        let MountSource::Volume {
            name,
            anonymous: true,
            ..
        } = &mount.source
        else {
            continue;
        };
        if store.volume(&volume_name(name)?)?.is_none() {
            mount.source = making.anonymous()?;
            fresh.insert(mount.destination.clone());
        }
    }
    making.finish(&lock)?;
    Ok((uses, fresh))
}

/// Whether `path` is one of the places that `fresh` names.
pub(crate) fn is_fresh(fresh: &BTreeSet<PathBuf>) -> impl Fn(&Path) -> bool + '_ {
    |path| fresh.contains(path)
}
