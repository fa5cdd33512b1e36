//! `mica inspect`.

use std::process::ExitCode;

use serde::Serialize;

use crate::ops::template::{Template, Value};
use crate::ops::{OpsError, format, inspect};

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
    let form = Form::parse(args.format.as_deref())?;
    let store = context.store()?;
    let images = args.images.iter();
    let all = images.map(|image| inspect::of(&store, image)).collect();
    print(&form, all, |inspection| inspection.value())
}

/// `--format`.
pub enum Form {
    /// A JSON array, indented.
    Indented,
    /// A JSON array on one line.
    Json,
    /// For each by itself.
    Template(Template),
}

impl Form {
    /// Reads the option.
    pub fn parse(text: Option<&str>) -> anyhow::Result<Form> {
        Ok(match text {
            None | Some("") => Form::Indented,
            Some("json") => Form::Json,
            Some(text) => Form::Template(Template::parse(text)?),
        })
    }
}

/// Prints what was found, then what was not; `value` is for templates.
pub fn print<T: Serialize>(
    form: &Form,
    all: Vec<Result<T, OpsError>>,
    value: impl Fn(&T) -> Result<Value, serde_json::Error>,
) -> anyhow::Result<ExitCode> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for one in all {
        match one {
            Ok(inspection) => found.push(inspection),
            Err(error) => errors.push(error),
        }
    }
    let printed = match form {
        Form::Json => output::print(&format!("{}\n", serde_json::to_string(&found)?)),
        Form::Indented => output::print(&format::json(&found)?),
        Form::Template(template) => {
            let mut text = String::new();
            for inspection in &found {
                text.push_str(&template.render(&value(inspection)?)?);
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
