//! Processes in images: what `mica run` starts, and what stays with it.
//!
//! Two processes make a container. The **supervisor** is `mica run` itself (or, detached, a fork of it): it holds the
//! container's lock, serves the image's tree over FUSE, writes the id maps, moves bytes between terminals and pipes, passes
//! signals on, and cleans up. The **child** is process 1 of the new namespaces: it mounts the tree, puts the container's root
//! together on a kernel overlayfs, and becomes the program. No daemon is needed, and nothing is mounted anywhere but in the
//! child's own mount namespace, so nothing is left when it ends.
//!
//! Both run this program from a read-only view of its file ([`OutOfReach`]): through neither can anybody change it.
//!
//! The child is tied to the supervisor: if that is killed, the kernel kills the child, or a guard does, a small process beside
//! the supervisor, and with it every process of the container. What is left then are files: the next verb sees by the lock that the container does not run.

mod attach;
mod channel;
mod child;
mod exec;
mod failure;
mod files;
mod guard;
mod image;
mod namespaces;
mod out_of_reach;
mod standard;
mod stdio;
mod supervisor;
mod users;
mod view;
mod visit;
mod visitor;

use rustix::process::WaitStatus;

pub use attach::{AttachOptions, DetachKeys, Left, attach};
pub use exec::{ExecOptions, exec, exec_attached};
pub use out_of_reach::OutOfReach;
pub use supervisor::{Job, run, run_attached, run_detached};
pub use view::View;
pub use visit::{Found, Visitor, visit_running, visit_stopped};

/// Why something was not started, with docker's exit code for it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct NotStarted {
    /// 125: mica failed; 126: the command cannot be run; 127: it is not there.
    pub code: u8,
    /// What is wrong.
    pub text: String,
}

impl From<failure::Failure> for NotStarted {
    fn from(failure::Failure { code, text }: failure::Failure) -> NotStarted {
        NotStarted { code, text }
    }
}

impl NotStarted {
    fn because(what: &str) -> impl FnOnce(std::io::Error) -> NotStarted {
        let what = what.to_owned();
        move |error| NotStarted {
            code: 125,
            text: format!("{what}: {error}"),
        }
    }
}

/// docker's exit code: that of the process, or 128 and the signal that ended it.
fn code_of(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(code).unwrap_or(255)
}
