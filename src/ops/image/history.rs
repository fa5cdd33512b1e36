//! `history`: how an image came about, newest step first, with the size of each layer.

use std::collections::BTreeSet;

use crate::oci::ImageId;
use crate::store::{Names, Store, StoreError};

use crate::ops::image::ImageError;
use crate::ops::image::resolve;
use crate::text::format;
use crate::text::template::Value;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The image, for its newest step and those that end a local image it was made from.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<jiff::Timestamp>,
    /// The command.
    pub created_by: String,
    /// Bytes of the step's layer; 0 without one.
    pub size: u64,
    /// The comment.
    pub comment: String,
}

/// How steps are printed.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whole IDs and commands.
    pub no_trunc: bool,
    /// `2 weeks ago` and `4.61kB` instead of times and bytes.
    pub human: bool,
}

/// The history of the image that `text` means.
pub fn of(store: &Store, text: &str) -> Result<Vec<Step>, ImageError> {
    store.read(|names| {
        let id = resolve::image(names, text)?.id;
        of_image(store, names, &id)
    })
}

/// The history of an image, newest step first. Layers that the config's history does not account for come last in time,
/// without a command: every layer has a row.
pub fn of_image(store: &Store, names: &Names, id: &ImageId) -> Result<Vec<Step>, ImageError> {
    let record = names
        .images
        .get(id)
        .ok_or_else(|| ImageError::NoSuch(id.to_string()))?;
    let config = store.config(id)?;
    let sizes = record
        .layers
        .iter()
        .map(|layer| Ok(store.layer_index(layer)?.content_size()));
    let sizes = sizes.collect::<Result<Vec<u64>, StoreError>>()?;
    let mut steps = steps(id, &config.history, &sizes);
    // The local images it was made from, at the step they end with; docker calls all others missing.
    let (mut child, all) = (record, steps.len());
    let mut seen = BTreeSet::from([*id]);
    while let Some(parent) = child.parent.and_then(|id| names.images.get(&id)) {
        if !seen.insert(parent.id) {
            break;
        }
        let length = store.config(&parent.id)?.history.len();
        if let Some(step) = all.checked_sub(length).and_then(|at| steps.get_mut(at)) {
            step.id = step.id.or(Some(parent.id));
        }
        child = parent;
    }
    Ok(steps)
}

fn steps(id: &ImageId, history: &[crate::oci::HistoryEntry], sizes: &[u64]) -> Vec<Step> {
    let mut sizes = sizes.iter().copied();
    let mut steps: Vec<Step> = Vec::new();
    for entry in history {
        steps.push(Step {
            id: None,
            created: entry.created_at(),
            created_by: entry.created_by.clone(),
            size: if entry.empty_layer {
                0
            } else {
                sizes.next().unwrap_or(0)
            },
            comment: entry.comment.clone(),
        });
    }
    steps.extend(sizes.map(|size| Step {
        id: None,
        created: None,
        created_by: String::new(),
        size,
        comment: String::new(),
    }));
    steps.reverse();
    if let Some(newest) = steps.first_mut() {
        newest.id = Some(*id);
    }
    steps
}

/// The table, header included. `show` makes foreign text safe to print.
pub fn table(
    steps: &[Step],
    style: Style,
    now: jiff::Timestamp,
    show: impl Fn(&str) -> String,
) -> String {
    let created = if style.human { "CREATED" } else { "CREATED AT" };
    let header = ["IMAGE", created, "CREATED BY", "SIZE", "COMMENT"];
    let cells = |step: &Step| {
        let by = show(&step.created_by.replace('\t', " "));
        vec![
            id(step, style.no_trunc),
            when(step.created, style.human, now),
            if style.no_trunc {
                by
            } else {
                format::ellipsis(&by, 45)
            },
            if style.human {
                format::human_size(step.size)
            } else {
                step.size.to_string()
            },
            show(&step.comment),
        ]
    };
    let rows: Vec<_> = steps.iter().map(cells).collect();
    format::table(Some(&header), &rows)
}

/// The columns a template knows, with the names a table gives them; docker's.
pub const COLUMNS: &[(&str, &str)] = &[
    ("Comment", "COMMENT"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("CreatedSince", "CREATED"),
    ("ID", "IMAGE"),
    ("Size", "SIZE"),
];

/// The steps for a template.
pub fn values(steps: &[Step], style: Style, now: jiff::Timestamp) -> Vec<Value> {
    let value = |step: &Step| {
        let by = step.created_by.replace('\t', " ");
        Value::record(&[
            ("Comment", step.comment.clone()),
            ("CreatedAt", when(step.created, false, now)),
            (
                "CreatedBy",
                if style.no_trunc {
                    by
                } else {
                    format::ellipsis(&by, 45)
                },
            ),
            ("CreatedSince", when(step.created, style.human, now)),
            ("ID", id(step, style.no_trunc)),
            (
                "Size",
                if style.human {
                    format::human_size(step.size)
                } else {
                    step.size.to_string()
                },
            ),
        ])
    };
    steps.iter().map(value).collect()
}

/// What `-q` prints, one per line: the image's ID, `<missing>` for the steps before.
pub fn ids(steps: &[Step], no_trunc: bool) -> Vec<String> {
    steps.iter().map(|step| id(step, no_trunc)).collect()
}

fn id(step: &Step, no_trunc: bool) -> String {
    match &step.id {
        Some(id) if no_trunc => id.to_string(),
        Some(id) => id.short(),
        None => "<missing>".to_owned(),
    }
}

/// docker takes times up to the year 2000 for "not known" (reproducible builds set 1970), in the human form only.
fn when(created: Option<jiff::Timestamp>, human: bool, now: jiff::Timestamp) -> String {
    const YEAR_2000: i64 = 946_684_800;
    if human {
        return format::ago(created.filter(|t| t.as_second() > YEAR_2000), now);
    }
    let zoned = created
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::system());
    match zoned.offset().seconds() {
        0 => zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

#[cfg(test)]
mod tests;
