//! A mount whose daemon does not get what it asks the system for: who needs it gets an error, and nothing else comes of it.
//!
//! strace lets one kind of call of the daemon's fail now and then while files of an image and of a volume are used. Only those of
//! the connection itself are left alone (`read` and `writev` of /dev/fuse): what the kernel has handed over and nobody has got,
//! nobody can answer.
//!
//! `MICA_FAULTS=all`: every call with every error, each time and now and then; any other text: those whose names contain it
//! (`statx`, `EIO`). Who waits for ever has the daemon's threads shown, and its last calls.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::image::ImageBuilder;
use crate::common::mount::{Mount, runs};
use crate::common::sandbox::Sandbox;
use crate::ephemeral::until;
use crate::running;

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const FILES: usize = 6;

/// The calls, each with the error it meets in the short form, and when: from which call of a thread on, and each how manieth.
const CALLS: &[(&str, &str, &str)] = &[
    ("openat,openat2", "EMFILE", "2+3"),
    ("pread64", "EIO", "2+3"),
    ("pwrite64,write", "ENOSPC", "2+3"),
    // Each second: of a file and its name, which are compared, the name.
    ("statx,newfstatat,fstat", "ENOMEM", "1+2"),
    ("getdents64", "EIO", "2+3"),
    ("mkdirat,unlinkat,renameat2", "ENOSPC", "2+3"),
    ("fsync,fdatasync", "EIO", "2+3"),
    ("mmap", "ENOMEM", "2+3"),
    ("flock,ioctl", "ENOMEM", "2+3"),
];
const ERRORS: &[(&str, Errno)] = &[
    ("ENOMEM", Errno::NOMEM),
    ("EMFILE", Errno::MFILE),
    ("EIO", Errno::IO),
    ("ENOSPC", Errno::NOSPC),
];

fn content(round: usize, number: usize) -> Vec<u8> {
    format!("file {number} of {round}\n")
        .repeat(20_000)
        .into_bytes()
}

/// Of a layer of its own: what the kernel has read of others is of no use.
fn image(round: usize, name: &str) -> ImageBuilder {
    ImageBuilder::new(name).layer(|l| {
        let dir = l.dir("d", 0o755);
        (0..FILES).fold(dir, |l, number| {
            l.file(format!("d/{number}"), content(round, number))
        })
    })
}

struct World {
    sandbox: Sandbox,
    mount: Mount,
    daemon: Pid,
    /// The volume on the host.
    data: PathBuf,
}

impl World {
    fn new() -> World {
        let sandbox = Sandbox::new();
        sandbox.load(&image(0, "base:1"));
        let mount = sandbox.mount();
        let daemon = mount.daemon().expect("a daemon");
        sandbox.mica(["volume", "create", "vol"]).ok();
        let inspect = ["volume", "inspect", "-f", "{{.Source}}", "vol"];
        let data = sandbox.mica(inspect).ok().stdout();
        let data = PathBuf::from(data.trim());
        assert!(data.starts_with(sandbox.store()), "{data:?}");
        World {
            sandbox,
            mount,
            daemon,
            data,
        }
    }

    /// strace on the daemon, all of its threads, as soon as it is.
    fn inject(&self, calls: &str, error: &str, when: &str, log: &Path) -> Child {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-p", &self.daemon.as_raw_nonzero().to_string()]);
        strace.arg("-o").arg(log);
        strace.args(["-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:error={error}:when={when}")]);
        let strace = strace.stdin(Stdio::null()).spawn().expect("strace");
        until("strace has every thread", || {
            let tasks = format!("/proc/{}/task", self.daemon.as_raw_nonzero());
            fs::read_dir(tasks).expect("tasks").flatten().all(|task| {
                let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
                !status.contains("TracerPid:\t0")
            })
        });
        strace
    }

    fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.daemon.as_raw_nonzero()));
        let names = tasks
            .expect("tasks")
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|comm| comm.trim() == name).count()
    }

    fn logged(&self) -> usize {
        let mut length = 0;
        for dir in [self.sandbox.dir().to_owned(), self.sandbox.store()] {
            for entry in fs::read_dir(dir).expect("a directory").flatten() {
                if entry.path().extension().is_some_and(|e| e == "log") {
                    length += fs::read(entry.path()).expect("a log").len();
                }
            }
        }
        length
    }

    fn show_threads(&self, log: &Path) {
        let daemon = self.daemon.as_raw_nonzero();
        for task in fs::read_dir(format!("/proc/{daemon}/task"))
            .expect("tasks")
            .flatten()
        {
            let told = |what: &str| fs::read_to_string(task.path().join(what)).unwrap_or_default();
            let [name, at, call] = ["comm", "wchan", "syscall"].map(told);
            println!(
                "{:?}: {} {at} {}",
                task.file_name(),
                name.trim(),
                call.trim()
            );
        }
        let calls = fs::read_to_string(log).unwrap_or_default();
        let calls: Vec<&str> = calls.lines().collect();
        let last = calls
            .get(calls.len().saturating_sub(60)..)
            .unwrap_or_default();
        println!("{} calls, the last:\n{}", calls.len(), last.join("\n"));
    }

    /// One kind of call fails while everything is used; afterwards everything is right. How many failed, and how many errors came of it.
    fn round(&self, number: usize, calls: &str, error: &str, when: &str) -> (usize, usize) {
        let what = format!("{calls}:error={error}:when={when}");
        let s = &self.sandbox;
        s.load(&image(number, &format!("app:{number}")));
        let tree = self.mount.image(format!("app/{number}/d"));
        let volume = self.mount.path("volumes/vol");
        let log = s.path(format!("strace-{number}"));
        let before = self.logged();
        let mut strace = self.inject(calls, error, when, &log);
        let (sender, receiver) = mpsc::channel();
        let user = {
            let (tree, volume) = (tree.clone(), volume.clone());
            thread::spawn(move || sender.send(work(&tree, &volume, number)))
        };
        // A verb is not the daemon: it has nothing to do with its errors.
        s.mica(["tag", "base:1", &format!("more:{number}")]).ok();
        let done = receiver.recv_timeout(PATIENCE);
        if done.is_err() {
            self.show_threads(&log);
        }
        end(&mut strace);
        let done = done.unwrap_or_else(|_| panic!("{what}: a caller waits for ever"));
        user.join().expect("a thread").expect("a receiver");
        let injected = injections(&log);

        let expected = ERRORS.iter().find(|(name, _)| *name == error).expect(error);
        for (step, error) in &done.errors {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            let right = [Some(expected.1), Some(Errno::IO)].contains(&errno);
            assert!(right, "{what}: {step}: {error}");
        }
        let errors = done.errors.len();
        assert!(errors <= injected, "{what}: {injected}: {:?}", done.errors);
        let of_image = done
            .errors
            .iter()
            .any(|(step, _)| step.starts_with("image"));
        assert!(
            !of_image || self.logged() > before,
            "{what}: no word in the log"
        );

        assert!(runs(self.daemon), "{what}: the daemon has ended");
        for file in 0..FILES {
            let read = fs::read(tree.join(file.to_string()));
            let read = read.unwrap_or_else(|error| panic!("{what}: afterwards: {error}"));
            assert!(
                read == content(number, file),
                "{what}: afterwards: file {file}"
            );
        }
        for (name, content) in &done.synced {
            for root in [&volume, &self.data] {
                let read = fs::read(root.join(name)).expect(name);
                assert!(read == *content, "{what}: {name} in {root:?}");
            }
        }
        until("the mount shows what came meanwhile", || {
            self.mount.image(format!("more/{number}/d/0")).exists()
        });
        (injected, errors)
    }
}

/// A mica under strace.
fn strace(s: &Sandbox, log: &Path, call: &str, error: &str, when: &str, only: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq"]).args(only).arg("-o").arg(log);
    strace.args(["-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:error={error}:when={when}")]);
    strace.args([env!("CARGO_BIN_EXE_mica"), "--store"]);
    strace.arg(s.store());
    strace
}

fn injections(log: &Path) -> usize {
    let calls = fs::read_to_string(log).expect("strace's log");
    calls.matches("(INJECTED)").count()
}

fn hung_up(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn end(strace: &mut Child) {
    let _ = kill_process(Pid::from_child(strace), Signal::TERM);
    // It waits for ever for a daemon that has ended under it.
    if !(0..500).any(|_| {
        thread::sleep(Duration::from_millis(20));
        strace.try_wait().expect("strace").is_some()
    }) {
        strace.kill().expect("strace");
        strace.wait().expect("strace");
    }
}

/// What using the mount has led to.
#[derive(Default)]
struct Done {
    errors: Vec<(String, io::Error)>,
    /// Files that were acknowledged to be on the disk.
    synced: Vec<(String, Vec<u8>)>,
}

impl Done {
    fn note<T>(&mut self, step: String, result: io::Result<T>) -> Option<T> {
        result.map_err(|error| self.errors.push((step, error))).ok()
    }
}

/// Reads a tree of an image and changes a volume. What comes is right or an error.
fn work(tree: &Path, volume: &Path, round: usize) -> Done {
    let mut done = Done::default();
    for number in 0..FILES {
        let read = fs::read(tree.join(number.to_string()));
        if let Some(read) = done.note(format!("image: {number}"), read) {
            assert!(
                read == content(round, number),
                "file {number} has other bytes"
            );
        }
    }
    let list = |path: &Path| fs::read_dir(path)?.collect::<io::Result<Vec<_>>>();
    if let Some(names) = done.note("image: list".to_owned(), list(tree)) {
        assert_eq!(names.len(), FILES);
    }
    for number in 0..4 {
        let name = format!("{round}-{number}");
        let dir = volume.join(format!("{name}.d"));
        let bytes = content(round, number);
        let made = || -> io::Result<()> {
            let mut file = File::create(volume.join(&name))?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        if done.note(format!("volume: {name}"), made()).is_some() {
            done.synced.push((name.clone(), bytes.clone()));
        }
        let others = || -> io::Result<()> {
            fs::create_dir(&dir)?;
            fs::write(dir.join("a"), "a")?;
            fs::rename(dir.join("a"), dir.join("b"))?;
            fs::set_permissions(dir.join("b"), fs::Permissions::from_mode(0o600))?;
            let mut text = String::new();
            File::open(dir.join("b"))?.read_to_string(&mut text)?;
            assert_eq!(text, "a");
            assert_eq!(list(&dir)?.len(), 1);
            fs::remove_file(dir.join("b"))?;
            fs::remove_dir(&dir)
        };
        done.note(format!("volume: {name}.d"), others());
    }
    done
}

/// An error of a system call of the daemon is an error for the one who asked, with a word in the log when it concerns an image, and nothing else.
#[test]
fn fuse_an_error_below_is_its_callers_alone() {
    let wanted = std::env::var("MICA_FAULTS").ok();
    let world = World::new();
    let start = Instant::now();
    let mut rounds = 0;
    let mut total = (0, 0);
    let mut round = |calls: &str, error: &str, when: &str| {
        rounds += 1;
        let (injected, errors) = world.round(rounds, calls, error, when);
        println!("{calls}:error={error}:when={when}: {injected} failed calls, {errors} errors");
        total = (total.0 + injected, total.1 + errors);
    };
    for (calls, error, when) in CALLS {
        let Some(wanted) = &wanted else {
            round(calls, error, when);
            continue;
        };
        for (error, _) in ERRORS {
            if wanted == "all" || format!("{calls} {error}").contains(wanted.as_str()) {
                for when in ["1+1", "1+2", "2+3", "3+5", "7+11"] {
                    round(calls, error, when);
                }
            }
        }
    }
    println!(
        "{rounds} rounds in {:?}: {} failed calls, {} errors",
        start.elapsed(),
        total.0,
        total.1
    );
    assert!(total.0 > 0 && total.1 > 0);
    world.mount.unmount();
    world.sandbox.mica(["check"]).ok();
}

/// A thread that cannot begin for want of memory is an error for the one whose request it answers, and ends nobody's mount.
#[test]
fn regression_fuse_a_thread_without_memory_ends_nobodys_mount() {
    let world = World::new();
    let s = &world.sandbox;
    let mut total = (0, 0);
    for (number, when) in ["1", "2", "3", "1+2", "1+"].iter().enumerate() {
        let log = s.path(format!("strace-{number}"));
        let mut strace = world.inject("mmap", "ENOMEM", when, &log);
        // A thread each at the same time, more than there are stacks left of former ones. Who gets none is hung up on.
        let asking: Vec<_> = (0..12).map(|_| world.mount.connect()).collect();
        until("each has a thread or was hung up on", || {
            let gone = asking.iter().filter(|stream| hung_up(stream)).count();
            world.threads("mica-control") + gone >= asking.len()
        });
        let answers = asking.into_iter().map(|mut stream| {
            let mut answer = String::new();
            let asked = writeln!(stream, "sync");
            match asked.and_then(|()| stream.read_to_string(&mut answer)) {
                Ok(_) if !answer.is_empty() => assert_eq!(answer, "ok\n", "{when}"),
                _ => return 1,
            }
            0
        });
        let refused: usize = answers.sum();
        s.mica(["tag", "base:1", &format!("more:{number}")]).ok();
        end(&mut strace);
        let injected = injections(&log);
        assert!(refused <= injected, "{when}: {refused} of {injected}");
        total = (total.0 + injected, total.1 + refused);
        assert!(runs(world.daemon), "{when}: the daemon has ended");
        until("the mount shows what came meanwhile", || {
            let read = fs::read(world.mount.image(format!("more/{number}/d/0")));
            read.is_ok_and(|read| read == content(0, 0))
        });
    }
    println!("{} failed calls, {} refused", total.0, total.1);
    assert!(total.0 > 0 && total.1 > 0);
    world.mount.unmount();
    s.mica(["check"]).ok();
}

/// What cannot be looked at is there: a collection that cannot tell whether a container has a record leaves it alone.
#[test]
fn regression_root_a_collection_removes_no_container_that_it_cannot_look_at() {
    let s = running::sandbox();
    s.mica(["create", "--name", "stopped", "app:1", "true"])
        .ok();
    let log = s.path("strace");
    let mut injected = 0;
    for when in 1..=40 {
        let mut gc = strace(&s, &log, "statx", "ENOMEM", &when.to_string(), &[]);
        gc.arg("gc");
        s.run(gc);
        injected += usize::from(injections(&log) > 0);
        let left = s.mica(["ps", "-a", "--format", "{{.Names}}"]).ok();
        assert_eq!(left.stdout(), "stopped\n", "the {when}. call");
    }
    assert!(injected > 5);
}

/// A container whose image is not served any more while it starts is not waited for.
#[test]
fn regression_root_a_start_without_an_image_fails() {
    let s = running::sandbox();
    let log = s.path("strace");
    let mut injected = 0;
    // The connection's first question has an answer, and then its threads end: after so many requests each.
    for when in ["2+", "3+", "5+"] {
        let mut run = strace(&s, &log, "read", "ENOMEM", when, &["-P", "/dev/fuse"]);
        run.args(["run", "--rm", "app:1", "true"]);
        let run = s.run(run);
        injected += injections(&log);
        assert!(
            [0, 125, 137].contains(&run.status.code().unwrap_or(-1)),
            "{}",
            run.describe()
        );
        assert!(running::left(&s).is_empty(), "{when}");
    }
    assert!(injected > 0);
}
