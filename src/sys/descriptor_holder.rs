//! A process that shares the table of descriptors with this one (`clone(2)`, `CLONE_FILES`), so that descriptors outlive a kill.
//!
//! It does nothing until the thread that has started it dies. Then it waits for the end of the other threads that use the table,
//! closes all that is not to be kept, so that whoever waits for the end of this process sees it, and gives what is left to whoever
//! asks at the other end of its line. It ends when that line has no other end any more, and with it the descriptors.
//!
//! What is to be kept is known by number: the caller says how. A number must be known to be kept before anybody relies on it, and
//! unknown again before it is closed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{
    Pid, Signal, WaitOptions, getppid, kill_process, set_parent_process_death_signal, waitpid,
};

/// A thread with a table of its own, which may outlive the others for long ([`super::own_files`]).
const APART: &str = "mica-notify";
/// Descriptors of one message; the kernel's limit is 253.
const BATCH: usize = 200;
/// Between two looks whether the other threads are gone.
const LOOK: Duration = Duration::from_millis(1);
/// Before a message is sent again for which the kernel had no room.
const PAUSE: Duration = Duration::from_millis(5);

/// The holder of this process. It goes on when this is dropped.
#[derive(Debug)]
pub struct DescriptorHolder {
    pid: Pid,
    line: OwnedFd,
}

impl DescriptorHolder {
    /// Starts one. `keeps` says whether a number is to be kept.
    ///
    /// # Errors
    /// Also while more than one thread exists: a lock that another holds would stay locked in the holder.
    #[allow(unsafe_code)]
    pub fn start(keeps: impl Fn(u32) -> bool) -> io::Result<DescriptorHolder> {
        let threads = super::procfs::own_threads()?;
        if threads != 1 {
            return Err(io::Error::other(format!(
                "cannot share descriptors: the process already has {threads} threads"
            )));
        }
        let flags = SocketFlags::CLOEXEC;
        let (line, its) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let server = std::process::id();
        // SAFETY: as fork(2), in the only thread there is, but that the table of descriptors is one for both: the holder closes none
        // of them before this process is dead.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                libc::CLONE_FILES | libc::SIGCHLD,
                0,
                0,
                0,
                0,
            )
        };
        if pid == 0 {
            let line = its.as_raw_fd();
            // The number is everybody's who has the table, and stays.
            std::mem::forget(its);
            // There is nobody to tell: who asks finds the line closed.
            let _ = hold(line, server, &keeps);
            // SAFETY: ends the process, with nothing of the other's left to run.
            unsafe { libc::_exit(0) };
        }
        std::mem::forget(its);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(io::Error::last_os_error)?;
        Ok(DescriptorHolder { pid, line })
    }
}

impl AsFd for DescriptorHolder {
    /// The end of its line for whoever is to ask for the descriptors.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl DescriptorHolder {
    /// Ends it: nothing is to outlive this process.
    pub fn end(self) {
        // Ended already: then there is nothing to end.
        let _ = kill_process(self.pid, Signal::KILL);
        // The same.
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// The holder itself.
fn hold(line: RawFd, server: u32, keeps: &dyn Fn(u32) -> bool) -> io::Result<()> {
    super::signal::block_all();
    set_parent_process_death_signal(Some(Signal::TERM))?;
    rustix::thread::set_name(super::proc::HOLDER)?;
    rustix::process::chdir("/")?;
    while !is_dead(server) {
        super::signal::wait_for_term();
    }
    while has_threads(server) {
        std::thread::sleep(LOOK);
    }
    let kept = close_all_but(line, keeps)?;
    answer(line, &kept)
}

fn state(stat: &str) -> Option<u8> {
    stat.rsplit_once(") ")?.1.bytes().next()
}

/// Whether nothing is left of the process, whose child this is.
fn is_gone(server: u32) -> bool {
    getppid().is_none_or(|parent| parent.as_raw_nonzero().get().unsigned_abs() != server)
}

/// Whether its first thread is dead. What cannot be seen is not.
fn is_dead(server: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{server}/stat")).unwrap_or_default();
    is_gone(server) || matches!(state(&stat), Some(b'Z' | b'X'))
}

/// Whether it has others that use the table.
fn has_threads(server: u32) -> bool {
    if is_gone(server) {
        return false;
    }
    let tasks = fs::read_dir(format!("/proc/{server}/task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        !matches!(state(&stat), None | Some(b'Z' | b'X')) && !stat.contains(&format!("({APART})"))
    })
}

#[allow(unsafe_code)]
fn close_all_but(line: RawFd, keeps: &dyn Fn(u32) -> bool) -> io::Result<Vec<u32>> {
    let mut open = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_string_lossy().parse::<u32>();
        open.extend(number);
    }
    let mut kept = Vec::new();
    for number in open {
        if keeps(number) {
            kept.push(number);
        } else if i32::try_from(number).is_ok_and(|number| number != line) {
            // SAFETY: the process whose descriptors they were is dead, and nothing here owns one but the line.
            unsafe { libc::close(number.cast_signed()) };
        }
    }
    Ok(kept)
}

/// Gives what is kept to whoever asks, until nobody can any more.
#[allow(unsafe_code)]
fn answer(line: RawFd, kept: &[u32]) -> io::Result<()> {
    // SAFETY: open for as long as this process lives.
    let line = unsafe { BorrowedFd::borrow_raw(line) };
    let mut question = [0; 8];
    loop {
        let length = rustix::io::retry_on_intr(|| rustix::io::read(line, &mut question))?;
        if length != question.len() || question == END {
            return Ok(());
        }
        for numbers in kept.chunks(BATCH).chain([&[][..]]) {
            send(line, question, numbers)?;
        }
    }
}

/// Instead of a question.
const END: [u8; 8] = [0xff; 8];

/// One message: the question that it answers, the numbers, and their descriptors. Without any it is the last.
#[allow(unsafe_code)]
fn send(line: BorrowedFd<'_>, question: [u8; 8], numbers: &[u32]) -> io::Result<()> {
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect();
    // SAFETY: all of them are open for as long as this process lives.
    let borrow = |number: &u32| unsafe { BorrowedFd::borrow_raw(number.cast_signed()) };
    let files: Vec<BorrowedFd<'_>> = numbers.iter().map(borrow).collect();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let parts = [IoSlice::new(&question), IoSlice::new(&bytes)];
        match sendmsg(line, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            // Too many under way for an ordinary user.
            Err(rustix::io::Errno::TOOMANYREFS | rustix::io::Errno::NOBUFS) => {
                std::thread::sleep(PAUSE)
            }
            sent => return Ok(sent.map(drop)?),
        }
    }
}

/// Takes what the holder of a process that is dead has kept, each with the number that it had there.
pub fn take(line: BorrowedFd<'_>) -> io::Result<Vec<(u32, OwnedFd)>> {
    let question = u64::from(std::process::id()).to_ne_bytes();
    rustix::io::write(line, &question)?;
    let mut taken = Vec::new();
    let mut buffer = [0u8; 8 + 4 * BATCH];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut buffer)];
        let got = match recvmsg(line, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            got => got?,
        };
        let files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let files: Vec<OwnedFd> = files.flatten().collect();
        if got.bytes == 0 {
            return Err(io::Error::other("the holder of descriptors has died"));
        }
        let Some((asked, numbers)) = buffer
            .get(..got.bytes)
            .and_then(|all| all.split_at_checked(8))
        else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        // For one that has died while it asked.
        if asked != question {
            continue;
        }
        if numbers.is_empty() {
            return Ok(taken);
        }
        let numbers = numbers
            .chunks_exact(4)
            .filter_map(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
        taken.extend(numbers.zip(files));
    }
}

/// Ends a holder that has given all: what it keeps open is nobody's any more.
pub fn end(line: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::write(line, &END)?;
    Ok(())
}
