//! containerd's side of `mica system connect`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::super::Context;
use super::super::output::Lines;
use super::{read, replace};
use crate::ops::engines::{containerd, podman};

/// Where containerd looks.
const CONF: &str = "/etc/containerd/config.toml";

fn conf(named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| CONF.into(), Path::to_owned)
}

/// Shows the lines, or writes them.
pub(super) fn connect(
    named: Option<&Path>,
    socket: Option<&Path>,
    write: bool,
    context: &Context,
) -> anyhow::Result<()> {
    let store = context.store()?;
    let conf = conf(named);
    let socket = socket.unwrap_or(Path::new(containerd::SOCKET));
    let text = containerd::connect(&read(&conf)?, socket);
    let text = text.with_context(|| conf.display().to_string());
    let mut lines = Lines::default();
    match write {
        true => {
            replace(&conf, &text?)?;
            lines.print(&format!(
                "{}: containerd has the snapshotter mica once it is restarted; mica-snapshotter answers on {}",
                conf.display(),
                socket.display()
            ));
        }
        false => {
            lines.print(&format!("# in {}; --write does it", conf.display()));
            let proxy = containerd::lines(socket)?;
            proxy.lines().for_each(|line| lines.print(line));
            lines.print("# by hand, for all that the kubelet runs");
            let kubelet = containerd::FOR_THE_KUBELET.lines();
            kubelet.for_each(|line| lines.print(line));
            lines.print("# the same in the file of containerd 2, version = 3");
            let kubelet = containerd::FOR_THE_KUBELET_2.lines();
            kubelet.for_each(|line| lines.print(line));
        }
    }
    lines.finish()?;
    if store.mount_points()?.is_empty() {
        eprintln!(
            "the store is not mounted; containers start once it is: `mica mount DIRECTORY`, as root"
        );
    }
    Ok(())
}

/// Takes the lines away. What containerd still has of the store goes on being kept for it.
pub(super) fn disconnect(named: Option<&Path>, context: &Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let conf = conf(named);
    let before = read(&conf)?;
    let after = podman::disconnect(&before).with_context(|| conf.display().to_string())?;
    if after == before {
        bail!("{}: containerd is not connected", conf.display());
    }
    match after.trim().is_empty() {
        true => fs::remove_file(&conf).with_context(|| conf.display().to_string())?,
        false => replace(&conf, &after)?,
    }
    let left = store.snapshots()?.len();
    if left > 0 {
        eprintln!(
            "containerd has {left} snapshots in the store still; they are kept until it removes them (ctr snapshots --snapshotter mica rm)"
        );
    }
    Ok(())
}
