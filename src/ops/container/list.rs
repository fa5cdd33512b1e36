//! `ps`: docker's columns, filters and words.

use jiff::Timestamp;

use crate::ops::container::run::RunError;
use crate::ops::filters::{FilterError, is_named};
use crate::store::Store;
use crate::store::containers::{Container, ContainerId, MountSource, Status};
use crate::text::format::{self, ago};
use crate::text::template::Value;

/// Column names for `--format`.
pub const COLUMNS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Ports", "PORTS"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Size", "SIZE"),
];

/// `--filter`.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    texts: Vec<(String, String)>,
}

impl Filters {
    /// Reads `key=value` texts.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Filters, RunError> {
        const KNOWN: [&str; 9] = [
            "id", "name", "label", "status", "exited", "ancestor", "volume", "before", "since",
        ];
        let mut filters = Filters::default();
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                return Err(RunError::Usage(format!(
                    "invalid argument {text:?} for \"-f, --filter\" flag: invalid filter '{text}'"
                )));
            };
            let key = key.trim().to_ascii_lowercase();
            if !KNOWN.contains(&key.as_str()) {
                return Err(FilterError::Unknown(key).into());
            }
            if key == "status"
                && ![
                    "created",
                    "running",
                    "exited",
                    "paused",
                    "restarting",
                    "removing",
                    "dead",
                ]
                .contains(&value)
            {
                return Err(RunError::Refused(format!(
                    "invalid filter 'status={value}'"
                )));
            }
            filters.texts.push((key, value.trim().to_owned()));
        }
        Ok(filters)
    }

    /// Whether containers that do not run can pass: docker then shows them without `-a`.
    fn names_a_state(&self) -> bool {
        self.texts
            .iter()
            .any(|(key, _)| matches!(key.as_str(), "status" | "exited"))
    }

    /// Of several filters with one key one has to pass (labels: all); every key has to.
    fn pass(&self, container: &Container, all: &[Container], image: &dyn Fn(&str) -> bool) -> bool {
        let record = &container.record;
        let one = |key: &str, value: &str| match key {
            "id" => record.id.as_str().starts_with(value),
            // With docker's slash before it, and without.
            "name" => {
                is_named(&record.name, value) || is_named(&format!("/{}", record.name), value)
            }
            "label" => match value.split_once('=') {
                Some((name, value)) => record.config.labels.get(name).is_some_and(|v| v == value),
                None => record.config.labels.contains_key(value),
            },
            "status" => state(container) == value,
            "exited" => {
                matches!(container.state.status, Status::Exited { code, .. } if code.to_string() == value)
            }
            "ancestor" => image(value),
            "volume" => record.mounts.iter().any(|mount| {
                let named =
                    matches!(&mount.source, MountSource::Volume { name, .. } if name == value);
                named || mount.destination.to_str() == Some(value)
            }),
            "before" | "since" => {
                let is = |c: &&Container| {
                    c.record.name == value || c.record.id.as_str().starts_with(value)
                };
                all.iter().find(is).is_some_and(|other| match key {
                    "before" => record.created < other.record.created,
                    _ => record.created > other.record.created,
                })
            }
            _ => false,
        };
        self.texts.iter().all(|(key, value)| match key.as_str() {
            "label" => one(key, value),
            _ => self.texts.iter().any(|(k, v)| k == key && one(k, v)),
        })
    }
}

/// Which containers to list.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Those that do not run too.
    pub all: bool,
    /// The newest so many, whatever their state.
    pub last: Option<usize>,
    /// Which.
    pub filters: Filters,
    /// Measure what they have changed.
    pub sizes: bool,
}

/// One line of the list.
#[derive(Debug, Clone)]
pub struct Row {
    container: Container,
    image: String,
    /// Bytes that it has changed, and those of its image; if they were asked for.
    size: Option<(u64, u64)>,
}

/// Lists containers, the newest first.
pub fn list(store: &Store, options: &Options) -> Result<Vec<Row>, RunError> {
    let names = store.names()?;
    let all = store.containers()?;
    let mut rows = Vec::new();
    for container in &all {
        let anyway = options.all || options.last.is_some() || options.filters.names_a_state();
        if !container.is_running() && !anyway {
            continue;
        }
        let record = &container.record;
        let resolved = |text: &str| {
            crate::ops::image::resolve::image(&names, text)
                .ok()
                .map(|r| r.id)
        };
        let ancestor = |text: &str| resolved(text) == Some(record.image);
        if !options.filters.pass(container, &all, &ancestor) {
            continue;
        }
        // A name that means another image by now would be misleading.
        let image = match resolved(&record.image_name) == Some(record.image) {
            true => record.image_name.clone(),
            false => record.image.short(),
        };
        let size = options.sizes.then(|| {
            let image = names.images.get(&record.image);
            (
                crate::ops::container::changed(container),
                image.map_or(0, |image| image.size),
            )
        });
        rows.push(Row {
            container: container.clone(),
            image,
            size,
        });
    }
    rows.truncate(options.last.unwrap_or(usize::MAX));
    Ok(rows)
}

/// docker's word for a state.
pub(super) fn state(container: &Container) -> &'static str {
    match container.state.status {
        Status::Created => "created",
        Status::Running { .. } if container.is_paused() => "paused",
        Status::Running { .. } => "running",
        Status::Exited { .. } => "exited",
    }
}

/// docker's STATUS column.
fn status(container: &Container, now: Timestamp) -> String {
    let paused = if container.is_paused() {
        " (Paused)"
    } else {
        ""
    };
    match container.state.status {
        Status::Created => "Created".to_owned(),
        Status::Running { started, .. } => {
            format!("Up {}{paused}", format::since(started, now))
        }
        Status::Exited { code, finished, .. } => {
            format!("Exited ({code}) {}", ago(Some(finished), now))
        }
    }
}

/// docker's COMMAND column: a Go string literal.
fn command(container: &Container, no_trunc: bool) -> String {
    let config = &container.record.config;
    let words: Vec<&str> = config
        .entrypoint
        .iter()
        .chain(&config.cmd)
        .flatten()
        .map(String::as_str)
        .collect();
    let text = words.join(" ");
    let text = match no_trunc {
        true => text,
        false => format::ellipsis(&text, 20),
    };
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Row {
    /// The ID column.
    pub fn id(&self, no_trunc: bool) -> String {
        let id = &self.container.record.id;
        match no_trunc {
            true => id.to_string(),
            false => id.short().to_owned(),
        }
    }

    /// Whose row it is.
    pub fn container_id(&self) -> &ContainerId {
        &self.container.record.id
    }

    /// The row of `system df -v`.
    pub fn disk_cells(&self, size: u64, now: Timestamp) -> Vec<String> {
        let mut fields = self.fields(false, now);
        let mut take = |name: &str| {
            let field = fields.iter_mut().find(|(key, _)| *key == name);
            field
                .map(|(_, text)| std::mem::take(text))
                .unwrap_or_default()
        };
        vec![
            take("ID"),
            take("Image"),
            take("Command"),
            take("LocalVolumes"),
            format::human_size(size),
            take("RunningFor"),
            take("Status"),
            take("Names"),
        ]
    }

    fn fields(&self, no_trunc: bool, now: Timestamp) -> Vec<(&'static str, String)> {
        let record = &self.container.record;
        let labels: Vec<String> = record
            .config
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let mounts: Vec<String> = record
            .mounts
            .iter()
            .filter_map(|mount| match &mount.source {
                MountSource::Volume { name, .. } if no_trunc => Some(name.clone()),
                MountSource::Volume { name, .. } => Some(format::ellipsis(name, 15)),
                MountSource::Bind { source } => {
                    let shown = source.display().to_string();
                    Some(match no_trunc {
                        true => shown,
                        false => format::ellipsis(&shown, 15),
                    })
                }
                MountSource::Tmpfs { .. } | MountSource::Image { .. } => None,
            })
            .collect();
        let volumes = record
            .mounts
            .iter()
            .filter(|mount| matches!(mount.source, MountSource::Volume { .. }))
            .count();
        let created = record.created.to_zoned(jiff::tz::TimeZone::system());
        let size = self.size.map_or_else(String::new, |(changed, image)| {
            let all = format::human_size(changed.saturating_add(image));
            format!("{} (virtual {all})", format::human_size(changed))
        });
        vec![
            ("ID", self.id(no_trunc)),
            ("Image", self.image.clone()),
            ("Command", command(&self.container, no_trunc)),
            (
                "CreatedAt",
                created.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string(),
            ),
            ("RunningFor", ago(Some(record.created), now)),
            ("Status", status(&self.container, now)),
            ("State", state(&self.container).to_owned()),
            // The network is the host's.
            ("Ports", String::new()),
            ("Names", record.name.clone()),
            ("Labels", labels.join(",")),
            ("Mounts", mounts.join(",")),
            ("LocalVolumes", volumes.to_string()),
            ("Networks", "host".to_owned()),
            ("Size", size),
        ]
    }
}

/// The rows for `--format`.
pub fn values(rows: &[Row], no_trunc: bool, now: Timestamp) -> Vec<Value> {
    rows.iter()
        .map(|row| Value::record(&row.fields(no_trunc, now)))
        .collect()
}

/// The table.
pub fn table(
    rows: &[Row],
    no_trunc: bool,
    with_size: bool,
    now: Timestamp,
    safe: impl Fn(&str) -> String,
) -> String {
    const HEADER: [&str; 8] = [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
        "SIZE",
    ];
    const SHOWN: [&str; 8] = [
        "ID",
        "Image",
        "Command",
        "RunningFor",
        "Status",
        "Ports",
        "Names",
        "Size",
    ];
    let columns = if with_size { 8 } else { 7 };
    let (header, shown) = (HEADER.split_at(columns).0, SHOWN.split_at(columns).0);
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let fields = row.fields(no_trunc, now);
            shown
                .iter()
                .map(|name| {
                    let found = fields.iter().find(|(field, _)| field == name);
                    found.map(|(_, text)| safe(text)).unwrap_or_default()
                })
                .collect()
        })
        .collect();
    format::table(Some(header), &lines)
}
