//! `--filter`: one grammar for every verb that picks images.
//!
//! | filter | an image passes when |
//! |---|---|
//! | `dangling=BOOL` | it has no tag, or has one |
//! | `label=KEY[=VALUE]`, `label!=KEY[=VALUE]` | its config has that label, or has not |
//! | `before=IMAGE`, `since=IMAGE` | it was made strictly before, after that image |
//! | `until=TIME` | it was made at that time or before, see [`crate::text::time`] |
//! | `used=TIME` | it was last used at that time or before, see [`crate::store::used`] |
//! | `reference=PATTERN` | one of its names matches; only the matching names are meant |
//!
//! All that are given must hold; of several `reference` one is enough. An image without a date is older than any other.

use std::collections::BTreeMap;

use crate::oci::{ImageId, TagRef};
use crate::store::{ImageRecord, Names, Store};

use crate::ops::filters::FilterError;
use crate::ops::filters::Label;
use crate::ops::image::ImageError;
use crate::ops::image::pattern::Pattern;
use crate::ops::image::resolve;
use crate::text::time;

/// Parsed filters; those that name images are not resolved yet.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    dangling: Option<bool>,
    labels: Vec<Label>,
    not_labels: Vec<Label>,
    before: Vec<String>,
    since: Vec<String>,
    until: Option<jiff::Timestamp>,
    used: Option<jiff::Timestamp>,
    references: Vec<Pattern>,
    /// Knows when images were used.
    store: Option<Store>,
}

/// Filters for one snapshot of the names.
#[derive(Debug)]
pub struct Bound<'a> {
    filters: &'a Filters,
    before: Vec<Option<jiff::Timestamp>>,
    since: Vec<Option<jiff::Timestamp>>,
}

/// The labels of an image, read when a filter asks for them.
pub type Labels<'a> = dyn Fn(&ImageId) -> Result<BTreeMap<String, String>, ImageError> + 'a;

/// The labels in an image's config.
pub fn labels_of(store: &Store, id: &ImageId) -> Result<BTreeMap<String, String>, ImageError> {
    Ok(store.config(id)?.run.labels.clone())
}

/// Splits `NAME=VALUE` as docker's command line does: the name in lower case, both without blanks around.
pub fn split(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_lowercase(), value.trim().to_owned())),
        None => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

impl Filters {
    /// Reads filters as [`split`] gives them. `now` is what durations count from.
    pub fn parse(given: &[(String, String)], now: jiff::Timestamp) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for (name, value) in given {
            let invalid = || FilterError::Value {
                name: name.clone(),
                value: value.clone(),
            };
            match name.as_str() {
                "dangling" => {
                    let parsed = match value.as_str() {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(invalid()),
                    };
                    if filters.dangling.replace(parsed) == Some(!parsed) {
                        return Err(invalid());
                    }
                }
                "label" => filters.labels.push(Label::parse(value)),
                "label!" => filters.not_labels.push(Label::parse(value)),
                "before" => filters.before.push(value.clone()),
                "since" => filters.since.push(value.clone()),
                "until" => {
                    let until = time::point(value, now).ok_or_else(invalid)?;
                    if filters.until.replace(until).is_some() {
                        return Err(FilterError::ManyUntil);
                    }
                }
                "used" => {
                    let used = time::point(value, now).ok_or_else(invalid)?;
                    if filters.used.replace(used).is_some() {
                        return Err(FilterError::ManyUsed);
                    }
                }
                "reference" => filters.references.push(Pattern::parse(value)?),
                _ => return Err(FilterError::Unknown(name.clone())),
            }
        }
        Ok(filters)
    }

    /// For the images of this store.
    pub fn of(mut self, store: &Store) -> Filters {
        self.store = Some(store.clone());
        self
    }

    /// One more `reference`.
    pub fn with_reference(mut self, text: &str) -> Result<Filters, FilterError> {
        self.references.push(Pattern::parse(text)?);
        Ok(self)
    }

    fn last_used(&self, image: &ImageRecord) -> std::time::SystemTime {
        let store = self.store.as_ref();
        store.map_or(image.added, |store| store.last_used(image))
    }

    /// Whether names are chosen, not only images.
    pub fn has_references(&self) -> bool {
        !self.references.is_empty()
    }

    /// What `dangling` says, if it was given.
    pub fn dangling(&self) -> Option<bool> {
        self.dangling
    }

    /// Finds the images that `before` and `since` name.
    pub fn bind(&self, names: &Names) -> Result<Bound<'_>, ImageError> {
        let created = |text: &String| {
            let id = resolve::image(names, text)?.id;
            Ok(names.images.get(&id).and_then(|image| image.created))
        };
        let all = |texts: &[String]| texts.iter().map(created).collect::<Result<_, ImageError>>();
        Ok(Bound {
            filters: self,
            before: all(&self.before)?,
            since: all(&self.since)?,
        })
    }
}

impl Bound<'_> {
    /// Whether an image passes, names aside.
    pub fn image(&self, image: &ImageRecord, labels: &Labels<'_>) -> Result<bool, ImageError> {
        let filters = self.filters;
        // `None` is less than any time.
        let by_facts = filters.dangling.is_none_or(|d| d == image.tags.is_empty())
            && self.before.iter().all(|time| image.created < *time)
            && self.since.iter().all(|time| image.created > *time)
            && filters.until.is_none_or(|t| image.created <= Some(t))
            && filters
                .used
                .is_none_or(|t| filters.last_used(image) <= t.into());
        if !by_facts || (filters.labels.is_empty() && filters.not_labels.is_empty()) {
            return Ok(by_facts);
        }
        let labels = labels(&image.id)?;
        Ok(filters.labels.iter().all(|label| label.is_in(&labels))
            && !filters.not_labels.iter().any(|label| label.is_in(&labels)))
    }

    /// Whether one of the `reference` filters matches; true without any.
    pub fn name(&self, matches: impl Fn(&Pattern) -> bool) -> bool {
        let references = &self.filters.references;
        references.is_empty() || references.iter().any(matches)
    }

    /// Whether a tag is meant.
    pub fn tag(&self, tag: &TagRef) -> bool {
        self.name(|pattern| pattern.matches_tag(tag))
    }
}

#[cfg(test)]
mod tests;
