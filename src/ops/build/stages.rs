//! Stage after stage.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::arguments::{self, Arguments};
use super::source::Source;
use super::state::State;
use super::{BuildError, Built, Event, Failure, Host, Options};
use crate::oci::dockerfile::{Dockerfile, Instruction, Stage, Step, trigger};
use crate::oci::{ImageConfig, ImageId, Platform};
use crate::ops::image::ImageError;
use crate::ops::image::resolve;
use crate::store::{Builds, Import, NewImage, Store};

/// A build in progress.
pub(super) struct Builder<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a Options,
    pub(super) import: Import,
    pub(super) file: &'a Dockerfile,
    pub(super) host: &'a mut dyn Host,
    /// The context.
    pub(super) context: Option<Source>,
    pub(super) cache: Builds,
    /// Images whose history counts as done.
    pub(super) trusted: Vec<Arc<ImageConfig>>,
    /// Keys of entries that were of use.
    pub(super) touched: Vec<crate::oci::Digest>,
    /// When the build began.
    pub(super) now: Timestamp,
    /// What is built for.
    pub(super) platform: Platform,
    globals: Arguments,
    /// What each stage came to.
    done: Vec<Option<State>>,
    /// Arguments that were asked for.
    asked: BTreeSet<String>,
    step: usize,
    total: usize,
    /// The step that is being done.
    pub(super) shown: String,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        store: &'a Store,
        options: &'a Options,
        import: Import,
        file: &'a Dockerfile,
        context: Option<Source>,
        host: &'a mut dyn Host,
    ) -> Result<Builder<'a>, BuildError> {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let mut builder = Builder {
            globals: Arguments::of_platforms(&platform),
            store,
            options,
            import,
            file,
            host,
            context,
            cache: store.builds()?,
            trusted: Vec::new(),
            touched: Vec::new(),
            now: Timestamp::now(),
            platform,
            done: vec![None; file.stages.len()],
            asked: BTreeSet::new(),
            step: 0,
            total: 0,
            shown: String::new(),
        };
        builder.trust()?;
        Ok(builder)
    }

    pub(super) fn build(mut self) -> Result<Built, Failure> {
        let last = self.target()?;
        for at in 0..self.file.arguments.len() {
            self.global(at)?;
        }
        let needed = self.needed(last)?;
        let of_stage = |stage: &Stage| stage.steps.len() + 1;
        let steps = needed
            .iter()
            .filter_map(|at| self.file.stages.get(*at))
            .map(of_stage);
        self.total = self.file.arguments.len() + steps.sum::<usize>();
        for at in 0..self.file.arguments.len() {
            let text = self.file.arguments.get(at).map(|step| step.text.clone());
            self.begin(&text.unwrap_or_default());
        }
        for at in needed {
            let mut state = None;
            let built = self.stage(at, &mut state, at == last);
            match (built, state) {
                (Ok(()), state) => {
                    if let Some(slot) = self.done.get_mut(at) {
                        *slot = state;
                    }
                }
                (Err(error), state) => {
                    let left = state.filter(|state| state.steps > 0);
                    return Err(self.leave(error, left));
                }
            }
        }
        let Some(state) = self.done.get_mut(last).and_then(Option::take) else {
            return Err(BuildError::Failed("no stage was built".to_owned()).into());
        };
        if let Err(error) = self.settle_cache() {
            log::warn!("the cache of builds: {error}");
        }
        let given = self.options.arguments.keys();
        let unused = given.filter(|name| !self.asked.contains(*name));
        let unused = unused.filter(|name| !arguments::is_predefined(name));
        Ok(Built {
            unused: unused.cloned().collect(),
            id: self.name(state)?,
        })
    }

    /// Gives the image its names.
    fn name(self, state: State) -> Result<ImageId, BuildError> {
        let tags = self.options.tags.clone();
        let Some(config) = state.config else {
            return Err(BuildError::Failed(
                "No image was generated. Is your Dockerfile empty?".to_owned(),
            ));
        };
        let id = config.id;
        let new = NewImage {
            layers: config.diff_ids.clone(),
            config: ImageConfig::clone(&config),
            tags,
            origins: Vec::new(),
        };
        let parent = state.base.filter(|base| self.is_local(base));
        self.import.commit_from(parent, vec![new])?;
        Ok(id)
    }

    fn is_local(&self, id: &ImageId) -> bool {
        self.store
            .names()
            .is_ok_and(|names| names.images.contains_key(id))
    }

    /// What a build that fails leaves: the image of its last good step.
    fn leave(self, error: BuildError, state: Option<State>) -> Failure {
        let left = state.and_then(|state| {
            let config = state.config?;
            let new = NewImage {
                layers: config.diff_ids.clone(),
                config: ImageConfig::clone(&config),
                tags: Vec::new(),
                origins: Vec::new(),
            };
            let parent = state.base.filter(|base| self.is_local(base));
            match self.import.commit_from(parent, vec![new]) {
                Ok(_) => Some(config.id),
                Err(error) => {
                    log::warn!("cannot keep the image of the last good step: {error}");
                    None
                }
            }
        });
        Failure {
            error: Box::new(error),
            left,
        }
    }

    /// The number of the stage to end with.
    fn target(&self) -> Result<usize, BuildError> {
        let count = self.file.stages.len();
        match &self.options.target {
            None => Ok(count.saturating_sub(1)),
            Some(name) => self.file.stage_before(name, count).ok_or_else(|| {
                BuildError::Failed(format!("target stage \"{name}\" could not be found"))
            }),
        }
    }

    /// Carries out an ARG before the first FROM.
    fn global(&mut self, at: usize) -> Result<(), BuildError> {
        let Some(step) = self.file.arguments.get(at) else {
            return Ok(());
        };
        if let Instruction::Arg(pairs) = &step.instruction {
            for (name, default) in pairs {
                let variables = self.globals.variables(&[]);
                let default = default.as_ref();
                let default =
                    default.map(|word| arguments::expand(word, &variables, self.file.escape));
                let default = default
                    .transpose()
                    .map_err(|error| self.at_line(error, step.line))?;
                self.globals
                    .declare(name, default, &self.options.arguments, None);
                self.asked.insert(name.clone());
            }
        }
        Ok(())
    }

    /// The stages that the last one needs, in order.
    fn needed(&self, last: usize) -> Result<Vec<usize>, BuildError> {
        let mut needed = BTreeSet::new();
        let mut todo = vec![last];
        while let Some(at) = todo.pop() {
            let Some(stage) = self.file.stages.get(at).filter(|_| needed.insert(at)) else {
                continue;
            };
            let base = self.base_of(stage)?;
            todo.extend(self.file.stage_before(&base, at));
            for step in &stage.steps {
                for name in sources(step) {
                    match self.file.stage_before(&name, at) {
                        Some(earlier) => todo.push(earlier),
                        None if self.is_later(&name, at) => {
                            return Err(self.at_line(
                                BuildError::Failed(format!(
                                    "circular dependency detected on stage: {name}"
                                )),
                                step.line,
                            ));
                        }
                        None => {}
                    }
                }
            }
        }
        Ok(needed.into_iter().collect())
    }

    /// Whether a name is that of the stage `at` or of a later one.
    fn is_later(&self, name: &str, at: usize) -> bool {
        let all = self.file.stage_before(name, self.file.stages.len());
        all.is_some_and(|found| found >= at)
    }

    fn base_of(&self, stage: &Stage) -> Result<String, BuildError> {
        let variables = self.globals.variables(&[]);
        let base = arguments::expand(&stage.base, &variables, self.file.escape)
            .map_err(|error| self.at_line(error, stage.line))?;
        match base.is_empty() {
            true => Err(self.at_line(
                BuildError::Failed(format!("base name ({}) should not be blank", stage.base)),
                stage.line,
            )),
            false => Ok(base),
        }
    }

    /// A step's error with the place it is written at.
    fn at_line(&self, error: BuildError, line: usize) -> BuildError {
        match error {
            BuildError::Failed(text) if line > 0 => {
                BuildError::Failed(format!("{text} (Dockerfile:{line})"))
            }
            error => error,
        }
    }

    fn begin(&mut self, text: &str) {
        self.step += 1;
        let (number, total) = (self.step, self.total);
        self.shown = format!("step {number}/{total} : {text}");
        self.host.tell(&Event::Step {
            number,
            total,
            text,
        });
    }

    fn stage(&mut self, at: usize, slot: &mut Option<State>, last: bool) -> Result<(), BuildError> {
        let file = self.file;
        let Some(stage) = file.stages.get(at) else {
            return Ok(());
        };
        self.begin(&stage.text);
        let begun = self
            .from(at, stage)
            .map_err(|error| self.at_line(error, stage.line))?;
        let state = slot.insert(begun);
        if let Some(id) = state.id() {
            self.host.tell(&Event::Image(id));
        }
        let triggers = std::mem::take(&mut state.run.on_build);
        if !triggers.is_empty() {
            self.host.tell(&Event::Triggers(triggers.len()));
            for text in triggers {
                let step = trigger(&text);
                let step = step.map_err(|error| BuildError::Failed(error.to_string()))?;
                self.shown = format!("trigger : {text}");
                self.one(at, state, &step)?;
            }
        }
        for step in &stage.steps {
            self.begin(&step.text);
            let done = self.one(at, state, step);
            done.map_err(|error| self.at_line(error, step.line))?;
        }
        if last && !self.options.labels.is_empty() {
            self.label(state)?;
        }
        if last && state.config.is_none() {
            // FROM scratch and nothing else.
            return Err(BuildError::Failed(
                "No image was generated. Is your Dockerfile empty?".to_owned(),
            ));
        }
        Ok(())
    }

    fn one(&mut self, at: usize, state: &mut State, step: &Step) -> Result<(), BuildError> {
        match &step.instruction {
            Instruction::Arg(pairs) => self.declare(state, pairs)?,
            Instruction::Run(run) => self.run(at, state, run)?,
            Instruction::Copy(copy) => self.copy(at, state, copy)?,
            Instruction::Shell(shell) => {
                let text = format!("SHELL [{}]", shell.join(" "));
                let mut next = state.run.clone();
                next.shell = Some(shell.clone());
                self.configure(state, next, &text)?;
            }
            Instruction::Maintainer(author) => {
                state.author = author.clone();
                let next = state.run.clone();
                self.configure(state, next, &format!("MAINTAINER {author}"))?;
            }
            Instruction::Change(change) => self.change(state, change)?,
        }
        if let Some(id) = state.id() {
            self.host.tell(&Event::Image(id));
        }
        Ok(())
    }

    fn declare(
        &mut self,
        state: &mut State,
        pairs: &[(String, Option<String>)],
    ) -> Result<(), BuildError> {
        let mut texts = Vec::new();
        for (name, default) in pairs {
            let variables = state.arguments.variables(&state.run.env);
            let expand = |word: &String| arguments::expand(word, &variables, self.file.escape);
            let default = default.as_ref().map(expand).transpose()?;
            texts.push(match &default {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            self.asked.insert(name.clone());
            let given = &self.options.arguments;
            state
                .arguments
                .declare(name, default, given, Some(&self.globals));
        }
        let next = state.run.clone();
        self.configure(state, next, &format!("ARG {}", texts.join(" ")))
    }

    /// What a FROM begins with.
    fn from(&mut self, at: usize, stage: &Stage) -> Result<State, BuildError> {
        let variables = self.globals.variables(&[]);
        let platform = match &stage.platform {
            Some(text) => {
                let text = arguments::expand(text, &variables, self.file.escape)?;
                text.parse().map_err(|error: crate::oci::PlatformError| {
                    BuildError::Failed(error.to_string())
                })?
            }
            None => self.platform.clone(),
        };
        let base = self.base_of(stage)?;
        if base.eq_ignore_ascii_case("scratch") {
            return Ok(State::scratch(platform));
        }
        let found = self.file.stage_before(&base, at);
        if let Some(found) = found.and_then(|found| self.done.get(found)) {
            return found
                .as_ref()
                .map(State::of_stage)
                .ok_or_else(|| BuildError::Failed(format!("stage {base} was not built")));
        }
        let asked = stage.platform.is_some() || self.options.platform.is_some();
        let config = self.image(&base, &platform, asked)?;
        for layer in &config.diff_ids {
            // Held from now on; if it is not there, opening it says so.
            self.import.has_layer(layer)?;
        }
        Ok(State::of_image(config))
    }

    /// An image by its name, got from its registry if it is not here.
    pub(super) fn image(
        &mut self,
        name: &str,
        platform: &Platform,
        asked: bool,
    ) -> Result<Arc<ImageConfig>, BuildError> {
        let mut found = self.local(name)?;
        let fits = |config: &ImageConfig| {
            !asked
                || (config.platform.os == platform.os
                    && config.platform.architecture == platform.architecture)
        };
        let here = found.as_ref().is_some_and(|config| fits(config));
        if !here || self.options.pull {
            self.host.pull(name, platform)?;
            found = self.local(name)?;
        }
        match found {
            Some(config) if fits(&config) => Ok(config),
            Some(config) => Err(BuildError::Failed(format!(
                "image with reference {name} was found but does not match the specified platform: wanted {platform}, actual: {}",
                config.platform
            ))),
            None => Err(ImageError::NoSuch(name.to_owned()).into()),
        }
    }

    fn local(&self, name: &str) -> Result<Option<Arc<ImageConfig>>, BuildError> {
        match resolve::image(&*self.store.names()?, name) {
            Ok(found) => Ok(Some(self.store.config(&found.id)?)),
            Err(ImageError::NoSuch(_)) => Ok(None),
            Err(ImageError::Reference(error)) => Err(BuildError::Failed(format!(
                "failed to parse stage name {name:?}: {error}"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// The stage or image that `--from` means, before the stage `at`.
    pub(super) fn tree_of(&mut self, name: &str, at: usize) -> Result<State, BuildError> {
        if let Some(found) = self.file.stage_before(name, at) {
            let state = self.done.get(found).and_then(Option::as_ref);
            return state.cloned().ok_or_else(|| {
                BuildError::Failed(format!("invalid from flag value {name}: not built"))
            });
        }
        if name.eq_ignore_ascii_case("scratch") {
            return Ok(State::scratch(self.platform.clone()));
        }
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BuildError::Failed(format!(
                "invalid from flag value {name}: there is no such stage before this one"
            )));
        }
        let platform = self.platform.clone();
        let config = self.image(name, &platform, self.options.platform.is_some())?;
        for layer in &config.diff_ids {
            self.import.has_layer(layer)?;
        }
        Ok(State::of_image(config))
    }
}

/// The stages or images that a step names.
fn sources(step: &Step) -> Vec<String> {
    match &step.instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        Instruction::Run(run) => {
            let fields = run.mounts.iter().flat_map(|mount| mount.split(','));
            let from = fields.filter_map(|field| field.trim().strip_prefix("from="));
            from.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}
