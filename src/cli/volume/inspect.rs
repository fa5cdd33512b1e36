//! `mica volume inspect`.

use std::process::ExitCode;

use crate::ops::usage::volumes::{self as users, Look};
use crate::ops::volume::VolumeError;
use crate::ops::volume::list;
use crate::store::{Store, VolumeName};

use super::super::form::{Form, print};
use super::super::{Context, completion};

/// Show all that is known of volumes, as a JSON array
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Names
    #[arg(value_name = "VOLUME", required = true, add = completion::volumes())]
    volumes: Vec<String>,
    /// Print each volume by a Go template, such as '{{.Mountpoint}}'; "json" for an array
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Inspects volumes. Those that are found are printed whatever happens to the others.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let form = Form::parse(args.format.as_deref())?;
    let store = context.store()?;
    super::sweep(&store);
    let volumes = args.volumes.iter();
    let volumes = volumes.map(|text| Ok(inspection(&store, &find_name(text)?)?));
    print(&form, volumes.collect(), list::Inspection::value)
}

/// All that is known of a volume at this moment.
pub(crate) fn inspection(
    store: &Store,
    name: &VolumeName,
) -> Result<list::Inspection, VolumeError> {
    let leases = store.live_leases()?;
    let look = Look {
        maps: true,
        except: None,
    };
    let users = users::find(store, &leases, look)?;
    list::inspect(store, &leases, name, &users)
}

/// What is no name is no volume's.
pub(crate) fn find_name(text: &str) -> Result<VolumeName, VolumeError> {
    VolumeName::parse(text).map_err(|_| VolumeError::NoSuch(text.to_owned()))
}
