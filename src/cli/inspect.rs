//! `mica inspect`.

use std::process::ExitCode;

use serde::{Serialize, Serializer};

use crate::ops::error::ObjectError;
use crate::ops::image::ImageError;
use crate::ops::volume::list;
use crate::ops::{container as containers, image::inspect};
use crate::store::Store;
use crate::text::template::Value;

use super::form::{Form, print};
use super::{Context, volume};

/// Show all that is known of containers, images and volumes, as a JSON array
#[derive(clap::Args)]
pub(super) struct Args {
    /// Names, digest references, IDs or beginnings of IDs; a container comes before an image, and an image before a volume of
    /// that name
    #[arg(value_name = "NAME", required = true, add = super::completion::images_and_containers())]
    names: Vec<String>,
    /// Print each by a Go template, such as '{{.State.ExitCode}}' or '{{json .Config.Env}}'; "json" for an array
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Look for this kind only: container, image or volume
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<Kind>,
    /// Also what containers have changed, in bytes on disk
    #[arg(short, long)]
    size: bool,
}

/// `--type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Containers.
    Container,
    /// Images.
    Image,
    /// Volumes.
    Volume,
}

/// Show all that is known of images, as a JSON array
#[derive(clap::Args)]
pub(super) struct ImageArgs {
    /// Names, digest references, IDs or beginnings of IDs
    #[arg(value_name = "IMAGE", required = true, add = super::completion::images())]
    images: Vec<String>,
    /// Print each image by a Go template, such as '{{.Architecture}}' or '{{json .Config.Env}}'; "json" for an array
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show all that is known of containers, as a JSON array
#[derive(clap::Args)]
pub(super) struct ContainerArgs {
    /// Names or IDs
    #[arg(value_name = "CONTAINER", required = true, add = super::completion::containers())]
    containers: Vec<String>,
    /// Print each container by a Go template, such as '{{.State.ExitCode}}'; "json" for an array
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Also what they have changed, in bytes on disk
    #[arg(short, long)]
    size: bool,
}

/// Something found.
enum Found {
    Container(Value),
    Image(Box<inspect::Inspection>),
    Volume(Box<list::Inspection>),
}

impl Found {
    fn value(&self) -> Result<Value, serde_json::Error> {
        match self {
            Found::Container(value) => Ok(value.clone()),
            Found::Image(image) => image.value(),
            Found::Volume(volume) => volume.value(),
        }
    }
}

impl Serialize for Found {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Found::Container(value) => value.serialize(s),
            Found::Image(image) => image.serialize(s),
            Found::Volume(volume) => volume.serialize(s),
        }
    }
}

/// Inspects anything. What is found is printed whatever happens to the others.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let form = Form::parse(args.format.as_deref())?;
    let store = context.store()?;
    let names = args.names.iter();
    let all = names
        .map(|name| find(&store, name, args.kind, args.size))
        .collect();
    print(&form, all, Found::value)
}

/// Inspects containers.
pub(super) fn containers(args: ContainerArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let form = Form::parse(args.format.as_deref())?;
    let store = context.store()?;
    let names = args.containers.iter();
    let all = names
        .map(|name| find(&store, name, Some(Kind::Container), args.size))
        .collect();
    print(&form, all, Found::value)
}

/// Inspects images.
pub(super) fn images(args: ImageArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let form = Form::parse(args.format.as_deref())?;
    let store = context.store()?;
    let images = args.images.iter();
    let all = images
        .map(|image| Ok(inspect::of(&store, image)?))
        .collect();
    print(&form, all, inspect::Inspection::value)
}

fn find(store: &Store, name: &str, kind: Option<Kind>, size: bool) -> anyhow::Result<Found> {
    let wanted = |which| kind.is_none_or(|kind| kind == which);
    if wanted(Kind::Container) {
        if let Some(found) = containers::inspect::inspect(store, name, size)? {
            return Ok(Found::Container(found));
        }
        if kind.is_some() {
            // docker's words.
            containers::find(store, name)?;
        }
    }
    let mut missing = ObjectError::NoSuch(name.to_owned());
    if wanted(Kind::Image) {
        match inspect::of(store, name) {
            Ok(found) => return Ok(Found::Image(Box::new(found))),
            Err(ImageError::NoSuch(_)) if kind.is_none() => {}
            Err(error @ ImageError::Reference(_)) if kind.is_none() => missing = error.into(),
            Err(error) => return Err(error.into()),
        }
    }
    let volume = volume::find_name(name).and_then(|name| volume::inspection(store, &name));
    match volume {
        Ok(found) => Ok(Found::Volume(Box::new(found))),
        Err(error) if error.is_not_found() && kind.is_none() => Err(missing.into()),
        Err(error) => Err(error.into()),
    }
}
