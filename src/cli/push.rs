//! `mica push`.

use std::process::ExitCode;

use super::Context;
use super::output::Lines;
use super::transfer::{self, Bars, TransferArgs};
use crate::oci::{DiffId, Reference, Tag, TagRef};
use crate::ops::image::ImageError;
use crate::ops::transfer::push::{self, Options, Packing, Silent, Sink, State};
use crate::registry::Client;
use crate::store::Store;

/// Upload images to a registry
///
/// What the registry has is not sent. An image that came from a registry unchanged keeps its digest.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What to push; a tag that is left out is "latest"
    #[arg(value_name = "NAME[:TAG]", required = true, add = super::completion::images())]
    names: Vec<String>,
    /// Compress every layer in this way, and send it unless it is there so [default: as it is there, else gzip]
    #[arg(long, value_enum, value_name = "METHOD")]
    compression: Option<Method>,
    #[command(flatten)]
    transfer: TransferArgs,
}

/// The values of `--compression`.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Method {
    Gzip,
    Zstd,
}

/// Runs the verb. Goes on with the next name after an error.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let options = Options {
        packing: args.compression.map(|method| match method {
            Method::Gzip => Packing::Gzip,
            Method::Zstd => Packing::Zstd,
        }),
        registry: args.transfer.registry(),
    };
    let store = context.store()?;
    transfer::each(&args.names, |name, lines| {
        one(name, &args.transfer, &options, &store, lines)
    })
}

fn one(
    name: &str,
    args: &TransferArgs,
    options: &Options,
    store: &Store,
    lines: &mut Lines,
) -> anyhow::Result<()> {
    let reference = Reference::parse(name).map_err(ImageError::Reference)?;
    // docker's words.
    anyhow::ensure!(reference.digest.is_none(), "cannot push a digest reference");
    let all = args.all_tags(&reference)?;
    args.say_default(&reference, lines);
    let repository = reference.repository;
    if !args.quiet {
        let canonical = repository.canonical();
        lines.print(&format!("The push refers to repository [{canonical}]"));
    }
    let tags = match all {
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
    let client = Client::connect(&repository, &options.registry)?;
    for tag in tags {
        let progress: Box<dyn Sink> = match args.quiet {
            true => Box::new(Silent),
            false => Box::new(Progress(Bars::new())),
        };
        let pushed = push::push(store, &client, &tag, options, &*progress)?;
        match args.quiet {
            true => lines.print(&tag.canonical()),
            false => lines.print(&format!(
                "{}: digest: {} size: {}",
                tag.tag, pushed.digest, pushed.size
            )),
        }
    }
    Ok(())
}

struct Progress(Bars<DiffId>);

impl Sink for Progress {
    fn event(&self, layer: &DiffId, state: State) {
        let name = layer.short();
        match state {
            State::Preparing => self.0.state(*layer, &name, "Preparing", false),
            State::Pushing { size } => self.0.begin(*layer, &name, "Pushing", size, 0),
            State::Advance(bytes) => self.0.advance(*layer, &name, bytes),
            State::Pushed => self.0.state(*layer, &name, "Pushed", true),
            State::Exists => self.0.state(*layer, &name, "Layer already exists", true),
            State::Mounted(from) => {
                let text = format!("Mounted from {}", from.path());
                self.0.state(*layer, &name, &text, true);
            }
        }
    }
}
