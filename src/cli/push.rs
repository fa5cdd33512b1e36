//! `mica push`.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

use super::output::{Lines, print_error};
use super::{Context, transport};
use crate::oci::{DiffId, Reference, Tag, TagRef};
use crate::ops::OpsError;
use crate::ops::push::{self, Options, Packing, Sink, State};
use crate::registry::Client;
use crate::store::Store;

/// Upload images to a registry
///
/// What the registry has is not sent. An image that came from a registry unchanged keeps its digest.
#[derive(clap::Args)]
pub struct Args {
    /// What to push; a tag that is left out is "latest"
    #[arg(value_name = "NAME[:TAG]", required = true)]
    names: Vec<String>,
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print only what was pushed
    #[arg(short, long)]
    quiet: bool,
    /// Compress every layer in this way, and send it unless it is there so [default: as it is there, else gzip]
    #[arg(long, value_enum, value_name = "METHOD")]
    compression: Option<Method>,
    #[command(flatten)]
    transport: transport::TransportArgs,
}

/// The values of `--compression`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Method {
    Gzip,
    Zstd,
}

/// Runs the verb. Goes on with the next name after an error.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let options = Options {
        packing: args.compression.map(|method| match method {
            Method::Gzip => Packing::Gzip,
            Method::Zstd => Packing::Zstd,
        }),
        registry: args.transport.options(),
    };
    let store = context.store()?;
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
    let repository = reference.repository;
    // docker's words, both.
    anyhow::ensure!(reference.digest.is_none(), "cannot push a digest reference");
    anyhow::ensure!(
        !args.all_tags || reference.tag.is_none(),
        "tag can't be used with --all-tags/-a"
    );
    if !args.quiet {
        if reference.tag.is_none() && !args.all_tags {
            lines.print(&format!("Using default tag: {}", Tag::latest()));
        }
        let canonical = repository.canonical();
        lines.print(&format!("The push refers to repository [{canonical}]"));
    }
    let tags = match args.all_tags {
        true => push::tags(store, &repository)?,
        false => vec![TagRef {
            tag: reference.tag.unwrap_or_else(Tag::latest),
            repository: repository.clone(),
        }],
    };
    // A name that is not here needs no connection.
    for tag in &tags {
        if !store.names()?.tags.contains_key(tag) {
            return Err(push::PushError::NoSuchTag(tag.clone()).into());
        }
    }
    let client = Client::connect(repository.domain(), &options.registry)?;
    for tag in tags {
        let progress = Progress::new(args.quiet);
        let pushed = push::push(store, &client, &tag, options, &progress)?;
        match args.quiet {
            true => lines.print(&tag.canonical()),
            false => lines.print(&format!(
                "{}: digest: {} size: {}",
                tag.tag, pushed.digest, pushed.size
            )),
        }
    }
    store.notify_mounts()?;
    Ok(())
}

/// Bars on a terminal, else one line per state.
struct Progress {
    quiet: bool,
    bars: Option<(MultiProgress, Mutex<HashMap<DiffId, ProgressBar>>)>,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let bars = (!quiet && io::stdout().is_terminal()).then(|| {
            let target = ProgressDrawTarget::stdout();
            (MultiProgress::with_draw_target(target), Mutex::default())
        });
        Progress { quiet, bars }
    }
}

impl Sink for Progress {
    fn event(&self, layer: &DiffId, state: State) {
        if self.quiet {
            return;
        }
        let text = match &state {
            State::Preparing => "Preparing".to_owned(),
            State::Pushing { .. } | State::Advance(_) => String::new(),
            State::Pushed => "Pushed".to_owned(),
            State::Exists => "Layer already exists".to_owned(),
            State::Mounted(from) => format!("Mounted from {}", from.path()),
        };
        let Some((all, bars)) = &self.bars else {
            if !text.is_empty() {
                // A reader that has gone away is no reason to stop.
                let _ = writeln!(io::stdout(), "{}: {text}", layer.short());
            }
            return;
        };
        let mut bars = bars.lock();
        let bar = bars
            .entry(*layer)
            .or_insert_with(|| all.add(ProgressBar::new(0).with_prefix(layer.short())));
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        match state {
            State::Advance(bytes) => bar.inc(bytes),
            State::Pushing { size } => {
                bar.set_length(size);
                let template = "{prefix}: Pushing [{bar:40}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}";
                bar.set_style(style(template).progress_chars("=> "));
                bar.reset_elapsed();
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            State::Preparing => {
                bar.set_style(style("{prefix}: {msg}"));
                bar.set_message(text);
            }
            State::Pushed | State::Exists | State::Mounted(_) => {
                bar.set_style(style("{prefix}: {msg}"));
                bar.finish_with_message(text);
            }
        }
    }
}
