//! `config.json` of a bundle: the image's configuration by the OCI runtime spec (and the image spec's conversion.md), with
//! the restrictions that docker's containers have.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::layer::IndexError;
use crate::layer::merged::{Image, MergedEntry};
use crate::oci::{ImageConfig, ImageId};
use crate::ops::run::DEFAULT_PATH;
use crate::ops::run::user::User;

/// What docker's containers may do.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What is not the image's to say.
pub(super) struct Wanted<'a> {
    pub(super) command: &'a [String],
    pub(super) terminal: bool,
    pub(super) read_only: bool,
    pub(super) root: &'a Path,
    pub(super) user: &'a User,
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
    let mut capabilities = Map::new();
    for set in ["bounding", "effective", "permitted"] {
        capabilities.insert(set.to_owned(), json!(CAPABILITIES));
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
            "capabilities": capabilities,
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
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
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

/// conversion.md: labels, and what has no place of its own in the runtime spec.
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
        all.insert(key.clone(), json!(value));
    }
    Value::Object(all)
}
