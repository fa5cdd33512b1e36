//! `mica save`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::Context;
use crate::ops::save::{self, SavePlan};

/// Save images to a tar archive
///
/// Writes what docker save writes: an OCI layout with docker's manifest.json beside it, shared layers once. It is read by
/// mica load, docker load, podman load and skopeo. A NAME without a tag saves every tag of the repository.
#[derive(clap::Args)]
pub struct Args {
    /// Write to this file instead of stdout; it appears when it is complete, readable by its owner only
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Names, digest references, IDs or beginnings of IDs
    #[arg(value_name = "IMAGE", required = true, add = super::completion::images())]
    images: Vec<String>,
}

/// Runs the verb.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout();
    // docker's words.
    anyhow::ensure!(
        args.output.is_some() || !stdout.is_terminal(),
        "cowardly refusing to save to a terminal. Use the -o flag or redirect"
    );
    let plan = save::plan(&context.store()?, &args.images).map_err(unwrapped)?;
    match args.output {
        None => plan.write(&mut BufWriter::new(stdout.lock()))?,
        Some(path) => to_file(&plan, &path)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a use case says in docker's words is printed as such.
fn unwrapped(error: save::SaveError) -> anyhow::Error {
    match error {
        save::SaveError::Ops(error) => error.into(),
        other => other.into(),
    }
}

/// Writes the file whole or not at all. A device or a pipe is written to as it is.
fn to_file(plan: &SavePlan, path: &Path) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    if let Ok(there) = path.metadata()
        && !there.is_file()
    {
        let file = File::options().write(true).open(path).with_context(shown)?;
        let mut out = BufWriter::new(file);
        plan.write(&mut out)?;
        return out.flush().with_context(shown);
    }
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // Mode 0600 from the beginning.
    let temp = tempfile::Builder::new()
        .prefix(".mica-save-")
        .tempfile_in(dir)
        .with_context(shown)?;
    plan.write(&mut BufWriter::new(temp.as_file()))?;
    temp.as_file().sync_all().with_context(shown)?;
    temp.persist(path)
        .map_err(|error| error.error)
        .with_context(shown)?;
    Ok(())
}
