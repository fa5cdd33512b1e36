//! `mica inspect`.

use std::process::ExitCode;

use crate::ops::{format, inspect};

use super::Context;
use super::output::{self, print_error};

/// Show all that is known of images, as a JSON array
#[derive(clap::Args)]
pub struct Args {
    /// Names, digest references, IDs or beginnings of IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Inspects images. Those that are found are printed whatever happens to the others.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.store()?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for image in &args.images {
        match inspect::of(&store, image) {
            Ok(inspection) => found.push(inspection),
            Err(error) => errors.push(error),
        }
    }
    let printed = output::print(&format::json(&found)?);
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
