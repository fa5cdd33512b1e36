//! `inspect` of a container: docker's keys in docker's order (`container.InspectResponse`), as far as mica has something to say.

use jiff::Timestamp;

use crate::ops::container::run::{CAPABILITIES, RunError, security};
use crate::store::Store;
use crate::store::containers::{Container, ContainerRecord, MountSource, Seccomp, Status};
use crate::text::template::{Record, Shape, Value};

/// Go's zero time: not yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// All that is known of the container that `text` means; `None`: there is none. `with_size`: also what it has changed.
pub fn inspect(store: &Store, text: &str, with_size: bool) -> Result<Option<Value>, RunError> {
    let Some(container) = crate::ops::container::look(store, text)? else {
        return Ok(None);
    };
    let record = &container.record;
    let mut words = record
        .config
        .entrypoint
        .iter()
        .chain(&record.config.cmd)
        .flatten();
    let path = words.next().cloned().unwrap_or_default();
    let within = |name: &str| {
        container
            .directory()
            .join(name)
            .to_string_lossy()
            .into_owned()
    };
    let mut fields = vec![
        ("Id", text_of(record.id.as_str())),
        ("Created", text_of(record.created)),
        ("Path", text_of(path)),
        ("Args", list(words)),
        ("State", state(&container)),
        ("Image", text_of(record.image)),
        ("ResolvConfPath", text_of(within("resolv.conf"))),
        ("HostnamePath", text_of(within("hostname"))),
        ("HostsPath", text_of(within("hosts"))),
        ("LogPath", text_of(container.log().display())),
        ("Name", text_of(format!("/{}", record.name))),
        ("RestartCount", Value::Int(0)),
        ("Driver", text_of("mica")),
        ("Platform", text_of("linux")),
        ("MountLabel", text_of("")),
        ("ProcessLabel", text_of("")),
        ("AppArmorProfile", text_of("")),
        ("ExecIDs", Value::Nil),
        ("HostConfig", host_config(record)),
        (
            "GraphDriver",
            fields_of(vec![
                (
                    "Data",
                    map([("UpperDir", within("upper")), ("WorkDir", within("work"))]),
                ),
                ("Name", text_of("mica")),
            ]),
        ),
    ];
    if with_size {
        let image = store
            .names()?
            .images
            .get(&record.image)
            .map_or(0, |image| image.size);
        let changed = crate::ops::container::changed(&container);
        fields.push(("SizeRw", Value::Int(changed.into())));
        fields.push((
            "SizeRootFs",
            Value::Int(changed.saturating_add(image).into()),
        ));
    }
    fields.push(("Mounts", mounts(store, record)));
    fields.push(("Config", config(record)));
    fields.push(("NetworkSettings", network()));
    let mut all = record_of(fields);
    all.empty = vec![
        ("ID", text_of(record.id.as_str())),
        ("SizeRw", Value::Nil),
        ("SizeRootFs", Value::Nil),
    ];
    Ok(Some(Value::Record(all)))
}

fn record_of(fields: Vec<(&str, Value)>) -> Record {
    let fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Record::from(fields.collect::<Vec<_>>())
}

fn fields_of(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(record_of(fields))
}

fn text_of(text: impl ToString) -> Value {
    Value::Text(text.to_string())
}

fn list<'a>(texts: impl IntoIterator<Item = &'a String>) -> Value {
    Value::List(texts.into_iter().map(text_of).collect())
}

fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, String)>) -> Value {
    let entries = entries.into_iter();
    Value::Map(
        entries
            .map(|(key, text)| (key.into(), Value::Text(text)))
            .collect(),
    )
}

fn empty_map() -> Value {
    Value::Map(Default::default())
}

/// docker's nil: what was not said.
fn or_unset(texts: Option<&Vec<String>>) -> Value {
    match texts {
        Some(texts) => list(texts),
        None => Value::Unset(Shape::List),
    }
}

fn state(container: &Container) -> Value {
    let time = |time: Timestamp| time.to_string();
    let never = || NEVER.to_owned();
    let (pid, code, started, finished) = match container.state.status {
        Status::Created => (0, 0, never(), never()),
        Status::Running { pid, started } => (pid, 0, time(started), never()),
        Status::Exited {
            code,
            started,
            finished,
        } => (0, code, time(started), time(finished)),
    };
    let mut all = record_of(vec![
        (
            "Status",
            text_of(crate::ops::container::list::state(container)),
        ),
        ("Running", Value::Bool(container.is_running())),
        ("Paused", Value::Bool(container.is_paused())),
        ("Restarting", Value::Bool(false)),
        ("OOMKilled", Value::Bool(false)),
        ("Dead", Value::Bool(false)),
        ("Pid", Value::Int(pid.into())),
        ("ExitCode", Value::Int(code.into())),
        ("Error", text_of(&container.state.error)),
        ("StartedAt", text_of(started)),
        ("FinishedAt", text_of(finished)),
    ]);
    // Only where something watches it.
    all.empty = vec![("Health", Value::Nil)];
    Value::Record(all)
}

/// Names of what is in one list of capabilities and not in the other; docker's nil for none.
fn beyond(these: impl Iterator<Item = u32>, those: &[u32]) -> Value {
    let more = these.filter(|number| !those.contains(number));
    let names: Vec<String> = more.filter_map(security::capability_name).collect();
    or_unset((!names.is_empty()).then_some(&names))
}

/// What `--security-opt` has changed; of a profile docker has its text there.
fn security_options(record: &ContainerRecord) -> Value {
    let mut options = Vec::new();
    match &record.security.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(text) => options.push(format!("seccomp={text}")),
    }
    if record.security.new_privileges {
        options.push("no-new-privileges=false".to_owned());
    }
    or_unset((!options.is_empty()).then_some(&options))
}

fn host_config(record: &ContainerRecord) -> Value {
    let binds = record.mounts.iter().filter_map(|mount| {
        let source = match &mount.source {
            MountSource::Bind { source } => source.to_string_lossy().into_owned(),
            MountSource::Volume {
                name,
                anonymous: false,
                ..
            } => name.clone(),
            _ => return None,
        };
        let mode = if mount.read_only { ":ro" } else { "" };
        Some(format!("{source}:{}{mode}", mount.destination.display()))
    });
    let binds: Vec<String> = binds.collect();
    let tmpfs = record
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Tmpfs { options, .. } => Some((
                mount.destination.to_string_lossy().into_owned(),
                options.join(","),
            )),
            _ => None,
        });
    let tmpfs: Vec<(String, String)> = tmpfs.collect();
    let ulimits = record.ulimits.iter().map(|limit| {
        let number = |number: Option<u64>| Value::Int(number.map_or(-1, i128::from));
        fields_of(vec![
            ("Name", text_of(&limit.name)),
            ("Hard", number(limit.hard)),
            ("Soft", number(limit.soft)),
        ])
    });
    let hosts = record.extra_hosts.iter().filter_map(|line| {
        let (address, name) = line.split_once('\t')?;
        Some(format!("{name}:{address}"))
    });
    let hosts: Vec<String> = hosts.collect();
    let shm = record.shm_size.unwrap_or(64 << 20);
    let usual = CAPABILITIES.map(|(_, number)| number);
    let log = fields_of(vec![
        ("Type", text_of("json-file")),
        ("Config", empty_map()),
    ]);
    fields_of(vec![
        ("Binds", or_unset((!binds.is_empty()).then_some(&binds))),
        ("LogConfig", log),
        ("NetworkMode", text_of("host")),
        ("PortBindings", empty_map()),
        (
            "RestartPolicy",
            fields_of(vec![
                ("Name", text_of("no")),
                ("MaximumRetryCount", Value::Int(0)),
            ]),
        ),
        ("AutoRemove", Value::Bool(record.auto_remove)),
        // What they had mounted is among the mounts.
        ("VolumesFrom", Value::Unset(Shape::List)),
        (
            "CapAdd",
            beyond(record.capabilities.iter().copied(), &usual),
        ),
        ("CapDrop", beyond(usual.into_iter(), &record.capabilities)),
        (
            "ExtraHosts",
            or_unset((!hosts.is_empty()).then_some(&hosts)),
        ),
        ("IpcMode", text_of("private")),
        ("PidMode", text_of("")),
        ("Privileged", Value::Bool(false)),
        ("PublishAllPorts", Value::Bool(false)),
        ("ReadonlyRootfs", Value::Bool(record.read_only)),
        ("SecurityOpt", security_options(record)),
        (
            "Tmpfs",
            match tmpfs.is_empty() {
                true => Value::Unset(Shape::Map),
                false => map(tmpfs),
            },
        ),
        ("ShmSize", Value::Int(shm.into())),
        ("Runtime", text_of("mica")),
        ("Init", Value::Bool(record.init)),
        ("Memory", Value::Int(0)),
        ("NanoCpus", Value::Int(0)),
        ("Ulimits", Value::List(ulimits.collect())),
    ])
}

fn mounts(store: &Store, record: &ContainerRecord) -> Value {
    let one = |mount: &crate::store::containers::MountUse| {
        let (kind, name, source) = match &mount.source {
            MountSource::Bind { source } => ("bind", "", source.to_string_lossy().into_owned()),
            MountSource::Volume { name, .. } => {
                let parsed = crate::store::VolumeName::parse(name).ok();
                let volume = parsed.and_then(|name| store.volume(&name).ok().flatten());
                let root = volume.map(|volume| store.volume_root(&volume));
                let root = root.unwrap_or_default().to_string_lossy().into_owned();
                ("volume", name.as_str(), root)
            }
            MountSource::Tmpfs { .. } => ("tmpfs", "", String::new()),
            MountSource::Image { image, .. } => ("image", "", image.to_string()),
        };
        let mut fields = vec![("Type", text_of(kind))];
        if !name.is_empty() {
            fields.push(("Name", text_of(name)));
        }
        fields.push(("Source", text_of(source)));
        fields.push(("Destination", text_of(mount.destination.display())));
        if !name.is_empty() {
            fields.push(("Driver", text_of("local")));
        }
        fields.push(("Mode", text_of(if mount.read_only { "ro" } else { "" })));
        fields.push(("RW", Value::Bool(!mount.read_only)));
        fields.push((
            "Propagation",
            text_of(if kind == "bind" { "rprivate" } else { "" }),
        ));
        let mut one = record_of(fields);
        one.empty = vec![("Name", text_of("")), ("Driver", text_of(""))];
        Value::Record(one)
    };
    Value::List(record.mounts.iter().map(one).collect())
}

fn config(record: &ContainerRecord) -> Value {
    let config = &record.config;
    let volumes = record.mounts.iter().filter_map(|mount| match mount.source {
        MountSource::Volume {
            anonymous: true, ..
        } => {
            let path = mount.destination.to_string_lossy().into_owned();
            Some((path, fields_of(Vec::new())))
        }
        _ => None,
    });
    let volumes: std::collections::BTreeMap<String, Value> = volumes.collect();
    let labels = config
        .labels
        .iter()
        .map(|(key, text)| (key.clone(), text.clone()));
    let mut all = record_of(vec![
        ("Hostname", text_of(&record.hostname)),
        ("Domainname", text_of("")),
        ("User", text_of(&config.user)),
        (
            "AttachStdin",
            Value::Bool(config.open_stdin && !record.detached),
        ),
        ("AttachStdout", Value::Bool(!record.detached)),
        ("AttachStderr", Value::Bool(!record.detached)),
        ("Tty", Value::Bool(config.tty)),
        ("OpenStdin", Value::Bool(config.open_stdin)),
        (
            "StdinOnce",
            Value::Bool(config.open_stdin && !record.detached),
        ),
        ("Env", list(&config.env)),
        ("Cmd", or_unset(config.cmd.as_ref())),
        ("Image", text_of(&record.image_name)),
        (
            "Volumes",
            match volumes.is_empty() {
                true => Value::Unset(Shape::Map),
                false => Value::Map(volumes),
            },
        ),
        ("WorkingDir", text_of(&config.working_dir)),
        ("Entrypoint", or_unset(config.entrypoint.as_ref())),
        ("OnBuild", Value::Unset(Shape::List)),
        ("Labels", map(labels)),
        ("StopSignal", text_of(&config.stop_signal)),
    ]);
    all.empty = vec![
        ("ExposedPorts", Value::Unset(Shape::Map)),
        ("Healthcheck", Value::Nil),
    ];
    Value::Record(all)
}

/// The host's network: no address is the container's own.
fn network() -> Value {
    let host = fields_of(vec![
        ("IPAddress", text_of("")),
        ("Gateway", text_of("")),
        ("MacAddress", text_of("")),
    ]);
    fields_of(vec![
        ("Ports", empty_map()),
        ("IPAddress", text_of("")),
        ("Gateway", text_of("")),
        ("MacAddress", text_of("")),
        ("Networks", Value::Map([("host".to_owned(), host)].into())),
    ])
}
