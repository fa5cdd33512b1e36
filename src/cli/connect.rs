//! `mica system connect`, `mica system disconnect`.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::ops::engines::podman;
use crate::store::{LeaseKind, Store};

use super::Context;
use super::output::Lines;

/// An engine that can use images of a mount.
#[derive(Clone, Copy, clap::ValueEnum)]
enum EngineName {
    Podman,
}

/// Let a container engine use the images of a mount
///
/// podman, buildah, skopeo and CRI-O read images from M/stores/containers beside their own storage: nothing is copied, and
/// what is tagged or removed shows at once. Prints the lines for podman's storage.conf; with --write puts them there. Notes
/// where the engine keeps its own storage, so that images its containers or images stand on are not removed.
#[derive(clap::Args)]
pub struct ConnectArgs {
    /// The engine
    engine: EngineName,
    /// The configuration of this user's podman, not the system's
    #[arg(long)]
    user: bool,
    /// Write the configuration, do not only print it
    #[arg(long)]
    write: bool,
}

/// Undo `mica system connect`
///
/// Takes away what `connect --write` has written, and forgets the engine's storage. Its containers on images of the mount
/// do not start any more.
#[derive(clap::Args)]
pub struct DisconnectArgs {
    /// The engine
    engine: EngineName,
    /// The configuration of this user's podman, not the system's
    #[arg(long)]
    user: bool,
}

/// podman's configuration.
struct Files {
    conf: PathBuf,
    text: String,
    graphroot: PathBuf,
    runroot: PathBuf,
}

/// Connects an engine.
pub fn connect(args: ConnectArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let EngineName::Podman = args.engine;
    let store = context.store()?;
    let stores = mounted(&store)?;
    let files = Files::find(args.user)?;
    let text = podman::connect(&files.text, &stores, &files.graphroot, &files.runroot)
        .with_context(|| files.conf.display().to_string());
    let line = podman::lines(&stores)?;
    let mut lines = Lines::default();
    match args.write {
        true => {
            replace(&files.conf, &text?)?;
            lines.print(&format!(
                "{}: podman uses the images of {}",
                files.conf.display(),
                stores.display()
            ));
        }
        false => {
            lines.print(&format!("# in {}; --write does it", files.conf.display()));
            lines.print("[storage.options]");
            lines.print(&line);
        }
    }
    // After the file: what is noted without being written only keeps an image longer.
    let lock = store.lock()?;
    store.connect_engine(&files.graphroot, &lock)?;
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Disconnects an engine.
pub fn disconnect(args: DisconnectArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let EngineName::Podman = args.engine;
    let store = context.store()?;
    let files = Files::find(args.user)?;
    let text = podman::disconnect(&files.text);
    let changed = text != files.text;
    if changed && text.trim().is_empty() {
        fs::remove_file(&files.conf).with_context(|| files.conf.display().to_string())?;
    } else if changed {
        replace(&files.conf, &text)?;
    }
    let lock = store.lock()?;
    let known = store.disconnect_engine(&files.graphroot, &lock)?;
    if !changed && !known {
        bail!("podman is not connected to this store");
    }
    Ok(ExitCode::SUCCESS)
}

/// The store for engines in a live mount of this store.
fn mounted(store: &Store) -> anyhow::Result<PathBuf> {
    let leases = store.live_leases()?;
    let mut places = leases.iter().filter_map(|lease| match &lease.record.kind {
        LeaseKind::Daemon { mountpoint } => Some(mountpoint.join("stores/containers")),
        _ => None,
    });
    match places.find(|place| place.is_dir()) {
        Some(place) => Ok(place),
        None => bail!(
            "no mount of this store has stores for engines; `mica mount DIRECTORY` it first, as root or in `podman unshare`"
        ),
    }
}

impl Files {
    fn find(user: bool) -> anyhow::Result<Files> {
        let home = || {
            std::env::var_os("HOME")
                .map(PathBuf::from)
                .context("HOME is not set")
        };
        let named = std::env::var_os("CONTAINERS_STORAGE_CONF").map(PathBuf::from);
        let conf = match (named, user) {
            (Some(named), _) => named,
            (None, true) => home()?.join(".config/containers/storage.conf"),
            (None, false) => PathBuf::from("/etc/containers/storage.conf"),
        };
        let text = match fs::read_to_string(&conf) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| conf.display().to_string()),
        };
        let (graphroot, runroot) = match user {
            true => {
                let uid = rustix::process::getuid().as_raw();
                let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
                let run = run.unwrap_or_else(|| format!("/run/user/{uid}").into());
                (
                    home()?.join(".local/share/containers/storage"),
                    run.join("containers"),
                )
            }
            false => (
                "/var/lib/containers/storage".into(),
                "/run/containers/storage".into(),
            ),
        };
        let graphroot = podman::parse(&text).graphroot.unwrap_or(graphroot);
        Ok(Files {
            conf,
            text,
            graphroot,
            runroot,
        })
    }
}

/// Replaces a configuration file, which is whole at every moment.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let shown = || path.display().to_string();
    // Where a link leads: a directory of dotfiles is kept elsewhere by many.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().context("no directory")?;
    fs::create_dir_all(dir).with_context(shown)?;
    let name = path.file_name().context("no file name")?.to_string_lossy();
    let temp = dir.join(format!(".{name}.mica-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&temp)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temp, &path)?;
        crate::sys::atomic::sync_dir(dir)
    };
    write()
        .inspect_err(|_| crate::sys::atomic::discard(&temp))
        .with_context(shown)
}
