//! `images`: one row per name, newest image first.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{Digest, ImageId, Repository, Tag, TagRef};
use crate::store::{ImageRecord, Names};

use crate::ops::image::ImageError;
use crate::ops::image::filter::{Filters, Labels};
use crate::text::format;
use crate::text::template::Value;
use crate::text::version;

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only names that match: `NAME[:TAG]` exactly, or a glob. One more `reference` filter.
    pub pattern: Option<String>,
    /// Only these.
    pub filters: Filters,
    /// Also images without a tag.
    pub all: bool,
    /// A row for each digest.
    pub digests: bool,
    /// The order; by default by creation.
    pub sort: Option<Sort>,
}

/// Orders of the rows, as podman has them. Rows that are equal stay in the default order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Newest first.
    Created,
    /// By image ID.
    Id,
    /// By repository.
    Repository,
    /// Smallest first.
    Size,
    /// By tag, in version order.
    Tag,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The image.
    pub id: ImageId,
    /// Repository; `None` is `<none>`.
    pub repository: Option<Repository>,
    /// Tag; `None` is `<none>`.
    pub tag: Option<Tag>,
    /// Digest in that repository; `None` is `<none>`. Only with [`Options::digests`].
    pub digest: Option<Digest>,
    /// When the image was made.
    pub created: Option<jiff::Timestamp>,
    /// Sum of its layers' files.
    pub size: u64,
}

impl Row {
    /// The repository as docker shows it.
    pub fn repository_text(&self) -> String {
        let name = self.repository.as_ref().map(Repository::familiar);
        name.unwrap_or_else(none)
    }

    /// The tag as docker shows it.
    pub fn tag_text(&self) -> String {
        self.tag.as_ref().map_or_else(none, Tag::to_string)
    }

    /// The digest as docker shows it.
    pub fn digest_text(&self) -> String {
        self.digest.map_or_else(none, |digest| digest.to_string())
    }
}

fn none() -> String {
    "<none>".to_owned()
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Whole IDs.
    pub no_trunc: bool,
    /// With the DIGEST column.
    pub digests: bool,
}

/// How many use each image, for the USERS column.
pub type Users = BTreeMap<ImageId, usize>;

/// The rows, in docker's order: by creation, newest first; an image's names in their own order. `labels` is asked for what
/// a filter needs.
pub fn list(names: &Names, options: &Options, labels: &Labels<'_>) -> Result<Vec<Row>, ImageError> {
    let mut filters = options.filters.clone();
    if let Some(pattern) = &options.pattern {
        filters = filters.with_reference(pattern)?;
    }
    let bound = filters.bind(names)?;
    // Who asks for untagged images, or by name, sees them without `all`.
    let untagged = options.all || filters.has_references() || filters.dangling() == Some(true);
    let mut images: Vec<&ImageRecord> = names.images.values().collect();
    images.sort_by(|a, b| {
        b.created
            .cmp(&a.created)
            .then_with(|| a.tags.first().cmp(&b.tags.first()))
    });
    let mut rows = Vec::new();
    for image in images {
        if (untagged || !image.tags.is_empty()) && bound.image(image, labels)? {
            let of_image = rows_of(image, options.digests).into_iter();
            rows.extend(of_image.filter(|row| {
                bound.name(|pattern| pattern.matches(row.repository.as_ref(), row.tag.as_ref()))
            }));
        }
    }
    if let Some(sort) = options.sort {
        rows.sort_by(|a, b| sort.compare(a, b));
    }
    Ok(rows)
}

impl Sort {
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let repository = |row: &Row| row.repository.as_ref().map(Repository::familiar);
        match self {
            Sort::Created => b.created.cmp(&a.created),
            Sort::Id => a.id.cmp(&b.id),
            Sort::Repository => repository(a).cmp(&repository(b)),
            Sort::Size => a.size.cmp(&b.size),
            Sort::Tag => match (&a.tag, &b.tag) {
                (Some(a), Some(b)) => version::compare(a.as_str(), b.as_str()),
                (a, b) => a.is_some().cmp(&b.is_some()),
            },
        }
    }
}

/// A row for each tag; then for repositories known by digest only; `<none>` twice if there are neither.
fn rows_of(image: &ImageRecord, digests: bool) -> Vec<Row> {
    let row = |repository: Option<&Repository>, tag: Option<&Tag>, digest: Option<Digest>| Row {
        id: image.id,
        repository: repository.cloned(),
        tag: tag.cloned(),
        digest,
        created: image.created,
        size: image.size,
    };
    let mut of_repository: BTreeMap<&Repository, BTreeSet<Digest>> = BTreeMap::new();
    for origin in &image.origins {
        if let Some(repository) = &origin.repository {
            of_repository
                .entry(repository)
                .or_default()
                .insert(origin.digest);
        }
    }
    let mut rows = Vec::new();
    for TagRef { repository, tag } in &image.tags {
        match of_repository.get(repository) {
            Some(known) if digests => {
                rows.extend(
                    known
                        .iter()
                        .map(|d| row(Some(repository), Some(tag), Some(*d))),
                );
            }
            _ => rows.push(row(Some(repository), Some(tag), None)),
        }
    }
    for (repository, known) in of_repository {
        match (
            image.tags.iter().any(|t| t.repository == *repository),
            digests,
        ) {
            (true, _) => {}
            (false, true) => {
                rows.extend(known.iter().map(|d| row(Some(repository), None, Some(*d))))
            }
            (false, false) => rows.push(row(Some(repository), None, None)),
        }
    }
    if rows.is_empty() {
        rows.push(row(None, None, None));
    }
    rows
}

/// The table, header included; with `users` a column for them.
pub fn table(rows: &[Row], style: Style, users: Option<&Users>, now: jiff::Timestamp) -> String {
    let mut header = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if style.digests {
        header.insert(2, "DIGEST");
    }
    if users.is_some() {
        header.push("USERS");
    }
    let cells = |row: &Row| {
        let mut cells = vec![
            row.repository_text(),
            row.tag_text(),
            id(&row.id, style.no_trunc),
            format::ago(row.created, now),
            format::human_size(row.size),
        ];
        if style.digests {
            cells.insert(2, row.digest_text());
        }
        if let Some(users) = users {
            cells.push(users.get(&row.id).copied().unwrap_or(0).to_string());
        }
        cells
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    format::table(Some(&header), &rows)
}

/// The columns a template knows, with the names a table gives them; docker's.
pub const COLUMNS: &[(&str, &str)] = &[
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// The rows for a template. What costs more than the names is `N/A`, as docker has it.
pub fn values(rows: &[Row], style: Style, now: jiff::Timestamp) -> Vec<Value> {
    let zone = jiff::tz::TimeZone::system();
    let not_known = || "N/A".to_owned();
    let value = |row: &Row| {
        let created = row.created.map(|time| time.to_zoned(zone.clone()));
        let created = created.map(|time| time.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string());
        Value::record(&[
            ("Containers", not_known()),
            ("CreatedAt", created.unwrap_or_else(not_known)),
            ("CreatedSince", format::ago(row.created, now)),
            ("Digest", row.digest_text()),
            ("ID", id(&row.id, style.no_trunc)),
            ("Repository", row.repository_text()),
            ("SharedSize", not_known()),
            ("Size", format::human_size(row.size)),
            ("Tag", row.tag_text()),
            ("UniqueSize", not_known()),
        ])
    };
    rows.iter().map(value).collect()
}

/// The IDs, one per line: each image once, or with `all_rows` once per row as docker does.
pub fn ids(rows: &[Row], style: Style, all_rows: bool) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let wanted = rows.iter().filter(|row| seen.insert(row.id) || all_rows);
    wanted.map(|row| id(&row.id, style.no_trunc)).collect()
}

fn id(id: &ImageId, no_trunc: bool) -> String {
    match no_trunc {
        true => id.to_string(),
        false => id.short(),
    }
}

#[cfg(test)]
mod tests;
