//! `mica build`.

mod host;
mod input;
mod moving;
pub(super) mod prune;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use super::Context;
use super::limits::LimitArgs;
use super::output::print_error;
use crate::oci::{ImageId, Platform, TagRef};
use crate::ops::build::{self, Failure, Options};
use crate::ops::container::run::hosts;
use crate::runtime::OutOfReach;
use crate::store::Store;
use crate::sys::own_binary::OWN;
use crate::sys::userns;
use host::{Console, Steps};
use moving::Line;

/// Build an image from a Dockerfile
///
/// The context is a directory, or "-": a Dockerfile or a tar archive (plain or compressed) on standard input. What its
/// .dockerignore names is not part of it. A step that was done before is not done again. The exit status is that of the command
/// that failed, or 1.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Name the image; a tag that is left out is "latest" (repeatable)
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// The Dockerfile; "-" is standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Build up to this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set an ARG: NAME=VALUE, or NAME for the value it has here (repeatable)
    #[arg(long, value_name = "ARGUMENT")]
    build_arg: Vec<String>,
    /// Label the image: NAME or NAME=VALUE (repeatable)
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// Do every step anew
    #[arg(long)]
    no_cache: bool,
    /// Take steps that this image's history has as done (repeatable)
    #[arg(long, value_name = "IMAGE", value_delimiter = ',')]
    cache_from: Vec<String>,
    /// Get base images again
    #[arg(long)]
    pull: bool,
    /// Print the image's ID and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Build for this platform (such as linux/arm64/v8) [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_parser = super::load::platform)]
    platform: Option<Platform>,
    /// Give RUN --mount=type=secret a text: id=NAME[,src=FILE|,env=VARIABLE] (repeatable)
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Write the image's ID into a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Add a line to the /etc/hosts of RUN: NAME:ADDRESS (repeatable)
    #[arg(long, value_name = "HOST")]
    add_host: Vec<String>,
    /// How progress is shown: auto (moving on a terminal), plain
    #[arg(long, value_name = "HOW", default_value = "auto",
          value_parser = ["auto", "plain"])]
    progress: String,
    /// Run a shell in the last good step's image if a step fails
    #[arg(long)]
    shell_on_error: bool,
    /// The network of RUN: host is the only one there is
    #[arg(long, value_name = "NETWORK", default_value = "host", hide = true,
          value_parser = ["host", "default"])]
    network: String,
    /// A container goes with its step; always so
    #[arg(long, hide = true)]
    rm: bool,
    /// The same
    #[arg(long, hide = true)]
    force_rm: bool,
    #[command(flatten)]
    limits: LimitArgs,
    /// The context: a directory, or "-"
    #[arg(value_name = "CONTEXT|-")]
    context: String,
}

/// Builds an image.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let out_of_reach = OutOfReach::ensure()?;
    let tags = tags(&args.tag)?;
    let (input, recipe) = input::find(&args.context, args.file.as_deref())?;
    let arguments = input::arguments(&args.build_arg);
    let extra_hosts = args.add_host.iter().map(|text| hosts::line(text));
    let line = match args.quiet || args.progress == "plain" {
        true => None,
        false => Line::new(),
    };
    let options = Options {
        epoch: input::epoch(&arguments)?,
        arguments,
        tags: tags.clone(),
        recipe,
        input,
        target: args.target.clone(),
        labels: args.label.iter().map(|text| input::label(text)).collect(),
        no_cache: args.no_cache,
        cache_from: args.cache_from.clone(),
        pull: args.pull,
        platform: args.platform.clone(),
        secrets: input::secrets(&args.secret)?,
        extra_hosts: extra_hosts.collect::<Result<_, _>>()?,
        ids: ids(),
        limits: args.limits.limits(),
        watcher: line.as_ref().map(Line::watcher).unwrap_or_default(),
    };
    let store = context.new_store()?;
    crate::ops::container::sweep(&store);
    let console = Console::new(args.quiet).context("a file for the build's output")?;
    let mut steps = Steps::new(&store, &console, out_of_reach, line);
    let built = build::build(&store, options, &mut steps);
    match built {
        Ok(built) => {
            for name in &built.unused {
                console.warn(&format!(
                    "[Warning] One or more build-args [{name}] were not consumed"
                ));
            }
            if let Some(path) = &args.iidfile {
                std::fs::write(path, built.id.to_string())
                    .with_context(|| path.display().to_string())?;
            }
            console.done(&built.id, &tags);
            console.finish()?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => failed(&args, &store, &console, failure),
    }
}

fn failed(
    args: &Args,
    store: &Store,
    console: &Console,
    failure: Failure,
) -> anyhow::Result<ExitCode> {
    console.show_all();
    let code = failure.error.code();
    print_error(&(*failure.error).into());
    if let Some(left) = failure.left.filter(|_| !args.quiet) {
        eprintln!("The image of the last good step is {}", left.short());
    }
    if args.shell_on_error {
        match failure.left {
            Some(left) => shell(store, &left)?,
            None => eprintln!("mica: no step was done, so there is no image to run a shell in"),
        }
    }
    Ok(ExitCode::from(code))
}

/// Runs a shell in an image; how it ends is nobody's concern.
fn shell(store: &Store, image: &ImageId) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    let mut command = Command::new(OWN);
    command
        .arg("--store")
        .arg(store.path())
        .args(["run", "--rm", "-i"]);
    if std::io::stdin().is_terminal() {
        command.arg("-t");
    }
    command.args(["--entrypoint", "/bin/sh", &image.to_string()]);
    command.status().context("starting a shell")?;
    Ok(())
}

fn tags(texts: &[String]) -> anyhow::Result<Vec<TagRef>> {
    let mut tags = Vec::new();
    for text in texts {
        match TagRef::parse(text) {
            Ok(tag) => tags.push(tag),
            Err(error) => {
                anyhow::bail!("invalid argument {text:?} for \"-t, --tag\" flag: {error}")
            }
        }
    }
    Ok(tags)
}

/// The ids of an ordinary user's containers.
fn ids() -> Option<crate::sys::idmap::IdMap> {
    (!rustix::process::geteuid().is_root()).then(|| userns::plan().0)
}
