//! Signals as a file descriptor.
//!
//! The signals are blocked in the calling thread and in every thread it starts afterwards, so call [`SignalFd::block`] before
//! the first thread is started; child processes started through `std::process` get an empty mask again.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Has a write beyond the limit on the size of files (`ulimit -f`) fail with EFBIG, which can be told, in place of ending the
/// process by SIGXFSZ. Other programs that this one becomes or starts have the signal's default: a handler, not a signal that
/// is ignored, does not outlive an exec.
#[allow(unsafe_code)]
pub fn survive_file_size_limit() {
    extern "C" fn nothing(_: libc::c_int) {}
    let nothing: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: both structures are alive, zero is a valid value for them, and the mask is initialised by sigemptyset. The handler
    // does nothing, so it may run at any moment.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        let asked = libc::sigaction(libc::SIGXFSZ, std::ptr::null(), &raw mut before);
        // Who has it ignored gets EFBIG already, and so does every program started from there.
        if asked != 0 || before.sa_sigaction != libc::SIG_DFL {
            return;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        // It cannot fail for a signal that there is.
        libc::sigaction(libc::SIGXFSZ, &raw const action, std::ptr::null_mut());
    }
}

/// Runs before `main`, and so before std looks at the two signals of a bad access to memory.
///
/// Where they have their default, std gives every thread a stack for signals, only to say which thread's stack has overflowed,
/// and ends the whole process when there is no memory for one: a request could end everybody's mount. With a handler in place it
/// leaves all threads alone, those that libraries start too. A fault ends the process as it always does, by its signal; the guard
/// pages below each stack are the C library's and the kernel's.
#[used]
#[allow(unsafe_code)]
// SAFETY: the loader calls what stands in this section, with arguments that a function without any does not look at.
#[unsafe(link_section = ".init_array")]
static NO_SIGNAL_STACKS: extern "C" fn() = handle_faults;

#[allow(unsafe_code)]
extern "C" fn handle_faults() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: may be called in a handler; the signal has its default again (SA_RESETHAND), and arrives when this returns.
        unsafe { libc::raise(signal) };
    }
    let end: extern "C" fn(libc::c_int) = end;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: both structures are alive, zero is a valid value for them, and the mask is initialised by sigemptyset.
        unsafe {
            let mut before: libc::sigaction = std::mem::zeroed();
            let asked = libc::sigaction(signal, std::ptr::null(), &raw mut before);
            if asked != 0 || before.sa_sigaction != libc::SIG_DFL {
                continue;
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = end as usize;
            action.sa_flags = libc::SA_RESETHAND;
            libc::sigemptyset(&raw mut action.sa_mask);
            // It cannot fail for a signal that there is.
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Ends a call that waits in another thread; ignored by default, so one that comes too late harms nobody.
const INTERRUPT: libc::c_int = libc::SIGURG;

/// Has [`interrupt`] end a waiting call of any thread that [`allow_interrupt`]s it.
#[allow(unsafe_code)]
pub fn let_interrupt() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let nothing: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the structure is alive, zero is a valid value for it, and the mask is initialised by sigemptyset. The handler does
    // nothing, so it may run at any moment. Without SA_RESTART the call that it interrupts fails with EINTR.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut())
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the calling thread take what [`interrupt`] sends, whatever the thread that started it had blocked.
#[allow(unsafe_code)]
pub fn allow_interrupt() {
    // SAFETY: zero is a valid value to pass to sigemptyset, which initialises it; the set is alive, and the signal is a valid one.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, INTERRUPT);
        // It cannot fail for a valid set.
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// Ends the call in which a thread of this process waits, if it does just then.
#[allow(unsafe_code)]
pub fn interrupt(thread: rustix::thread::Pid) {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: plain numbers; the kernel refuses those that are no thread of this process.
    unsafe {
        libc::syscall(
            libc::SYS_tgkill,
            process,
            thread.as_raw_nonzero().get(),
            INTERRUPT,
        );
    }
}

/// Blocks every signal in the calling thread; for a process that does nothing but [`wait_for_term`].
#[allow(unsafe_code)]
pub fn block_all() {
    // SAFETY: zero is a valid value to pass to sigfillset, which initialises it; the set is alive.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        // It cannot fail for a valid set.
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Waits for TERM, which has to be blocked.
#[allow(unsafe_code)]
pub fn wait_for_term() {
    // SAFETY: as above, and nobody asks for more about the signal.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigwaitinfo(&raw const set, std::ptr::null_mut());
    }
}

/// Termination signals (TERM, INT, HUP), readable in an event loop.
#[derive(Debug)]
pub struct SignalFd(File);

/// The signals that ask a program to end.
const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

impl SignalFd {
    /// Blocks TERM, INT and HUP and opens a descriptor that becomes readable when one of them arrives.
    pub fn block() -> io::Result<Self> {
        SignalFd::block_these(&ENDING)
    }

    /// Blocks every signal that a program in front of another passes on: all but those that cannot be blocked, that a fault
    /// raises, or that job control needs. With `children`, also the one that says that a child has ended.
    pub fn block_forwarded(children: bool) -> io::Result<Self> {
        const KEPT: [i32; 14] = [
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGCHLD,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGSYS,
            libc::SIGABRT,
            libc::SIGPIPE,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
        ];
        let mut numbers: Vec<i32> = (1..=31).filter(|n| !KEPT.contains(n)).collect();
        if children {
            numbers.push(libc::SIGCHLD);
        }
        // 32 and 33 are the C library's own.
        numbers.extend(34..=64);
        SignalFd::block_these(&numbers)
    }

    #[allow(unsafe_code)]
    fn block_these(numbers: &[i32]) -> io::Result<Self> {
        let fd = {
            // SAFETY: an all-zero sigset_t is a valid value to pass to sigemptyset, which initialises it.
            let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
            // SAFETY: `set` is a live, initialised sigset_t; the signal numbers are valid; signalfd with fd -1 makes a new
            // descriptor and touches no other memory.
            unsafe {
                libc::sigemptyset(&mut set);
                for number in numbers {
                    libc::sigaddset(&mut set, *number);
                }
                let rc = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
                if rc != 0 {
                    return Err(io::Error::from_raw_os_error(rc));
                }
                libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
            }
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(SignalFd(File::from(fd)))
    }

    /// Gives TERM, INT and HUP back their effect on the calling thread. One that has arrived and was not taken has it now.
    #[allow(unsafe_code)]
    pub fn release(self) -> io::Result<()> {
        // SAFETY: an all-zero sigset_t is a valid value to pass to sigemptyset, which initialises it.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a live, initialised sigset_t; the signal numbers are valid; the old mask is not asked for.
        let rc = unsafe {
            libc::sigemptyset(&mut set);
            for number in ENDING {
                libc::sigaddset(&mut set, number);
            }
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut())
        };
        match rc {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// The name of a signal that has arrived, if any; never blocks.
    pub fn take(&self) -> io::Result<Option<&'static str>> {
        Ok(self.take_number()?.map(|number| match number {
            libc::SIGTERM => "SIGTERM",
            libc::SIGINT => "SIGINT",
            _ => "SIGHUP",
        }))
    }

    /// The number of a signal that has arrived, if any; never blocks.
    pub fn take_number(&self) -> io::Result<Option<i32>> {
        // struct signalfd_siginfo is 128 bytes; its first field is the signal number.
        let mut info = [0u8; 128];
        match (&self.0).read(&mut info) {
            Ok(n) if n >= 4 => Ok(Some(i32::from_ne_bytes([
                info[0], info[1], info[2], info[3],
            ]))),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[allow(unsafe_code)]
    fn threads_have_no_stacks_for_signals() {
        let flags = || {
            // SAFETY: zero is a valid value; the old state is asked for and nothing is set.
            unsafe {
                let mut stack: libc::stack_t = std::mem::zeroed();
                assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
                stack.ss_flags
            }
        };
        let disabled = std::thread::spawn(move || flags() & libc::SS_DISABLE).join();
        assert_eq!(disabled.unwrap(), libc::SS_DISABLE);
    }
}
