//! A config on top of another one: what `commit` and `import` write.
//!
//! The new document keeps what the base says about its platform and, inside `config`, every field that mica does not
//! know. What described the base as a build of its own (`container`, `container_config`, `docker_version`, `parent`) is
//! left out, as docker leaves it out. Keys are sorted: the same input gives the same bytes.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Healthcheck, ImageConfig, RunConfig};
use crate::oci::digest::DiffId;
use crate::oci::document::{DocumentError, MAX_LAYERS};
use crate::oci::platform::Platform;

/// The step that makes the new image.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// When.
    pub created: Timestamp,
    /// By whom; if empty, the base's author.
    pub author: &'a str,
    /// Why.
    pub comment: &'a str,
    /// The command, as `history` shows it.
    pub created_by: &'a str,
    /// The layer; `None`: the step made none, which history says too.
    pub layer: Option<DiffId>,
    /// How to run the new image.
    pub run: &'a RunConfig,
}

impl ImageConfig {
    /// The config of the image that `step` makes out of `base`, or out of nothing for `platform`.
    pub fn child(
        base: Result<&ImageConfig, &Platform>,
        step: &Step<'_>,
    ) -> Result<ImageConfig, DocumentError> {
        let old: Map<String, Value> = match base {
            Ok(base) => match serde_json::from_slice(&base.bytes) {
                Ok(Value::Object(old)) => old,
                Ok(_) => return Err(DocumentError::Json("no object".to_owned())),
                Err(error) => return Err(DocumentError::Json(error.to_string())),
            },
            Err(_) => Map::new(),
        };
        let (platform, mut layers, author) = match base {
            Ok(base) => (&base.platform, base.diff_ids.clone(), base.author.as_str()),
            Err(platform) => (platform, Vec::new(), ""),
        };
        layers.extend(step.layer);
        if layers.len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers(layers.len()));
        }
        let author = match step.author {
            "" => author,
            author => author,
        };
        let mut new = Map::new();
        for key in ["os.version", "os.features"] {
            if let Some(value) = old.get(key) {
                new.insert(key.to_owned(), value.clone());
            }
        }
        let created = step.created.to_string();
        let mut put = |key: &str, value: Value| new.insert(key.to_owned(), value);
        put("architecture", json!(platform.architecture));
        put("os", json!(platform.os));
        if let Some(variant) = &platform.variant {
            put("variant", json!(variant));
        }
        put("created", json!(created));
        if !author.is_empty() {
            put("author", json!(author));
        }
        put("config", run_value(old.get("config"), step.run));
        let layers: Vec<String> = layers.iter().map(|layer| layer.to_string()).collect();
        put("rootfs", json!({"type": "layers", "diff_ids": layers}));
        let mut history = match old.get("history") {
            Some(Value::Array(history)) => history.clone(),
            _ => Vec::new(),
        };
        history.push(history_value(&created, author, step));
        put("history", Value::Array(history));
        ImageConfig::parse(Value::Object(new).to_string().as_bytes())
    }
}

fn history_value(created: &str, author: &str, step: &Step<'_>) -> Value {
    let mut entry = json!({"created": created, "created_by": step.created_by});
    if let Value::Object(entry) = &mut entry {
        if !author.is_empty() {
            entry.insert("author".to_owned(), json!(author));
        }
        if !step.comment.is_empty() {
            entry.insert("comment".to_owned(), json!(step.comment));
        }
        if step.layer.is_none() {
            entry.insert("empty_layer".to_owned(), json!(true));
        }
    }
    entry
}

/// `run` as JSON, with what `old` has beside the fields that mica knows.
fn run_value(old: Option<&Value>, run: &RunConfig) -> Value {
    let mut config = match old {
        Some(Value::Object(old)) => old.clone(),
        _ => Map::new(),
    };
    let set = |keys: &[String]| {
        let keys = keys.iter().map(|key| (key.clone(), json!({})));
        Value::Object(keys.collect())
    };
    let fields = [
        ("User", (!run.user.is_empty()).then(|| json!(run.user))),
        (
            "ExposedPorts",
            (!run.exposed_ports.is_empty()).then(|| set(&run.exposed_ports)),
        ),
        ("Env", (!run.env.is_empty()).then(|| json!(run.env))),
        (
            "Entrypoint",
            run.entrypoint.as_ref().map(|list| json!(list)),
        ),
        ("Cmd", run.cmd.as_ref().map(|list| json!(list))),
        (
            "Volumes",
            (!run.volumes.is_empty()).then(|| set(&run.volumes)),
        ),
        (
            "WorkingDir",
            (!run.working_dir.is_empty()).then(|| json!(run.working_dir)),
        ),
        (
            "Labels",
            (!run.labels.is_empty()).then(|| json!(run.labels)),
        ),
        (
            "StopSignal",
            (!run.stop_signal.is_empty()).then(|| json!(run.stop_signal)),
        ),
        ("ArgsEscaped", run.args_escaped.then_some(Value::Bool(true))),
        ("Healthcheck", run.healthcheck.as_ref().map(health_value)),
        (
            "OnBuild",
            (!run.on_build.is_empty()).then(|| json!(run.on_build)),
        ),
        ("Shell", run.shell.as_ref().map(|list| json!(list))),
    ];
    for (key, value) in fields {
        match value {
            Some(value) => config.insert(key.to_owned(), value),
            None => config.remove(key),
        };
    }
    Value::Object(config)
}

fn health_value(check: &Healthcheck) -> Value {
    let mut value = Map::new();
    if !check.test.is_empty() {
        value.insert("Test".to_owned(), json!(check.test));
    }
    for (key, number) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ] {
        if number != 0 {
            value.insert(key.to_owned(), json!(number));
        }
    }
    Value::Object(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    const BASE: &str = r#"{
        "architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "9", "author": "a",
        "container": "c0ffee", "docker_version": "1",
        "config": {"Hostname": "h", "Cmd": ["x"], "Env": ["A=1"], "Healthcheck": {"Test": ["NONE"], "Retries": 2}, "Custom": {"deep": [1]}},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
        "history": [{"created_by": "one", "unknown": 1}]
    }"#;

    fn step(run: &RunConfig, layer: Option<DiffId>) -> Step<'_> {
        Step {
            created: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            author: "",
            comment: "why",
            created_by: "sh",
            layer,
            run,
        }
    }

    #[test]
    fn a_child_adds_one_step() {
        let base = ImageConfig::parse(BASE.as_bytes()).unwrap();
        let layer = DiffId(Digest::of(b"layer"));
        let child = ImageConfig::child(Ok(&base), &step(&base.run, Some(layer))).unwrap();
        assert_eq!(child.run, base.run);
        assert_eq!(child.platform, base.platform);
        assert_eq!(child.os_version, "9");
        assert_eq!(child.author, "a");
        assert_eq!(child.diff_ids, [base.diff_ids[0], layer]);
        assert_eq!(child.history.len(), 2);
        let last = child.history.last().unwrap();
        assert_eq!(
            (&*last.created_by, &*last.comment, last.empty_layer),
            ("sh", "why", false)
        );
        assert_eq!(child.created, last.created);
        let value: Value = serde_json::from_slice(&child.bytes).unwrap();
        assert_eq!(value["config"]["Custom"]["deep"][0], 1);
        assert_eq!(value["config"]["Hostname"], "h");
        assert_eq!(value["history"][0]["unknown"], 1);
        assert!(value.get("container").is_none());
        // The same step gives the same document.
        let again = ImageConfig::child(Ok(&base), &step(&base.run, Some(layer))).unwrap();
        assert_eq!(again.id, child.id);
    }

    #[test]
    fn a_step_without_a_layer_says_so() {
        let base = ImageConfig::parse(BASE.as_bytes()).unwrap();
        let run = RunConfig::default();
        let child = ImageConfig::child(Ok(&base), &step(&run, None)).unwrap();
        assert_eq!(child.diff_ids, base.diff_ids);
        assert!(child.history.last().unwrap().empty_layer);
        assert_eq!(child.run, run);
    }

    #[test]
    fn an_image_out_of_nothing() {
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        };
        let layer = DiffId(Digest::of(b"layer"));
        let run = RunConfig::default();
        let made = ImageConfig::child(Err(&platform), &step(&run, Some(layer))).unwrap();
        assert_eq!(made.platform, platform);
        assert_eq!((made.diff_ids, made.history.len()), (vec![layer], 1));
    }
}
