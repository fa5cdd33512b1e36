//! `volume ls`, `volume inspect`, and what volumes take on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::mount_paths::VOLUMES;
use crate::ops::filters::Label;
use crate::ops::filters::{FilterError, is_named};
use crate::ops::volume::VolumeError;
use crate::store::containers::MountSource;
use crate::store::{LiveLease, Store, Volume, VolumeKind, VolumeName};
use crate::sys::deep;
use crate::text::template::Value;
use crate::text::{format, version};

use crate::ops::usage::volumes::VolumeUsers;
use crate::ops::usage::{Usage, User};

/// docker's filters, and `kind`.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    dangling: Option<bool>,
    drivers: Vec<String>,
    labels: Vec<Label>,
    not_labels: Vec<Label>,
    names: Vec<String>,
    kinds: Vec<String>,
    /// `prune -a`: also volumes that somebody has named.
    all: Option<bool>,
}

impl Filters {
    /// Reads filters as [`crate::ops::image::filter::split`] gives them, of those that `verb` has.
    pub fn parse(given: &[(String, String)], verb: Verb) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for (name, value) in given {
            let invalid = || FilterError::Value {
                name: name.clone(),
                value: value.clone(),
            };
            let truth = || match value.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(invalid()),
            };
            match (name.as_str(), verb) {
                ("dangling", Verb::Ls) => filters.dangling = Some(truth()?),
                ("driver", Verb::Ls) => filters.drivers.push(value.clone()),
                ("name", Verb::Ls) => filters.names.push(value.clone()),
                ("kind", Verb::Ls) => {
                    if !matches!(value.as_str(), "persistent" | "ephemeral" | "bind") {
                        return Err(invalid());
                    }
                    filters.kinds.push(value.clone());
                }
                ("label", _) => filters.labels.push(Label::parse(value)),
                ("label!", Verb::Prune) => filters.not_labels.push(Label::parse(value)),
                ("all", Verb::Prune) => filters.all = Some(truth()?),
                _ => return Err(FilterError::Unknown(name.clone())),
            }
        }
        Ok(filters)
    }

    /// Whether volumes with a name of their own are meant too, as a filter says.
    pub(super) fn all(&self) -> Option<bool> {
        self.all
    }

    /// Whether it must be known who uses the volumes.
    pub fn needs_users(&self) -> bool {
        self.dangling.is_some()
    }

    /// Whether a volume passes; of several values of one filter one is enough, of labels all must be there.
    pub fn pass(&self, volume: &Volume, is_used: impl FnOnce() -> bool) -> bool {
        let any = |wanted: &[String], is: &dyn Fn(&String) -> bool| {
            wanted.is_empty() || wanted.iter().any(is)
        };
        any(&self.drivers, &|driver| driver == DRIVER)
            && any(&self.names, &|name| is_named(volume.name.as_str(), name))
            && any(&self.kinds, &|kind| kind == volume.kind.word())
            && self.labels.iter().all(|label| label.is_in(&volume.labels))
            && !self
                .not_labels
                .iter()
                .any(|label| label.is_in(&volume.labels))
            && self.dangling.is_none_or(|dangling| dangling != is_used())
    }
}

/// Verbs with filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `volume ls`.
    Ls,
    /// `volume prune`.
    Prune,
}

/// docker's name for what is on this host.
const DRIVER: &str = "local";

/// One volume of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The volume.
    pub volume: Volume,
    /// Bytes on disk, where asked for; never of a bind.
    pub size: Option<u64>,
    /// How many use it, where asked for.
    pub users: Option<usize>,
}

/// The volumes that pass, in natural order.
pub fn list(
    store: &Store,
    filters: &Filters,
    users: Option<&VolumeUsers>,
    with_size: bool,
) -> Result<Vec<Row>, VolumeError> {
    let mut rows = Vec::new();
    let stopped = match users {
        Some(_) => stopped(store)?,
        None => BTreeMap::new(),
    };
    for volume in store.volumes()? {
        let of_volume = match users {
            Some(users) => {
                let mut found = users.of(&volume);
                let more = stopped.get(volume.name.as_str());
                found.extend(more.into_iter().flatten().cloned());
                Some(processes(&found))
            }
            None => None,
        };
        if !filters.pass(&volume, || of_volume.unwrap_or(0) > 0) {
            continue;
        }
        let size = match with_size {
            true => size(store, &volume)?,
            false => None,
        };
        rows.push(Row {
            volume,
            size,
            users: of_volume,
        });
    }
    rows.sort_by(|a, b| version::compare(a.volume.name.as_str(), b.volume.name.as_str()));
    Ok(rows)
}

/// How many processes and containers; a process that uses a volume in several ways is one.
pub fn processes(users: &[User]) -> usize {
    let mut seen: Vec<(u32, &Path)> = Vec::new();
    for user in users {
        let who = match user.usage {
            Usage::Container { .. } => (0, user.path.as_path()),
            _ => (user.pid, Path::new("")),
        };
        if !seen.contains(&who) {
            seen.push(who);
        }
    }
    seen.len()
}

/// Containers that do not run and name a volume: it is theirs when they run again.
pub fn containers(store: &Store, name: &VolumeName) -> Result<Vec<User>, VolumeError> {
    Ok(stopped(store)?.remove(name.as_str()).unwrap_or_default())
}

/// The same of all volumes, by their names: every container's files are read once.
pub fn stopped(store: &Store) -> Result<BTreeMap<String, Vec<User>>, VolumeError> {
    let mut users: BTreeMap<String, Vec<User>> = BTreeMap::new();
    for container in store.containers()? {
        if container.is_running() {
            continue;
        }
        let user = User {
            pid: 0,
            command: container.record.name.to_string(),
            usage: Usage::Container { running: false },
            path: PathBuf::from(container.record.id.to_string()),
        };
        for mount in &container.record.mounts {
            let MountSource::Volume { name, .. } = &mount.source else {
                continue;
            };
            let of_volume = users.entry(name.clone()).or_default();
            if !of_volume.contains(&user) {
                of_volume.push(user.clone());
            }
        }
    }
    Ok(users)
}

/// Bytes that a volume takes on disk; `None` of a bind, which takes nothing of the store.
pub fn size(store: &Store, volume: &Volume) -> Result<Option<u64>, VolumeError> {
    match volume.kind {
        VolumeKind::Bind { .. } => Ok(None),
        VolumeKind::Persistent | VolumeKind::Ephemeral { .. } => {
            let root = store.volume_root(volume);
            Ok(Some(deep::files_allocated(&root).map_err(|source| {
                crate::store::StoreError::Io {
                    action: "read",
                    path: root.clone(),
                    source,
                }
            })?))
        }
    }
}

/// Where a volume is seen: below the first live mount of its store, else the data on the host.
pub fn mountpoint(store: &Store, leases: &[LiveLease], volume: &Volume) -> PathBuf {
    match leases.iter().filter_map(LiveLease::mountpoint).min() {
        Some(mount) => mount.join(VOLUMES).join(volume.name.as_str()),
        None => store.volume_root(volume),
    }
}

/// The table; `long` with what docker's has not.
pub fn table(rows: &[Row], long: bool) -> String {
    let header: &[&str] = match long {
        true => &["DRIVER", "VOLUME NAME", "KIND", "SIZE", "USERS"],
        false => &["DRIVER", "VOLUME NAME"],
    };
    let cells = |row: &Row| {
        let mut cells = vec![DRIVER.to_owned(), row.volume.name.to_string()];
        if long {
            cells.push(row.volume.kind.word().to_owned());
            cells.push(row.size.map_or_else(not_known, format::human_size));
            cells.push(row.users.map_or_else(not_known, |users| users.to_string()));
        }
        cells
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    format::table(Some(header), &rows)
}

fn not_known() -> String {
    "N/A".to_owned()
}

/// The columns a template knows, with the names a table gives them; docker's, and `Kind` and `Users`.
pub const COLUMNS: &[(&str, &str)] = &[
    ("Availability", "AVAILABILITY"),
    ("Driver", "DRIVER"),
    ("Group", "GROUP"),
    ("Kind", "KIND"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
    ("Users", "USERS"),
];

/// The rows for a template. What was not asked for is `N/A`, as docker has it.
pub fn values(store: &Store, leases: &[LiveLease], rows: &[Row]) -> Vec<Value> {
    let value = |row: &Row| {
        let labels = row.volume.labels.iter();
        let labels: Vec<String> = labels
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mountpoint = mountpoint(store, leases, &row.volume);
        let users = row.users.map_or_else(not_known, |users| users.to_string());
        Value::record(&[
            ("Availability", not_known()),
            ("Driver", DRIVER.to_owned()),
            ("Group", not_known()),
            ("Kind", row.volume.kind.word().to_owned()),
            ("Labels", labels.join(",")),
            ("Links", users.clone()),
            ("Mountpoint", mountpoint.to_string_lossy().into_owned()),
            ("Name", row.volume.name.to_string()),
            ("Scope", DRIVER.to_owned()),
            ("Size", row.size.map_or_else(not_known, format::human_size)),
            ("Status", not_known()),
            ("Users", users),
        ])
    };
    rows.iter().map(value).collect()
}

/// docker's object about a volume, and what there is to know of it besides.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspection {
    created_at: String,
    driver: &'static str,
    labels: Option<BTreeMap<String, String>>,
    mountpoint: String,
    name: String,
    options: Option<BTreeMap<&'static str, String>>,
    scope: &'static str,
    kind: &'static str,
    source: String,
    read_only: bool,
    anonymous: bool,
    size: Option<u64>,
    users: Vec<InspectedUser>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedUser {
    pid: u32,
    command: String,
    how: String,
    path: String,
}

impl Inspection {
    /// For a template.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        Value::of(self, &["Labels", "Options"])
    }
}

/// All that is known of a volume. `users`: of this moment.
pub fn inspect(
    store: &Store,
    leases: &[LiveLease],
    name: &VolumeName,
    users: &VolumeUsers,
) -> Result<Inspection, VolumeError> {
    let volume = crate::ops::volume::there(store, name)?;
    let mut of_volume = users.of(&volume);
    of_volume.extend(containers(store, name)?);
    let bind = |source: &Path, read_only: bool| {
        let how = if read_only { "bind,ro" } else { "bind" };
        BTreeMap::from([
            ("device", source.to_string_lossy().into_owned()),
            ("o", how.to_owned()),
            ("type", "none".to_owned()),
        ])
    };
    let (options, read_only) = match &volume.kind {
        VolumeKind::Bind {
            source, read_only, ..
        } => (Some(bind(source, *read_only)), *read_only),
        VolumeKind::Persistent | VolumeKind::Ephemeral { .. } => (None, false),
    };
    let seconds = jiff::Timestamp::from_second(volume.created.as_second());
    Ok(Inspection {
        created_at: seconds.unwrap_or(volume.created).to_string(),
        driver: DRIVER,
        labels: (!volume.labels.is_empty()).then(|| volume.labels.clone()),
        mountpoint: mountpoint(store, leases, &volume)
            .to_string_lossy()
            .into_owned(),
        name: volume.name.to_string(),
        options,
        scope: DRIVER,
        kind: volume.kind.word(),
        source: store.volume_root(&volume).to_string_lossy().into_owned(),
        read_only,
        anonymous: volume.anonymous,
        size: size(store, &volume)?,
        users: of_volume
            .into_iter()
            .map(|user| InspectedUser {
                pid: user.pid,
                command: user.command,
                how: user.usage.to_string(),
                path: user.path.to_string_lossy().into_owned(),
            })
            .collect(),
    })
}
