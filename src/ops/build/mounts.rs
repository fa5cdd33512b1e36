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
    let refused = |why: String| BuildError::Failed(format!("invalid mount {text:?}: {why}"));
    let mut fields: Vec<(String, Option<&str>)> = Vec::new();
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        fields.push((key.trim().to_ascii_lowercase(), value));
    }
    let mut take = |names: &[&str]| -> Option<Option<&str>> {
        let at = fields
            .iter()
            .rposition(|(key, _)| names.contains(&key.as_str()))?;
        let (_, value) = fields.remove(at);
        fields.retain(|(key, _)| !names.contains(&key.as_str()));
        Some(value)
    };
    let kind = take(&["type"])
        .flatten()
        .unwrap_or("bind")
        .to_ascii_lowercase();
    let target = take(&["target", "dst", "destination"]).flatten();
    let source = take(&["source", "src"]).flatten();
    let from = take(&["from"]).flatten();
    let id = take(&["id"]).flatten();
    let truth = |value: Option<Option<&str>>, default: bool, key: &str| match value {
        None => Ok(default),
        Some(None | Some("true" | "1")) => Ok(true),
        Some(Some("false" | "0")) => Ok(false),
        Some(Some(other)) => Err(refused(format!("invalid value for {key}: {other}"))),
    };
    let number = |value: Option<Option<&str>>, radix: u32, default: u32, key: &str| match value {
        None => Ok(default),
        Some(value) => {
            let value = value.unwrap_or_default();
            u32::from_str_radix(value, radix)
                .map_err(|_| refused(format!("invalid value for {key}: {value}")))
        }
    };
    let read_only = truth(take(&["readonly", "ro"]), kind == "bind", "readonly")?;
    let written = truth(take(&["rw", "readwrite"]), false, "rw")?;
    let (uid, gid) = (
        number(take(&["uid"]), 10, 0, "uid")?,
        number(take(&["gid"]), 10, 0, "gid")?,
    );
    let mode = take(&["mode"]);
    let mut mount = match kind.as_str() {
        "cache" => {
            if let Some(from) = from.or(source) {
                return Err(refused(format!(
                    "a cache begins empty here; {from:?} cannot be its beginning"
                )));
            }
            let alone = match take(&["sharing"]).flatten() {
                None | Some("shared") => false,
                // A directory of one's own would be empty each time two builds run: this waits.
                Some("locked" | "private") => true,
                Some(other) => return Err(refused(format!("unsupported sharing value {other:?}"))),
            };
            let target = target.ok_or_else(|| refused("target is required".to_owned()))?;
            Kind::Cache {
                id: id.unwrap_or(target).to_owned(),
                alone,
                uid,
                gid,
                mode: number(mode, 8, 0o755, "mode")?,
            }
        }
        "bind" => {
            if written {
                return Err(refused("a bind cannot be written to here".to_owned()));
            }
            Kind::Bind {
                from: from.map(str::to_owned),
                source: source.unwrap_or_default().to_owned(),
            }
        }
        "tmpfs" => {
            let size = match take(&["size"]).flatten() {
                None => None,
                Some(size) => match size_of(size) {
                    Some(bytes) => Some(bytes),
                    None => return Err(refused(format!("invalid value for size: {size}"))),
                },
            };
            Kind::Tmpfs { size }
        }
        "secret" => {
            let env = take(&["env"]).flatten().map(str::to_owned);
            let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
            let id = match (id.or(source), target) {
                (Some(id), _) => id.to_owned(),
                (None, Some(target)) => name(target),
                (None, None) => return Err(refused("a secret needs an id".to_owned())),
            };
            Kind::Secret {
                required: truth(take(&["required"]), false, "required")?,
                uid,
                gid,
                mode: number(mode, 8, 0o400, "mode")?,
                file: target.is_some() || env.is_none(),
                env,
                id,
            }
        }
        "ssh" => {
            return Err(refused(
                "no agent is forwarded here; use a secret".to_owned(),
            ));
        }
        other => return Err(refused(format!("unsupported mount type {other:?}"))),
    };
    if let Some((key, _)) = fields.first() {
        return Err(refused(format!("unexpected key '{key}'")));
    }
    let target = match (&mut mount, target) {
        (_, Some(target)) => target.to_owned(),
        (Kind::Secret { id, .. }, None) => {
            format!("/run/secrets/{}", id.rsplit('/').next().unwrap_or(id))
        }
        (_, None) => return Err(refused("target is required".to_owned())),
    };
    let target = match target.starts_with('/') {
        true => target,
        false => format!("{}/{target}", working_dir.trim_end_matches('/')),
    };
    Ok(RunMount {
        target: normal(&target).map_err(refused)?,
        kind: mount,
        read_only,
    })
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
