//! `inspect`: docker's JSON about an image, keys and their order included (`image.InspectResponse`).

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::oci::{DiffId, Healthcheck, ImageConfig, ImageId, RunConfig};
use crate::store::{ImageRecord, Names, Store};

use crate::ops::image::ImageError;
use crate::ops::image::resolve;
use crate::text::template::{Shape, Value};

/// One element of docker's array.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Inspection {
    id: ImageId,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    comment: String,
    created: String,
    author: String,
    config: Config,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os_version: String,
    size: u64,
    graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    metadata: Metadata,
}

/// docker's storage driver; ours has no data.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GraphDriver {
    data: Option<()>,
    name: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<DiffId>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

/// The run configuration: what is empty is left out (`dockerspec.DockerOCIImageConfig`).
#[derive(Debug, Clone)]
struct Config(RunConfig);

#[derive(Debug, Clone)]
struct Health(Healthcheck);

/// Go's `struct{}`.
#[derive(Serialize)]
struct Empty {}

/// What is known of the image that `text` means.
pub fn of(store: &Store, text: &str) -> Result<Inspection, ImageError> {
    store.read(|names| {
        let id = resolve::image(names, text)?.id;
        of_image(store, names, &id)
    })
}

/// What is known of an image.
pub fn of_image(store: &Store, names: &Names, id: &ImageId) -> Result<Inspection, ImageError> {
    let record = names
        .images
        .get(id)
        .ok_or_else(|| ImageError::NoSuch(id.to_string()))?;
    let config = store.config(id)?;
    Ok(inspection(names, record, &config))
}

impl Inspection {
    /// For a template: what JSON leaves out because it is empty is there, and empty.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        let text = || Value::Text(String::new());
        let (list, map) = (|| Value::Unset(Shape::List), || Value::Unset(Shape::Map));
        let no = || Value::Bool(false);
        let value = Value::of(self, &["ExposedPorts", "Volumes", "Labels"])?;
        // Those of docker's type that no image here has are as if it had nothing to say.
        let config = vec![
            ("Hostname", text()),
            ("Domainname", text()),
            ("User", text()),
            ("AttachStdin", no()),
            ("AttachStdout", no()),
            ("AttachStderr", no()),
            ("ExposedPorts", map()),
            ("Tty", no()),
            ("OpenStdin", no()),
            ("StdinOnce", no()),
            ("Env", list()),
            ("Entrypoint", list()),
            ("Cmd", list()),
            ("Image", text()),
            ("Volumes", map()),
            ("WorkingDir", text()),
            ("NetworkDisabled", no()),
            ("MacAddress", text()),
            ("Labels", map()),
            ("StopSignal", text()),
            ("StopTimeout", Value::Nil),
            ("ArgsEscaped", no()),
            ("Healthcheck", Value::Nil),
            ("OnBuild", list()),
            ("Shell", list()),
        ];
        let top = vec![
            ("ID", Value::Text(self.id.to_string())),
            ("Parent", text()),
            ("DockerVersion", text()),
            ("Variant", text()),
            ("OsVersion", text()),
            ("VirtualSize", Value::Int(self.size.into())),
        ];
        Ok(value
            .with_empty(&["Config"], config)
            .with_empty(&["RootFS"], vec![("Layers", list())])
            .with_empty(&[], top))
    }
}

fn inspection(names: &Names, record: &ImageRecord, config: &ImageConfig) -> Inspection {
    let digests = record
        .origins
        .iter()
        .filter_map(|o| Some(format!("{}@{}", o.repository.as_ref()?, o.digest)));
    let mut repo_digests: Vec<String> = digests.collect();
    repo_digests.sort();
    repo_digests.dedup();
    let tagged = record
        .tags
        .iter()
        .filter_map(|tag| Some(names.tags.get(tag)?.tagged))
        .max();
    // Go's zero time stands for "never".
    let last_tag_time = tagged.and_then(|time| jiff::Timestamp::try_from(time).ok());
    let last_tag_time =
        last_tag_time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |t| t.to_string());
    Inspection {
        id: record.id,
        repo_tags: record.tags.iter().map(|tag| tag.familiar()).collect(),
        repo_digests,
        // docker: an image that was committed has it in its last step only.
        comment: match (config.comment.as_str(), config.history.last()) {
            ("", Some(last)) => last.comment.clone(),
            (comment, _) => comment.to_owned(),
        },
        created: config.created.as_deref().map(nano).unwrap_or_default(),
        author: config.author.clone(),
        config: Config(config.run.clone()),
        architecture: config.platform.architecture.clone(),
        variant: config.platform.variant.clone().unwrap_or_default(),
        os: config.platform.os.clone(),
        os_version: config.os_version.clone(),
        size: record.size,
        graph_driver: GraphDriver {
            data: None,
            name: "mica",
        },
        root_fs: RootFs {
            r#type: "layers",
            layers: record.layers.clone(),
        },
        metadata: Metadata { last_tag_time },
    }
}

/// A time as Go's RFC3339Nano writes it: no zeros at the end of the fraction.
fn nano(text: &str) -> String {
    let Some((seconds, rest)) = text.split_once('.') else {
        return text.to_owned();
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = rest.split_at_checked(digits).unwrap_or((rest, ""));
    match fraction.trim_end_matches('0') {
        "" => format!("{seconds}{zone}"),
        fraction => format!("{seconds}.{fraction}{zone}"),
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let c = &self.0;
        let mut map = s.serialize_map(None)?;
        let set = |keys: &[String]| {
            keys.iter()
                .map(|k| (k.clone(), Empty {}))
                .collect::<BTreeMap<_, _>>()
        };
        text(&mut map, "User", &c.user)?;
        if !c.exposed_ports.is_empty() {
            map.serialize_entry("ExposedPorts", &set(&c.exposed_ports))?;
        }
        list(&mut map, "Env", Some(&c.env))?;
        list(&mut map, "Entrypoint", c.entrypoint.as_ref())?;
        list(&mut map, "Cmd", c.cmd.as_ref())?;
        if !c.volumes.is_empty() {
            map.serialize_entry("Volumes", &set(&c.volumes))?;
        }
        text(&mut map, "WorkingDir", &c.working_dir)?;
        if !c.labels.is_empty() {
            map.serialize_entry("Labels", &c.labels)?;
        }
        text(&mut map, "StopSignal", &c.stop_signal)?;
        if c.args_escaped {
            map.serialize_entry("ArgsEscaped", &true)?;
        }
        if let Some(health) = &c.healthcheck {
            map.serialize_entry("Healthcheck", &Health(health.clone()))?;
        }
        list(&mut map, "OnBuild", Some(&c.on_build))?;
        list(&mut map, "Shell", c.shell.as_ref())?;
        map.end()
    }
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let h = &self.0;
        let mut map = s.serialize_map(None)?;
        list(&mut map, "Test", Some(&h.test))?;
        for (key, number) in [
            ("Interval", h.interval),
            ("Timeout", h.timeout),
            ("StartPeriod", h.start_period),
            ("StartInterval", h.start_interval),
            ("Retries", h.retries),
        ] {
            if number != 0 {
                map.serialize_entry(key, &number)?;
            }
        }
        map.end()
    }
}

fn text<M: SerializeMap>(map: &mut M, key: &str, value: &str) -> Result<(), M::Error> {
    match value {
        "" => Ok(()),
        value => map.serialize_entry(key, value),
    }
}

fn list<M: SerializeMap>(
    map: &mut M,
    key: &str,
    value: Option<&Vec<String>>,
) -> Result<(), M::Error> {
    match value {
        Some(value) if !value.is_empty() => map.serialize_entry(key, value),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
