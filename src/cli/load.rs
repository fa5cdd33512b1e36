//! `mica load`.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Context;
use super::limits::LimitArgs;
use super::output::Printable;
use super::progress::Progress;
use crate::archive::Input;
use crate::oci::Platform;
use crate::ops::transfer::load::{Loaded, Options, Silent, Sink, load};

/// Load images from an archive or an OCI layout
///
/// Reads what docker save, podman save, skopeo copy and buildah push write: docker-archive and oci-archive files, plain
/// or compressed with gzip, zstd, xz or bzip2, from a file or a pipe, and OCI layout directories. All images of the
/// archive are loaded, or none.
///
/// Names come from docker's manifest.json, or in an OCI layout from the annotations io.containerd.image.name and
/// org.opencontainers.image.ref.name. The latter is read as a reference ("app" is app:latest); "latest" alone is none.
/// An image without a name is loaded under its ID only; give it one with mica tag.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Read from this file or directory; "-" is standard input
    #[arg(
        short,
        long,
        value_name = "FILE|DIR|-",
        default_value = "-",
        hide_default_value = true
    )]
    input: PathBuf,
    /// Load the image for this platform (such as linux/arm64/v8) from an index
    #[arg(long, value_name = "PLATFORM", value_parser = platform)]
    platform: Option<Platform>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let input = if args.input.as_os_str() == "-" {
        let stdin = io::stdin();
        // docker's words.
        anyhow::ensure!(
            !stdin.is_terminal(),
            "requested load from stdin, but stdin is empty"
        );
        Input::Stream(stdin.as_fd().try_clone_to_owned().context("stdin")?)
    } else {
        Input::Path(args.input)
    };
    let store = context.new_store()?;
    let progress: Box<dyn Sink> = if args.quiet {
        Box::new(Silent)
    } else {
        Box::new(Progress::new())
    };
    let loaded = load(
        &store,
        Options {
            input,
            platform: args.platform,
            limits: args.limits.limits(),
        },
        &*progress,
    )?;
    print(&loaded)?;
    Ok(ExitCode::SUCCESS)
}

/// docker's lines.
fn print(loaded: &Loaded) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (tag, old) in loaded.images.iter().flat_map(|image| &image.tags) {
        if let Some(old) = old {
            writeln!(
                out,
                "The image {tag} already exists, renaming the old one with ID {old} to empty string"
            )?;
        }
    }
    for image in &loaded.images {
        for note in &image.notes {
            eprintln!("{}: {}", image.id, Printable(note));
        }
        if image.tags.is_empty() {
            writeln!(out, "Loaded image ID: {}", image.id)?;
        }
        for (tag, _) in &image.tags {
            writeln!(out, "Loaded image: {tag}")?;
        }
    }
    out.flush()
}

/// The value of `--platform`.
pub(super) fn platform(text: &str) -> Result<Platform, String> {
    Platform::parse(text).map_err(|error| error.to_string())
}
