//! `mica pull`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::output::{Lines, print_error};
use super::{Context, transport};
use crate::layer::Limits;
use crate::oci::{Digest, Platform, Reference, Tag};
use crate::ops::OpsError;
use crate::ops::pull::{self, Event, Options, Pulled, Silent, Sink};
use crate::registry::Client;
use crate::store::{OpenMode, Store};

/// Download images from a registry
///
/// A name appears only when its image is complete and verified. Layers that are here already are not downloaded.
#[derive(clap::Args)]
pub struct Args {
    /// What to pull; a tag that is left out is "latest"
    #[arg(value_name = "NAME[:TAG|@DIGEST]", required = true)]
    names: Vec<String>,
    /// Pull all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print only what was pulled
    #[arg(short, long)]
    quiet: bool,
    /// Pull the image for this platform (such as linux/arm64/v8)
    #[arg(long, value_name = "PLATFORM", value_parser = super::load::platform)]
    platform: Option<Platform>,
    /// Refuse layers larger than this uncompressed (bytes, or with k, m, g, t)
    #[arg(long, value_name = "SIZE", value_parser = super::load::size, default_value = "64g")]
    max_layer_size: u64,
    #[command(flatten)]
    transport: transport::TransportArgs,
}

/// Runs the verb. Goes on with the next name after an error.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let options = Options {
        platform: args.platform.clone(),
        limits: Limits {
            max_tar_bytes: args.max_layer_size,
            ..Limits::default()
        },
        registry: args.transport.options(),
    };
    let store = Store::open(&context.store_path(), OpenMode::Create)?;
    let mut lines = Lines::default();
    let mut code = ExitCode::SUCCESS;
    for name in &args.names {
        if let Err(error) = one(name, &args, &options, &store, &mut lines) {
            print_error(&error);
            code = ExitCode::FAILURE;
        }
    }
    lines.finish()?;
    Ok(code)
}

fn one(
    name: &str,
    args: &Args,
    options: &Options,
    store: &Store,
    lines: &mut Lines,
) -> anyhow::Result<()> {
    let reference = Reference::parse(name).map_err(OpsError::Reference)?;
    if args.all_tags {
        // docker's words.
        anyhow::ensure!(
            reference.tag.is_none() && reference.digest.is_none(),
            "tag can't be used with --all-tags/-a"
        );
        let (client, tags) = pull::tags(&reference.repository, &options.registry)?;
        for tag in tags {
            let reference = Reference {
                tag: Some(tag),
                ..reference.clone()
            };
            image(&client, &reference, args, options, store, lines)?;
        }
        return Ok(());
    }
    if reference.tag.is_none() && reference.digest.is_none() && !args.quiet {
        lines.print(&format!("Using default tag: {}", Tag::latest()));
    }
    let client = Client::connect(reference.repository.domain(), &options.registry)?;
    image(&client, &reference, args, options, store, lines)
}

fn image(
    client: &Client,
    reference: &Reference,
    args: &Args,
    options: &Options,
    store: &Store,
    lines: &mut Lines,
) -> anyhow::Result<()> {
    let progress: Box<dyn Sink> = match args.quiet {
        true => Box::new(Silent),
        false => {
            let what = match (&reference.digest, reference.tag_or_latest()) {
                (None, Some(tag)) => tag.to_string(),
                _ => canonical(reference),
            };
            lines.print(&format!(
                "{what}: Pulling from {}",
                reference.repository.path()
            ));
            Box::new(Progress::new())
        }
    };
    let pulled = pull::pull(store, client, reference, options, &*progress)?;
    store.notify_mounts()?;
    if !args.quiet {
        lines.print(&format!("Digest: {}", pulled.digest));
        lines.print(&status(&pulled));
    }
    lines.print(&canonical(&pulled.reference));
    Ok(())
}

fn status(pulled: &Pulled) -> String {
    let reference = &pulled.reference;
    match pulled.up_to_date {
        true => format!("Status: Image is up to date for {reference}"),
        false => format!("Status: Downloaded newer image for {reference}"),
    }
}

/// Everything spelled out: `docker.io/library/nginx:latest`.
fn canonical(reference: &Reference) -> String {
    let mut text = reference.repository.canonical();
    match (&reference.digest, reference.tag_or_latest()) {
        (Some(digest), _) => text.push_str(&format!("@{digest}")),
        (None, Some(tag)) => text.push_str(&format!(":{tag}")),
        (None, None) => {}
    }
    text
}

/// Bars on a terminal, else one line per state.
struct Progress {
    bars: Option<(MultiProgress, Mutex<HashMap<Digest, ProgressBar>>)>,
}

impl Progress {
    fn new() -> Self {
        let bars = io::stdout().is_terminal().then(|| {
            let target = ProgressDrawTarget::stdout();
            (MultiProgress::with_draw_target(target), Mutex::default())
        });
        Progress { bars }
    }
}

impl Sink for Progress {
    fn event(&self, event: Event) {
        let Some((all, bars)) = &self.bars else {
            let (blob, state) = match event {
                Event::Exists { blob } => (blob, "Already exists"),
                Event::Waiting { blob, .. } => (blob, "Pulling fs layer"),
                Event::Complete { blob } => (blob, "Pull complete"),
                Event::Begin { .. } | Event::Advance { .. } | Event::Failed { .. } => return,
            };
            // A reader that has gone away is no reason to stop.
            let _ = writeln!(io::stdout(), "{}: {state}", blob.short());
            return;
        };
        let mut bars = bars.lock();
        let text = |state: &str| {
            let template = format!("{{prefix}}: {state}");
            ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        match event {
            Event::Exists { blob } => {
                let bar = all.add(ProgressBar::new(0).with_prefix(blob.short()));
                bar.set_style(text("Already exists"));
                bar.finish();
            }
            Event::Waiting { blob, size } => {
                let bar = all.add(ProgressBar::new(size).with_prefix(blob.short()));
                bar.set_style(text("Waiting"));
                bar.tick();
                bars.insert(blob, bar);
            }
            Event::Begin { blob } => {
                if let Some(bar) = bars.get(&blob) {
                    let style = text(
                        "Downloading [{bar:40}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}",
                    );
                    bar.set_style(style.progress_chars("=> "));
                    bar.reset_elapsed();
                    bar.enable_steady_tick(Duration::from_millis(200));
                }
            }
            Event::Advance { blob, bytes } => {
                if let Some(bar) = bars.get(&blob) {
                    bar.inc(bytes);
                }
            }
            Event::Complete { blob } => {
                if let Some(bar) = bars.remove(&blob) {
                    bar.set_style(text("Pull complete"));
                    bar.finish();
                }
            }
            Event::Failed { blob } => {
                if let Some(bar) = bars.remove(&blob) {
                    bar.set_style(text("Failed"));
                    bar.abandon();
                }
            }
        }
    }
}
