//! `config.json` of a bundle: the image's configuration by the OCI runtime spec (and the image spec's conversion.md), with
//! the restrictions that docker's containers have.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::layer::IndexError;
use crate::layer::merged::{Image, MergedEntry};
use crate::oci::{ImageConfig, ImageId};
use crate::ops::container::run::DEFAULT_PATH;
use crate::ops::container::run::user::User;
use crate::ops::container::run::{CAPABILITIES, masks};

/// The beginnings of keys by which runtimes and their helpers take orders: hooks, handlers, properties of units, machines.
const ORDERS: [&str; 13] = [
    "run.oci.",
    "org.systemd.property.",
    "io.kata",
    "io.crun",
    "io.containerd.",
    "io.kubernetes.",
    "io.podman.",
    "io.container",
    "io.cri",
    "dev.gvisor.",
    "module.wasm.",
    "com.github.containers.",
    "org.criu.",
];

/// What is not the image's to say.
pub(super) struct Wanted<'a> {
    pub(super) command: &'a [String],
    pub(super) terminal: bool,
    pub(super) read_only: bool,
    pub(super) root: &'a Path,
    pub(super) user: &'a User,
    /// `linux.seccomp`.
    pub(super) seccomp: Value,
}

/// What docker's containers may do here, as the runtime spec writes it.
pub(super) fn capabilities() -> Vec<String> {
    let mut names: Vec<String> = CAPABILITIES
        .iter()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    names.sort();
    names
}

/// The document; `None`: nothing to run.
pub(super) fn document(
    id: &ImageId,
    config: &ImageConfig,
    image: &Image,
    wanted: &Wanted<'_>,
) -> Result<Option<Value>, IndexError> {
    let run = &config.run;
    let command = match wanted.command {
        [] => run.cmd.as_deref().unwrap_or_default(),
        command => command,
    };
    let args: Vec<&String> = run.entrypoint.iter().flatten().chain(command).collect();
    if args.is_empty() {
        return Ok(None);
    }
    let mut env = run.env.clone();
    if !env.iter().any(|line| line.starts_with("PATH=")) {
        env.insert(0, format!("PATH={DEFAULT_PATH}"));
    }
    if wanted.terminal {
        env.push("TERM=xterm".to_owned());
    }
    let cwd = match run.working_dir.as_str() {
        "" => "/".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    let mut sets = Map::new();
    for set in ["bounding", "effective", "permitted"] {
        sets.insert(set.to_owned(), json!(capabilities()));
    }
    Ok(Some(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": wanted.terminal,
            "user": {
                "uid": wanted.user.uid,
                "gid": wanted.user.gid,
                "additionalGids": wanted.user.groups,
            },
            "args": args,
            "env": env,
            "cwd": cwd,
            "capabilities": sets,
            "noNewPrivileges": true,
        },
        "root": {"path": wanted.root.to_string_lossy(), "readonly": wanted.read_only},
        "hostname": id.short(),
        "mounts": mounts(config, image)?,
        "annotations": annotations(config),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "cgroup"},
            ],
            "seccomp": wanted.seccomp,
            "maskedPaths": masks::masked(),
            "readonlyPaths": masks::READ_ONLY,
        },
    })))
}

fn mounts(config: &ImageConfig, image: &Image) -> Result<Value, IndexError> {
    let mount = |destination: &str, kind: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let mut all = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    // What the image declares as a volume never lands in its root. It belongs to whom the image says.
    for volume in &config.run.volumes {
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
        if let Some(MergedEntry::Dir(dir)) = image.resolve(volume.as_bytes())? {
            let like = image.attributes_of_dir(&dir)?;
            options.push(format!("mode={:o}", like.mode));
            options.push(format!("uid={}", like.uid));
            options.push(format!("gid={}", like.gid));
        } else {
            options.push("mode=755".to_owned());
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        all.push(mount(volume, "tmpfs", &options));
    }
    Ok(Value::Array(all))
}

/// conversion.md: labels, and what has no place of its own in the runtime spec. A label that is an order to a runtime is left
/// out: it is the image's, and would be obeyed as root.
fn annotations(config: &ImageConfig) -> Value {
    let mut all: Map<String, Value> = Map::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            all.insert(format!("org.opencontainers.image.{key}"), json!(value));
        }
    };
    add("os", &config.platform.os);
    add("architecture", &config.platform.architecture);
    add(
        "variant",
        config.platform.variant.as_deref().unwrap_or_default(),
    );
    add("author", &config.author);
    add("created", config.created.as_deref().unwrap_or_default());
    add("stopSignal", &config.run.stop_signal);
    add("exposedPorts", &config.run.exposed_ports.join(","));
    for (key, value) in &config.run.labels {
        if ORDERS.iter().any(|order| key.starts_with(order)) {
            log::warn!("the label {key:?} is left out: runtimes take it for an order");
            continue;
        }
        all.insert(key.clone(), json!(value));
    }
    Value::Object(all)
}
