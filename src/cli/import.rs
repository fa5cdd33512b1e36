//! `mica import`.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Context;
use super::limits::LimitArgs;
use super::output::Lines;
use crate::oci::Platform;
use crate::ops::image::ImageError;
use crate::ops::transfer::import::{self, ImportError, Options};

/// Make an image from a tar archive of a file system
///
/// The archive may be plain or compressed with gzip, zstd, xz or bzip2. It becomes the one layer of a new image, whose ID
/// is printed.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Apply an instruction of a Dockerfile to the image's config (repeatable)
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Set the comment in the image's history [default: "Imported from -"]
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Say that the image is for this platform (such as linux/arm64/v8) [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_parser = super::load::platform)]
    platform: Option<Platform>,
    #[command(flatten)]
    limits: LimitArgs,
    /// The archive; "-" is standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// The image's name; a tag that is left out is "latest"
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// Runs the verb.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let name = args.name.as_deref().map(import::name).transpose();
    let options = Options {
        name: name.map_err(unwrapped)?,
        changes: args.changes,
        message: match args.message {
            Some(message) if !message.is_empty() => message,
            // docker's words, also for a file, which its command line sends by the same way.
            _ => "Imported from -".to_owned(),
        },
        platform: args.platform.unwrap_or_else(Platform::host),
        limits: args.limits.limits(),
    };
    let mut content = open(&args.file)?;
    let store = context.new_store()?;
    let id = import::import(&store, &options, &mut content).map_err(unwrapped)?;
    let mut lines = Lines::default();
    lines.print(&id.to_string());
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn open(file: &str) -> anyhow::Result<File> {
    if file == "-" {
        let stdin = io::stdin();
        anyhow::ensure!(
            !stdin.is_terminal(),
            "cannot import from a terminal: give a file, or redirect one to stdin"
        );
        let stdin = stdin.as_fd().try_clone_to_owned().context("stdin")?;
        return Ok(File::from(stdin));
    }
    let is_url = ["http://", "https://", "ftp://"]
        .iter()
        .any(|s| file.starts_with(s));
    anyhow::ensure!(
        !is_url,
        "import downloads nothing; type: curl -fL {file} | mica import - [REPOSITORY[:TAG]]"
    );
    File::open(file).with_context(|| file.to_owned())
}

/// What a use case says in docker's words is printed as such.
fn unwrapped(error: ImportError) -> anyhow::Error {
    match error {
        ImportError::Reference(error) => ImageError::Reference(error).into(),
        other => other.into(),
    }
}
