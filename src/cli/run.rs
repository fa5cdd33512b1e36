//! `mica run`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;

use super::not_started::failed;
use super::output::{self, print_error};
use super::{Context, absent, attach};
use crate::oci::Platform;
use crate::ops::container as containers;
use crate::ops::container::run::{
    self, Created, Options, RunError, hosts, limits, mounts, security,
};
use crate::ops::image::ImageError;
use crate::ops::image::resolve;
use crate::runtime::{self, DetachKeys, Job, NotStarted, OutOfReach};
use crate::store::Store;
use crate::sys::userns;

/// Run a command in an image
///
/// The command sees the image's files and the volumes named, and can change the files: the changes are the container's own.
/// The network is the host's. The exit status is the command's; 125: it was not started, 126: it cannot be run, 127: there is
/// no such command.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
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
    #[arg(short, long, value_name = "VOLUME", add = super::completion::volumes())]
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
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Get the image from its registry: always, missing (if it is not here), never
    #[arg(long, value_name = "WHEN", default_value = "missing",
          value_parser = ["always", "missing", "never"])]
    pull: String,
    /// Show nothing of getting the image
    #[arg(short, long)]
    quiet: bool,
    /// Get the image from this registry by plain http or with any certificate, if it must be (repeatable)
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Run only if the image is for this platform (such as linux/amd64); get it for that platform if it is not here
    #[arg(long, value_name = "PLATFORM", value_parser = super::load::platform)]
    platform: Option<Platform>,
    /// With -it: leave it by these keys in place of ctrl-p,ctrl-q; it goes on then
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Write the container's ID into this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Set a limit of its processes: NAME=SOFT[:HARD], such as nofile=1024:2048
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Size of /dev/shm (64m)
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Label the container with what is in a file, one NAME[=VALUE] per line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Publish a port, PORT:PORT: the network is the host's, so every port is where the program opens it
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// The same for all ports that the image names
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// What happens when the command ends: no (nothing) is all there is
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "no",
        hide_default_value = true
    )]
    restart: String,
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
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::from(match start(args, context) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }))
}

/// Makes a container and does not start it.
pub(super) fn create(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::from(match make(&args, context) {
        Ok((_, created, cidfile)) => {
            let id = created.container.record.id.clone();
            drop(created);
            let told = cidfile.map_or(Ok(()), |file| file.write(id.as_str()));
            told.and_then(|()| Ok(output::print(&format!("{id}\n"))?))?;
            0
        }
        Err(error) => match failed(&error) {
            // docker's status for what its daemon refuses.
            125 if error.downcast_ref().is_some_and(RunError::is_daemons) => 1,
            code => code,
        },
    }))
}

/// What `run` and `create` have in common: the container, not started.
fn make(args: &Args, context: &Context) -> anyhow::Result<(Store, Created, Option<CidFile>)> {
    absent::network(&args.network)?;
    if args.privileged {
        return Err(RunError::Refused(PRIVILEGED.to_owned()).into());
    }
    absent::restart(&args.restart)?;
    let Some((image, command)) = args.words.split_first() else {
        return Err(RunError::Usage("no image given".to_owned()).into());
    };
    if image.starts_with('-') {
        return Err(absent::flag(image).into());
    }
    absent::publish(&args.publish)?;
    let options = options(args)?;
    let cidfile = args.cidfile.as_deref().map(CidFile::open).transpose()?;
    let store = context.new_store()?;
    containers::sweep(&store);
    fetch(args, image, &store)?;
    let created = run::create(&store, image, command, &options)?;
    Ok((store, created, cidfile))
}

/// The file of `--cidfile`: goes again if nothing was written to it.
struct CidFile {
    path: PathBuf,
    file: File,
    written: bool,
}

impl CidFile {
    fn open(path: &Path) -> anyhow::Result<CidFile> {
        let file = File::options().write(true).create_new(true).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => anyhow::Error::from(RunError::Usage(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ))),
            _ => anyhow::Error::from(error).context(format!(
                "failed to create the container ID file {}",
                path.display()
            )),
        })?;
        Ok(CidFile {
            path: path.to_owned(),
            file,
            written: false,
        })
    }

    fn write(mut self, id: &str) -> anyhow::Result<()> {
        let written = self.file.write_all(id.as_bytes());
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.written = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn start(args: Args, context: &Context) -> anyhow::Result<u8> {
    let out_of_reach = OutOfReach::ensure()?;
    if args.tty && args.interactive && !args.detach && !io::stdin().is_terminal() {
        return Err(RunError::NotATty.into());
    }
    let keys = attach::keys(args.detach_keys.as_deref())?;
    let (store, created, cidfile) = make(&args, context)?;
    let id = created.container.record.id.clone();
    if let Some(Err(error)) = cidfile.map(|file| file.write(id.as_str())) {
        let removed = containers::RemoveOptions::default();
        drop(created);
        containers::remove(&store, id.as_str(), removed)?;
        return Err(error);
    }
    let job = Job::new(&store, run::ready(&store, created)?);
    if args.detach {
        runtime::run_detached(job, out_of_reach, finish)?;
        output::print(&format!("{id}\n"))?;
        return Ok(0);
    }
    let ids = job.container.record.ids.as_ref();
    let alone = ids.is_some_and(|ids| ids.is_single());
    let result = stay(job, &keys, out_of_reach);
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

/// Runs it in front of the caller, who can leave it if it has the caller's terminal.
pub(super) fn stay(
    job: Job,
    keys: &DetachKeys,
    out_of_reach: OutOfReach,
) -> Result<u8, NotStarted> {
    let config = &job.container.record.config;
    if config.tty && config.open_stdin && io::stdin().is_terminal() {
        let left = runtime::run_attached(job, keys, out_of_reach, finish)?;
        return Ok(attach::left(left, 0));
    }
    let (job, result) = runtime::run(job, out_of_reach);
    finish(job);
    result
}

/// What follows the end of a container.
pub(super) fn finish(job: Job) {
    if let Err(error) = containers::finish(&job.store, &job.container, job.lock) {
        print_error(&error.into());
    }
}

/// Gets the image, if that is wanted and needed. Another process does it: a container is started by one without threads.
fn fetch(args: &Args, image: &str, store: &Store) -> anyhow::Result<()> {
    let when = args.pull.as_str();
    let names = store.names()?;
    match resolve::image(&names, image) {
        Ok(found) if when != "always" => {
            let record = names.images.get(&found.id);
            let platform = record.and_then(|record| record.manifest.platform.as_ref());
            let wanted = args.platform.as_ref();
            let fits = wanted.is_none_or(|wanted| platform.is_none_or(|p| wanted.matches(p)));
            // One that nobody could pull again is for `create` to refuse.
            if fits || when == "never" {
                return Ok(());
            }
        }
        Ok(_) => {}
        Err(ImageError::NoSuch(name)) if when != "never" => {
            if !args.quiet {
                eprintln!("Unable to find image '{name}' locally");
            }
        }
        Err(error) => return Err(error.into()),
    }
    let platform = args.platform.as_ref();
    let platform = platform.map(|platform| format!("--platform={platform}"));
    let insecure = args.insecure_registry.iter();
    let insecure = insecure.map(|host| format!("--insecure-registry={host}"));
    let quiet = args.quiet.then_some("--quiet");
    let shown: Stdio = match args.quiet {
        true => Stdio::null(),
        false => io::stderr().into(),
    };
    let status = Command::new("/proc/self/exe")
        .arg("--store")
        .arg(store.path())
        .arg("pull")
        .args(quiet)
        .args(platform)
        .args(insecure)
        .args(["--", image])
        .stdin(Stdio::null())
        .stdout(shown)
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
        env.extend(lines(path)?.iter().filter_map(|line| variable(line)));
    }
    env.extend(args.env.iter().filter_map(|text| variable(text)));
    if let Some(signal) = &args.stop_signal {
        containers::number_of(signal)?;
    }
    let mut labels = BTreeMap::new();
    for path in &args.label_file {
        labels.extend(lines(path)?.iter().map(|line| label(line)));
    }
    labels.extend(args.label.iter().map(|text| label(text)));
    let hosts = args.add_host.iter().map(|text| hosts::line(text));
    let extra_hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    let ulimits = args.ulimit.iter().map(|text| limits::parse(text));
    let ulimits = ulimits.collect::<Result<Vec<_>, _>>()?;
    let shm_size = args.shm_size.as_deref().map(|text| {
        mounts::size_of(text).ok_or_else(|| {
            RunError::Usage(format!(
                "invalid argument {text:?} for \"--shm-size\" flag: invalid size: '{text}'"
            ))
        })
    });
    let ids = match rustix::process::geteuid().is_root() {
        true => None,
        false => Some(userns::plan().0),
    };
    Ok(Options {
        name: args
            .name
            .as_deref()
            .map(|name| name.strip_prefix('/').unwrap_or(name).to_owned()),
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
        shm_size: shm_size.transpose()?,
        ulimits,
        platform: args.platform.clone(),
        cap_drop: args.cap_drop.clone(),
        security: security::parse_options(&args.security_opt)?,
        ids,
    })
}

/// The lines of a file of variables or labels that say something.
pub(super) fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("open {}", path.display()))?;
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn label(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
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
