//! The daemon behind a mount: put together, made ready, watched, ended.
//!
//! Life of a mount: the command forks; the child opens the store, checks and mounts, takes its lease, serves, and looks at its
//! own mount with `stat`. Only then the parent returns 0; whatever fails before is printed by the parent. Afterwards the child
//! writes to `<store>/daemon.log`, and ends
//! - when the file system is unmounted, by whomever;
//! - on TERM, INT or HUP, or `stop` on its control socket: it unmounts, and if something uses the mount it logs who and detaches
//!   it: a signal always ends the daemon;
//! - when a serving thread is lost (a bug): it detaches the mount rather than let requests hang.
//!
//! With `-o survive=on` a small process, the [`keeper`], holds the connection as well, and starts the next server when one has died:
//! what this one does differently at its beginning is in [`kept`] and `Service::start`.
//!
//! Names that verbs change reach the kernel in two ways: `sync` on the control socket, answered when every mount shows the
//! change, and a watch on the store's index for those who die before they ask.

mod answering;
mod control;
mod ephemeral;
mod keeper;
mod kept;
mod log_file;
mod mount_point;
mod mounted;
mod readiness;
mod replace;
mod service;
mod side_mount;
mod stores;
mod unmount;
mod volumes;
mod watch;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::fuse::options::MountOptions;
use crate::sys::fork::{Fork, close_inherited, fork};

pub use replace::replace;
pub use unmount::unmount;

/// What `mica mount` was asked to do.
#[derive(Clone, Debug)]
pub struct MountPlan {
    /// The store's directory; made if it is not there.
    pub store: PathBuf,
    /// Where to mount.
    pub mount_point: PathBuf,
    /// Stay in the foreground, log to stderr.
    pub foreground: bool,
    /// The `-o` options.
    pub options: MountOptions,
    /// The same as they were given.
    pub words: Vec<String>,
}

/// Mounts. In the foreground it returns when the mount has ended, else when it is ready (from the parent; the daemon never
/// returns from here).
pub fn mount(plan: &MountPlan) -> anyhow::Result<()> {
    let root = rustix::process::geteuid().is_root();
    plan.options.check_privileges(root)?;
    if plan.foreground && plan.options.survive && std::env::var_os("NOTIFY_SOCKET").is_none() {
        bail!(
            "survive=on and --foreground: only under a service manager, which can be told to follow another process ($NOTIFY_SOCKET); leave one of them out"
        );
    }
    if plan.foreground {
        return service::run(plan, readiness::Reporter::foreground());
    }
    let (reporter, waiter) = readiness::channel().context("preparing the daemon")?;
    match fork().context("starting the daemon")? {
        Fork::Parent(child) => {
            drop(reporter);
            waiter.wait(child)
        }
        Fork::Child => {
            drop(waiter);
            if let Some(pipe) = reporter.pipe()
                && let Err(error) = close_inherited(&[pipe])
            {
                // Before Linux 5.9: they stay open, as they were.
                log::debug!("closing inherited descriptors: {error}");
            }
            let code = match daemonised(plan, reporter) {
                Ok(()) => 0,
                Err(error) => {
                    // Before the mount is ready the parent prints it; afterwards the log is the place.
                    log::error!("{error:#}");
                    1
                }
            };
            std::process::exit(code)
        }
    }
}

/// The parts of a mount that mica starts itself, by the hidden word that it does so with.
pub fn part(word: &OsStr) -> Option<fn() -> anyhow::Result<()>> {
    match word.to_str() {
        Some(keeper::KEEP) => Some(keeper::keep),
        Some(keeper::SERVE) => Some(serve_kept),
        Some(keeper::TRY) => Some(kept::try_kept),
        _ => None,
    }
}

/// The keeper of a mount, as a program that is nothing else: it is told everything by who starts it.
pub fn keeper() -> ExitCode {
    keeper::Words::begin();
    let word = std::env::args_os().nth(1);
    // As a server it would be believed to serve.
    if word.as_deref() != Some(OsStr::new(keeper::KEEP)) {
        log::error!("this is the keeper of a mount, which `mica mount -o survive=on` starts");
        return ExitCode::FAILURE;
    }
    crate::sys::signal::survive_file_size_limit();
    match keeper::keep() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves a mount whose server has died, for its keeper. Returns when it has ended.
fn serve_kept() -> anyhow::Result<()> {
    rustix::thread::set_name(c"mica").context("naming the process")?;
    service::run_kept(kept::Before::take()?)
}

fn daemonised(plan: &MountPlan, reporter: readiness::Reporter) -> anyhow::Result<()> {
    rustix::process::setsid().context("leaving the session")?;
    service::run(plan, reporter)
}
