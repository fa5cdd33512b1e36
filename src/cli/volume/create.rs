//! `mica volume create`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use crate::ops::volume::VolumeError;
use crate::ops::volume::{self as volumes, Create, CreateKind};
use crate::store::VolumeName;

use super::super::Context;
use super::super::output::Lines;

/// Create a volume
///
/// Prints its name. A volume of that name and kind that is there already is no error. Without a name it gets one of 64
/// hexadecimal digits, and `volume prune` takes it when nothing uses it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Its name: [a-zA-Z0-9][a-zA-Z0-9_.-]+
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The same, as docker's has it from long ago
    #[arg(long = "name", value_name = "NAME", hide = true)]
    named: Option<String>,
    /// A directory or file of the host; with :ro at the end it cannot be written through the volume
    #[arg(long, value_name = "PATH[:ro]", conflicts_with_all = ["ephemeral", "options"])]
    bind: Option<PathBuf>,
    /// It lives as long as something uses it: it goes soon after its last user has gone, or if it gets none
    #[arg(long)]
    ephemeral: bool,
    /// Set a label
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,
    /// There is only local
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// docker's way to a bind: -o type=none -o o=bind[,ro] -o device=PATH
    #[arg(
        short,
        long = "opt",
        value_name = "KEY=VALUE",
        conflicts_with = "ephemeral"
    )]
    options: Vec<String>,
}

/// Creates a volume.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    if args.driver != "local" {
        bail!(
            "volume driver {:?} is not there; the only one is local",
            args.driver
        );
    }
    let kind = match (&args.bind, args.ephemeral) {
        (Some(path), _) => bind(path)?,
        (None, true) => CreateKind::Ephemeral,
        (None, false) => docker_options(&args.options)?,
    };
    if args.name.is_some() && args.named.is_some() {
        bail!(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        );
    }
    let name = args.name.as_deref().or(args.named.as_deref());
    let name = name.map(parse_name).transpose()?;
    let mut create = Create::new(name, kind);
    for label in &args.labels {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        create.labels.insert(key.to_owned(), value.to_owned());
    }
    let store = context.new_store()?;
    super::sweep(&store);
    let volume = volumes::create(&store, &create)?;
    let mut lines = Lines::default();
    lines.print(volume.name.as_str());
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn parse_name(text: &str) -> Result<VolumeName, VolumeError> {
    VolumeName::parse(text).map_err(|error| VolumeError::Name {
        verb: "create",
        name: text.to_owned(),
        error,
    })
}

/// `PATH[:ro|:rw]`; a relative path counts from here.
fn bind(argument: &std::path::Path) -> anyhow::Result<CreateKind> {
    let (source, read_only) = match argument.to_str() {
        Some(text) => match (text.strip_suffix(":ro"), text.strip_suffix(":rw")) {
            (Some(path), _) => (PathBuf::from(path), true),
            (None, Some(path)) => (PathBuf::from(path), false),
            (None, None) => (argument.to_owned(), false),
        },
        None => (argument.to_owned(), false),
    };
    let source = std::path::absolute(source)?;
    Ok(CreateKind::Bind { source, read_only })
}

/// docker's options of the local driver, as far as they say bind.
fn docker_options(options: &[String]) -> anyhow::Result<CreateKind> {
    if options.is_empty() {
        return Ok(CreateKind::Persistent);
    }
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        given.insert(key, value);
    }
    let flags: Vec<&str> = given
        .get("o")
        .copied()
        .unwrap_or_default()
        .split(',')
        .collect();
    let known = |flag: &&str| matches!(*flag, "bind" | "rbind" | "ro" | "rw");
    let is_bind = flags.contains(&"bind") || flags.contains(&"rbind");
    match (given.get("type"), given.get("device")) {
        (Some(&"none") | None, Some(device))
            if is_bind
                && flags.iter().all(known)
                && given
                    .keys()
                    .all(|key| ["type", "o", "device"].contains(key)) =>
        {
            Ok(CreateKind::Bind {
                source: PathBuf::from(device),
                read_only: flags.contains(&"ro"),
            })
        }
        _ => bail!(
            "these volume options are not supported; there are binds (-o type=none -o o=bind -o device=PATH, or --bind PATH)"
        ),
    }
}
