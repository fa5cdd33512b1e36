//! `mica volume plugin`.

use std::fs;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::ops::volume::plugin::Plugin;
use crate::ops::volume::plugin::http::{self, HttpError};

use super::super::Context;

/// Where docker looks for plugins.
const SOCKET: &str = "/run/docker/plugins/mica.sock";
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once: more than docker and podman ever have.
const MAX_CONNECTIONS: usize = 64;
/// How often ephemeral volumes are looked at that no container has any more.
const LOOK: Duration = Duration::from_secs(1);

/// Serve the store's volumes to docker and podman
///
/// Their volumes with the driver mica are the volumes of this store: `docker volume create -d mica data`,
/// `docker run -v data:/data --volume-driver mica`, and what `mkdir M/volumes/data` has made. Options of create:
/// -o kind=persistent|ephemeral|bind, -o source=PATH, -o ro=true, -o labels=KEY=VALUE. A container gets the volume's own
/// directory; an ephemeral volume goes with its last container. Runs until it is stopped, or systemd stops it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Listen here; for podman it is named in containers.conf, [engine.volume_plugins]
    #[arg(long, value_name = "SOCKET", default_value = SOCKET)]
    socket: PathBuf,
}

/// Serves the plugin.
pub(super) fn run(args: Args, context: &Context) -> anyhow::Result<ExitCode> {
    let store = context.new_store()?;
    let plugin = Arc::new(Plugin::new(store)?);
    let listener = match activated()? {
        Some(listener) => listener,
        None => listen(&args.socket)?,
    };
    let sweeper = Arc::clone(&plugin);
    std::thread::Builder::new()
        .name("mica-plugin-sweep".to_owned())
        .stack_size(512 * 1024)
        .spawn(move || sweep(&sweeper))
        .context("starting a thread")?;
    // Nobody waits for the word where there is no systemd.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        log::debug!("telling systemd: {error}");
    }
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept() {
            Ok((stream, _)) => take(stream, &plugin, &connections),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                log::warn!("accepting a connection: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// The socket that systemd has opened for us.
fn activated() -> anyhow::Result<Option<UnixListener>> {
    let mut passed = sd_notify::listen_fds().context("sockets of systemd")?;
    let Some(first) = passed.next() else {
        return Ok(None);
    };
    if passed.next().is_some() {
        bail!("systemd has passed more than one socket");
    }
    Ok(Some(UnixListener::from(crate::sys::passed::take(first)?)))
}

/// Listens on a socket of our own, which is root's (or the user's) alone.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = || path.display().to_string();
    if let Some(dir) = path.parent() {
        // Whatever our umask is: who can write to it can put a socket of his own in the place of ours.
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(dir);
        made.with_context(|| dir.display().to_string())?;
    }
    if UnixStream::connect(path).is_ok() {
        bail!("{}: a plugin answers there already", path.display());
    }
    match fs::symlink_metadata(path) {
        Ok(stat) if !std::os::unix::fs::FileTypeExt::is_socket(&stat.file_type()) => {
            bail!("{}: there is something that is no socket", path.display())
        }
        // Of one that was killed.
        Ok(_) => fs::remove_file(path).with_context(shown)?,
        Err(_) => {}
    }
    // Nobody else gets in between: made under another name, put in place when only we can use it.
    let temp = path.with_extension(format!("new-{}", std::process::id()));
    let listener = UnixListener::bind(&temp).with_context(shown)?;
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o600)).with_context(shown)?;
    fs::rename(&temp, path).with_context(shown)?;
    Ok(listener)
}

fn take(stream: UnixStream, plugin: &Arc<Plugin>, connections: &Arc<AtomicUsize>) {
    let own = rustix::process::geteuid();
    let peer = rustix::net::sockopt::socket_peercred(&stream);
    if !peer.is_ok_and(|peer| peer.uid == own || peer.uid.is_root()) {
        log::warn!("somebody else has asked, and gets no answer");
        return;
    }
    if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
        connections.fetch_sub(1, Ordering::Relaxed);
        answer_error(&stream, 503, "too many connections");
        return;
    }
    let (plugin, count) = (Arc::clone(plugin), Arc::clone(connections));
    let thread = std::thread::Builder::new()
        .name("mica-plugin".to_owned())
        .stack_size(1024 * 1024)
        .spawn(move || {
            serve(&stream, &plugin);
            count.fetch_sub(1, Ordering::Relaxed);
        });
    if let Err(error) = thread {
        connections.fetch_sub(1, Ordering::Relaxed);
        log::warn!("starting a thread: {error}");
    }
}

/// One connection, request by request.
fn serve(stream: &UnixStream, plugin: &Plugin) {
    loop {
        let mut from = BufReader::new(Timed {
            stream,
            until: None,
        });
        let request = match http::read(&mut from) {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(HttpError::Bad(status, reason)) => return answer_error(stream, status, reason),
            Err(HttpError::Io(error)) => return log::debug!("plugin: {error}"),
        };
        let (status, body) = match plugin.call(&request.path, &request.body) {
            Ok(answer) => (200, answer),
            Err(error) => (500, json!({"Err": error.to_string()})),
        };
        // The engine may have gone.
        let body = body.to_string();
        let written = http::write(&mut &*stream, status, body.as_bytes(), request.keep_alive);
        if written.is_err() || !request.keep_alive {
            return;
        }
    }
}

fn answer_error(stream: &UnixStream, status: u16, reason: &str) {
    let body = json!({ "Err": reason }).to_string();
    // Whoever sends that may not listen.
    let _ = http::write(&mut &*stream, status, body.as_bytes(), false);
}

/// Waits for a request as long as it takes, and for the rest of one that has begun only so long.
struct Timed<'a> {
    stream: &'a UnixStream,
    until: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = match self.until {
            None => None,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Some(left)
            }
        };
        self.stream.set_read_timeout(left)?;
        let mut stream = self.stream;
        let got = stream.read(into)?;
        self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        Ok(got)
    }
}

/// Ends ephemeral volumes that no container has any more, for a store without a daemon.
fn sweep(plugin: &Plugin) {
    loop {
        std::thread::sleep(LOOK);
        let store = plugin.store();
        if store.volume_set().is_ok_and(|set| set.has_ephemeral()) {
            super::sweep(store);
        }
    }
}
