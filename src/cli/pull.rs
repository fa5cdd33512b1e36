//! `mica pull`.

use std::process::ExitCode;

use super::Context;
use super::limits::LimitArgs;
use super::output::Lines;
use super::transfer::{self, Bars, TransferArgs};
use crate::oci::{Digest, Platform, Reference};
use crate::ops::image::ImageError;
use crate::ops::transfer::pull::{self, Event, Options, PullError, Pulled, Silent, Sink};
use crate::registry::{Client, RegistryError};
use crate::store::Store;

/// Download images from a registry
///
/// A name appears only when its image is complete and verified. Layers that are here already are not downloaded, and a
/// download that broke off is gone on with.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What to pull; a tag that is left out is "latest"
    #[arg(value_name = "NAME[:TAG|@DIGEST]", required = true)]
    names: Vec<String>,
    /// Pull the image for this platform (such as linux/arm64/v8)
    #[arg(long, value_name = "PLATFORM", value_parser = super::load::platform)]
    platform: Option<Platform>,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    transfer: TransferArgs,
}

/// Runs the verb. Goes on with the next name after an error.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let options = Options {
        platform: args.platform.clone(),
        limits: args.limits.limits(),
        registry: args.transfer.registry(),
    };
    let store = context.new_store()?;
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
    if args.all_tags(&reference)? {
        let (client, tags) = pull::tags(&reference.repository, &options.registry)?;
        let mut artifact = None;
        let mut images = 0;
        for tag in tags {
            let reference = Reference {
                tag: Some(tag),
                ..reference.clone()
            };
            match image(&client, &reference, args, options, store, lines) {
                Ok(()) => images += 1,
                Err(error) if is_artifact(&error) => {
                    eprintln!("{reference}: passed over: {error}");
                    artifact = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        return match artifact {
            Some(error) if images == 0 => Err(error),
            _ => Ok(()),
        };
    }
    args.say_default(&reference, lines);
    for mirror in Client::mirrors(&reference.repository, &options.registry) {
        let tried = Client::connect_to_mirror(mirror, &reference.repository, &options.registry)
            .map_err(anyhow::Error::from)
            .and_then(|client| image(&client, &reference, args, options, store, lines));
        match tried {
            Ok(()) => return Ok(()),
            Err(error) if is_registrys(&error) => {
                log::warn!("{mirror}: {error}; the registry itself is asked");
            }
            Err(error) => return Err(error),
        }
    }
    let client = Client::connect(&reference.repository, &options.registry)?;
    image(&client, &reference, args, options, store, lines)
}

/// Whether a registry is at fault: another may do better.
fn is_registrys(error: &anyhow::Error) -> bool {
    error.is::<RegistryError>()
        || matches!(
            error.downcast_ref(),
            Some(PullError::Registry(_) | PullError::BlobDigest { .. })
        )
}

fn is_artifact(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<PullError>();
    error.is_some_and(PullError::is_artifact)
}

fn image(
    client: &Client,
    reference: &Reference,
    args: &TransferArgs,
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
            let path = reference.repository.path();
            lines.print(&format!("{what}: Pulling from {path}"));
            Box::new(Progress(Bars::new()))
        }
    };
    let pulled = pull::pull(store, client, reference, options, &*progress)?;
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

struct Progress(Bars<Digest>);

impl Sink for Progress {
    fn event(&self, event: Event) {
        let (Event::Exists { blob }
        | Event::Waiting { blob, .. }
        | Event::Begin { blob, .. }
        | Event::Advance { blob, .. }
        | Event::Complete { blob }
        | Event::Failed { blob }) = event;
        let name = blob.short();
        match event {
            Event::Exists { .. } => self.0.state(blob, &name, "Already exists", true),
            Event::Waiting { .. } => self.0.state(blob, &name, "Pulling fs layer", false),
            Event::Begin { size, kept, .. } => {
                self.0.begin(blob, &name, "Downloading", size, kept);
            }
            Event::Advance { bytes, .. } => self.0.advance(blob, &name, bytes),
            Event::Complete { .. } => self.0.state(blob, &name, "Pull complete", true),
            Event::Failed { .. } => self.0.show(blob, &name, "Failed", true),
        }
    }
}
