//! What the arguments of `mica build` mean: context, Dockerfile, arguments, secrets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use crate::layer::Compression;
use crate::layer::compress::sniff;
use crate::ops::build::{Input, MAX_TEXT, Recipe, Secret, context, is_tar};

/// The name of a Dockerfile.
const USUAL: &str = "Dockerfile";

/// Finds context and Dockerfile.
pub(super) fn find(text: &str, file: Option<&str>) -> anyhow::Result<(Input, Recipe)> {
    match (text, file) {
        ("-", Some("-")) => {
            bail!("invalid argument: can't use stdin for both build context and dockerfile")
        }
        ("-", file) => standard_input(file),
        (text, file) => {
            let remote = ["http://", "https://", "git://", "git@", "github.com/"];
            if remote.iter().any(|begin| text.starts_with(begin)) && !Path::new(text).exists() {
                bail!(
                    "unable to prepare context: {text}: contexts are not fetched; get it first, or pipe a tar to \"mica build -\""
                );
            }
            let directory = directory(Path::new(text))?;
            let recipe = match file {
                None => Recipe::InContext(usual(&directory).into()),
                Some("-") => Recipe::Text {
                    name: "-".to_owned(),
                    bytes: text_of(stdin()?)?,
                    ignore: None,
                },
                Some(path) => named(Path::new(path))?,
            };
            Ok((Input::Directory(directory), recipe))
        }
    }
}

fn directory(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "unable to prepare context: path {:?} not found",
                shown.to_string()
            )
        }
        Err(error) => bail!("unable to prepare context: {shown}: {error}"),
        Ok(stat) if !stat.is_dir() => {
            bail!("unable to prepare context: context must be a directory: {shown}")
        }
        Ok(_) => Ok(path.to_owned()),
    }
}

/// docker takes a `dockerfile`, too.
fn usual(directory: &Path) -> &'static str {
    let lower = "dockerfile";
    let is_there = |name: &str| directory.join(name).symlink_metadata().is_ok();
    match !is_there(USUAL) && is_there(lower) {
        true => lower,
        false => USUAL,
    }
}

/// A Dockerfile that `-f` names: wherever it is.
fn named(path: &Path) -> anyhow::Result<Recipe> {
    let what = || {
        format!(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: {}",
            path.display()
        )
    };
    let file = File::open(path).with_context(what)?;
    let bytes = context::read_whole(file, path, MAX_TEXT)?;
    let beside = PathBuf::from(format!("{}.dockerignore", path.display()));
    let ignore = match File::open(&beside) {
        Ok(file) => Some(context::read_whole(file, &beside, MAX_TEXT)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| beside.display().to_string()),
    };
    Ok(Recipe::Text {
        name: path.display().to_string(),
        bytes,
        ignore,
    })
}

fn stdin() -> anyhow::Result<File> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        bail!(
            "unable to prepare context: standard input is a terminal; redirect a Dockerfile or a tar to it"
        );
    }
    Ok(File::from(stdin.as_fd().try_clone_to_owned()?))
}

fn text_of(from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT + 1)
        .read_to_end(&mut bytes)
        .context("standard input")?;
    if bytes.len() as u64 > MAX_TEXT {
        bail!("standard input is longer than a Dockerfile may be ({MAX_TEXT} bytes)");
    }
    Ok(bytes)
}

/// A tar, or a Dockerfile: its beginning tells.
fn standard_input(file: Option<&str>) -> anyhow::Result<(Input, Recipe)> {
    let mut stdin = stdin()?;
    let mut head = Vec::new();
    stdin
        .by_ref()
        .take(512)
        .read_to_end(&mut head)
        .context("standard input")?;
    let archive = sniff(&head) != Compression::None || is_tar(&head);
    let whole = io::Cursor::new(head).chain(stdin);
    if archive {
        let recipe = Recipe::InContext(file.unwrap_or(USUAL).into());
        return Ok((Input::Archive(Box::new(whole)), recipe));
    }
    if let Some(file) = file {
        bail!("unable to prepare context: {file}: standard input is no archive");
    }
    let recipe = Recipe::Text {
        name: String::new(),
        bytes: text_of(whole)?,
        ignore: None,
    };
    Ok((Input::Nothing, recipe))
}

/// `--build-arg`.
pub(super) fn arguments(texts: &[String]) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for text in texts {
        match text.split_once('=') {
            Some((name, value)) => {
                arguments.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Ok(value) = std::env::var(text) {
                    arguments.insert(text.clone(), value);
                }
            }
        }
    }
    arguments
}

/// `--label`.
pub(super) fn label(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// The time that a reproducible build has.
pub(super) fn epoch(arguments: &BTreeMap<String, String>) -> anyhow::Result<Option<Timestamp>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let given = arguments
        .get(NAME)
        .cloned()
        .or_else(|| std::env::var(NAME).ok());
    let Some(text) = given.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let seconds = text
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    match seconds {
        Some(time) => Ok(Some(time)),
        None => bail!("invalid {NAME}: {text}"),
    }
}

/// `--secret`.
pub(super) fn secrets(texts: &[String]) -> anyhow::Result<BTreeMap<String, Secret>> {
    let mut secrets = BTreeMap::new();
    for text in texts {
        let invalid = |why: &str| format!("invalid argument {text:?} for \"--secret\" flag: {why}");
        let (mut id, mut source, mut variable) = (None, None, None);
        for field in text.split(',') {
            let Some((key, value)) = field.split_once('=') else {
                bail!(invalid(&format!(
                    "invalid field '{field}' must be a key=value pair"
                )));
            };
            match key.to_ascii_lowercase().as_str() {
                "id" => id = Some(value),
                "src" | "source" => source = Some(value),
                "env" => variable = Some(value),
                "type" if matches!(value, "file" | "env") => {}
                _ => bail!(invalid(&format!("unexpected key '{key}' in '{field}'"))),
            }
        }
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            bail!(invalid("secret missing \"id\""));
        };
        let of_variable = |name: &str| {
            std::env::var_os(name)
                .map(|value| Secret::Text(std::os::unix::ffi::OsStringExt::into_vec(value)))
        };
        let secret = match (variable, source) {
            (Some(name), _) => of_variable(name)
                .with_context(|| invalid(&format!("the variable {name} is not set")))?,
            (None, Some(path)) => Secret::File(path.into()),
            (None, None) => of_variable(id).unwrap_or_else(|| Secret::File(id.into())),
        };
        if let Secret::File(path) = &secret {
            // Told before the first step.
            File::open(path).with_context(|| invalid(&path.display().to_string()))?;
        }
        secrets.insert(id.to_owned(), secret);
    }
    Ok(secrets)
}
