//! Where a daemon's words go when nobody watches: `<store>/daemon.log`.
//!
//! Panics and the C library write to stderr, so the file takes the place of stdout and stderr as a whole. Several daemons of one
//! store share it (appending). At the start of a daemon a file over [`MAX_BYTES`] becomes `daemon.log.old`.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;

/// A log older than this is put aside.
const MAX_BYTES: u64 = 1 << 20;

/// Sends stdout and stderr to the log, and takes stdin away. A store that cannot be written to has no log.
pub(super) fn redirect(store: &Path) -> anyhow::Result<()> {
    let nothing = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("/dev/null")?;
    let path = store.join("daemon.log");
    if fs::metadata(&path).is_ok_and(|m| m.len() > MAX_BYTES) {
        // Another daemon may have done it at the same moment; its log is as good.
        let _ = fs::rename(&path, store.join("daemon.log.old"));
    }
    let log = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path);
    let log = match &log {
        Ok(log) => log,
        Err(error) => {
            log::warn!("no log: {}: {error}", path.display());
            &nothing
        }
    };
    rustix::stdio::dup2_stdin(&nothing).context("closing stdin")?;
    rustix::stdio::dup2_stdout(log).context("redirecting stdout")?;
    rustix::stdio::dup2_stderr(log).context("redirecting stderr")?;
    Ok(())
}
