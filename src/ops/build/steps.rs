//! The steps that need no container: configuration, COPY, ADD, WORKDIR.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use super::arguments::expand;
use super::copy::{Content, Copying, How};
use super::digest::Fields;
use super::moving::Counted;
use super::source::{Place, Source};
use super::stages::Builder;
use super::state::State;
use super::{BuildError, Event, digest, emit, fetched, owner};
use crate::oci::dockerfile::ignore::{Ignore, clean};
use crate::oci::dockerfile::pattern::Pattern;
use crate::oci::dockerfile::{Copy, CopySource, Expand};
use crate::oci::{Change, DiffId, Digest, RunConfig};
use crate::ops::transfer::ingest as intake;
use crate::tree::{Attributes, NodeKind};

/// Changes with every change of what a step means.
const KEYS: &[u8] = b"mica build 1";

impl Builder<'_> {
    /// A step that only changes the configuration.
    pub(super) fn configure(
        &mut self,
        state: &mut State,
        next: RunConfig,
        text: &str,
    ) -> Result<(), BuildError> {
        let created_by = nop(&state.run, " ", text);
        let mut key = self.key("config", state);
        key.add(format!("{:?}", state.run).as_bytes())
            .add(created_by.as_bytes());
        let before = state.id().map(|id| id.to_string()).unwrap_or_default();
        key.add(before.as_bytes()).add(state.author.as_bytes());
        let key = key.finish();
        state.run = next;
        self.step(state, &[key], &created_by, |_, _| Ok(None))
    }

    pub(super) fn change(&mut self, state: &mut State, change: &Change) -> Result<(), BuildError> {
        let mut next = state.run.clone();
        let variables = state.arguments.variables(&state.run.env);
        let how = Expand {
            env: &variables,
            ..Expand::plain(self.file.escape)
        };
        let text = change.apply(&mut next, &how, &mut state.cmd_set);
        let text = text.map_err(|error| BuildError::Failed(error.to_string()))?;
        match change.is_workdir() {
            true => self.workdir(state, next, &text),
            false => self.configure(state, next, &text),
        }
    }

    pub(super) fn label(&mut self, state: &mut State) -> Result<(), BuildError> {
        let mut next = state.run.clone();
        let mut text = "LABEL".to_owned();
        for (name, value) in &self.options.labels {
            text.push_str(&format!(" {name}={value}"));
            next.labels.insert(name.clone(), value.clone());
        }
        self.configure(state, next, &text)
    }

    /// WORKDIR makes the directory, if it is not there.
    fn workdir(
        &mut self,
        state: &mut State,
        next: RunConfig,
        text: &str,
    ) -> Result<(), BuildError> {
        let tree = state.tree(self.store)?;
        let path = clean(next.working_dir.as_bytes());
        let owner = match state.run.user.as_str() {
            "" => (0, 0),
            user => owner::of_user(&tree, user)?,
        };
        let how = How {
            owner: Some(owner),
            now: self.mtime(),
            ..How::default()
        };
        let mut copying = Copying::new(&tree, &how);
        if path.is_empty() || path == b"." || !copying.add_directory(&path)? {
            return self.configure(state, next, text);
        }
        let items = copying.items;
        let created_by = nop(&state.run, " ", text);
        let mut key = self.key("workdir", state);
        key.add(&path).add(format!("{owner:?}").as_bytes());
        let key = key.finish();
        state.run = next;
        self.step(state, &[key], &created_by, |builder, _| {
            builder.layer(items).map(Some)
        })
    }

    pub(super) fn copy(
        &mut self,
        at: usize,
        state: &mut State,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        let variables = state.arguments.variables(&state.run.env);
        let expanded = |word: &String| expand(word, &variables, self.file.escape);
        let verb = if copy.add { "ADD" } else { "COPY" };
        let failed = |why: String| BuildError::Failed(format!("{verb} failed: {why}"));
        let exclude = copy
            .exclude
            .iter()
            .map(expanded)
            .collect::<Result<Vec<_>, _>>()?;
        let exclude = Ignore::of_patterns(&exclude).map_err(|error| failed(error.to_string()))?;
        let chown = copy.chown.as_ref().map(expanded).transpose()?;
        let chmod = copy.chmod.as_ref().map(expanded).transpose()?;
        let checksum = copy.checksum.as_ref().map(expanded).transpose()?;
        let destination = expanded(&copy.destination)?;
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(match source {
                CopySource::Path(path) => CopySource::Path(expanded(path)?),
                CopySource::Text(text) => {
                    let mut text = text.clone();
                    if text.expand {
                        let how = Expand {
                            env: &variables,
                            escape: self.file.escape,
                            raw: true,
                        };
                        let content = how.word(&text.content);
                        text.content = content.map_err(|e| BuildError::Failed(e.to_string()))?;
                    }
                    CopySource::Text(text)
                }
            });
        }
        let tree = state.tree(self.store)?;
        let how = How {
            owner: match &chown {
                Some(chown) => Some(owner::parse(&tree, chown)?),
                None => None,
            },
            mode: chmod.map(|text| mode(&text)).transpose()?,
            parents: copy.parents,
            exclude,
            now: self.mtime(),
            latest: self.options.epoch.map(|epoch| epoch.as_second()),
        };
        let (from, origin) = match &copy.from {
            None => (self.context.clone(), None),
            Some(name) => {
                let from = self.tree_of(name, at)?;
                (Some(from.tree(self.store)?), Some(from.chain()))
            }
        };
        let shown = destination.clone();
        let (path, into) = self.destination(state, &tree, &destination, sources.len())?;
        // Of another stage or image the layers say all: the content need not be read to find what was done.
        let quick = origin.map(|origin| {
            let mut key = self.key("copy from", state);
            key.add(origin.as_bytes()).add(
                format!(
                    "{sources:?}{:?}{:?}{:?}{:?}",
                    how.owner, how.mode, how.parents, copy.exclude
                )
                .as_bytes(),
            );
            key.add(&path).add(&[u8::from(into)]).finish()
        });
        if let Some(quick) = quick {
            let created_by = nop(&state.run, "", &format!("{verb} from:{quick} in {shown} "));
            if let Some(entry) = self
                .cache
                .entries
                .get(&quick)
                .filter(|_| !self.options.no_cache)
            {
                let created_by = match entry.step.is_empty() {
                    true => created_by,
                    false => entry.step.clone(),
                };
                let keys = [quick];
                if let Some(done) = self.cached(state, &keys, &created_by)? {
                    self.host.tell(&Event::Cached);
                    return state.advance(done.created, &created_by, done.layer);
                }
            }
        }
        let mut copying = Copying::new(&tree, &how);
        let mut kinds = BTreeSet::new();
        let count = sources.len();
        for source in sources {
            match source {
                CopySource::Text(text) => {
                    kinds.insert("file");
                    let attributes = Attributes {
                        kind: NodeKind::Regular,
                        mode: 0o644,
                        size: text.content.len() as u64,
                        mtime_sec: how.now,
                        ..Attributes::IMPLICIT_DIRECTORY
                    };
                    let content = Content::Bytes(text.content.into_bytes());
                    copying.add_file(&text.name, attributes, content, &path, into)?;
                }
                CopySource::Path(url) if copy.add && fetched::is_url(&url) => {
                    kinds.insert("file");
                    let got = fetched::download(&url, checksum.as_deref(), self.import.dir());
                    let got = got.map_err(&failed)?;
                    let size = got.file.metadata()?.size();
                    let attributes = Attributes {
                        kind: NodeKind::Regular,
                        mode: 0o600,
                        size,
                        mtime_sec: got.modified,
                        ..Attributes::IMPLICIT_DIRECTORY
                    };
                    if got.name.is_empty() && into {
                        return Err(failed(format!("cannot determine filename from url: {url}")));
                    }
                    copying.add_file(
                        &got.name,
                        attributes,
                        Content::File(got.file),
                        &path,
                        into,
                    )?;
                }
                CopySource::Path(path) if copy.add && fetched::is_repository(&path) => {
                    return Err(failed(format!(
                        "{path}: repositories are not supported as sources; clone it first"
                    )));
                }
                CopySource::Path(source) => {
                    if checksum.is_some() {
                        return Err(failed("checksum is only of use with a URL".to_owned()));
                    }
                    let Some(from) = &from else {
                        return Err(failed(format!(
                            "file not found in build context or excluded by .dockerignore: stat {source}: file does not exist"
                        )));
                    };
                    let found = self.find(from, &source, copy, count == 1)?;
                    let several = found.len() > 1;
                    if several && !into {
                        return Err(BuildError::Failed(several_sources(verb)));
                    }
                    for found in found {
                        let kind = from.attributes(&found.1)?.kind;
                        kinds.insert(if kind == NodeKind::Directory {
                            "dir"
                        } else {
                            "file"
                        });
                        if copy.add
                            && kind == NodeKind::Regular
                            && let Some(archive) = self.archive(from, &found.1)?
                        {
                            let root = (Vec::new(), archive.root()?);
                            copying.add(&archive, &root, &path, true)?;
                            continue;
                        }
                        copying.add(from, &found, &path, into)?;
                    }
                }
            }
        }
        let mut items = copying.items;
        let content = digest::fill(&mut items)?;
        let kind = match kinds.len() {
            1 if count == 1 => kinds.into_iter().next().unwrap_or("file"),
            _ => "multi",
        };
        let text = format!("{verb} {kind}:{} in {shown} ", content.hex());
        let created_by = nop(&state.run, "", &text);
        let mut key = self.key("copy", state);
        let mut keys = vec![key.add(content.as_bytes()).finish()];
        keys.extend(quick);
        self.step(state, &keys, &created_by, |builder, _| {
            builder.layer(items).map(Some)
        })
    }

    /// Where a copy goes, without leading slash, and whether that is a directory or will be one.
    fn destination(
        &self,
        state: &State,
        tree: &Source,
        text: &str,
        sources: usize,
    ) -> Result<(Vec<u8>, bool), BuildError> {
        let absolute = match text.starts_with('/') {
            true => text.to_owned(),
            false => format!("{}/{text}", state.run.working_dir),
        };
        let mut into =
            text.ends_with('/') || text.ends_with("/.") || text == "." || text.is_empty();
        if sources > 1 && !into {
            return Err(BuildError::Failed(several_sources("COPY")));
        }
        let path = clean(format!("/{absolute}").as_bytes());
        if !into && let Some((_, place)) = tree.find(&path)? {
            into = tree.attributes(&place)?.kind == NodeKind::Directory;
        }
        Ok((path, into))
    }

    /// The places that a source means.
    fn find(
        &self,
        from: &Source,
        text: &str,
        copy: &Copy,
        _only: bool,
    ) -> Result<Vec<(Vec<u8>, Place)>, BuildError> {
        let verb = if copy.add { "ADD" } else { "COPY" };
        let failed = |why: String| BuildError::Failed(format!("{verb} failed: {why}"));
        let relative = text.trim_start_matches('/');
        let path = clean(relative.as_bytes());
        if path.starts_with(b"..") && matches!(path.get(2), None | Some(b'/')) {
            return Err(failed(format!(
                "forbidden path outside the build context: {text} ()"
            )));
        }
        let path = match path.as_slice() {
            b"." => Vec::new(),
            path => path.to_vec(),
        };
        // `/./` says where a path to be kept begins.
        let kept = match (copy.parents, relative.find("/./")) {
            (true, Some(at)) => Some(clean(relative.get(..at).unwrap_or_default().as_bytes())),
            _ => None,
        };
        let found = match Pattern::is_pattern(&path) {
            true => {
                let found = from.glob(&path)?;
                if found.is_empty() {
                    return Err(failed("no source files were specified".to_owned()));
                }
                found
            }
            false => match self.place(from, &path)? {
                Some(place) => vec![(path, place)],
                None if copy.from.is_some() => {
                    return Err(failed(format!("stat {text}: file does not exist")));
                }
                None => {
                    return Err(failed(format!(
                        "file not found in build context or excluded by .dockerignore: stat {text}: file does not exist"
                    )));
                }
            },
        };
        let mut out = Vec::new();
        for (path, place) in found {
            // A link that leads somewhere inside is what it leads to; any other is a link.
            let place = match from.attributes(&place)?.kind {
                NodeKind::Symlink => from.find(&path)?.map_or(place, |(_, place)| place),
                _ => place,
            };
            let path = match &kept {
                Some(before) if path.starts_with(before) => {
                    let behind = path.get(before.len()..).unwrap_or_default();
                    [before, &b"/."[..], behind].concat()
                }
                _ => path,
            };
            out.push((path, place));
        }
        Ok(out)
    }

    /// What is at a path; links above it are followed, it itself is not.
    fn place(&self, from: &Source, path: &[u8]) -> Result<Option<Place>, BuildError> {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (
                path.get(..at).unwrap_or_default(),
                path.get(at + 1..).unwrap_or_default(),
            ),
            None if path.is_empty() => return from.root().map(Some),
            None => (&b""[..], path),
        };
        match from.find(above)? {
            Some((_, parent)) => from.child(&parent, name),
            None => Ok(None),
        }
    }

    /// The tree of an archive that ADD takes apart; `None`: it is none.
    fn archive(&self, from: &Source, place: &Place) -> Result<Option<Source>, BuildError> {
        fetched::archive(self.store, &self.import, &self.options.limits, from, place)
    }

    /// The time of what the build itself makes.
    pub(super) fn mtime(&self) -> i64 {
        self.options.epoch.unwrap_or(self.now).as_second()
    }

    /// Brings a layer of these entries into the store.
    pub(super) fn layer(&self, items: Vec<super::copy::Item>) -> Result<DiffId, BuildError> {
        let watcher = &self.options.watcher;
        let made = intake::produce(&self.import, &self.options.limits, |out| {
            emit::write(&items, &mut Counted::new(out, watcher))
        });
        Ok(made.map_err(BuildError::from)?.0)
    }

    /// The beginning of a key: what every step depends on.
    pub(super) fn key(&self, kind: &str, state: &State) -> Fields {
        let mut fields = Fields::default();
        fields.add(KEYS).add(kind.as_bytes());
        fields.add(state.chain().as_bytes());
        let epoch = self.options.epoch.map(|epoch| epoch.to_string());
        fields.add(epoch.unwrap_or_default().as_bytes());
        fields
    }

    /// A step: what was made of it before, or `work`, and one more line of history.
    pub(super) fn step(
        &mut self,
        state: &mut State,
        keys: &[Digest],
        created_by: &str,
        work: impl FnOnce(&mut Self, &State) -> Result<Option<DiffId>, BuildError>,
    ) -> Result<(), BuildError> {
        let done = match self.cached(state, keys, created_by)? {
            Some(done) => {
                self.host.tell(&Event::Cached);
                done
            }
            None => {
                let layer = work(self, state)?;
                self.record(keys, layer, created_by)?
            }
        };
        state.advance(done.created, created_by, done.layer)
    }
}

/// `/bin/sh -c #(nop) COPY ..`: the history of a step that runs nothing.
fn nop(run: &RunConfig, blank: &str, text: &str) -> String {
    format!("{} #(nop) {blank}{text}", run.shell_or_default().join(" "))
}

fn several_sources(verb: &str) -> String {
    format!(
        "When using {verb} with more than one source file, the destination must be a directory and end with a /"
    )
}

/// `--chmod`.
fn mode(text: &str) -> Result<u32, BuildError> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(BuildError::Failed(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))),
    }
}
