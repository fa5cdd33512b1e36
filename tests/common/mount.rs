//! A mount of a sandbox's store, and the daemon behind it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::sandbox::Inner;

/// A mount of the sandbox's store, taken down when dropped.
pub struct Mount {
    pub point: PathBuf,
    pub(super) inner: Arc<Inner>,
    pub(super) up: bool,
}

impl Mount {
    /// A path in the mount, for instance `images/app/1/etc`.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.point.join(path)
    }

    /// A path below `images`.
    pub fn image(&self, path: impl AsRef<Path>) -> PathBuf {
        self.point.join("images").join(path)
    }

    pub fn is_mounted(&self) -> bool {
        mounted(&self.point)
    }

    /// The daemon's process id, as its lease in the store says.
    pub fn daemon(&self) -> Option<Pid> {
        self.lease().map(|(_, pid)| pid)
    }

    /// The file of this mount's lease, and its holder.
    fn lease(&self) -> Option<(PathBuf, Pid)> {
        let leases = fs::read_dir(self.inner.dir.path().join("store/leases")).ok()?;
        let point = self.point.to_str()?;
        leases.flatten().find_map(|entry| {
            // One JSON value per line, the holder in the first.
            let lease = fs::read_to_string(entry.path()).ok()?;
            let holder: Value = serde_json::from_str(lease.lines().next()?).ok()?;
            let pid = Pid::from_raw(i32::try_from(holder["pid"].as_i64()?).ok()?)?;
            // The lease of a daemon that was killed lies there until the next verb that cleans up.
            let mine = holder["mountpoint"].as_str() == Some(point) && runs(pid);
            mine.then_some((entry.path(), pid))
        })
    }

    /// A connection to the daemon's control socket.
    pub fn connect(&self) -> UnixStream {
        let (lease, _) = self.lease().expect("the daemon's lease");
        let socket = lease.with_extension("sock");
        // Socket addresses hold 108 bytes; the directory's descriptor is a short way there.
        let leases = File::open(socket.parent().expect("leases")).expect("leases");
        let short = PathBuf::from(format!("/proc/self/fd/{}", leases.as_raw_fd()))
            .join(socket.file_name().expect("a name"));
        let stream = UnixStream::connect(short).expect("the control socket");
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        stream
    }

    /// Sends one line to the daemon's control socket and returns the answer.
    pub fn control(&self, line: &str) -> String {
        let mut stream = self.connect();
        writeln!(stream, "{line}").expect("the request");
        stream
            .shutdown(Shutdown::Write)
            .expect("the end of the request");
        std::io::read_to_string(stream).expect("the answer")
    }

    /// How many FUSE requests of each kind the daemon has answered so far; `total` is their sum.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let stats = self.control("stats");
        let lines = stats.lines().filter_map(|line| line.split_once(' '));
        lines
            .map(|(kind, count)| (kind.to_owned(), count.parse().expect("a count")))
            .collect()
    }

    /// `mica umount`, which must succeed and leave neither mount nor daemon.
    #[track_caller]
    pub fn unmount(mut self) {
        let daemon = self.daemon();
        let mut command = self.inner.command();
        command.arg("umount").arg(&self.point);
        self.inner.run(command, None, Duration::from_secs(30)).ok();
        assert!(!self.is_mounted(), "still mounted after mica umount");
        self.up = false;
        if let Some(pid) = daemon {
            assert!(ends(pid), "the daemon {pid:?} still runs after mica umount");
        }
    }

    /// Forgets the mount: the test has taken it down itself, or wants the dead one kept.
    pub fn forget(mut self) {
        self.up = false;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.up {
            return;
        }
        let daemon = self.daemon();
        while self.is_mounted() {
            if let Err(error) = rustix::mount::unmount(&self.point, UnmountFlags::DETACH) {
                eprintln!("unmounting {}: {error}", self.point.display());
                break;
            }
        }
        if let Some(pid) = daemon
            && !ends(pid)
        {
            eprintln!("the daemon {pid:?} did not end with its mount: killed");
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// A stat would hang on, or fail for, a dead FUSE mount; the mount table does not.
fn mounted(point: &Path) -> bool {
    let table = File::open("/proc/thread-self/mountinfo").and_then(std::io::read_to_string);
    let point = point.to_string_lossy().replace(' ', "\\040");
    table
        .expect("mountinfo")
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(point.as_str()))
}

/// Whether the process exists and has not ended; a container's init may never take up the dead.
pub fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit(") ").next();
        state.is_some_and(|rest| !rest.starts_with('Z'))
    })
}

fn ends(pid: Pid) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while runs(pid) {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}
