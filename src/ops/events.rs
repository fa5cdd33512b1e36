//! `events`: the store's log in docker's text, and what of it is asked for.
//!
//! `2026-08-01T12:00:00.000000000+02:00 image untag sha256:.. (name=nginx:latest)`; attributes in order, the zone is the reader's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::oci::TagRef;
use crate::store::{Event, Store};

use crate::ops::filters::FilterError;
use crate::ops::image::ImageError;
use crate::text::template::Value;

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// By name of the filter; of several values of one filter one is enough, but all labels must be there.
    given: BTreeMap<String, Vec<String>>,
}

/// The filters that there are.
const KNOWN: &[&str] = &[
    "container",
    "event",
    "image",
    "label",
    "scope",
    "type",
    "volume",
];

impl Filters {
    /// Reads filters as [`crate::ops::image::filter::split`] gives them.
    pub fn parse(given: &[(String, String)]) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for (name, value) in given {
            if !KNOWN.contains(&name.as_str()) {
                return Err(FilterError::Unknown(name.clone()));
            }
            let values = filters.given.entry(name.clone()).or_default();
            values.push(value.clone());
        }
        Ok(filters)
    }

    /// Whether an event is asked for.
    pub fn pass(&self, event: &Event) -> bool {
        self.given.iter().all(|(name, values)| match name.as_str() {
            "event" => values.contains(&event.action),
            "type" => values.contains(&event.kind),
            "scope" => values.iter().any(|value| value == "local"),
            "label" => values.iter().all(|value| has_label(event, value)),
            // docker: an image by ID or name, with or without tag.
            "image" => {
                let names = ["name", "image"].map(|key| event.attributes.get(key));
                values
                    .iter()
                    .any(|value| names.iter().flatten().any(|name| is_image(name, value)))
                    || event.kind == "image" && values.iter().any(|v| is_id(event, v))
            }
            kind => {
                event.kind == kind
                    && values
                        .iter()
                        .any(|v| is_id(event, v) || event.attributes.get("name") == Some(v))
            }
        })
    }
}

fn is_id(event: &Event, value: &str) -> bool {
    let hex = |text: &str| text.strip_prefix("sha256:").unwrap_or(text).to_owned();
    let value = hex(value);
    event.id == value || value.len() >= 4 && hex(&event.id).starts_with(&value)
}

fn is_image(name: &str, value: &str) -> bool {
    let repository = TagRef::parse(name).map(|tag| tag.repository.familiar());
    name == value
        || repository.is_ok_and(|repository| repository == value)
        || TagRef::parse(value).is_ok_and(|tag| value.contains(':') && tag.familiar() == name)
}

fn has_label(event: &Event, value: &str) -> bool {
    match value.split_once('=') {
        Some((key, value)) => event.attributes.get(key).is_some_and(|v| v == value),
        None => event.attributes.contains_key(value),
    }
}

/// docker's line, without its end.
pub fn line(event: &Event, zone: &TimeZone) -> String {
    let time = event.time.to_zoned(zone.clone());
    let offset = match time.offset().seconds() {
        0 => "Z".to_owned(),
        _ => time.strftime("%:z").to_string(),
    };
    let attributes = event.attributes.iter();
    let attributes: Vec<String> = attributes.map(|(k, v)| format!("{k}={v}")).collect();
    let attributes = match attributes.is_empty() {
        true => String::new(),
        false => format!(" ({})", attributes.join(", ")),
    };
    format!(
        "{}{offset} {} {} {}{attributes}",
        time.strftime("%Y-%m-%dT%H:%M:%S.%9f"),
        event.kind,
        event.action,
        event.id
    )
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Action")]
    action: &'a str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'static str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "Attributes")]
    attributes: &'a BTreeMap<String, String>,
}

/// The event as docker's API has it, for a template.
pub fn value(event: &Event) -> Result<Value, serde_json::Error> {
    // Old clients' names for two of the fields, which volumes never had.
    let old = matches!(event.kind.as_str(), "image" | "container");
    let message = Message {
        status: old.then_some(&event.action),
        id: old.then_some(&event.id),
        kind: &event.kind,
        action: &event.action,
        actor: Actor {
            id: &event.id,
            attributes: &event.attributes,
        },
        scope: "local",
        time: event.time.as_second(),
        time_nano: i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    };
    Value::of(&message, &["Attributes"])
}

/// A time in the life of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spell {
    /// The image it was on.
    pub id: String,
    /// Since when, if that is known.
    pub since: Option<Timestamp>,
    /// Until when; `None`: it still is.
    pub until: Option<Timestamp>,
}

/// What a tag has pointed to, newest first, as far as the log goes back.
pub fn log_of(store: &Store, tag: &TagRef) -> Result<Vec<Spell>, ImageError> {
    let name = tag.familiar();
    let mut spells: Vec<Spell> = Vec::new();
    for event in store.events().read()? {
        if event.kind != "image" || event.attributes.get("name") != Some(&name) {
            continue;
        }
        let open = spells.last_mut().filter(|spell| spell.until.is_none());
        match event.action.as_str() {
            "tag" => {
                match (open, event.attributes.get("previous")) {
                    (Some(spell), _) => spell.until = Some(event.time),
                    // From before the log.
                    (None, Some(previous)) => spells.push(Spell {
                        id: previous.clone(),
                        since: None,
                        until: Some(event.time),
                    }),
                    (None, None) => {}
                }
                spells.push(Spell {
                    id: event.id,
                    since: Some(event.time),
                    until: None,
                });
            }
            "untag" => match open {
                Some(spell) => spell.until = Some(event.time),
                None => spells.push(Spell {
                    id: event.id,
                    since: None,
                    until: Some(event.time),
                }),
            },
            _ => {}
        }
    }
    // What is now is known without the log.
    let now = store.names()?.tags.get(tag).cloned();
    if let Some(now) = now
        && spells.last().is_none_or(|spell| spell.until.is_some())
    {
        spells.push(Spell {
            id: now.id.to_string(),
            since: Timestamp::try_from(now.tagged).ok(),
            until: None,
        });
    }
    if spells.is_empty() {
        return Err(ImageError::NoSuch(name));
    }
    spells.reverse();
    Ok(spells)
}

/// The table of [`log_of`].
pub fn log_table(spells: &[Spell], no_trunc: bool) -> String {
    let zone = TimeZone::system();
    let time = |time: Option<Timestamp>, missing: &str| match time {
        Some(time) => {
            let time = time.to_zoned(zone.clone());
            time.strftime("%Y-%m-%d %H:%M:%S %z").to_string()
        }
        None => missing.to_owned(),
    };
    let row = |spell: &Spell| {
        let digits = spell.id.strip_prefix("sha256:").unwrap_or(&spell.id);
        vec![
            match no_trunc {
                true => spell.id.clone(),
                false => digits.chars().take(12).collect(),
            },
            time(spell.since, "unknown"),
            time(spell.until, "now"),
        ]
    };
    let rows: Vec<_> = spells.iter().map(row).collect();
    crate::text::format::table(Some(&["IMAGE ID", "SINCE", "UNTIL"]), &rows)
}
