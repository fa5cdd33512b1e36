//! COPY and ADD: what the words mean, what is brought, and by which keys it is found again.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;

use super::arguments::expand;
use super::copy::{Content, Copying, How};
use super::source::{Place, Source};
use super::stages::Builder;
use super::state::State;
use super::steps::nop;
use super::{BuildError, Event, digest, fetched, owner};
use crate::oci::Digest;
use crate::oci::dockerfile::ignore::{Ignore, clean};
use crate::oci::dockerfile::pattern::Pattern;
use crate::oci::dockerfile::{Copy, CopySource, Expand};
use crate::tree::{Attributes, NodeKind};

/// An instruction with its variables expanded.
struct Expanded {
    sources: Vec<CopySource>,
    destination: String,
    exclude: Ignore,
    chown: Option<String>,
    mode: Option<u32>,
    checksum: Option<String>,
}

/// Where sources come from, and where they go.
struct Way<'a> {
    copy: &'a Copy,
    /// The build context, or another stage or image; `None`: there is no context.
    from: Option<Source>,
    checksum: Option<String>,
    /// In the layer, without leading slash.
    path: Vec<u8>,
    /// Whether that is a directory, or will be one.
    into: bool,
    /// Whether this is the only source.
    alone: bool,
}

impl Builder<'_> {
    /// A step of COPY or ADD.
    pub(super) fn copy(
        &mut self,
        at: usize,
        state: &mut State,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        let words = self.expanded(state, copy)?;
        let tree = state.tree(self.store)?;
        let how = How {
            owner: match &words.chown {
                Some(chown) => Some(owner::parse(&tree, chown)?),
                None => None,
            },
            mode: words.mode,
            parents: copy.parents,
            exclude: words.exclude,
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
        let (verb, shown) = (verb(copy), &words.destination);
        let count = words.sources.len();
        let (path, into) = self.destination(state, &tree, shown, count)?;
        // Of another stage or image the layers say all: the content need not be read to find what was done.
        let quick = origin.map(|origin| {
            let mut key = self.key("copy from", state);
            let what = (&words.sources, how.owner, how.mode, how.parents);
            let what = format!(
                "{:?}{:?}{:?}{:?}{:?}",
                what.0, what.1, what.2, what.3, copy.exclude
            );
            key.add(origin.as_bytes()).add(what.as_bytes());
            key.add(&path).add(&[u8::from(into)]).finish()
        });
        if let Some(quick) = quick
            && self.is_known(state, quick, &format!("{verb} from:{quick} in {shown} "))?
        {
            return Ok(());
        }
        let way = Way {
            copy,
            from,
            checksum: words.checksum,
            path,
            into,
            alone: count == 1,
        };
        let mut copying = Copying::new(&tree, &how);
        let mut kinds = BTreeSet::new();
        for source in words.sources {
            kinds.extend(self.bring(source, &way, &how, &mut copying)?);
        }
        let mut items = copying.items;
        let content = digest::fill(&mut items)?;
        let kind = match kinds.len() {
            1 if way.alone => kinds.into_iter().next().unwrap_or("file"),
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

    fn expanded(&self, state: &State, copy: &Copy) -> Result<Expanded, BuildError> {
        let variables = state.arguments.variables(&state.run.env);
        let expanded = |word: &String| expand(word, &variables, self.file.escape);
        let exclude = copy.exclude.iter().map(expanded);
        let exclude = Ignore::of_patterns(&exclude.collect::<Result<Vec<_>, _>>()?);
        let chmod = copy.chmod.as_ref().map(expanded).transpose()?;
        let content = Expand {
            env: &variables,
            escape: self.file.escape,
            raw: true,
        };
        let source = |source: &CopySource| match source {
            CopySource::Path(path) => Ok(CopySource::Path(expanded(path)?)),
            CopySource::Text(text) if text.expand => {
                let mut text = text.clone();
                let content = content.word(&text.content);
                text.content = content.map_err(|e| BuildError::Failed(e.to_string()))?;
                Ok(CopySource::Text(text))
            }
            CopySource::Text(text) => Ok(CopySource::Text(text.clone())),
        };
        Ok(Expanded {
            exclude: exclude.map_err(|error| failed(copy, &error.to_string()))?,
            chown: copy.chown.as_ref().map(expanded).transpose()?,
            mode: chmod.map(|text| mode(&text)).transpose()?,
            checksum: copy.checksum.as_ref().map(expanded).transpose()?,
            destination: expanded(&copy.destination)?,
            sources: copy
                .sources
                .iter()
                .map(source)
                .collect::<Result<_, BuildError>>()?,
        })
    }

    /// Whether a step of this key was done before: then it is taken.
    fn is_known(&mut self, state: &mut State, key: Digest, text: &str) -> Result<bool, BuildError> {
        let known = self.cache.entries.get(&key);
        let Some(entry) = known.filter(|_| !self.options.no_cache) else {
            return Ok(false);
        };
        let created_by = match entry.step.is_empty() {
            true => nop(&state.run, "", text),
            false => entry.step.clone(),
        };
        let Some(done) = self.cached(state, &[key], &created_by)? else {
            return Ok(false);
        };
        self.host.tell(&Event::Cached);
        state.advance(done.created, &created_by, done.layer)?;
        Ok(true)
    }

    /// Adds a source to the layer; of which kinds it was.
    fn bring(
        &self,
        source: CopySource,
        way: &Way<'_>,
        how: &How,
        copying: &mut Copying<'_>,
    ) -> Result<Vec<&'static str>, BuildError> {
        let failed = |why: &str| failed(way.copy, why);
        let add = way.copy.add;
        match source {
            CopySource::Text(text) => {
                let attributes = Attributes {
                    kind: NodeKind::Regular,
                    mode: 0o644,
                    size: text.content.len() as u64,
                    mtime_sec: how.now,
                    ..Attributes::IMPLICIT_DIRECTORY
                };
                let content = Content::Bytes(text.content.into_bytes());
                copying.add_file(&text.name, attributes, content, &way.path, way.into)?;
                Ok(vec!["file"])
            }
            CopySource::Path(url) if add && fetched::is_url(&url) => {
                self.bring_url(&url, way, copying)?;
                Ok(vec!["file"])
            }
            CopySource::Path(path) if add && fetched::is_repository(&path) => Err(failed(
                &format!("{path}: repositories are not supported as sources; clone it first"),
            )),
            CopySource::Path(_) if way.checksum.is_some() => {
                Err(failed("checksum is only of use with a URL"))
            }
            CopySource::Path(path) => match &way.from {
                Some(from) => self.bring_path(from, &path, way, copying),
                None => Err(failed(&not_in_context(&path))),
            },
        }
    }

    fn bring_url(
        &self,
        url: &str,
        way: &Way<'_>,
        copying: &mut Copying<'_>,
    ) -> Result<(), BuildError> {
        let got = fetched::download(url, way.checksum.as_deref(), self.import.dir());
        let got = got.map_err(|why| failed(way.copy, &why))?;
        let attributes = Attributes {
            kind: NodeKind::Regular,
            mode: 0o600,
            size: got.file.metadata()?.size(),
            mtime_sec: got.modified,
            ..Attributes::IMPLICIT_DIRECTORY
        };
        if got.name.is_empty() && way.into {
            let why = format!("cannot determine filename from url: {url}");
            return Err(failed(way.copy, &why));
        }
        let content = Content::File(got.file);
        copying.add_file(&got.name, attributes, content, &way.path, way.into)
    }

    fn bring_path(
        &self,
        from: &Source,
        text: &str,
        way: &Way<'_>,
        copying: &mut Copying<'_>,
    ) -> Result<Vec<&'static str>, BuildError> {
        let found = self.find(from, text, way.copy)?;
        if found.len() > 1 && !way.into {
            return Err(BuildError::Failed(several_sources(verb(way.copy))));
        }
        let mut kinds = Vec::new();
        for found in found {
            let kind = from.attributes(&found.1)?.kind;
            kinds.push(match kind {
                NodeKind::Directory => "dir",
                _ => "file",
            });
            if way.copy.add
                && kind == NodeKind::Regular
                && let Some(archive) = self.archive(from, &found.1)?
            {
                let root = (Vec::new(), archive.root()?);
                copying.add(&archive, &root, &way.path, true)?;
                continue;
            }
            copying.add(from, &found, &way.path, way.into)?;
        }
        Ok(kinds)
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
    ) -> Result<Vec<(Vec<u8>, Place)>, BuildError> {
        let failed = |why: &str| failed(copy, why);
        let relative = text.trim_start_matches('/');
        let path = clean(relative.as_bytes());
        if path.starts_with(b"..") && matches!(path.get(2), None | Some(b'/')) {
            let why = format!("forbidden path outside the build context: {text} ()");
            return Err(failed(&why));
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
                    return Err(failed("no source files were specified"));
                }
                found
            }
            false => match self.place(from, &path)? {
                Some(place) => vec![(path, place)],
                None if copy.from.is_some() => {
                    return Err(failed(&format!("stat {text}: file does not exist")));
                }
                None => {
                    return Err(failed(&not_in_context(text)));
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
}

fn verb(copy: &Copy) -> &'static str {
    if copy.add { "ADD" } else { "COPY" }
}

fn failed(copy: &Copy, why: &str) -> BuildError {
    BuildError::Failed(format!("{} failed: {why}", verb(copy)))
}

fn not_in_context(path: &str) -> String {
    format!(
        "file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
    )
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
