//! How the verbs `inspect` print what they have found.

use std::process::ExitCode;

use serde::Serialize;

use super::output::{self, print_error};
use crate::text::format;
use crate::text::template::{Template, Value};

/// `--format`.
pub(super) enum Form {
    /// A JSON array, indented.
    Indented,
    /// A JSON array on one line.
    Json,
    /// For each by itself.
    Template(Template),
}

impl Form {
    /// Reads the option.
    pub(super) fn parse(text: Option<&str>) -> anyhow::Result<Form> {
        Ok(match text {
            None | Some("") => Form::Indented,
            Some("json") => Form::Json,
            Some(text) => Form::Template(Template::parse(text)?),
        })
    }
}

/// Prints what was found, then what was not; `value` is for templates.
pub(super) fn print<T: Serialize>(
    form: &Form,
    all: Vec<anyhow::Result<T>>,
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
        print_error(&error);
    }
    printed?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
