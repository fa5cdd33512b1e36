//! `mica run`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;

use super::Context;
use super::output::{self, print_error};
use crate::ops::containers;
use crate::ops::run::{self, Created, Options, RunError, mounts, security};
use crate::ops::{OpsError, resolve};
use crate::runtime::{self, Job, NotStarted, OutOfReach};
use crate::store::{OpenMode, Store};
use crate::sys::userns;

/// Run a command in an image
///
/// The command sees the image's files and the volumes named, and can change the files: the changes are the container's own.
/// The network is the host's. The exit status is the command's; 125: it was not started, 126: it cannot be run, 127: there is
/// no such command.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Remove the container when its command ends
    #[arg(long)]
    rm: bool,
    /// Name the container
    #[arg(long)]
    name: Option<String>,
    /// Give the command this standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background; print the container's ID
    #[arg(short, long)]
    detach: bool,
    /// Mount a volume, or a directory or file of the host: NAME:/PLACE, /HOST:/PLACE, /PLACE; with :ro for reading only
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// Mount: type=bind|volume|tmpfs|image,source=..,target=..[,readonly]
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Mount a file system in memory: /PLACE[:size=..,mode=..]
    #[arg(long, value_name = "PLACE")]
    tmpfs: Vec<String>,
    /// Mount what a container has mounted; with :ro for reading only
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set a variable: NAME=VALUE, or NAME for the value it has here
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Set the variables in a file, one per line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run as this user: NAME|UID[:GROUP|GID]
    #[arg(short, long)]
    user: Option<String>,
    /// The image's files cannot be changed
    #[arg(long)]
    read_only: bool,
    /// Run this in place of the image's entry point
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Host name
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Label the container: NAME or NAME=VALUE
    #[arg(short, long)]
    label: Vec<String>,
    /// Put a small init in front of the command, which collects orphans and passes signals on
    #[arg(long)]
    init: bool,
    /// What `stop` sends
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Add a line to /etc/hosts: NAME:ADDRESS
    #[arg(long, value_name = "HOST")]
    add_host: Vec<String>,
    /// Give a capability more than the default ones, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=unconfined, seccomp=FILE (a profile in docker's form), no-new-privileges[=false]
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Refused: says what to do instead
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false")]
    privileged: bool,
    /// The network: host is the only one there is
    #[arg(
        long,
        value_name = "NETWORK",
        default_value = "host",
        hide_default_value = true
    )]
    network: String,
    /// Get the image from its registry: always, missing (if it is not here), never
    #[arg(long, value_name = "WHEN", default_value = "missing",
          value_parser = ["always", "missing", "never"])]
    pull: String,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image, and the command if not the image's own
    // One list: what follows the image is never an option of ours.
    #[arg(value_names = ["IMAGE", "COMMAND"], required = true, trailing_var_arg = true,
          allow_hyphen_values = true, num_args = 1.., add = super::completion::images())]
    words: Vec<String>,
}

/// Why there is no `--privileged`.
pub(super) const PRIVILEGED: &str = "--privileged is not supported: it would hand the host to the container; give what the command needs: --cap-add CAPABILITY, --security-opt seccomp=unconfined, --security-opt no-new-privileges=false";

/// Runs a container.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::from(match start(args, context) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }))
}

/// Prints why a container was not started; docker's exit code for it.
pub(super) fn failed(error: &anyhow::Error) -> u8 {
    print_error(error);
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(NotStarted { code, .. }), _) => *code,
        (None, Some(RunError::Usage(text))) if text.contains("not a TTY") => 1,
        _ => 125,
    }
}

fn start(args: Args, context: &Context) -> anyhow::Result<u8> {
    let out_of_reach = OutOfReach::ensure()?;
    if args.tty && args.interactive && !args.detach && !io::stdin().is_terminal() {
        return Err(RunError::Usage("the input device is not a TTY".to_owned()).into());
    }
    if args.network != "host" {
        let text = format!(
            "network {} not found: containers use the host's network",
            args.network
        );
        return Err(RunError::Refused(text).into());
    }
    if args.privileged {
        return Err(RunError::Refused(PRIVILEGED.to_owned()).into());
    }
    let options = options(&args)?;
    let Some((image, command)) = args.words.split_first() else {
        return Err(RunError::Usage("no image given".to_owned()).into());
    };
    if image.starts_with('-') {
        return Err(RunError::Usage(format!("unknown flag: {image}; see mica run --help")).into());
    }
    let store = Store::open(&context.store_path(), OpenMode::Create)?;
    containers::sweep(&store);
    fetch(&args.pull, image, &store)?;
    let created = run::create(&store, image, command, &options)?;
    let id = created.container.record.id.clone();
    let job = match job(&store, created) {
        Ok(job) => job,
        Err(failed) => {
            let (error, created) = *failed;
            containers::finish(&store, &created.container, created.lock)?;
            return Err(error.into());
        }
    };
    if args.detach {
        runtime::run_detached(job, out_of_reach, finish)?;
        output::print(&format!("{id}\n"))?;
        return Ok(0);
    }
    let (job, result) = runtime::run(job, out_of_reach);
    let alone = job
        .container
        .record
        .ids
        .as_ref()
        .is_some_and(|ids| ids.is_single());
    finish(job);
    // Who gets along with one has nothing to hear of it.
    if alone
        && !matches!(result, Ok(0))
        && let (_, Some(why)) = userns::plan()
    {
        let text = format!(
            "mica: the container had one user id only, everything in it belongs to root: {why}"
        );
        eprintln!("{}", output::Printable(&text));
    }
    Ok(result?)
}

/// What follows the end of a container.
pub(super) fn finish(job: Job) {
    if let Err(error) = containers::finish(&job.store, &job.container, job.lock) {
        print_error(&error.into());
    }
}

/// Finds what a new container wants mounted.
fn job(store: &Store, created: Created) -> Result<Job, Box<(RunError, Created)>> {
    let fresh = run::is_fresh(&created.fresh);
    match mounts::ready(store, &created.container.record.mounts, &fresh) {
        Ok((mounts, volumes)) => Ok(Job {
            store: store.clone(),
            container: created.container,
            lock: created.lock,
            mounts,
            volumes,
        }),
        Err(error) => {
            drop(fresh);
            Err(Box::new((error, created)))
        }
    }
}

/// Gets the image, if that is wanted and needed. Another process does it: a container is started by one without threads.
fn fetch(when: &str, image: &str, store: &Store) -> anyhow::Result<()> {
    let names = store.names()?;
    match resolve::image(&names, image) {
        Ok(_) if when != "always" => return Ok(()),
        Ok(_) => {}
        Err(OpsError::NoSuchImage(name)) if when != "never" => {
            eprintln!("Unable to find image '{name}' locally");
        }
        Err(error) => return Err(error.into()),
    }
    let status = Command::new("/proc/self/exe")
        .arg("--store")
        .arg(store.path())
        .args(["pull", "--", image])
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status()
        .context("starting the pull")?;
    if status.success() {
        return Ok(());
    }
    // It has said why.
    Err(NotStarted {
        code: 125,
        text: format!("cannot get image {image}"),
    }
    .into())
}

fn options(args: &Args) -> anyhow::Result<Options> {
    let mut wanted = Vec::new();
    for text in &args.volume {
        wanted.push(mounts::parse_volume(text)?);
    }
    for text in &args.mount {
        wanted.push(mounts::parse_mount(text)?);
    }
    for text in &args.tmpfs {
        wanted.push(mounts::parse_tmpfs(text)?);
    }
    let mut env = Vec::new();
    for path in &args.env_file {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("open {}", path.display()))?;
        let lines = text.lines().map(str::trim_start);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            env.extend(variable(line));
        }
    }
    env.extend(args.env.iter().filter_map(|text| variable(text)));
    if let Some(signal) = &args.stop_signal {
        containers::number_of(signal)?;
    }
    let labels: BTreeMap<String, String> = args
        .label
        .iter()
        .map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let mut extra_hosts = Vec::new();
    for text in &args.add_host {
        match text.split_once([':', '=']) {
            Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                extra_hosts.push(format!("{address}\t{name}"));
            }
            _ => {
                let text = format!(
                    "invalid argument {text:?} for \"--add-host\" flag: bad format for add-host: {text:?}"
                );
                return Err(RunError::Usage(text).into());
            }
        }
    }
    let ids = match rustix::process::geteuid().is_root() {
        true => None,
        false => Some(userns::plan().0),
    };
    Ok(Options {
        name: args.name.clone(),
        auto_remove: args.rm,
        detached: args.detach,
        open_stdin: args.interactive,
        tty: args.tty,
        mounts: wanted,
        volumes_from: args.volumes_from.clone(),
        working_dir: args.workdir.clone(),
        env,
        user: args.user.clone(),
        read_only: args.read_only,
        entrypoint: args.entrypoint.clone(),
        hostname: args.hostname.clone(),
        labels,
        init: args.init,
        stop_signal: args.stop_signal.clone(),
        extra_hosts,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        security: security::parse_options(&args.security_opt)?,
        ids,
    })
}

/// `NAME=value` as it is; `NAME` with the value it has here, or, having none, as an order to take it away.
pub(super) fn variable(text: &str) -> Option<String> {
    if text.contains('=') || text.is_empty() {
        return (!text.is_empty()).then(|| text.to_owned());
    }
    Some(match std::env::var(text) {
        Ok(value) => format!("{text}={value}"),
        Err(_) => text.to_owned(),
    })
}
