//! `mica volume inspect`.

use std::process::ExitCode;

use crate::ops::template::Template;
use crate::ops::volumes::list;
use crate::ops::volumes::users::{self, Look};
use crate::ops::{OpsError, format};
use crate::store::VolumeName;

use super::super::output::{self, print_error};
use super::super::{Context, completion};

/// Show all that is known of volumes, as a JSON array
#[derive(clap::Args)]
pub struct Args {
    /// Names
    #[arg(value_name = "VOLUME", required = true, add = completion::volumes())]
    volumes: Vec<String>,
    /// Print each volume by a Go template, such as '{{.Mountpoint}}'; "json" for an array
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Inspects volumes. Those that are found are printed whatever happens to the others.
pub fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let format = args
        .format
        .as_deref()
        .filter(|format| !matches!(*format, "" | "json"));
    let template = format.map(Template::parse).transpose()?;
    let store = context.store()?;
    super::sweep(&store);
    let leases = store.live_leases()?;
    let look = Look {
        maps: true,
        except: None,
    };
    let users = users::find(&store, &leases, look)?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for text in &args.volumes {
        let inspection =
            find_name(text).and_then(|name| list::inspect(&store, &leases, &name, &users));
        match inspection {
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
    Ok(match failed {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// What is no name is no volume's.
pub fn find_name(text: &str) -> Result<VolumeName, OpsError> {
    VolumeName::parse(text).map_err(|_| OpsError::NoSuchVolume(text.to_owned()))
}
