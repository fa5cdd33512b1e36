//! The socket, root's alone: made here, or handed down by systemd.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mica::sys::passed;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;

use crate::service::SnapshotService;

/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket that systemd has opened for us.
///
/// # Errors
/// It has opened several.
pub fn activated() -> anyhow::Result<Option<UnixListener>> {
    let mut passed_on = sd_notify::listen_fds().context("sockets of systemd")?;
    let Some(first) = passed_on.next() else {
        return Ok(None);
    };
    if passed_on.next().is_some() {
        bail!("systemd has passed more than one socket");
    }
    Ok(Some(UnixListener::from(passed::take(first)?)))
}

/// Listens on a socket of our own.
///
/// # Errors
/// Somebody answers there, or something else is there.
pub fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = || path.display().to_string();
    if let Some(dir) = path.parent() {
        // Whatever our umask is: who can write to it can put a socket of his own in the place of ours.
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(dir);
        made.with_context(|| dir.display().to_string())?;
    }
    if UnixStream::connect(path).is_ok() {
        bail!("{}: somebody answers there already", path.display());
    }
    match fs::symlink_metadata(path) {
        Ok(stat) if !stat.file_type().is_socket() => {
            bail!("{}: there is something that is no socket", path.display())
        }
        // Of one that was killed: replaced by the rename.
        Ok(_) | Err(_) => {}
    }
    // Nobody else gets in between: made under another name, put in place when only we can use it.
    let temp = path.with_extension(format!("new-{}", std::process::id()));
    let listener = UnixListener::bind(&temp).with_context(shown)?;
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o600)).with_context(shown)?;
    fs::rename(&temp, path).with_context(shown)?;
    Ok(listener)
}

/// Answers until the process is told to end (SIGTERM, SIGINT); what has begun is done first.
///
/// # Errors
/// The socket, or the system, fails.
pub fn serve(listener: UnixListener, service: SnapshotService) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all();
    let runtime = runtime.build().context("starting threads")?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
        let own = rustix::process::geteuid().as_raw();
        // Such as too few descriptors: not asked for again at once, and then the next may do.
        let incoming = incoming.then(|stream| async {
            if let Err(error) = &stream {
                log::warn!("accepting a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
            stream
        });
        let ours = incoming.filter(move |stream| match stream {
            Ok(stream) => stream
                .peer_cred()
                .is_ok_and(|peer| peer.uid() == own || peer.uid() == 0),
            Err(_) => false,
        });
        let ours = std::pin::pin!(ours);
        let ended = ended()?;
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            log::debug!("telling systemd: {error}");
        }
        let server = tonic::transport::Server::builder();
        // containerd keeps its connection: not waited for.
        tokio::select! {
            served = server.clone().serve_with_incoming(service, ours) => served.context("serving"),
            () = ended => Ok(()),
        }
    })?;
    // Waits for the requests that threads are at.
    drop(runtime);
    Ok(())
}

fn ended() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
