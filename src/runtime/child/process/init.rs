//! Process 1 of a container with `--init`.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, setsid, wait};

use super::Program;
use super::privileges::restrict;
use crate::runtime::code_of;
use crate::runtime::failure::{Fails as _, Failure};
use crate::sys::container::{exit_now, reset_signals, signal};
use crate::sys::fork::{Fork, close_inherited, fork};
use crate::sys::signal::SignalFd;

/// The small init: process 1 stays behind in here, collects orphans, passes signals on, and ends as the program does. Only
/// its child returns.
pub(super) fn init(program: &Program) -> Result<(), Failure> {
    let signals = SignalFd::block_forwarded(true).fails("blocking signals")?;
    let child = match fork().fails("starting the program")? {
        Fork::Child => {
            reset_signals();
            return Ok(());
        }
        Fork::Parent(child) => child,
    };
    // The supervisor waits for the last copy of its channel to go. Nothing here returns to who owns the descriptors.
    std::mem::forget(signals);
    if close_inherited(&[rustix::stdio::stderr()]).is_err() {
        exit_now(125)
    }
    let Ok(signals) = SignalFd::block_forwarded(true) else {
        exit_now(125)
    };
    // Signals of the terminal come through the supervisor only. Fails only for who leads a group already.
    let _ = setsid();
    let child = i32::try_from(child).ok().and_then(Pid::from_raw);
    let Some(child) = child else { exit_now(125) };
    let Ok(process) = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty())
    else {
        exit_now(125)
    };
    if rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        exit_now(125)
    }
    if restrict(program).is_err() {
        exit_now(125)
    }
    loop {
        let mut fds = [PollFd::new(&signals, PollFlags::IN)];
        // Interrupted or not: what there is to do is looked for.
        let _ = poll(&mut fds, None);
        while let Ok(Some(number)) = signals.take_number() {
            if number != libc::SIGCHLD {
                // It may have ended.
                let _ = signal(&process, number);
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == child {
                exit_now(code_of(status).into())
            }
        }
    }
}
