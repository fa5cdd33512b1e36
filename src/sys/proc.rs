//! Processes: threads and their groups, start times, waiting for an end. What they hold is found by [`super::holders`].
//!
//! No file system is asked anything, so that a FUSE daemon may look even from a request. What may not be looked at (other users'
//! processes, for an ordinary user) is left out; a process that ends meanwhile as well.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::mountinfo::DeviceId;
use super::procfs::path;

/// Which namespace process `pid` is in, by its name in `/proc/PID/ns`; `None` where it may not be looked at.
pub fn namespace_name(pid: u32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

/// The process (thread group) that thread `tid` belongs to; `None` if there is no such thread.
///
/// FUSE requests carry thread ids. 0 stands for a process of a foreign pid namespace and belongs to nobody.
pub fn thread_group(tid: u32) -> Option<u32> {
    if tid == 0 {
        return None;
    }
    let status = fs::read_to_string(path(tid, "status")).ok()?;
    let value = status.lines().find_map(|l| l.strip_prefix("Tgid:"))?;
    value.trim().parse().ok()
}

/// When process `pid` started, in clock ticks since boot: together with the pid it names one process for ever.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read(path(pid, "stat")).ok()?;
    // The second field is the name in parentheses and may contain anything: count from the last closing one.
    let end = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    // After the name come fields 3, 4, ...; the start time is field 22.
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The short name (`comm`) of a process.
pub fn name(pid: u32) -> Option<String> {
    let name = fs::read(path(pid, "comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Inode numbers of what process `pid` has open (proc_pid_fdinfo(5)); none where it may not be looked at. Asks no file system.
pub fn open_inodes(pid: u32) -> Vec<u64> {
    let Ok(files) = fs::read_dir(path(pid, "fdinfo")) else {
        return Vec::new();
    };
    files
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .filter_map(|info| {
            let ino = info.lines().find_map(|line| line.strip_prefix("ino:"))?;
            ino.trim().parse().ok()
        })
        .collect()
}

/// When process `pid` started, by the clock. Accurate to a second or so, and too early rather than too late.
pub fn started(pid: u32) -> Option<jiff::Timestamp> {
    let ticks = start_time(pid)?;
    // `btime` is the clock at boot as of now, in whole seconds.
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let boot: i64 = boot.trim().parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let since = i64::try_from(ticks / ticks_per_second).ok()?;
    jiff::Timestamp::from_second(boot.checked_add(since)?).ok()
}

/// What everybody may know of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status {
    /// Its parent.
    pub parent: u32,
    /// Real, effective, saved and file system user id.
    pub uids: [u32; 4],
}

/// The status of process `pid`; `None` if there is none.
pub fn status(pid: u32) -> Option<Status> {
    let text = fs::read(path(pid, "status")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let mut numbers = field("Uid:")?.split_ascii_whitespace();
    let mut uids = [0; 4];
    for uid in &mut uids {
        *uid = numbers.next()?.parse().ok()?;
    }
    let parent = field("PPid:")?.trim().parse().ok()?;
    Some(Status { parent, uids })
}

/// Whether process `pid` does something of its own when it gets this signal: it has a handler, or waits for it.
pub fn catches(pid: u32, signal: i32) -> bool {
    let text = fs::read(path(pid, "status")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let Some(bit) = u32::try_from(signal)
        .ok()
        .and_then(|signal| signal.checked_sub(1))
        .and_then(|n| 1u64.checked_shl(n))
    else {
        return false;
    };
    ["SigCgt:", "SigBlk:"].iter().any(|field| {
        let mask = text.lines().find_map(|line| line.strip_prefix(field));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & bit != 0)
    })
}

/// A namespace of process `pid`, by its name in `/proc/PID/ns`, and its inode number, which no other has as long as it is open.
pub fn namespace(pid: u32, kind: &str) -> io::Result<(OwnedFd, u64)> {
    let file = fs::File::open(format!("/proc/{pid}/ns/{kind}"))?;
    let number = std::os::unix::fs::MetadataExt::ino(&file.metadata()?);
    Ok((file.into(), number))
}

/// The children of process `pid`, as far as the kernel lists them.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let text = text.unwrap_or_default();
    let numbers = text.split_ascii_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// A process id as the system's calls take it; `None` for 0 and what is none.
pub fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// A hold on one process that is not confused by its pid being used again.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Opens process `pid`; `None` if it does not exist.
    pub fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(pid) = self::pid(pid) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Process(fd))),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends it a signal, by number.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        super::container::signal(&self.0, number)
    }

    /// Waits until the process has ended, however long that takes.
    pub fn wait_for_ever(&self) -> io::Result<bool> {
        loop {
            if self.wait(Duration::from_secs(3600))? {
                return Ok(true);
            }
        }
    }

    /// Waits until the process has ended, at most `timeout`; true if it has.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Ok(n) => return Ok(n > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// All processes visible in `/proc`.
pub fn all() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// The name of processes that have a connection open and do not serve it.
pub const KEEPER: &CStr = c"mica-keeper";

/// The name of processes that have what a daemon has open, and do nothing with it ([`super::descriptor_holder`]).
pub const HOLDER: &CStr = c"mica-holder";

/// Whether a process is such a one, of this user.
pub fn is_holder(pid: u32) -> bool {
    let name = fs::read(path(pid, "comm")).unwrap_or_default();
    let own = rustix::process::geteuid().as_raw();
    name.trim_ascii_end() == HOLDER.to_bytes()
        && status(pid).is_some_and(|status| status.uids == [own; 4])
}

/// The name of what starts a container's program and waits for it. Nobody may look into such a process; what it has open, whoever
/// started it or the program has too.
pub const STARTER: &CStr = c"mica-init";

/// The process that serves the FUSE connection of the file system `device`, where this kernel tells (`fuse_connection` in
/// fdinfo) and this user may look.
pub fn fuse_server(device: DeviceId) -> Option<u32> {
    let connection = format!("fuse_connection:\t{}", device.minor);
    all().ok()?.into_iter().find(|pid| {
        let name = fs::read(path(*pid, "comm")).unwrap_or_default();
        if [KEEPER, HOLDER]
            .iter()
            .any(|other| name.trim_ascii_end() == other.to_bytes())
        {
            return false;
        }
        let Ok(fds) = fs::read_dir(path(*pid, "fd")) else {
            return false;
        };
        fds.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|p| p == Path::new("/dev/fuse"))
                && fd.file_name().to_str().is_some_and(|number| {
                    fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))
                        .is_ok_and(|info| info.lines().any(|l| l == connection))
                })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_belongs_to_its_process() {
        let me = std::process::id();
        let tid = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get())
            .join()
            .unwrap();
        assert_eq!(thread_group(me), Some(me));
        // The thread has ended by now or not; a dead thread belongs to nobody.
        assert!([None, Some(me)].contains(&thread_group(tid.try_into().unwrap())));
        assert_eq!(thread_group(0), None);
        let inside = std::thread::spawn(|| {
            thread_group(
                rustix::thread::gettid()
                    .as_raw_nonzero()
                    .get()
                    .try_into()
                    .unwrap(),
            )
        });
        assert_eq!(inside.join().unwrap(), Some(me));
    }

    #[test]
    fn start_times_order_processes() {
        let me = start_time(std::process::id()).unwrap();
        assert!(start_time(1).unwrap() <= me);
        assert_eq!(start_time(0), None);
    }

    #[test]
    fn this_process_has_a_status_and_a_start() {
        let status = status(std::process::id()).unwrap();
        assert_eq!(status.parent, std::os::unix::process::parent_id());
        assert_eq!(status.uids[1], rustix::process::geteuid().as_raw());
        let age =
            jiff::Timestamp::now().as_second() - started(std::process::id()).unwrap().as_second();
        assert!((0..3600).contains(&age), "{age}");
    }

    #[test]
    fn a_process_that_ends_is_noticed() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::open(child.id()).unwrap().unwrap();
        assert!(!process.wait(Duration::from_millis(20)).unwrap());
        child.kill().unwrap();
        assert!(process.wait(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        assert!(Process::open(0).unwrap().is_none());
    }
}
