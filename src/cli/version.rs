//! `mica version` and `mica info`.

use std::fs;
use std::process::ExitCode;

use super::{Context, output};
use crate::oci::Platform;
use crate::text::format::human_size_4;
use crate::text::template::{Template, Value};

/// Show the versions of mica and of the kernel
#[derive(clap::Args)]
pub(super) struct VersionArgs {
    /// Print by a Go template, such as '{{.Server.Version}}', or "json"
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows versions. Client and server are one program, and both are there for templates.
pub(super) fn version(args: VersionArgs) -> anyhow::Result<ExitCode> {
    let platform = Platform::host();
    let fields = || {
        vec![
            ("Version", text(env!("CARGO_PKG_VERSION"))),
            ("Os", text(&platform.os)),
            ("Arch", text(&platform.architecture)),
            ("KernelVersion", text(&kernel())),
        ]
    };
    let text = match args.format.as_deref() {
        None | Some("") => format!(
            "mica:\n Version:         {}\n OS/Arch:         {}/{}\n Kernel Version:  {}\n",
            env!("CARGO_PKG_VERSION"),
            platform.os,
            platform.architecture,
            kernel()
        ),
        Some(format) => {
            let all = vec![("Client", record(fields())), ("Server", record(fields()))];
            formatted(format, &record(all))?
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Show what the store holds, and the machine
#[derive(clap::Args)]
pub(super) struct InfoArgs {
    /// Print by a Go template, such as '{{.DockerRootDir}}', or "json"
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Shows figures.
pub(super) fn info(args: InfoArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let (mut all, mut running, mut images) = (0usize, 0usize, 0usize);
    let mut mounts = Vec::new();
    if let Some(store) = context.existing_store()? {
        let containers = store.containers()?;
        all = containers.len();
        running = containers
            .iter()
            .filter(|container| container.is_running())
            .count();
        images = store.names()?.images.len();
        for lease in store.live_leases()? {
            if let Some(mountpoint) = lease.mountpoint() {
                mounts.push(mountpoint.to_string_lossy().into_owned());
            }
        }
    }
    let platform = Platform::host();
    let root = context.store_path().to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory();
    let stopped = all.saturating_sub(running);
    let machine = rustix::system::uname();
    let (host, machine) = (
        machine.nodename().to_string_lossy().into_owned(),
        machine.machine().to_string_lossy().into_owned(),
    );
    let rootless = !rustix::process::geteuid().is_root();
    let text = match args.format.as_deref() {
        None | Some("") => {
            let mounts = match mounts.is_empty() {
                true => "none".to_owned(),
                false => mounts.join(", "),
            };
            format!(
                "Containers: {all}\n Running: {running}\n Paused: 0\n Stopped: {stopped}\nImages: {images}\n\
                 Server Version: {version}\nStorage Driver: mica\nMounts: {mounts}\nRootless: {rootless}\n\
                 Kernel Version: {kernel}\nOperating System: {system}\nOSType: {os}\nArchitecture: {machine}\nCPUs: {cpus}\n\
                 Total Memory: {memory}\nName: {host}\nDocker Root Dir: {root}\n",
                version = env!("CARGO_PKG_VERSION"),
                kernel = kernel(),
                system = system(),
                os = platform.os,
                memory = human_size_4(memory),
            )
        }
        Some(format) => formatted(
            format,
            &record(vec![
                ("Containers", number(all)),
                ("ContainersRunning", number(running)),
                ("ContainersPaused", number(0)),
                ("ContainersStopped", number(stopped)),
                ("Images", number(images)),
                ("Driver", text("mica")),
                (
                    "Mounts",
                    Value::List(mounts.iter().map(|path| text(path)).collect()),
                ),
                ("Rootless", Value::Bool(rootless)),
                ("KernelVersion", text(&kernel())),
                ("OperatingSystem", text(&system())),
                ("OSType", text(&platform.os)),
                ("Architecture", text(&machine)),
                ("NCPU", number(cpus)),
                ("MemTotal", Value::Int(memory.into())),
                ("Name", text(&host)),
                ("DockerRootDir", text(&root)),
                ("ServerVersion", text(env!("CARGO_PKG_VERSION"))),
            ]),
        )?,
    };
    output::print_foreign(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn formatted(format: &str, value: &Value) -> anyhow::Result<String> {
    let mut text = match format {
        "json" => serde_json::to_string(value)?,
        template => Template::parse(template)?.render(value)?,
    };
    text.push('\n');
    Ok(text)
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    let fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Value::Record(fields.collect::<Vec<_>>().into())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn number(number: usize) -> Value {
    Value::Int(i128::try_from(number).unwrap_or(i128::MAX))
}

fn kernel() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The distribution's name of itself.
fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Bytes of memory.
fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}
