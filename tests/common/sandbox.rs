//! One test's world: a directory, a store, mounts, and the `mica` binary run as a user would run it.
//!
//! Every run of the binary is recorded; when the test panics, everything it printed (the daemon's log included) is shown.
//! Mounts are private to the test's thread and are always taken down, daemon included.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::image::ImageBuilder;
pub use super::mount::Mount;
use super::mount::runs;
use super::tier;

/// A debug build may need this long for a real image on a busy machine; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// A program of this build: they lie beside each other, whichever package's tests these are.
pub fn program(name: &str) -> PathBuf {
    let one = option_env!("CARGO_BIN_EXE_mica").or(option_env!("CARGO_BIN_EXE_mica-snapshotter"));
    Path::new(one.expect("a program to test")).with_file_name(name)
}

/// The directory, the store in it, and the record of what ran.
pub struct Sandbox {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) dir: tempfile::TempDir,
    record: Mutex<Vec<String>>,
    /// Run everything as this user and group.
    user: Option<u32>,
}

/// A finished run of a program.
pub struct Run {
    pub line: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Run {
    /// Panics unless the exit status was 0.
    #[track_caller]
    pub fn ok(self) -> Run {
        self.code(0)
    }

    /// Panics unless the exit status was this one.
    #[track_caller]
    pub fn code(self, code: i32) -> Run {
        assert!(
            self.status.code() == Some(code),
            "expected exit status {code}:\n{}",
            self.describe()
        );
        self
    }

    /// Panics if it succeeded, was killed (a crash), or did not say why in one line on stderr.
    #[track_caller]
    pub fn fails(self) -> Run {
        let code = self.status.code();
        assert!(
            code.is_some_and(|code| code != 0 && code != 101) && !self.stderr.is_empty(),
            "expected a failure with a message:\n{}",
            self.describe()
        );
        self
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub fn describe(&self) -> String {
        format!(
            "$ {}\n{}{}[{}]",
            self.line,
            self.stdout(),
            self.stderr(),
            self.status
        )
    }
}

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox::new()
    }
}

impl Sandbox {
    pub fn new() -> Sandbox {
        Sandbox::create(None)
    }

    /// Runs `mica` as an ordinary user, who owns the directory. Needs root to become that user.
    pub fn as_user(uid: u32) -> Sandbox {
        tier::fuse_for_users();
        tier::named_user(uid);
        let sandbox = Sandbox::create(Some(uid));
        std::os::unix::fs::chown(sandbox.dir(), Some(uid), Some(uid)).expect("chown");
        // The build directory may be below a home directory that is closed to others. Not by fs::copy: children that other
        // tests fork meanwhile would hold the copy open for writing, and it could not be run ("Text file busy").
        let copied = Command::new("install")
            .args(["-m", "755"])
            .args([program("mica").as_path(), &sandbox.path("mica")])
            .status();
        assert!(copied.expect("cp").success(), "copying the binary");
        sandbox
    }

    fn create(user: Option<u32>) -> Sandbox {
        tell_at_once();
        let dir = tempfile::Builder::new()
            .prefix("mica-test-")
            .tempdir()
            .expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let record = Mutex::new(Vec::new());
        Sandbox {
            inner: Arc::new(Inner { dir, record, user }),
        }
    }

    pub fn dir(&self) -> &Path {
        self.inner.dir.path()
    }

    /// A path in the directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// A new directory.
    pub fn mkdir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("mkdir");
        if let Some(uid) = self.inner.user {
            std::os::unix::fs::chown(&path, Some(uid), Some(uid)).expect("chown");
        }
        path
    }

    /// `mica` with this store, to be completed and run by hand.
    pub fn command(&self) -> Command {
        self.inner.command()
    }

    /// Runs `mica` with these arguments to its end.
    pub fn mica<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        let mut command = self.command();
        command.args(args);
        self.run(command)
    }

    /// Runs any command to its end, recorded, with a limit on its time.
    pub fn run(&self, command: Command) -> Run {
        self.inner.run(command, None, PATIENCE)
    }

    /// A shell script, run with `set -eu` in the sandbox's directory.
    pub fn sh(&self, script: &str) -> Run {
        let mut command = Command::new("sh");
        command.arg("-euc").arg(script).current_dir(self.dir());
        command.env("MICA_STORE", self.store());
        self.run(command)
    }

    /// Unmounts what a test has mounted. A process that another test is just starting has copies of this one's open files until its
    /// exec, and so keeps a mount busy for a moment.
    #[track_caller]
    pub fn umount(&self, point: impl AsRef<Path>) {
        let line = format!("umount {}", self.dir().join(point).display());
        for _ in 0..200 {
            if self.sh(&line).status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.sh(&line).ok();
    }

    /// Writes the image as a docker-archive and loads it.
    #[track_caller]
    pub fn load(&self, image: &ImageBuilder) -> Run {
        let archive = self.path(format!("{}.tar", image.id().replace("sha256:", "")));
        image.docker_archive(&archive);
        let run = self.load_file(&archive).ok();
        fs::remove_file(archive).expect("unlink");
        run
    }

    /// Loads a file or directory.
    pub fn load_file(&self, path: &Path) -> Run {
        self.mica([OsStr::new("load"), OsStr::new("-i"), path.as_os_str()])
    }

    /// Mounts the store on a new directory, visible to this thread and its children only.
    #[track_caller]
    pub fn mount(&self) -> Mount {
        self.mount_with(&[])
    }

    /// The same with more arguments, for instance `&["-o", "ro"]`.
    #[track_caller]
    pub fn mount_with(&self, args: &[&str]) -> Mount {
        let number = fs::read_dir(self.dir()).expect("readdir").count();
        let point = self.mkdir(&format!("mnt{number}"));
        self.mount_on(&point, args)
    }

    /// The same on an existing directory.
    #[track_caller]
    pub fn mount_on(&self, point: &Path, args: &[&str]) -> Mount {
        let mut command = self.command();
        command.arg("mount").args(args).arg(point);
        self.mount_by(point, command)
    }

    /// The same by a command of one's own.
    #[track_caller]
    pub fn mount_by(&self, point: &Path, command: Command) -> Mount {
        tier::root();
        // What the daemon goes on to write there is shown when the test fails.
        let log = self
            .path(point.file_name().unwrap_or_default())
            .with_extension("log");
        self.inner
            .run(command, Some(&log), Duration::from_secs(30))
            .ok();
        let mount = Mount {
            point: point.to_owned(),
            inner: Arc::clone(&self.inner),
            up: true,
        };
        assert!(
            mount.is_mounted(),
            "mica mount returned 0, and {} is no mount",
            point.display()
        );
        mount
    }

    /// A mount that something else has made, to be taken down as if we had.
    pub fn mounted_already(&self, point: &Path) -> Mount {
        Mount {
            point: point.to_owned(),
            inner: Arc::clone(&self.inner),
            up: true,
        }
    }

    /// Every file of the store with its size, sorted: two states of a store can be compared. Without the daemons' log,
    /// leases, which come and go with processes, and the inode numbers that a mount has given.
    pub fn store_files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        let mut todo = vec![self.store()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).expect("reading the store") {
                let entry = entry.expect("reading the store");
                let metadata = entry.metadata().expect("stat in the store");
                let name = entry.file_name();
                if metadata.is_dir() {
                    if name != "leases" {
                        todo.push(entry.path());
                    }
                } else if ![&b"daemon.log"[..], b"events.log", b"numbers"]
                    .iter()
                    .any(|log| name.as_bytes().starts_with(log))
                {
                    files.push((entry.path(), metadata.len()));
                }
            }
        }
        files.sort();
        files
    }
}

impl Inner {
    pub(super) fn command(&self) -> Command {
        let mut command = match self.user {
            None => Command::new(program("mica")),
            Some(uid) => {
                let mut command = Command::new(self.dir.path().join("mica"));
                command.uid(uid).gid(uid);
                command
            }
        };
        command.env("MICA_STORE", self.dir.path().join("store"));
        command.env("HOME", self.dir.path());
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env_remove("XDG_DATA_HOME");
        command.current_dir(self.dir.path());
        command
    }

    /// Output goes through files: a daemon that keeps them open must not make its starter wait.
    pub(super) fn run(&self, mut command: Command, log: Option<&Path>, patience: Duration) -> Run {
        let line = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ");
        let out = tempfile::NamedTempFile::new().expect("a file for stdout");
        let own = tempfile::NamedTempFile::new().expect("a file for stderr");
        let err = log.unwrap_or(own.path());
        command.stdin(Stdio::null());
        command.stdout(out.reopen().expect("stdout"));
        command.stderr(
            File::options()
                .append(true)
                .create(true)
                .open(err)
                .expect("stderr"),
        );
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("starting {line}: {e}"));
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait") {
                break status;
            }
            if start.elapsed() > patience {
                child.kill().and_then(|()| child.wait()).expect("kill");
                let stderr = fs::read_to_string(err).unwrap_or_default();
                panic!("{line} did not end in {patience:?}; it had said:\n{stderr}");
            }
            thread::sleep(Duration::from_millis(3));
        };
        let read = |path: &Path| fs::read(path).expect("reading the output");
        let run = Run {
            line,
            status,
            stdout: read(out.path()),
            stderr: read(err),
        };
        self.record.lock().expect("the record").push(run.describe());
        run
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        end_what_is_left(self.dir.path());
        if !thread::panicking() {
            return;
        }
        eprintln!("---- what ran in {} ----", self.dir.path().display());
        for run in self.record.lock().expect("the record").iter() {
            eprintln!("{run}");
        }
        for log in logs(self.dir.path()) {
            let text = fs::read(&log).unwrap_or_default();
            eprintln!(
                "---- {} ----\n{}",
                log.display(),
                String::from_utf8_lossy(&text)
            );
        }
    }
}

/// Ends what the test has started and not ended, such as the daemon of a mount by hand: it would outlive the suite.
fn end_what_is_left(dir: &Path) {
    let ours = dir.as_os_str().as_bytes();
    let is_ours = |pid: &Pid| {
        let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let comm = fs::read(proc.join("comm")).unwrap_or_default();
        let environ = fs::read(proc.join("environ")).unwrap_or_default();
        comm.starts_with(b"mica") && environ.windows(ours.len()).any(|at| at == ours)
    };
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut left: Vec<Pid> = numbers.filter_map(Pid::from_raw).filter(is_ours).collect();
    if left.is_empty() {
        return;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        for pid in &left {
            // It may have ended meanwhile.
            let _ = kill_process(*pid, signal);
        }
        let end = Instant::now() + Duration::from_secs(2);
        while !left.is_empty() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
            left.retain(|pid| runs(*pid));
        }
    }
    let below = format!(" {}/", dir.display());
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    for line in table.lines().rev().filter(|line| line.contains(&below)) {
        if let Some(point) = line.split(' ').nth(4) {
            let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
        }
    }
}

/// What a test fails with is printed beside its name too: the collected output at the end of a long log may be lost.
pub fn tell_at_once() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            let name = thread.name().unwrap_or("a thread").to_owned();
            // Tests are threads with a path for a name. This is not captured, unlike eprintln.
            if name.contains("::") {
                let text = format!("\n!! {name}: {panic}\n");
                let _ = std::io::stderr().write_all(text.as_bytes());
            }
            hook(panic);
        }));
    });
}

/// Logs that a daemon has left in the sandbox or its store.
fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for dir in [dir.to_owned(), dir.join("store"), dir.join("store/leases")] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().extension() == Some(OsStr::new("log")) {
                found.push(entry.path());
            }
        }
    }
    found
}
