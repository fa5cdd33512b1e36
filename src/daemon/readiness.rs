//! How the daemon tells the command that started it: ready, or why not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, bail};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

/// The daemon's end.
#[derive(Debug)]
pub(super) struct Reporter {
    pipe: Option<File>,
    foreground: bool,
}

/// The starter's end.
#[derive(Debug)]
pub(super) struct Waiter(File);

const READY: u8 = b'+';
const FAILED: u8 = b'-';

pub(super) fn channel() -> anyhow::Result<(Reporter, Waiter)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let reporter = Reporter {
        pipe: Some(File::from(write)),
        foreground: false,
    };
    Ok((reporter, Waiter(File::from(read))))
}

impl Reporter {
    /// No process waits; systemd may.
    pub(super) fn foreground() -> Self {
        Reporter {
            pipe: None,
            foreground: true,
        }
    }

    /// The pipe to the starter.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// The mount works.
    pub(super) fn ready(self) {
        match self.pipe {
            Some(mut pipe) => {
                // The starter was killed: the mount stands all the same.
                let _ = pipe.write_all(&[READY]);
            }
            None if !self.foreground => {}
            None => {
                // Without $NOTIFY_SOCKET nobody waits, which is no error.
                if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
                    log::warn!("telling the service manager that the mount is ready: {error}");
                }
            }
        }
    }

    /// It will not. Returns the error for whoever still wants it: nobody if the starter prints it.
    pub(super) fn failed(self, error: anyhow::Error) -> anyhow::Result<()> {
        let Some(mut pipe) = self.pipe else {
            return Err(error);
        };
        let text = format!("{error:#}");
        let mut message = vec![FAILED];
        message.extend_from_slice(text.as_bytes());
        match pipe.write_all(&message) {
            Ok(()) => Ok(()),
            Err(_) => Err(error),
        }
    }
}

impl Waiter {
    /// Waits for the verdict of the daemon, process `child`.
    pub(super) fn wait(mut self, child: u32) -> anyhow::Result<()> {
        let mut message = Vec::new();
        self.0
            .read_to_end(&mut message)
            .context("waiting for the daemon")?;
        match message.split_first() {
            Some((&READY, _)) => Ok(()),
            Some((_, text)) => bail!("{}", String::from_utf8_lossy(text)),
            None => bail!("the daemon died while starting: {}", fate(child)),
        }
    }
}

fn fate(child: u32) -> String {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    match waitpid(pid, WaitOptions::empty()) {
        Ok(Some((_, status))) => match status.terminating_signal() {
            Some(signal) => format!("signal {signal}"),
            None => format!("exit status {}", status.exit_status().unwrap_or_default()),
        },
        _ => "its fate is unknown".to_owned(),
    }
}
