//! `mica build`: a Dockerfile and a context become an image.
//!
//! Plan: the Dockerfile is read whole, the stages that are needed are found, the context is walked. Apply: step by step, each on
//! top of the layers of the ones before. What only changes the configuration costs no container; COPY and ADD are written straight
//! as layers; RUN is a container of `mica run`'s kind, whose upper directory becomes a layer as `commit` makes it. How a container
//! is run is the caller's business ([`Host`]): this module knows no processes.
//!
//! Nothing has a name until the end. The layers of a build are held by its import; those of finished steps also by the cache
//! ([`crate::store::builds`]), under a key of everything the step depends on. A step that fails leaves the image of the last good
//! one, without a name.

mod arguments;
mod cache;
pub mod context;
mod copy;
mod copying;
mod digest;
mod emit;
mod fetched;
mod mounts;
pub mod moving;
mod owner;
pub mod prune;
mod run;
mod source;
mod stages;
mod state;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use crate::layer::from_dir::FromDirError;
use crate::layer::merged::Image;
use crate::layer::{IndexError, Limits, ReadError};
use crate::oci::dockerfile::ignore::{Ignore, clean};
use crate::oci::dockerfile::{Dockerfile, DockerfileError};
use crate::oci::{DocumentError, ImageId, Platform, TagRef};
use crate::ops::container::run::RunError;
use crate::ops::container::run::mounts::ReadyMount;
use crate::ops::image::ImageError;
use crate::ops::transfer::ingest::{self as intake, IntakeError, ProduceError};
use crate::store::containers::{Container, ContainerLock};
use crate::store::{ImageRecord, Store, StoreError};
use crate::sys::idmap::IdMap;
use context::Context;
pub use fetched::is_tar;
use moving::{Moving, Watcher};
use source::Source;
use stages::Builder;

/// A longer Dockerfile or `.dockerignore` is none.
pub const MAX_TEXT: u64 = 16 << 20;

/// Where a build takes its files from.
pub enum Input {
    /// A directory.
    Directory(PathBuf),
    /// A tar, plain or compressed.
    Archive(Box<dyn Read + Send>),
    /// Nowhere: there is only a Dockerfile.
    Nothing,
}

/// Where its Dockerfile is.
pub enum Recipe {
    /// A text, and what to call it.
    Text {
        /// The file's name, for messages.
        name: String,
        /// Its content.
        bytes: Vec<u8>,
        /// What `<Dockerfile>.dockerignore` beside it says.
        ignore: Option<Vec<u8>>,
    },
    /// A file of the context.
    InContext(PathBuf),
}

/// A secret: where its text is.
#[derive(Debug, Clone)]
pub enum Secret {
    /// In a file.
    File(PathBuf),
    /// Here.
    Text(Vec<u8>),
}

/// What to build.
pub struct Options {
    /// The new image's names.
    pub tags: Vec<TagRef>,
    /// Its Dockerfile.
    pub recipe: Recipe,
    /// Its context.
    pub input: Input,
    /// The stage to end with.
    pub target: Option<String>,
    /// `--build-arg`, with values.
    pub arguments: BTreeMap<String, String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// Do every step anew.
    pub no_cache: bool,
    /// Images whose steps count as done.
    pub cache_from: Vec<String>,
    /// Get base images again.
    pub pull: bool,
    /// What it is for; `None`: this machine.
    pub platform: Option<Platform>,
    /// `--secret`.
    pub secrets: BTreeMap<String, Secret>,
    /// `--add-host`, as lines.
    pub extra_hosts: Vec<String>,
    /// The time of the image and of everything in it that would be younger.
    pub epoch: Option<Timestamp>,
    /// The ids of steps' user namespaces; `None` for root.
    pub ids: Option<IdMap>,
    /// How much a layer may hold.
    pub limits: Limits,
    /// Who is told how far it is.
    pub watcher: Watcher,
}

/// What happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// The context is known.
    Context {
        /// Bytes of it.
        bytes: u64,
    },
    /// A step begins.
    Step {
        /// Counted from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// The instruction.
        text: &'a str,
    },
    /// What a base image asks to be done.
    Triggers(usize),
    /// The step was done before.
    Cached,
    /// A container does the step.
    Running(&'a str),
    /// It has gone.
    Removed(&'a str),
    /// The image of the step.
    Image(ImageId),
    /// Something that is no error.
    Warning(&'a str),
}

/// A command to be run on top of layers.
#[derive(Debug)]
pub struct Execution<'a> {
    /// The store.
    pub store: &'a Store,
    /// The container, which was made for this.
    pub container: Container,
    /// The right to run it.
    pub lock: ContainerLock,
    /// What it sees besides.
    pub mounts: Vec<ReadyMount>,
    /// Trees that it is made of, which are no images of the store.
    pub images: Vec<ImageRecord>,
    /// The step, for messages.
    pub step: &'a str,
}

/// How a command has ended.
#[derive(Debug)]
pub struct Ran {
    /// The container again.
    pub container: Container,
    /// The right to remove it.
    pub lock: ContainerLock,
    /// What became of the command.
    pub end: End,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its exit status.
    Exited(u8),
    /// It was not started: docker's exit status for that, and why.
    NotStarted(u8, String),
    /// The user broke it off.
    Interrupted,
}

/// What a build needs from above.
pub trait Host {
    /// Hears what happens.
    fn tell(&mut self, event: &Event<'_>);
    /// Gets an image into the store.
    fn pull(&mut self, name: &str, platform: &Platform) -> Result<(), BuildError>;
    /// Runs a command to its end.
    fn run(&mut self, execution: Execution<'_>) -> Result<Ran, BuildError>;
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile is none.
    #[error("{error}{file}")]
    Dockerfile {
        /// Why.
        error: DockerfileError,
        /// Which, if it is not the usual one.
        file: String,
    },
    /// The command line, or the context.
    #[error("{0}")]
    Context(String),
    /// A step cannot be done, in docker's words as far as it has some.
    #[error("{0}")]
    Failed(String),
    /// A step's command failed.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        /// The command.
        command: String,
        /// Its exit status.
        code: u8,
    },
    /// A step's command was not started.
    #[error("{text}")]
    NotStarted {
        /// docker's exit status for it.
        code: u8,
        /// Why.
        text: String,
    },
    /// The user broke the build off.
    #[error("interrupted in {0}")]
    Interrupted(String),
    /// An image is not there, or its name is none.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A container cannot be made.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A new configuration is none.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Layers do not fit together.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A layer cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What a command has left is no layer.
    #[error(transparent)]
    Upper(#[from] FromDirError),
    /// The layer that a step makes is refused.
    #[error("the layer is refused: {0}")]
    Layer(String),
    /// The store refuses or fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl BuildError {
    /// Whether docker's daemon says this.
    pub fn is_daemons(&self) -> bool {
        match self {
            BuildError::Dockerfile { .. } | BuildError::Failed(_) => true,
            BuildError::Image(error) => error.is_daemons(),
            BuildError::Run(error) => error.is_daemons(),
            _ => false,
        }
    }

    /// The exit status of a build that ended so.
    pub fn code(&self) -> u8 {
        match self {
            BuildError::Command { code, .. } | BuildError::NotStarted { code, .. } => *code,
            BuildError::Interrupted(_) => 130,
            _ => 1,
        }
    }
}

impl<E: Into<BuildError>> From<ProduceError<E>> for BuildError {
    fn from(error: ProduceError<E>) -> BuildError {
        match error {
            ProduceError::Producer(error) => error.into(),
            ProduceError::Intake(error) => error.into(),
        }
    }
}

impl From<IntakeError> for BuildError {
    fn from(error: IntakeError) -> BuildError {
        match error {
            IntakeError::Store(error) => BuildError::Store(error),
            error => BuildError::Layer(error.to_string()),
        }
    }
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// The image.
    pub id: ImageId,
    /// Arguments that nothing asked for.
    pub unused: BTreeSet<String>,
}

/// A build that failed.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Box<BuildError>,
    /// The image of the last step that was done, which has no name.
    pub left: Option<ImageId>,
}

impl<E: Into<BuildError>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure {
            error: Box::new(error.into()),
            left: None,
        }
    }
}

/// Builds an image. The mounts are for the caller to notify.
pub fn build(store: &Store, options: Options, host: &mut dyn Host) -> Result<Built, Failure> {
    let Options { recipe, input, .. } = options;
    let options = Options {
        recipe: Recipe::InContext(PathBuf::new()),
        input: Input::Nothing,
        ..options
    };
    let import = store.begin_import()?;
    let (source, file) = match input {
        Input::Directory(path) => {
            let (name, bytes, beside) = match recipe {
                Recipe::Text {
                    name,
                    bytes,
                    ignore,
                } => (name, bytes, ignore),
                Recipe::InContext(name) => {
                    let shown = name.display().to_string();
                    let found = context::read_file(&path, &name, MAX_TEXT)?;
                    let bytes = found.ok_or_else(|| no_dockerfile(&path.join(&name)))?;
                    let beside = PathBuf::from(format!("{shown}.dockerignore"));
                    let ignore = context::read_file(&path, &beside, MAX_TEXT)?;
                    (shown, bytes, ignore)
                }
            };
            let file = dockerfile(&name, &bytes)?;
            let ignore = match beside {
                Some(bytes) => Some(bytes),
                None => context::read_file(&path, ".dockerignore".as_ref(), MAX_TEXT)?,
            };
            let ignore = Ignore::parse(&ignore.unwrap_or_default());
            let ignore = ignore.map_err(|error| BuildError::Context(error.to_string()))?;
            let context = Context::walk(&path, &ignore, &options.watcher);
            options.watcher.tell(Moving::Done);
            let context = context?;
            host.tell(&Event::Context {
                bytes: context.size,
            });
            (Some(Source::Context(Arc::new(context))), file)
        }
        Input::Archive(mut archive) => {
            let read = AtomicU64::new(0);
            let advance = |more| {
                let bytes = read.fetch_add(more, Ordering::Relaxed) + more;
                let moving = Moving::Context { entries: 0, bytes };
                options.watcher.tell(moving);
            };
            let taken = intake::write(&import, &options.limits, &advance, &mut archive);
            options.watcher.tell(Moving::Done);
            let (pumped, _) = taken.map_err(|error| match error {
                IntakeError::Store(error) => BuildError::Store(error),
                error => BuildError::Context(format!("the build context is no tar: {error}")),
            })?;
            host.tell(&Event::Context {
                bytes: pumped.tar_size,
            });
            let whole = vec![store.open_layer(&pumped.diff_id)?];
            let source = Source::Image(Arc::new(Image::new(whole.clone())?));
            let (name, file) = match recipe {
                Recipe::Text { name, bytes, .. } => (name.clone(), dockerfile(&name, &bytes)?),
                Recipe::InContext(name) => {
                    let shown = name.display().to_string();
                    let bytes = fetched::read(&source, shown.as_bytes(), MAX_TEXT)?;
                    let bytes = bytes.ok_or_else(|| no_dockerfile(&name))?;
                    (shown.clone(), dockerfile(&shown, &bytes)?)
                }
            };
            let hidden = hidden(&source, &name, host)?;
            let source = match hidden.is_empty() {
                true => source,
                false => {
                    let made = intake::produce(&import, &options.limits, |out| {
                        emit::whiteouts(&hidden, out)
                    });
                    let without = store.open_layer(&made.map_err(BuildError::from)?.0)?;
                    let layers = [whole, vec![without]].concat();
                    Source::Image(Arc::new(Image::new(layers)?))
                }
            };
            (Some(source), file)
        }
        Input::Nothing => match recipe {
            Recipe::Text { name, bytes, .. } => {
                host.tell(&Event::Context {
                    bytes: 512 + (bytes.len() as u64).next_multiple_of(512) + 1024,
                });
                (None, dockerfile(&name, &bytes)?)
            }
            Recipe::InContext(name) => return Err(no_dockerfile(&name).into()),
        },
    };
    Builder::new(store, &options, import, &file, source, host)?.build()
}

/// What of an archive no step sees, as with docker: whoever packed it has left out what they wanted to; only of the two files that
/// docker's daemon itself takes from it `.dockerignore` is asked.
fn hidden(source: &Source, recipe: &str, host: &mut dyn Host) -> Result<Vec<Vec<u8>>, BuildError> {
    const IGNORE: &[u8] = b".dockerignore";
    let Some(text) = fetched::read(source, IGNORE, MAX_TEXT)? else {
        return Ok(Vec::new());
    };
    match Ignore::parse(&text) {
        Ok(ignore) => {
            let files = [IGNORE.to_vec(), clean(recipe.as_bytes())];
            let files = files.into_iter().filter(|path| ignore.excludes(path));
            Ok(files.collect())
        }
        Err(error) => {
            host.tell(&Event::Warning(&error.to_string()));
            Ok(Vec::new())
        }
    }
}

fn no_dockerfile(path: &std::path::Path) -> BuildError {
    let path = path.display();
    BuildError::Context(format!(
        "unable to evaluate symlinks in Dockerfile path: lstat {path}: no such file or directory"
    ))
}

/// Reads a Dockerfile; its name is part of what is wrong with it unless it is the usual one.
fn dockerfile(name: &str, bytes: &[u8]) -> Result<Dockerfile, BuildError> {
    let usual = matches!(name, "Dockerfile" | "-" | "");
    if bytes.is_empty() {
        let name = if name.is_empty() { "Dockerfile" } else { name };
        return Err(BuildError::Failed(format!(
            "the Dockerfile ({name}) cannot be empty"
        )));
    }
    Dockerfile::parse(bytes).map_err(|error| BuildError::Dockerfile {
        error,
        file: match usual {
            true => String::new(),
            false => format!(" ({name})"),
        },
    })
}

/// Reads the file of a secret.
fn secret(secret: &Secret) -> Result<Vec<u8>, BuildError> {
    match secret {
        Secret::Text(bytes) => Ok(bytes.clone()),
        Secret::File(path) => {
            let file = File::open(path)
                .map_err(|error| BuildError::Context(format!("{}: {error}", path.display())))?;
            // docker's limit.
            context::read_whole(file, path, 500 << 10)
        }
    }
}
