//! `-v`, `--mount`, `--tmpfs`, `--volumes-from`: what a container sees besides its image.

mod spelling;

use std::path::{Component, Path, PathBuf};

use crate::oci::ImageId;
use crate::ops::container::run::RunError;
use crate::ops::volume::VolumeError;
use crate::store::Store;
use crate::store::containers::{MountSource, MountUse};
use crate::store::volumes::{VolumeKind, VolumeName};

/// Something to mount, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where, absolute, normal.
    pub destination: PathBuf,
    /// What.
    pub source: WantedSource,
    /// Cannot be written to.
    pub read_only: bool,
    /// A new volume does not get the image's content.
    pub no_copy: bool,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedSource {
    /// A volume by name; made if it is not there.
    Named {
        /// Which.
        name: String,
        /// A directory below it.
        subpath: String,
    },
    /// A new volume that goes with its last user.
    Anonymous,
    /// A directory or file of the host.
    Bind(PathBuf),
    /// A file system in memory.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
        /// Mode of its root.
        mode: Option<u32>,
        /// The kernel's other options, see [`spelling::Tmpfs`].
        options: Vec<String>,
    },
    /// The tree of an image.
    Image {
        /// Which, as given.
        image: String,
        /// A directory below its root.
        subpath: String,
    },
}

/// Something to mount, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyMount {
    /// Where.
    pub destination: PathBuf,
    /// What.
    pub source: ReadySource,
    /// Cannot be written to.
    pub read_only: bool,
}

/// What there is to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadySource {
    /// A directory or file of the host, as typed: symbolic links are followed.
    Bind {
        /// Which.
        source: PathBuf,
    },
    /// A volume that is a directory or file of the host, in whose path was no symbolic link.
    BindVolume {
        /// Which.
        source: PathBuf,
        /// A part of it; empty: all.
        subpath: PathBuf,
    },
    /// A volume of the store's.
    Volume {
        /// Its data, seen from the store's directory.
        data: PathBuf,
        /// A part of it; empty: all.
        subpath: PathBuf,
        /// If it is empty, it gets the image's content first.
        fill: bool,
    },
    /// A new file system in memory.
    Tmpfs {
        /// Size limit in bytes.
        size: Option<u64>,
        /// Mode of its root.
        mode: u32,
        /// The kernel's other options, see [`spelling::Tmpfs`].
        options: Vec<String>,
    },
    /// A part of an image's tree.
    Image {
        /// Which.
        image: ImageId,
        /// Which part.
        subpath: PathBuf,
    },
    /// A file that is nowhere but in memory.
    Text {
        /// Its content.
        content: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner and group, as the container names them.
        owner: (u32, u32),
    },
}

/// Reads an argument of `-v`.
pub fn parse_volume(text: &str) -> Result<Wanted, RunError> {
    let invalid = |why: &str| {
        RunError::Refused(match why {
            "" => format!("invalid volume specification: '{text}'"),
            why => format!("invalid volume specification: '{text}': {why}"),
        })
    };
    let fields: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match fields.as_slice() {
        [destination] => ("", *destination, ""),
        [_, ""] | ["", ..] | [_, "", _] => return Err(invalid("")),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(invalid("")),
    };
    let (mut read_only, mut no_copy, mut propagation) = (false, false, false);
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => no_copy = true,
            // Labels of a security module that is not asked for here; words that mean something on a Mac.
            "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            word if spelling::is_propagation(word) => propagation = true,
            _ => return Err(invalid(&format!("invalid mode: {mode}"))),
        }
    }
    let destination = normal(destination).map_err(|why| invalid(&why))?;
    let source = match source {
        "" => WantedSource::Anonymous,
        path if path.starts_with('/') => WantedSource::Bind(path.into()),
        path if path.starts_with('.') => WantedSource::Bind(spelling::absolute(path)?),
        name => WantedSource::Named {
            name: name.to_owned(),
            subpath: String::new(),
        },
    };
    let is_bind = matches!(source, WantedSource::Bind(_));
    if (no_copy && is_bind) || (propagation && !is_bind) {
        return Err(invalid(&format!("invalid mode: {mode}")));
    }
    Ok(Wanted {
        destination,
        source,
        read_only,
        no_copy,
    })
}

/// Reads an argument of `--mount`.
pub fn parse_mount(text: &str) -> Result<Wanted, RunError> {
    let invalid = |why: String| {
        RunError::Usage(format!(
            "invalid argument {text:?} for \"--mount\" flag: {why}"
        ))
    };
    let (mut kind, mut source, mut destination) = ("volume", None, None);
    let (mut read_only, mut no_copy, mut subpath) = (false, false, String::new());
    let (mut size, mut mode) = (None, None);
    for field in &spelling::fields(text).map_err(invalid)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        let truth = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(value) => Err(invalid(format!("invalid value for {key}: {value}"))),
        };
        match (key.to_ascii_lowercase().as_str(), value) {
            ("readonly" | "ro", _) => read_only = truth()?,
            ("volume-nocopy", _) => no_copy = truth()?,
            (_, None) => {
                return Err(invalid(format!(
                    "invalid field '{field}' must be a key=value pair"
                )));
            }
            ("type", Some(value)) => {
                kind = match value.to_ascii_lowercase().as_str() {
                    "bind" => "bind",
                    "volume" => "volume",
                    "tmpfs" => "tmpfs",
                    "image" => "image",
                    _ => return Err(invalid(format!("mount type unknown: {value:?}"))),
                }
            }
            ("source" | "src", Some(value)) => source = Some(value.to_owned()),
            ("target" | "dst" | "destination", Some(value)) => destination = Some(value.to_owned()),
            ("volume-subpath" | "image-subpath", Some(value)) => subpath = value.to_owned(),
            ("bind-propagation", Some(value)) if spelling::is_propagation(value) => {}
            ("consistency", Some("consistent" | "cached" | "delegated" | "default")) => {}
            ("volume-driver", Some("local")) => {}
            ("tmpfs-size", Some(value)) => {
                let bytes = size_of(value);
                size = Some(
                    bytes.ok_or_else(|| invalid(format!("invalid value for {key}: {value}")))?,
                );
            }
            ("tmpfs-mode", Some(value)) => {
                let bits = u32::from_str_radix(value, 8).ok();
                mode =
                    Some(bits.ok_or_else(|| invalid(format!("invalid value for {key}: {value}")))?);
            }
            _ => return Err(invalid(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    let destination = destination.ok_or_else(|| invalid("target is required".to_owned()))?;
    let refused =
        |why: String| RunError::Refused(format!("invalid mount config for type {kind:?}: {why}"));
    let destination = normal(&destination).map_err(refused)?;
    if no_copy && kind != "volume" {
        return Err(invalid(format!(
            "cannot mix 'volume-*' options with mount type '{kind}'"
        )));
    }
    if (size.is_some() || mode.is_some()) && kind != "tmpfs" {
        return Err(invalid(format!(
            "cannot mix 'tmpfs-*' options with mount type '{kind}'"
        )));
    }
    let source = match (kind, source) {
        ("volume", None) => WantedSource::Anonymous,
        ("volume", Some(name)) => WantedSource::Named { name, subpath },
        ("bind", Some(path)) if path.starts_with('/') => WantedSource::Bind(path.into()),
        ("bind", Some(path)) if path.starts_with('.') => {
            WantedSource::Bind(spelling::absolute(&path)?)
        }
        ("bind", Some(path)) => {
            return Err(refused(format!(
                "invalid mount path: '{path}' mount path must be absolute"
            )));
        }
        ("image", Some(image)) => WantedSource::Image { image, subpath },
        ("tmpfs", None) => WantedSource::Tmpfs {
            size,
            mode,
            options: Vec::new(),
        },
        ("tmpfs", Some(_)) => return Err(refused("field Source must not be specified".to_owned())),
        (_, None) | (_, Some(_)) => {
            return Err(refused("field Source must not be empty".to_owned()));
        }
    };
    Ok(Wanted {
        destination,
        read_only: read_only || matches!(source, WantedSource::Image { .. }),
        source,
        no_copy,
    })
}

/// Reads an argument of `--tmpfs`.
pub fn parse_tmpfs(text: &str) -> Result<Wanted, RunError> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let invalid = |why: String| RunError::Refused(format!("invalid tmpfs option: {why}"));
    let spelling::Tmpfs {
        size,
        mode,
        read_only,
        options,
    } = spelling::Tmpfs::parse(options).map_err(invalid)?;
    Ok(Wanted {
        destination: normal(destination).map_err(invalid)?,
        source: WantedSource::Tmpfs {
            size,
            mode,
            options,
        },
        read_only,
        no_copy: false,
    })
}

/// Splits an argument of `--volumes-from`: the container, and whether its volumes are for reading only.
pub fn parse_volumes_from(text: &str) -> Result<(&str, bool), RunError> {
    match text.rsplit_once(':') {
        None => Ok((text, false)),
        Some((name, "ro")) => Ok((name, true)),
        Some((name, "rw" | "z" | "Z")) => Ok((name, false)),
        Some((_, mode)) => Err(RunError::Refused(format!(
            "invalid volumes-from specification: '{text}': invalid mode: {mode}"
        ))),
    }
}

/// A destination: absolute, not the root, without dots.
pub(in crate::ops) fn normal(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{text}' mount path must be absolute"
        ));
    }
    let mut path = PathBuf::from("/");
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if path == Path::new("/") {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    Ok(path)
}

/// `100m`, `1g`, `4096`: docker's sizes.
pub fn size_of(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match lower.get(digits.len()..)? {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// What a directory or file of the host must be to be mounted: there, and not the store or around it.
pub(super) fn check_bind(store: &Store, source: &Path) -> Result<(), RunError> {
    let shown = source.display();
    let refused =
        |why: String| RunError::Refused(format!("invalid mount config for type \"bind\": {why}"));
    let real = source.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            refused(format!("bind source path does not exist: {shown}"))
        }
        _ => refused(format!("{shown}: {error}")),
    })?;
    let own = store
        .path()
        .canonicalize()
        .map_err(RunError::io("looking at the store"))?;
    if own.starts_with(&real) {
        return Err(refused(format!(
            "{shown} contains the store {}: the container would see its own root in it",
            own.display()
        )));
    }
    if real.starts_with(&own) {
        return Err(refused(format!(
            "{shown} is part of the store {}",
            own.display()
        )));
    }
    Ok(())
}

/// What of a container's mounts is there while it does not run: a volume that went with its end is an empty place in memory.
pub fn lasting(store: &Store, mounts: &[MountUse]) -> Result<Vec<MountUse>, RunError> {
    let all = store.volume_set()?;
    let mut lasting = mounts.to_vec();
    for mount in &mut lasting {
        if let MountSource::Volume { name, .. } = &mount.source
            && VolumeName::parse(name)
                .ok()
                .and_then(|name| all.get(&name))
                .is_none()
        {
            mount.source = MountSource::Tmpfs {
                size: None,
                mode: Some(0o755),
                options: Vec::new(),
            };
        }
    }
    Ok(lasting)
}

/// Finds what a container's record says it sees, and which volumes are among it. `fresh` destinations get the image's content
/// if what is mounted there is empty.
pub fn ready(
    store: &Store,
    mounts: &[MountUse],
    fresh: &dyn Fn(&Path) -> bool,
) -> Result<(Vec<ReadyMount>, Vec<VolumeName>), RunError> {
    let (mut ready, mut volumes) = (Vec::new(), Vec::new());
    for mount in mounts {
        let mut read_only = mount.read_only;
        let source = match &mount.source {
            MountSource::Bind { source } => {
                check_bind(store, source)?;
                ReadySource::Bind {
                    source: source.clone(),
                }
            }
            MountSource::Tmpfs {
                size,
                mode,
                options,
            } => ReadySource::Tmpfs {
                size: *size,
                mode: mode.unwrap_or(0o1777),
                options: options.clone(),
            },
            MountSource::Image { image, subpath } => ReadySource::Image {
                image: *image,
                subpath: subpath.into(),
            },
            MountSource::Volume { name, subpath, .. } => {
                let missing = || VolumeError::NoSuch(name.clone());
                let parsed = VolumeName::parse(name).map_err(|_| missing())?;
                let volume = store.volume(&parsed)?.ok_or_else(missing)?;
                let subpath = part(subpath)?;
                volumes.push(parsed);
                if let VolumeKind::Bind {
                    source,
                    read_only: only,
                    ..
                } = &volume.kind
                {
                    read_only |= *only;
                    let source = source.clone();
                    ReadySource::BindVolume { source, subpath }
                } else {
                    let fill = fresh(&mount.destination) && subpath.as_os_str().is_empty();
                    let data = store.volume_root(&volume);
                    let data = data.strip_prefix(store.path()).unwrap_or(&data).to_owned();
                    ReadySource::Volume {
                        data,
                        subpath,
                        fill,
                    }
                }
            }
        };
        ready.push(ReadyMount {
            destination: mount.destination.clone(),
            source,
            read_only,
        });
    }
    ready.sort_by_key(|mount| mount.destination.components().count());
    volumes.sort();
    volumes.dedup();
    Ok((ready, volumes))
}

/// A path in a volume. That no symbolic link leads out is seen to when it is opened.
fn part(subpath: &str) -> Result<PathBuf, RunError> {
    let relative = Path::new(subpath);
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    match relative.components().all(inside) {
        true => Ok(relative.to_owned()),
        false => Err(RunError::Refused(format!(
            "cannot access path {subpath:?} in the volume"
        ))),
    }
}

#[cfg(test)]
mod tests;
