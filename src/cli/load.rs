//! `mica load`.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::Context;
use super::output::Printable;
use super::progress::Progress;
use crate::layer::Limits;
use crate::oci::Platform;
use crate::ops::load::{Loaded, Options, Silent, Sink, load};
use crate::registry::archive::Input;
use crate::store::{OpenMode, Store};

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
pub struct Args {
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
    /// Refuse layers larger than this uncompressed (bytes, or with k, m, g, t)
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64g")]
    max_layer_size: u64,
    /// Refuse layers with more entries than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_entries)]
    max_layer_entries: u64,
    /// Refuse paths with more components than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_depth)]
    max_path_depth: usize,
    /// Refuse layers whose names, link targets and extended attributes are larger than this together
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1g")]
    max_layer_metadata: u64,
}

/// Runs the verb.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
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
    let limits = Limits {
        max_tar_bytes: args.max_layer_size,
        max_entries: args.max_layer_entries,
        max_depth: args.max_path_depth,
        max_metadata_bytes: args.max_layer_metadata,
        ..Limits::default()
    };
    let store = Store::open(&context.store_path(), OpenMode::Create)?;
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
            limits,
        },
        &*progress,
    )?;
    store.notify_mounts()?;
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

/// `1048576`, `64m`, `2GiB`: powers of 1024, as docker's memory options.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let number = lower.strip_suffix('b').unwrap_or(&lower);
    let number = number.strip_suffix('i').unwrap_or(number);
    let (digits, shift) = match number.chars().last() {
        Some('k') => (number.strip_suffix('k'), 10),
        Some('m') => (number.strip_suffix('m'), 20),
        Some('g') => (number.strip_suffix('g'), 30),
        Some('t') => (number.strip_suffix('t'), 40),
        _ => (Some(number), 0),
    };
    let parsed = digits
        .and_then(|d| d.parse::<u64>().ok())
        .and_then(|n| n.checked_mul(1 << shift));
    parsed.ok_or_else(|| {
        format!("{text:?} is no size: expected a number of bytes, or with k, m, g, t")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let table = [
            ("0", 0),
            ("512", 512),
            ("1k", 1 << 10),
            ("64M", 64 << 20),
            ("2GiB", 2 << 30),
            ("1tb", 1 << 40),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "k",
            "-1",
            "1.5.g",
            "99999999999999999999",
            "20000000t",
            "1kk",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
