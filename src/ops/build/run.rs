//! RUN: a container on top of the stage so far; what it has changed becomes a layer.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::arguments::{self, expand};
use super::copy::{Copying, How};
use super::mounts::{self, Kind, RunMount};
use super::moving::Counted;
use super::source::Source;
use super::stages::Builder;
use super::state::{State, record};
use super::{BuildError, End, Event, Execution, Ran, digest, secret};
use crate::layer::from_dir::{self, Written};
use crate::layer::merged::Image;
use crate::oci::change::Line;
use crate::oci::dockerfile::Run;
use crate::oci::{DiffId, Digest, ImageId};
use crate::ops::container::commit::upper;
use crate::ops::container::run::create::check_platform;
use crate::ops::container::run::mounts::{ReadyMount, ReadySource};
use crate::ops::container::run::{RunError, security};
use crate::ops::{container::run, transfer::ingest as intake};
use crate::store::containers::{
    Container, ContainerConfig, ContainerId, ContainerLock, ContainerRecord, RECORD_VERSION,
    Security,
};
use crate::store::{CacheMount, ImageRecord};
use crate::sys::{idmap, userns};

/// Where the script of a heredoc with its own interpreter is.
const SCRIPTS: &str = "/dev/pipes";

/// What a command sees besides, found.
#[derive(Default)]
struct Seen {
    mounts: Vec<ReadyMount>,
    images: Vec<ImageRecord>,
    env: Vec<String>,
    /// Held while the command runs.
    caches: Vec<CacheMount>,
}

impl Builder<'_> {
    pub(super) fn run(
        &mut self,
        at: usize,
        state: &mut State,
        run: &Run,
    ) -> Result<(), BuildError> {
        let variables = state.arguments.variables(&state.run.env);
        let mut wanted = Vec::new();
        for mount in &run.mounts {
            let mount = expand(mount, &variables, self.file.escape)?;
            wanted.push(mounts::parse(&mount, &state.run.working_dir)?);
        }
        let (args, scripts) = command(state, run);
        let own = state.arguments.beside(&state.run.env);
        let shown = args.join(" ");
        let created_by = match own.len() {
            0 => shown.clone(),
            count => format!("|{count} {} {shown}", own.join(" ")),
        };
        // The trees of binds come first: their content is part of what the step depends on.
        let mut trees = Vec::new();
        for mount in &wanted {
            trees.push(match &mount.kind {
                Kind::Bind { from, source } => Some(self.bound(from.as_deref(), source, at)?),
                _ => None,
            });
        }
        let mut key = self.key("run", state);
        key.list(&args).list(&state.run.env).list(&own);
        key.add(state.run.user.as_bytes())
            .add(state.run.working_dir.as_bytes());
        key.list(&self.options.extra_hosts);
        key.add(format!("{wanted:?}{scripts:?}").as_bytes());
        for tree in trees.iter().flatten() {
            key.add(tree.digest.as_bytes());
        }
        let key = key.finish();
        self.step(state, &[key], &created_by, |builder, state| {
            let mut seen = builder.seen(&wanted, trees)?;
            seen.mounts.extend(scripts);
            let mut env = arguments::predefined(&builder.options.arguments);
            env.extend(own);
            env.append(&mut seen.env);
            builder.execute(state, args, env, seen, &shown)
        })
    }

    /// What the mounts of a step are.
    fn seen(&mut self, wanted: &[RunMount], trees: Vec<Option<Bound>>) -> Result<Seen, BuildError> {
        let mut seen = Seen::default();
        for (mount, tree) in wanted.iter().zip(trees) {
            let source = match (&mount.kind, tree) {
                (Kind::Bind { .. }, Some(bound)) => {
                    let id = bound.record.id;
                    seen.images.push(bound.record);
                    ReadySource::Image {
                        image: id,
                        subpath: bound.subpath,
                    }
                }
                (Kind::Bind { .. }, None) => continue,
                (Kind::Tmpfs { size }, _) => ReadySource::Tmpfs {
                    size: *size,
                    mode: 0o1777,
                    options: Default::default(),
                },
                (
                    Kind::Cache {
                        id,
                        alone,
                        uid,
                        gid,
                        mode,
                    },
                    _,
                ) => {
                    let id = Digest::of(id.as_bytes());
                    let cache = self.store.cache_mount(&id, *alone)?;
                    if cache.is_new {
                        self.prepare(&cache.data, (*uid, *gid), *mode)?;
                    }
                    let data = cache.within.clone();
                    seen.caches.push(cache);
                    ReadySource::Volume {
                        data,
                        subpath: PathBuf::new(),
                        fill: false,
                    }
                }
                (
                    Kind::Secret {
                        id,
                        required,
                        uid,
                        gid,
                        mode,
                        env,
                        file,
                    },
                    _,
                ) => {
                    let Some(found) = self.options.secrets.get(id) else {
                        if *required {
                            return Err(BuildError::Failed(format!("secret {id}: not found")));
                        }
                        continue;
                    };
                    let content = secret(found)?;
                    if let Some(name) = env {
                        let text = String::from_utf8(content.clone()).map_err(|_| {
                            BuildError::Failed(format!(
                                "secret {id}: not valid UTF-8, so no variable"
                            ))
                        })?;
                        seen.env.push(format!("{name}={text}"));
                    }
                    if !file {
                        continue;
                    }
                    ReadySource::Text {
                        content,
                        mode: *mode,
                        owner: (*uid, *gid),
                    }
                }
            };
            seen.mounts.push(ReadyMount {
                destination: mount.target.clone(),
                source,
                read_only: mount.read_only,
            });
        }
        // Parents before what is below them.
        seen.mounts
            .sort_by_key(|mount| mount.destination.components().count());
        Ok(seen)
    }

    /// Gives a new shared directory its owner and mode.
    fn prepare(&self, data: &Path, owner: (u32, u32), mode: u32) -> Result<(), BuildError> {
        let failed = |error: std::io::Error| {
            BuildError::Failed(format!("making the directory of a cache mount: {error}"))
        };
        let owner = match &self.options.ids {
            None => Some(owner),
            Some(_) if owner == (0, 0) => None,
            Some(ids) => {
                let uid = idmap::to_outside(&ids.uids, owner.0);
                let gid = idmap::to_outside(&ids.gids, owner.1);
                // Only root of the user namespace may give it away.
                let inside = uid.is_some()
                    && gid.is_some()
                    && userns::as_root_of(ids, || {
                        std::os::unix::fs::chown(data, Some(owner.0), Some(owner.1)).is_ok()
                    })
                    .map_err(failed)?;
                if !inside {
                    return Err(BuildError::Failed(format!(
                        "the user namespace has no user {} or no group {} for a cache mount",
                        owner.0, owner.1
                    )));
                }
                None
            }
        };
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(data, Some(uid), Some(gid)).map_err(failed)?;
        }
        use std::os::unix::fs::PermissionsExt as _;
        match fs::set_permissions(data, fs::Permissions::from_mode(mode)) {
            // Given away above.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            other => other.map_err(failed),
        }
    }

    /// The tree that a bind shows: a stage, an image, or a layer made of the context.
    fn bound(&mut self, from: Option<&str>, source: &str, at: usize) -> Result<Bound, BuildError> {
        let subpath: PathBuf = source.trim_start_matches('/').into();
        if let Some(name) = from {
            let state = self.tree_of(name, at)?;
            let tree = state.tree(self.store)?;
            if tree.find(source.as_bytes())?.is_none() {
                return Err(BuildError::Failed(format!(
                    "failed to compute cache key: {source:?}: not found in {name}"
                )));
            }
            let chain = state.chain();
            return Ok(Bound {
                // A name of its own: two steps may show it beside its own image.
                record: record(ImageId(chain), state.layers),
                digest: chain,
                subpath,
            });
        }
        let missing = || {
            BuildError::Failed(format!(
                "failed to compute cache key: {source:?}: not found in the build context"
            ))
        };
        let context = self.context.clone().ok_or_else(missing)?;
        let (path, place) = context.find(source.as_bytes())?.ok_or_else(missing)?;
        let nothing = Source::Image(Arc::new(Image::new(Vec::new())?));
        let how = How::default();
        let mut copying = Copying::new(&nothing, &how);
        copying.add(&context, &(path.clone(), place), &path, false)?;
        let mut items = copying.items;
        let digest = digest::fill(&mut items)?;
        let layer = self.layer(items)?;
        Ok(Bound {
            record: record(ImageId(layer.0), vec![layer]),
            digest,
            subpath,
        })
    }

    /// Runs the command; the layer of what it changed, if it changed anything.
    fn execute(
        &mut self,
        state: &State,
        args: Vec<String>,
        more_env: Vec<String>,
        seen: Seen,
        shown: &str,
    ) -> Result<Option<DiffId>, BuildError> {
        if let Some(config) = &state.config {
            check_platform("of the stage", config, None)?;
        }
        let (container, lock) = self.container(state, args, more_env)?;
        let short = container.record.id.short().to_owned();
        self.host.tell(&Event::Running(&short));
        let mut images = vec![ImageRecord {
            id: container.record.image,
            ..state.record()
        }];
        images.extend(seen.images);
        let step = self.shown.clone();
        let ran = self.host.run(Execution {
            store: self.store,
            container,
            lock,
            mounts: seen.mounts,
            images,
            step: &step,
        });
        let Ran {
            container,
            lock,
            end,
        } = ran?;
        drop(seen.caches);
        let taken = match end {
            End::Exited(0) => self.taken(state, &container),
            End::Exited(code) => Err(BuildError::Command {
                command: shown.to_owned(),
                code,
            }),
            End::NotStarted(code, text) => Err(BuildError::NotStarted { code, text }),
            End::Interrupted => Err(BuildError::Interrupted(self.shown.clone())),
        };
        if let Err(error) = self.store.remove_container(&container, lock) {
            log::warn!("{error}");
        }
        self.host.tell(&Event::Removed(&short));
        taken
    }

    fn container(
        &self,
        state: &State,
        args: Vec<String>,
        more_env: Vec<String>,
    ) -> Result<(Container, ContainerLock), BuildError> {
        let id = ContainerId::random().map_err(RunError::io("naming the container"))?;
        let mut env = state.run.env.clone();
        let set = |env: &[String], name: &str| {
            env.iter().any(|line| line.split('=').next() == Some(name))
        };
        if !set(&env, "PATH") {
            env.insert(0, format!("PATH={}", run::DEFAULT_PATH));
        }
        for line in more_env {
            let name = line.split('=').next().unwrap_or_default();
            if !set(&env, name) {
                env.push(line);
            }
        }
        let short = id.short().to_owned();
        let record = ContainerRecord {
            version: RECORD_VERSION,
            name: format!("build-{short}"),
            image: state.record().id,
            image_name: state
                .id()
                .map_or_else(|| "scratch".to_owned(), |id| id.short()),
            layers: state.layers.clone(),
            created: Timestamp::now(),
            config: ContainerConfig {
                user: state.run.user.clone(),
                env,
                entrypoint: None,
                cmd: Some(args),
                working_dir: state.run.working_dir.clone(),
                ..ContainerConfig::default()
            },
            mounts: Vec::new(),
            auto_remove: true,
            detached: false,
            read_only: false,
            init: false,
            hostname: short,
            extra_hosts: self.options.extra_hosts.clone(),
            capabilities: security::capabilities(&[], &[], |number| {
                security::is_available(number, self.options.ids.is_some())
            })?,
            security: Security::default(),
            shm_size: None,
            ulimits: Vec::new(),
            ids: self.options.ids.clone(),
            id,
        };
        let lock = self.store.lock_unswept()?;
        Ok(self.store.create_container(record, &lock)?)
    }

    /// The layer of what a container has changed. An ordinary user's has files of other ids than the user's own, which only root of
    /// such a user namespace may read: a child does it.
    fn taken(&self, state: &State, container: &Container) -> Result<Option<DiffId>, BuildError> {
        let base = match state.tree(self.store)? {
            Source::Image(image) => image,
            Source::Context(_) => return Ok(None),
        };
        let take = || -> Result<(DiffId, Written), BuildError> {
            let directory = container.upper();
            let source = from_dir::Source {
                latest: self.options.epoch.map(|epoch| epoch.as_second()),
                ..upper::source(container, &directory, &base)
            };
            let watcher = &self.options.watcher;
            let made = intake::produce(&self.import, &self.options.limits, |out| {
                from_dir::write(&source, &mut Counted::new(out, watcher))
            });
            made.map_err(BuildError::from)
        };
        let ids = container.record.ids.as_ref();
        let Some(ids) = ids.filter(|_| !rustix::process::geteuid().is_root()) else {
            let (layer, written) = take()?;
            return Ok((written.entries > 0).then_some(layer));
        };
        let answer = self.import.dir().join("taken");
        let told = |result: Result<(DiffId, Written), BuildError>| {
            let text = match result {
                Ok((layer, written)) if written.entries > 0 => format!("layer {layer}"),
                Ok(_) => "nothing".to_owned(),
                Err(error) => format!("error {error}"),
            };
            fs::write(&answer, text).is_ok()
        };
        let done = userns::as_root_of(ids, || told(take()))?;
        let text = fs::read_to_string(&answer).unwrap_or_default();
        if text == "nothing" {
            return Ok(None);
        }
        match text.strip_prefix("layer ").map(str::parse) {
            Some(Ok(layer)) if done && self.import.has_layer(&layer)? => Ok(Some(layer)),
            _ => {
                let why = text
                    .strip_prefix("error ")
                    .unwrap_or("reading its files failed");
                Err(BuildError::Layer(why.to_owned()))
            }
        }
    }
}

/// What a bind shows.
struct Bound {
    record: ImageRecord,
    digest: Digest,
    subpath: PathBuf,
}

/// The arguments of a RUN, and scripts that it needs as files.
fn command(state: &State, run: &Run) -> (Vec<String>, Vec<ReadyMount>) {
    let text = match &run.line {
        Line::Exec(args) => return (args.clone(), Vec::new()),
        Line::Shell(text) => text,
    };
    let mut args = state.run.shell_or_default();
    let [only] = run.heredocs.as_slice() else {
        args.push(with_heredocs(text, run));
        return (args, Vec::new());
    };
    // The whole command is a text: it is the script.
    let whole = text
        .strip_prefix("<<")
        .is_some_and(|word| word == only.word);
    if !whole {
        args.push(with_heredocs(text, run));
        return (args, Vec::new());
    }
    if !only.content.starts_with("#!") {
        args.push(only.content.clone());
        return (args, Vec::new());
    }
    let path = PathBuf::from(SCRIPTS).join(only.name.replace('/', "_"));
    args.push(path.display().to_string());
    let script = ReadyMount {
        destination: path,
        source: ReadySource::Text {
            content: only.content.clone().into_bytes(),
            mode: 0o755,
            owner: (0, 0),
        },
        read_only: true,
    };
    (args, vec![script])
}

/// The command with its texts behind it, for the shell to read.
fn with_heredocs(text: &str, run: &Run) -> String {
    let mut whole = text.to_owned();
    for heredoc in &run.heredocs {
        whole.push('\n');
        whole.push_str(&heredoc.content);
        whole.push_str(&heredoc.name);
    }
    if !run.heredocs.is_empty() {
        whole.push('\n');
    }
    whole
}
