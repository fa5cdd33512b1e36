//! `users`: one row per process and way, of a path, a volume, an image, or of everything in the mounts of a store.

use std::path::{Path, PathBuf};

use crate::mount_paths::VOLUMES;
use crate::oci::ImageId;
use crate::ops::engines;
use crate::ops::error::ObjectError;
use crate::ops::image::ImageError;
use crate::ops::image::resolve;
use crate::ops::usage::images::{self, Index};
use crate::ops::usage::volumes::{self as volume_users, Look};
use crate::ops::usage::{UsageError, User};
use crate::ops::volume::list::stopped;
use crate::store::{ImageRecord, LeaseKind, LiveLease, Names, Store, Volume, VolumeName};
use crate::sys::holders::{self, Below, Depth, Question};
use crate::text::format;
use crate::text::template::Value;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Who, and how.
    pub user: User,
    /// What: the name of a volume, or a path below the root of a mount.
    pub of: String,
}

/// What is asked about.
enum Target {
    Path(PathBuf),
    Volume(Volume),
    Image(ImageId),
}

/// The command line waits for nobody's page.
const LOOK: Look = Look {
    maps: true,
    except: None,
};

/// Who uses what `text` means; `None`: anything.
pub fn of(store: &Store, text: Option<&str>) -> Result<Vec<Row>, ObjectError> {
    let leases = store.live_leases()?;
    let mut rows = match text.map(|text| target(store, &leases, text)).transpose()? {
        Some(Target::Path(path)) => of_path(&path)?,
        Some(Target::Volume(volume)) => of_volumes(store, &leases, std::slice::from_ref(&volume))?,
        Some(Target::Image(id)) => {
            let names = store.names()?;
            let image = names.images.get(&id);
            of_images(&leases, &names, image)?
        }
        None => {
            let mut rows = of_images(&leases, &*store.names()?, None)?;
            rows.extend(of_volumes(store, &leases, &store.volumes()?)?);
            rows
        }
    };
    rows.sort_by(|a, b| {
        let key = |row: &Row| (row.of.clone(), row.user.pid, row.user.usage);
        key(a).cmp(&key(b))
    });
    rows.dedup();
    Ok(rows)
}

/// A path begins as one; a volume comes before an image of the same name.
fn target(store: &Store, leases: &[LiveLease], text: &str) -> Result<Target, ObjectError> {
    if text.starts_with(['/', '.']) {
        let path = Path::new(text).canonicalize();
        let path = path.map_err(|source| ObjectError::Path {
            path: text.into(),
            source,
        })?;
        return Ok(volume_at(store, leases, &path)?.map_or(Target::Path(path), Target::Volume));
    }
    if let Ok(name) = VolumeName::parse(text)
        && let Some(volume) = store.volume(&name)?
    {
        return Ok(Target::Volume(volume));
    }
    match resolve::image(&*store.names()?, text) {
        Ok(image) => Ok(Target::Image(image.id)),
        // Nothing has that name, and a path that is there was meant.
        Err(_) if Path::new(text).exists() => target(store, leases, &format!("./{text}")),
        // It could have been a volume just as well.
        Err(ImageError::NoSuch(_)) => Err(ObjectError::NoSuch(text.to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// The volume whose directory in a mount the path is: then users on the host side and leases count too.
fn volume_at(
    store: &Store,
    leases: &[LiveLease],
    path: &Path,
) -> Result<Option<Volume>, ObjectError> {
    for lease in leases {
        if let Some(mountpoint) = lease.mountpoint()
            && path.parent() == Some(&mountpoint.join(VOLUMES))
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
            && let Ok(name) = VolumeName::parse(name)
        {
            return Ok(store.volume(&name)?);
        }
    }
    Ok(None)
}

/// Whatever is held at a path or below, on any file system.
fn of_path(path: &Path) -> Result<Vec<Row>, ObjectError> {
    let (device, inside) = holders::locate(path).map_err(UsageError::Look)?;
    let question = Question {
        below: Some(Below {
            device,
            inside: &inside,
            shown: path,
        }),
        depth: Depth::Mapped,
        ..Question::default()
    };
    let found = holders::holders(&question).map_err(UsageError::Look)?;
    let known = found.held.iter();
    let known = known.filter(|held| held.place.path().is_some());
    let row = |held| Row {
        user: User::of(held),
        of: path.to_string_lossy().into_owned(),
    };
    Ok(known.map(row).collect())
}

fn of_volumes(
    store: &Store,
    leases: &[LiveLease],
    volumes: &[Volume],
) -> Result<Vec<Row>, ObjectError> {
    let users = volume_users::find(store, leases, LOOK)?;
    let mut rows = Vec::new();
    let mut stopped = stopped(store)?;
    for volume in volumes {
        let mut of_volume = users.of(volume);
        of_volume.extend(stopped.remove(volume.name.as_str()).unwrap_or_default());
        let of = volume.name.to_string();
        rows.extend(of_volume.into_iter().map(|user| Row {
            user,
            of: of.clone(),
        }));
    }
    Ok(rows)
}

/// Users of one image through every mount, or of all of them.
fn of_images(
    leases: &[LiveLease],
    names: &Names,
    image: Option<&ImageRecord>,
) -> Result<Vec<Row>, ObjectError> {
    let devices = images::devices(leases)?;
    let question = Question {
        whole: &devices,
        depth: match devices.is_empty() {
            true => Depth::Mounts,
            false => Depth::Mapped,
        },
        overlays: true,
        ..Question::default()
    };
    let found = holders::holders(&question).map_err(UsageError::Look)?;
    let mut rows = Vec::new();
    for (id, engines) in
        engines::by_image(leases, names, &found.overlays).map_err(UsageError::Look)?
    {
        if image.is_none_or(|image| image.id == id) {
            rows.extend(engines.into_iter().map(|who| Row {
                user: User::engine(who),
                of: id.short(),
            }));
        }
    }
    for lease in leases {
        if let LeaseKind::Run { image: id, .. } = &lease.record.kind
            && image.is_none_or(|image| image.id == *id)
        {
            rows.push(Row {
                user: User::leased(lease),
                of: id.short(),
            });
        }
    }
    let index = image.map(|image| Index::of([image]));
    for held in &found.held {
        let Some(path) = held.place.path() else {
            continue;
        };
        if index.as_ref().is_none_or(|index| index.at(path).is_some()) {
            rows.push(Row {
                user: User::of(held),
                of: path.to_string_lossy().trim_matches('/').to_owned(),
            });
        }
    }
    Ok(rows)
}

/// The columns a template knows, with the names a table gives them.
pub const COLUMNS: &[(&str, &str)] = &[
    ("Command", "COMMAND"),
    ("How", "HOW"),
    ("Of", "OF"),
    ("PID", "PID"),
    ("Path", "PATH"),
];

/// The table.
pub fn table(rows: &[Row]) -> String {
    let header = ["PID", "COMMAND", "HOW", "OF", "PATH"];
    let cells = |row: &Row| {
        let pid = match row.user.pid {
            0 => "-".to_owned(),
            pid => pid.to_string(),
        };
        let path = row.user.path.to_string_lossy().into_owned();
        let (command, how) = (row.user.command.clone(), row.user.usage.to_string());
        vec![pid, command, how, row.of.clone(), path]
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    format::table(Some(&header), &rows)
}

/// The rows for a template.
pub fn values(rows: &[Row]) -> Vec<Value> {
    let value = |row: &Row| {
        Value::record(&[
            ("Command", row.user.command.clone()),
            ("How", row.user.usage.to_string()),
            ("Of", row.of.clone()),
            ("PID", row.user.pid.to_string()),
            ("Path", row.user.path.to_string_lossy().into_owned()),
        ])
    };
    rows.iter().map(value).collect()
}
