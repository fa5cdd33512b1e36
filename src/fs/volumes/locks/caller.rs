//! What can be seen of the thread that a request comes from, which waits in its call until it is answered.

use std::fs;

use rustix::thread::CapabilitySet;

use super::Call;
use crate::sys::procfs;

/// The call in which `thread` waits.
pub(super) fn call(thread: u32) -> Call {
    /// flock(2) for 32-bit programs on x86.
    const COMPAT_FLOCK: libc::c_long = 143;
    let text = fs::read_to_string(procfs::path(thread, "syscall")).unwrap_or_default();
    let number = text.split_ascii_whitespace().next();
    match number.and_then(|number| number.parse::<libc::c_long>().ok()) {
        Some(libc::SYS_flock | COMPAT_FLOCK) => Call::Flock,
        _ => Call::Fcntl,
    }
}

/// Whether a thread has a signal to take, or is gone.
pub(super) fn has_signal(thread: u32) -> bool {
    if thread == 0 {
        return false;
    }
    // One read has all of it.
    let mut bytes = [0; 4096];
    let read = fs::File::open(procfs::path(thread, "status"))
        .and_then(|mut file| std::io::Read::read(&mut file, &mut bytes));
    let Ok(length) = read else {
        return true;
    };
    let status = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    };
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    // Blocked and ignored ones do not interrupt.
    pending & !mask("SigBlk:") & !mask("SigIgn:") != 0
}

/// Whether the calls of other processes can be seen, without which flock and fcntl cannot be told apart: by privilege, or those
/// of the same user where Yama does not forbid it.
pub(super) fn can_be_seen() -> bool {
    let all = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE));
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let own = yama.map_or(true, |scope| scope.trim() == "0");
    (all || own) && fs::metadata("/proc/self/syscall").is_ok()
}
