//! `kill`, `stop`, `wait`.

use std::time::Duration;

use crate::ops::container::run::RunError;
use crate::store::Store;
use crate::store::containers::{Container, Status};
use crate::sys::proc::{self, Process};

/// What `stop` sends when nothing says otherwise.
const STOP_SIGNAL: &str = "SIGTERM";

/// How long a killed container may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one is waited for whose process may do with the signal what it likes.
const COURTESY: Duration = Duration::from_secs(1);
/// What programs take as an order to end.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGABRT, libc::SIGTERM];

/// Sends a signal to the process of the container that `text` means. If that ends it, it has ended when this returns: it can be
/// removed, and its name is free if it was to go with its process.
pub fn kill(store: &Store, text: &str, signal: i32) -> Result<(), RunError> {
    let mut container = crate::ops::container::find(store, text)?;
    let id = container.record.id.clone();
    let not_running = || {
        RunError::Refused(format!(
            "cannot kill container: {text}: container {id} is not running"
        ))
    };
    let Some(process) = process_of(&container)? else {
        return Err(not_running());
    };
    let caught = container.state.status.pid();
    let caught = caught.is_some_and(|pid| proc::catches(pid, signal));
    if !send(&process, signal).map_err(RunError::io("sending the signal"))? {
        container.wait()?;
        return Err(not_running());
    }
    // One that is paused takes it when it goes on, unless it is to end by it.
    if container.is_paused() && signal != libc::SIGKILL && signal == stop_signal(&container) {
        crate::ops::container::pausing::wake(&mut container)?;
    }
    let patience = match signal {
        libc::SIGKILL => PATIENCE,
        // As process 1 it does not even get what it has no handler for.
        signal if caught && ENDING.contains(&signal) => COURTESY,
        _ => return Ok(()),
    };
    let ended = process
        .wait(patience)
        .map_err(RunError::io("waiting for the end"))?;
    if ended {
        // The supervisor has something left to do.
        container.wait()?;
    } else if signal == libc::SIGKILL {
        return Err(RunError::Refused(format!(
            "cannot kill container: {text}: it was killed, and has not ended in {} seconds",
            PATIENCE.as_secs()
        )));
    }
    Ok(())
}

/// Sends a signal; false: the process has ended.
fn send(process: &Process, signal: i32) -> std::io::Result<bool> {
    match process.signal(signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks the process of a container to end, and makes it after `patience`. One that does not run is no error.
pub fn stop(
    store: &Store,
    text: &str,
    patience: Option<Duration>,
    signal: Option<i32>,
) -> Result<(), RunError> {
    let mut container = crate::ops::container::find(store, text)?;
    let Some(process) = process_of(&container)? else {
        return Ok(());
    };
    let number = signal.unwrap_or_else(|| stop_signal(&container));
    let waiting = RunError::io("stopping the container");
    let sent = send(&process, number).map_err(RunError::io("stopping the container"))?;
    crate::ops::container::pausing::wake(&mut container)?;
    let result = (|| {
        let ended = !sent;
        let ended = match patience {
            _ if ended => true,
            Some(patience) => process.wait(patience)?,
            None => process.wait_for_ever()?,
        };
        if !ended {
            send(&process, libc::SIGKILL)?;
            process.wait(Duration::from_secs(10))?;
        }
        Ok(())
    })();
    result.map_err(waiting)?;
    // The supervisor has something left to do.
    container.wait()?;
    Ok(())
}

/// The signal that asks a container to end.
fn stop_signal(container: &Container) -> i32 {
    let own = match container.record.config.stop_signal.as_str() {
        "" => STOP_SIGNAL,
        signal => signal,
    };
    number_of(own).unwrap_or_else(|_| {
        let name = &container.record.name;
        // An image can say anything.
        log::warn!("{name}: its stop signal {own:?} is none, {STOP_SIGNAL} is sent");
        libc::SIGTERM
    })
}

/// Waits for the end of a container; its exit code.
pub fn wait(store: &Store, text: &str) -> Result<u8, RunError> {
    let container = crate::ops::container::find(store, text)?;
    match container.state.status {
        Status::Exited { code, .. } => Ok(code),
        Status::Created => Ok(0),
        Status::Running { .. } => match container.wait()? {
            Some(code) => Ok(code),
            None => Err(RunError::NoSuch(text.to_owned())),
        },
    }
}

/// The process of a container that runs.
fn process_of(container: &Container) -> Result<Option<Process>, RunError> {
    let Some(pid) = container.state.status.pid() else {
        return Ok(None);
    };
    let process = Process::open(pid).map_err(RunError::io("looking for the process"))?;
    // Its number may have become another's before it was opened.
    match container.is_gone()? {
        true => Ok(None),
        false => Ok(process),
    }
}

/// A signal by name, with or without `SIG`, or number.
pub fn number_of(text: &str) -> Result<i32, RunError> {
    const NAMES: [(&str, i32); 31] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STKFLT", 16),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("URG", 23),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
        ("WINCH", 28),
        ("IO", 29),
        ("PWR", 30),
        ("SYS", 31),
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = || {
        let min = name.strip_prefix("RTMIN").map(|rest| (34, rest));
        let (base, rest) = min.or_else(|| name.strip_prefix("RTMAX").map(|rest| (64, rest)))?;
        let offset: i32 = match rest {
            "" => 0,
            rest => rest.parse().ok()?,
        };
        Some(base + offset).filter(|n| (34..=64).contains(n))
    };
    let known = NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, n)| *n);
    let number = name.parse().ok().filter(|n| (1..=64).contains(n));
    known
        .or(number)
        .or_else(real_time)
        .ok_or_else(|| RunError::Refused(format!("invalid signal: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(number_of(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIG", "0", "65", "FOO", "RTMIN+40"] {
            assert!(number_of(bad).is_err(), "{bad}");
        }
    }
}
