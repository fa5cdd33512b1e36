//! `mica system connect`, `mica system disconnect`.

mod containerd;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use rustix::fs::{CWD, Mode, OFlags};

use crate::ops::engines::podman;
use crate::store::LiveLease;
use crate::store::Store;
use crate::sys::mount::placeholder;

use super::Context;
use super::output::Lines;

/// An engine that can use images of a mount.
#[derive(Clone, Copy, clap::ValueEnum)]
enum EngineName {
    Podman,
    Containerd,
}

/// Let a container engine use the images of a mount
///
/// podman, buildah, skopeo and CRI-O read images from M/stores/containers beside their own storage: nothing is copied, and
/// what is tagged or removed shows at once. Prints the lines for podman's storage.conf; with --write puts them there. Notes
/// where the engine keeps its own storage, so that images its containers or images stand on are not removed.
///
/// containerd, and with it Kubernetes, has them by the program mica-snapshotter: prints the lines for config.toml, or writes them.
#[derive(clap::Args)]
pub(super) struct ConnectArgs {
    /// The engine
    engine: EngineName,
    /// The configuration of this user's podman, not the system's
    #[arg(long)]
    user: bool,
    /// Write the configuration, do not only print it
    #[arg(long)]
    write: bool,
    /// containerd's configuration, if not /etc/containerd/config.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where mica-snapshotter listens, if not /run/mica/snapshotter.sock
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
}

/// Undo `mica system connect`
///
/// Takes away what `connect --write` has written, and forgets the engine's storage. Its containers on images of the mount
/// do not start any more.
#[derive(clap::Args)]
pub(super) struct DisconnectArgs {
    /// The engine
    engine: EngineName,
    /// The configuration of this user's podman, not the system's
    #[arg(long)]
    user: bool,
    /// containerd's configuration, if not /etc/containerd/config.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// podman's configuration.
struct Files {
    conf: PathBuf,
    text: String,
    graphroot: PathBuf,
    runroot: PathBuf,
}

/// Options that mean nothing to an engine are refused.
fn of_one(engine: EngineName, user: bool, containerd_s: bool) -> anyhow::Result<()> {
    match engine {
        EngineName::Podman if containerd_s => bail!(
            "--config and --socket are containerd's; podman's file is named by CONTAINERS_STORAGE_CONF"
        ),
        EngineName::Containerd if user => bail!("--user is podman's: containerd is the system's"),
        EngineName::Podman | EngineName::Containerd => Ok(()),
    }
}

/// Connects an engine.
pub(super) fn connect(args: ConnectArgs, context: &Context) -> anyhow::Result<ExitCode> {
    of_one(
        args.engine,
        args.user,
        args.config.is_some() || args.socket.is_some(),
    )?;
    if let EngineName::Containerd = args.engine {
        let (config, socket) = (args.config.as_deref(), args.socket.as_deref());
        containerd::connect(config, socket, args.write, context)?;
        return Ok(ExitCode::SUCCESS);
    }
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
            if let Err(error) = below(&stores).and_then(placeholder::make) {
                lines.print(&format!(
                    "podman will not work while that is not mounted, until it has been unmounted and mounted once more ({error})"
                ));
            }
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
pub(super) fn disconnect(args: DisconnectArgs, context: &Context) -> anyhow::Result<ExitCode> {
    of_one(args.engine, args.user, args.config.is_some())?;
    if let EngineName::Containerd = args.engine {
        containerd::disconnect(args.config.as_deref(), context)?;
        return Ok(ExitCode::SUCCESS);
    }
    let store = context.store()?;
    let files = Files::find(args.user)?;
    let text = podman::disconnect(&files.text).with_context(|| files.conf.display().to_string())?;
    let changed = text != files.text;
    if let Some(stores) = podman::connected(&files.text) {
        // What stays of it harms nobody: an ordinary user cannot look below a mount.
        if let Err(error) = below(&stores).and_then(placeholder::remove) {
            log::debug!("{}: {error}", stores.display());
        }
    }
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

/// The directory below the mount that has these stores.
fn below(stores: &Path) -> io::Result<OwnedFd> {
    let mount = stores.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    placeholder::below(mount)
}

/// The store for engines in a live mount of this store.
fn mounted(store: &Store) -> anyhow::Result<PathBuf> {
    let leases = store.live_leases()?;
    let points = leases.iter().filter_map(LiveLease::mountpoint);
    let mut places = points.map(|point| point.join("stores/containers"));
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
        // As podman looks for them.
        let own = |name: &str, below: &str| match std::env::var_os(name) {
            Some(dir) if !dir.is_empty() => Ok(PathBuf::from(dir)),
            _ => home().map(|home| home.join(below)),
        };
        let named = std::env::var_os("CONTAINERS_STORAGE_CONF").map(PathBuf::from);
        let conf = match (named, user) {
            (Some(named), _) => named,
            (None, true) => own("XDG_CONFIG_HOME", ".config")?.join("containers/storage.conf"),
            (None, false) => PathBuf::from("/etc/containers/storage.conf"),
        };
        let text = read(&conf)?;
        let (graphroot, runroot) = match user {
            true => {
                let uid = rustix::process::getuid().as_raw();
                let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
                let run = run.unwrap_or_else(|| format!("/run/user/{uid}").into());
                (
                    own("XDG_DATA_HOME", ".local/share")?.join("containers/storage"),
                    run.join("containers"),
                )
            }
            false => (
                "/var/lib/containers/storage".into(),
                "/run/containers/storage".into(),
            ),
        };
        let conf_says = podman::parse(&text).with_context(|| conf.display().to_string())?;
        let graphroot = conf_says.graphroot.unwrap_or(graphroot);
        Ok(Files {
            conf,
            text,
            graphroot,
            runroot,
        })
    }
}

/// The largest configuration that is read.
const MAX_CONF: u64 = 1 << 20;

/// Reads the configuration; nothing where there is none. It and its directory must be ours: what somebody else can put there
/// is not written through.
fn read(path: &Path) -> anyhow::Result<String> {
    let own = rustix::process::geteuid().as_raw();
    let shown = || path.display().to_string();
    for dir in path.ancestors().skip(1).take(2) {
        match fs::symlink_metadata(dir) {
            Ok(stat) if !stat.is_dir() => bail!(
                "{}: a link; name the real place with CONTAINERS_STORAGE_CONF",
                dir.display()
            ),
            Ok(stat) if stat.uid() != own && stat.uid() != 0 => {
                bail!(
                    "{} belongs to user {}; run this as that user",
                    dir.display(),
                    stat.uid()
                )
            }
            Ok(stat) if stat.mode() & 0o022 != 0 && stat.mode() & 0o1000 == 0 => {
                bail!("{} can be written by others", dir.display())
            }
            // Made when it is written.
            Ok(_) | Err(_) => {}
        }
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => fs::File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(String::new()),
        Err(rustix::io::Errno::LOOP) => bail!(
            "{}: a link; name the real file with CONTAINERS_STORAGE_CONF",
            path.display()
        ),
        Err(error) => return Err(io::Error::from(error)).with_context(shown),
    };
    let stat = file.metadata().with_context(shown)?;
    if !stat.is_file() || stat.uid() != own {
        bail!("{}: no file of your own", path.display());
    }
    if stat.len() > MAX_CONF {
        bail!(
            "{}: {} bytes are no configuration",
            path.display(),
            stat.len()
        );
    }
    let mut text = String::new();
    file.take(MAX_CONF)
        .read_to_string(&mut text)
        .with_context(shown)?;
    Ok(text)
}

/// Replaces a configuration file, which is whole at every moment; it keeps its mode.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = || path.display().to_string();
    let dir = path.parent().context("no directory")?;
    // Whatever our umask is: who can write to it says what engines do.
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o755).create(dir);
    made.with_context(shown)?;
    let mode = fs::symlink_metadata(path).map_or(0o644, |stat| stat.mode() & 0o777);
    let name = path.file_name().context("no file name")?.to_string_lossy();
    let temp = dir.join(format!(".{name}.mica-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temp)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        crate::sys::atomic::sync_dir(dir)
    };
    write()
        .inspect_err(|_| crate::sys::atomic::discard(&temp))
        .with_context(shown)
}
