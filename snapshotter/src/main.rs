//! `mica-snapshotter`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use mica::registry;
use mica::store::{OpenMode, Store};
use mica_snapshotter::listen;
use mica_snapshotter::service::SnapshotService;
use mica_snapshotter::snapshotter::Snapshotter;

/// Images of a mica store as snapshots of containerd
///
/// Answers containerd's requests on a unix socket, or on the one that systemd hands down. Layers that the store has are not
/// fetched or unpacked again; layers of images that the kubelet pulls are pulled by mica. The store must be mounted by root
/// (`mica mount`). `mica system connect containerd` shows what containerd's configuration needs.
#[derive(Parser)]
#[command(name = "mica-snapshotter", version)]
struct Args {
    /// The store
    #[arg(long, value_name = "DIR", env = "MICA_STORE")]
    store: Option<PathBuf>,
    /// Listen here
    #[arg(
        long,
        value_name = "SOCKET",
        default_value = "/run/mica/snapshotter.sock"
    )]
    socket: PathBuf,
    /// Talk to this registry over plain http or with any certificate; can be given several times
    #[arg(long, value_name = "HOST")]
    insecure_registry: Vec<String>,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mica-snapshotter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("what containerd mounts is root's; run this as root");
    }
    let path = args.store.unwrap_or_else(Store::default_path);
    let store = Store::open(&path, OpenMode::Create).context("the store")?;
    let registry = registry::Options {
        insecure: args.insecure_registry,
        ..registry::Options::default()
    };
    let snapshotter = Snapshotter::open(store, registry, args.socket.with_extension("ids"))?;
    let listener = match listen::activated()? {
        Some(listener) => listener,
        None => listen::bind(&args.socket)?,
    };
    listen::serve(listener, SnapshotService::new(snapshotter))
}
