//! `images`: one row per name, newest image first.

use std::collections::{BTreeMap, BTreeSet};

use crate::oci::{Digest, ImageId, Repository, Tag, TagRef};
use crate::store::{ImageRecord, Names};

use super::error::OpsError;
use super::format;
use super::glob::Glob;

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only names that match: `NAME[:TAG]` exactly, or a glob.
    pub pattern: Option<String>,
    /// Also images without a tag.
    pub all: bool,
    /// A row for each digest.
    pub digests: bool,
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

/// How rows are printed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Whole IDs.
    pub no_trunc: bool,
    /// With the DIGEST column.
    pub digests: bool,
}

/// The rows, in docker's order: by creation, newest first; an image's names in their own order.
pub fn list(names: &Names, options: &Options) -> Result<Vec<Row>, OpsError> {
    let pattern = options.pattern.as_deref().map(Pattern::parse).transpose()?;
    let mut images: Vec<&ImageRecord> = names.images.values().collect();
    images.sort_by(|a, b| {
        b.created
            .cmp(&a.created)
            .then_with(|| a.tags.first().cmp(&b.tags.first()))
    });
    let mut rows = Vec::new();
    for image in images {
        let of_image = rows_of(image, options.digests);
        rows.extend(of_image.into_iter().filter(|row| match &pattern {
            Some(pattern) => pattern.matches(row),
            None => options.all || !image.tags.is_empty(),
        }));
    }
    Ok(rows)
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

/// The table, header included.
pub fn table(rows: &[Row], style: Style, now: jiff::Timestamp) -> String {
    let mut header = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if style.digests {
        header.insert(2, "DIGEST");
    }
    let none = || "<none>".to_owned();
    let cells = |row: &Row| {
        let mut cells = vec![
            row.repository
                .as_ref()
                .map_or_else(none, Repository::familiar),
            row.tag.as_ref().map_or_else(none, Tag::to_string),
            id(&row.id, style.no_trunc),
            format::ago(row.created, now),
            format::human_size(row.size),
        ];
        if style.digests {
            cells.insert(2, row.digest.map_or_else(none, |d| d.to_string()));
        }
        cells
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    format::table(Some(&header), &rows)
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

/// docker's `reference` filter: `path.Match` against the familiar and the full name, each with and without tag.
pub struct Pattern(Glob);

impl Pattern {
    /// Parses a name or a glob.
    pub fn parse(text: &str) -> Result<Pattern, OpsError> {
        Glob::parse(text)
            .map(Pattern)
            .map_err(|_| OpsError::Pattern(text.to_owned()))
    }

    /// Whether this tag is meant.
    pub fn matches_tag(&self, tag: &TagRef) -> bool {
        let TagRef { repository, .. } = tag;
        [
            repository.familiar(),
            tag.familiar(),
            repository.canonical(),
            tag.canonical(),
        ]
        .iter()
        .any(|name| self.0.matches(name))
    }

    fn matches(&self, row: &Row) -> bool {
        match (&row.repository, &row.tag) {
            (Some(repository), Some(tag)) => self.matches_tag(&TagRef {
                repository: repository.clone(),
                tag: tag.clone(),
            }),
            (Some(repository), None) => {
                self.0.matches(&repository.familiar()) || self.0.matches(&repository.canonical())
            }
            (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests;
