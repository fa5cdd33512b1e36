//! What a process gets from the one that started it, beside its descriptors: keys, priorities.

use std::ffi::c_long;
use std::io;

use rustix::process::{getpriority_process, setpriority_process};

/// A new, empty session keyring in place of the one that was handed down, which holds the keys of whoever logged in.
#[allow(unsafe_code)]
pub fn leave_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_long = 1;
    // SAFETY: without a name the call takes no pointer.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
        )
    };
    match rc {
        -1 => match io::Error::last_os_error() {
            // A kernel without keys, or a filter around all of this: nothing is handed down either.
            error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

/// Gives up what puts this process before others: a negative nice value, a real-time policy, a real-time class of input and
/// output, a low score for the kernel's choice of whom to end when memory runs out. What puts it behind others stays. Where
/// `/proc` is the process's own.
pub fn give_up_preference() -> io::Result<()> {
    normal_policy()?;
    if getpriority_process(None)? < 0 {
        setpriority_process(None, 0)?;
    }
    normal_io()?;
    const SCORE: &str = "/proc/self/oom_score_adj";
    let score = std::fs::read_to_string(SCORE)?;
    if score.trim().parse::<i32>().is_ok_and(|score| score < 0) {
        std::fs::write(SCORE, "0")?;
    }
    Ok(())
}

#[allow(unsafe_code)]
fn normal_policy() -> io::Result<()> {
    // SAFETY: asks for a number about this process.
    let policy = unsafe { libc::sched_getscheduler(0) };
    if policy < 0 {
        return Err(io::Error::last_os_error());
    }
    if matches!(
        policy & !libc::SCHED_RESET_ON_FORK,
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE
    ) {
        return Ok(());
    }
    // SAFETY: all zero is a valid value: the priority of a policy without priorities.
    let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: the structure lives through the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(unsafe_code)]
fn normal_io() -> io::Result<()> {
    const WHO_PROCESS: c_long = 1;
    const CLASS_SHIFT: c_long = 13;
    const CLASS_REAL_TIME: c_long = 1;
    // SAFETY: asks for a number about this process.
    let class = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
    if class < 0 || class >> CLASS_SHIFT != CLASS_REAL_TIME {
        // A kernel without classes has none to give up.
        return Ok(());
    }
    // SAFETY: sets a number of this process: none, which follows the nice value.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
