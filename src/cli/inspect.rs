//! `mica inspect`.

use std::process::ExitCode;

use crate::ops::template::Template;
use crate::ops::{format, inspect};

use super::Context;
use super::output::{self, print_error};

/// Show all that is known of images, as a JSON array
#[derive(clap::Args)]
pub struct Args {
    /// Names, digest references, IDs or beginnings of IDs
    #[arg(value_name = "IMAGE", required = true, add = super::completion::images())]
    images: Vec<String>,
    /// Print each image by a Go template, such as '{{.Architecture}}' or '{{json .Config.Env}}'; "json" for an array
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Inspects images. Those that are found are printed whatever happens to the others.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args
        .format
        .as_deref()
        .filter(|format| !matches!(*format, "" | "json"));
    let template = format.map(Template::parse).transpose()?;
    let store = context.store()?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for image in &args.images {
        match inspect::of(&store, image) {
            Ok(inspection) => found.push(inspection),
            Err(error) => errors.push(error),
        }
    }
    let printed = match template {
        None if args.format.as_deref() == Some("json") => {
            output::print(&format!("{}\n", serde_json::to_string(&found)?))
        }
        None => output::print(&format::json(&found)?),
        Some(template) => {
            let mut text = String::new();
            for inspection in &found {
                text.push_str(&template.render(&inspection.value()?)?);
                text.push('\n');
            }
            output::print_foreign(&text)
        }
    };
    let failed = !errors.is_empty();
    for error in errors {
        print_error(&error.into());
    }
    printed?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
