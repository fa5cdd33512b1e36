//! `RUN --mount`.

use std::path::PathBuf;

use super::BuildError;
use crate::ops::container::run::mounts::{normal, size_of};

/// What a step sees beside its stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunMount {
    /// Where, absolute.
    pub target: PathBuf,
    /// What.
    pub kind: Kind,
    /// Cannot be written to.
    pub read_only: bool,
}

/// What a mount is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory that later steps and builds find again.
    Cache {
        /// Its name.
        id: String,
        /// Nobody else has it at the same time.
        alone: bool,
        /// Owner, group and mode of a new one.
        uid: u32,
        /// See there.
        gid: u32,
        /// See there.
        mode: u32,
    },
    /// A part of the context, of a stage or of an image.
    Bind {
        /// Which; `None`: the context.
        from: Option<String>,
        /// Which part.
        source: String,
    },
    /// A file system in memory.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
    },
    /// A text that no layer holds.
    Secret {
        /// Its name.
        id: String,
        /// It must be given.
        required: bool,
        /// Owner, group and mode of the file.
        uid: u32,
        /// See there.
        gid: u32,
        /// See there.
        mode: u32,
        /// A variable to set; then there is a file only if `target` was given.
        env: Option<String>,
        /// `target` was given.
        file: bool,
    },
}

/// Reads one; relative targets are below `working_dir`.
pub(super) fn parse(text: &str, working_dir: &str) -> Result<RunMount, BuildError> {
    let mut fields = Fields::new(text);
    let kind = fields.value(&["type"]).unwrap_or("bind");
    let kind = kind.to_ascii_lowercase();
    let given = Given {
        target: fields.value(&["target", "dst", "destination"]),
        source: fields.value(&["source", "src"]),
        from: fields.value(&["from"]),
        id: fields.value(&["id"]),
        uid: fields.number("uid", 10)?.unwrap_or(0),
        gid: fields.number("gid", 10)?.unwrap_or(0),
        mode: fields.number("mode", 8)?,
    };
    let read_only = fields.truth(&["readonly", "ro"], kind == "bind")?;
    let written = fields.truth(&["rw", "readwrite"], false)?;
    let mount = match kind.as_str() {
        "cache" => cache(&mut fields, &given)?,
        "bind" if written => return Err(fields.refused("a bind cannot be written to here")),
        "bind" => Kind::Bind {
            from: given.from.map(str::to_owned),
            source: given.source.unwrap_or_default().to_owned(),
        },
        "tmpfs" => tmpfs(&mut fields)?,
        "secret" => secret(&mut fields, &given)?,
        "ssh" => return Err(fields.refused("no agent is forwarded here; use a secret")),
        other => return Err(fields.refused(&format!("unsupported mount type {other:?}"))),
    };
    if let Some((key, _)) = fields.left.first() {
        return Err(fields.refused(&format!("unexpected key '{key}'")));
    }
    let target = match (&mount, given.target) {
        (_, Some(target)) => target.to_owned(),
        (Kind::Secret { id, .. }, None) => format!("/run/secrets/{}", name_of(id)),
        (_, None) => return Err(fields.refused("target is required")),
    };
    let target = match target.starts_with('/') {
        true => target,
        false => format!("{}/{target}", working_dir.trim_end_matches('/')),
    };
    Ok(RunMount {
        target: normal(&target).map_err(|why| fields.refused(&why))?,
        kind: mount,
        read_only,
    })
}

/// What any kind may be given.
struct Given<'a> {
    target: Option<&'a str>,
    source: Option<&'a str>,
    from: Option<&'a str>,
    id: Option<&'a str>,
    uid: u32,
    gid: u32,
    mode: Option<u32>,
}

/// The fields that nobody has asked for yet.
struct Fields<'a> {
    text: &'a str,
    left: Vec<(String, Option<&'a str>)>,
}

impl<'a> Fields<'a> {
    fn new(text: &'a str) -> Fields<'a> {
        let field = |field: &'a str| match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let left = text.split(',').map(field).collect();
        Fields { text, left }
    }

    fn refused(&self, why: &str) -> BuildError {
        BuildError::Failed(format!("invalid mount {:?}: {why}", self.text))
    }

    /// The last of these keys, with its value if it has one.
    fn take(&mut self, names: &[&str]) -> Option<Option<&'a str>> {
        let is_named = |(key, _): &(String, _)| names.contains(&key.as_str());
        let (_, value) = self.left.iter().rfind(|field| is_named(field))?;
        let value = *value;
        self.left.retain(|field| !is_named(field));
        Some(value)
    }

    fn value(&mut self, names: &[&str]) -> Option<&'a str> {
        self.take(names).flatten()
    }

    fn truth(&mut self, names: &[&str], default: bool) -> Result<bool, BuildError> {
        let key = names.first().copied().unwrap_or_default();
        match self.take(names) {
            None => Ok(default),
            Some(None | Some("true" | "1")) => Ok(true),
            Some(Some("false" | "0")) => Ok(false),
            Some(Some(other)) => Err(self.refused(&format!("invalid value for {key}: {other}"))),
        }
    }

    fn number(&mut self, key: &str, radix: u32) -> Result<Option<u32>, BuildError> {
        let Some(value) = self.take(&[key]) else {
            return Ok(None);
        };
        let value = value.unwrap_or_default();
        let number = u32::from_str_radix(value, radix);
        let wrong = |_| self.refused(&format!("invalid value for {key}: {value}"));
        number.map(Some).map_err(wrong)
    }
}

fn cache(fields: &mut Fields<'_>, given: &Given<'_>) -> Result<Kind, BuildError> {
    if let Some(from) = given.from.or(given.source) {
        let why = format!("a cache begins empty here; {from:?} cannot be its beginning");
        return Err(fields.refused(&why));
    }
    let alone = match fields.value(&["sharing"]) {
        None | Some("shared") => false,
        // A directory of one's own would be empty each time two builds run: this waits.
        Some("locked" | "private") => true,
        Some(other) => {
            return Err(fields.refused(&format!("unsupported sharing value {other:?}")));
        }
    };
    let Some(target) = given.target else {
        return Err(fields.refused("target is required"));
    };
    Ok(Kind::Cache {
        id: given.id.unwrap_or(target).to_owned(),
        alone,
        uid: given.uid,
        gid: given.gid,
        mode: given.mode.unwrap_or(0o755),
    })
}

fn tmpfs(fields: &mut Fields<'_>) -> Result<Kind, BuildError> {
    let Some(text) = fields.value(&["size"]) else {
        return Ok(Kind::Tmpfs { size: None });
    };
    match size_of(text) {
        None => Err(fields.refused(&format!("invalid value for size: {text}"))),
        size => Ok(Kind::Tmpfs { size }),
    }
}

fn secret(fields: &mut Fields<'_>, given: &Given<'_>) -> Result<Kind, BuildError> {
    let env = fields.value(&["env"]).map(str::to_owned);
    let id = match (given.id.or(given.source), given.target) {
        (Some(id), _) => id,
        (None, Some(target)) => name_of(target),
        (None, None) => return Err(fields.refused("a secret needs an id")),
    };
    Ok(Kind::Secret {
        required: fields.truth(&["required"], false)?,
        uid: given.uid,
        gid: given.gid,
        mode: given.mode.unwrap_or(0o400),
        file: given.target.is_some() || env.is_none(),
        env,
        id: id.to_owned(),
    })
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let cache = parse("type=cache,target=.m2,sharing=locked,mode=700", "/root").unwrap();
        assert_eq!(cache.target, PathBuf::from("/root/.m2"));
        assert!(
            matches!(cache.kind, Kind::Cache { ref id, alone: true, mode: 0o700, .. } if id == ".m2")
        );
        let bind = parse("target=/src,source=a,from=base", "/").unwrap();
        assert!(bind.read_only);
        assert!(
            matches!(bind.kind, Kind::Bind { ref from, .. } if from.as_deref() == Some("base"))
        );
        let secret = parse("type=secret,id=token", "/").unwrap();
        assert_eq!(secret.target, PathBuf::from("/run/secrets/token"));
        for (text, why) in [
            ("type=cache", "target is required"),
            ("type=ssh", "no agent"),
            ("type=nope,target=/x", "unsupported mount type"),
            ("type=bind,target=/x,rw", "cannot be written"),
            ("type=bind,target=/", "destination can't be '/'"),
            (
                "type=bind,target=/x,bind-propagation=shared",
                "unexpected key",
            ),
            ("type=tmpfs,target=/x,size=many", "invalid value for size"),
            ("type=secret", "needs an id"),
        ] {
            let error = parse(text, "/").unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
