//! Waiting for locks of files in volumes: what it costs, whose turn it is, and how it ends.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::Signal;

use super::volume;
use crate::common::sandbox::{Mount, Sandbox};
use crate::ephemeral::until;

/// A python that says one line once it is about to wait, and another when it has the lock.
struct Waiter {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Waiter {
    #[track_caller]
    fn start(code: &str, path: &Path) -> Waiter {
        let mut command = Command::new("/usr/bin/python3");
        command.arg("-c").arg(format!(
            "import fcntl, os, sys, threading, time
def say(word): print(word, flush=True)
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
{code}
sys.stdin.read()"
        ));
        command.arg(path).stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3");
        let said = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut waiter = Waiter { child, said };
        assert_eq!(waiter.word(), "begun");
        waiter
    }

    /// Waits with flock, in its main thread.
    #[track_caller]
    fn flock(path: &Path) -> Waiter {
        let code = "say('begun'); fcntl.flock(file, fcntl.LOCK_EX); say('has it')";
        let waiter = Waiter::start(code, path);
        waiter.sleeps_in_a_request();
        waiter
    }

    #[track_caller]
    fn word(&mut self) -> String {
        self.said.next().expect("a line").expect("a line")
    }

    #[track_caller]
    fn sleeps_in_a_request(&self) {
        let wchan = format!("/proc/{}/wchan", self.child.id());
        until("it waits for an answer", || {
            fs::read_to_string(&wchan).is_ok_and(|at| at.contains("request_wait_answer"))
        });
    }

    #[track_caller]
    fn end(mut self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often the threads that wait for locks went to sleep, and the daemon's system calls that read.
fn effort(mount: &Mount) -> (u64, u64) {
    let daemon = mount.daemon().expect("a daemon").as_raw_nonzero();
    let number = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|number| number.trim().parse::<u64>().ok())
            .expect("a number")
    };
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).expect("tasks");
    let tasks = tasks.map(|task| task.expect("a task").path());
    let switches = tasks.filter_map(|task| {
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let status = fs::read_to_string(task.join("status")).ok()?;
        let waits = name.starts_with("mica-lock");
        waits.then(|| number(&status, "voluntary_ctxt_switches:"))
    });
    let io = fs::read_to_string(format!("/proc/{daemon}/io")).expect("io");
    (switches.sum(), number(&io, "syscr:"))
}

fn over_four_seconds(mount: &Mount) -> (u64, u64) {
    let before = effort(mount);
    std::thread::sleep(std::time::Duration::from_secs(4));
    let after = effort(mount);
    (after.0 - before.0, after.1 - before.1)
}

const MANY: &str = "threading.stack_size(64 << 10)
files = [os.open(sys.argv[1], os.O_RDWR) for _ in range(900)]
for one in files: threading.Thread(target=fcntl.flock, args=(one, fcntl.LOCK_EX), daemon=True).start()
time.sleep(1)
say('begun')";

#[test]
fn regression_fuse_waiting_for_locks_costs_next_to_nothing() {
    let sandbox = Sandbox::new();
    let point = sandbox.mkdir("m");
    let mut daemon = Command::new("prlimit");
    daemon
        .args(["--nofile=16384:16384", env!("CARGO_BIN_EXE_mica"), "mount"])
        .arg(&point);
    daemon.env("MICA_STORE", sandbox.store());
    let mount = sandbox.mount_by(&point, daemon);
    let (inside, host) = volume(&sandbox, &mount, "data");
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let held: Vec<fs::File> = (names.iter())
        .map(|name| {
            let file = fs::File::create(host.join(name)).expect("a file");
            file.lock().expect("its lock");
            file
        })
        .collect();
    let mut few: Vec<Waiter> = (names.iter())
        .map(|name| Waiter::flock(&inside.join(name)))
        .collect();
    let (switches, reads) = over_four_seconds(&mount);
    assert!(switches < 40, "20 waiters: {switches} times awake");
    assert!(reads < 600, "20 waiters: {reads} reads");
    let many = Waiter::start(MANY, &inside.join("0"));
    let (switches, reads) = over_four_seconds(&mount);
    assert!(switches < 40, "920 waiters: {switches} times awake");
    assert!(reads < 1800, "920 waiters: {reads} reads");
    drop(many);
    drop(held);
    for waiter in &mut few {
        assert_eq!(waiter.word(), "has it");
    }
    drop(few);
    mount.unmount();
}

/// The one after the other, whoever of those before is killed, first or not, and whoever has the lock.
#[test]
fn fuse_waiters_for_a_lock_have_it_in_turn_whoever_is_killed() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    for path in [host.join("f"), inside.join("f")] {
        let mut holder = Waiter::start("fcntl.flock(file, fcntl.LOCK_EX); say('begun')", &path);
        let first = Waiter::flock(&inside.join("f"));
        let second = Waiter::flock(&inside.join("f"));
        let mut third = Waiter::flock(&inside.join("f"));
        let fourth = Waiter::flock(&inside.join("f"));
        let mut fifth = Waiter::flock(&inside.join("f"));
        // They end although nobody gives the lock up.
        first.end(Signal::KILL);
        second.end(Signal::INT);
        fourth.end(Signal::KILL);
        assert!(holder.child.try_wait().expect("wait").is_none());
        holder.end(Signal::KILL);
        assert_eq!(third.word(), "has it");
        fifth.sleeps_in_a_request();
        third.end(Signal::KILL);
        assert_eq!(fifth.word(), "has it");
    }
    mount.unmount();
}

/// Who shares a lock and wants it alone is not behind one who waits for him.
#[test]
fn fuse_who_has_a_lock_and_wants_more_waits_for_others_only() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    let path = inside.join("f");
    let shared = "fcntl.lockf(file, fcntl.LOCK_SH); say('begun')";
    let mut more = Waiter::start(
        &format!("{shared}\nsys.stdin.readline(); fcntl.lockf(file, fcntl.LOCK_EX); say('has it')"),
        &path,
    );
    let other = Waiter::start(shared, &path);
    let code = "say('begun'); fcntl.lockf(file, fcntl.LOCK_EX); say('has it')";
    let mut alone = Waiter::start(code, &path);
    alone.sleeps_in_a_request();
    let input = more.child.stdin.as_mut().expect("stdin");
    std::io::Write::write_all(input, b"\n").expect("a line");
    more.sleeps_in_a_request();
    other.end(Signal::KILL);
    assert_eq!(more.word(), "has it");
    alone.sleeps_in_a_request();
    more.end(Signal::KILL);
    assert_eq!(alone.word(), "has it");
    drop(alone);
    mount.unmount();
}

/// A lock that another thread of the waiting process takes meanwhile stays, and closing the file ends that one only.
#[test]
fn regression_fuse_a_lock_taken_while_its_owner_waits_stays() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    let (path, outside) = (inside.join("f"), host.join("f"));
    fs::write(&outside, [0; 64]).expect("a file");
    let range = "fcntl.lockf(file, fcntl.LOCK_EX, 8, 0); say('begun')";
    let holder = Waiter::start(range, &outside);
    let both = "def wait(): fcntl.lockf(file, fcntl.LOCK_EX, 8, 0); say('has it')
threading.Thread(target=wait, daemon=True).start()
time.sleep(1)
fcntl.lockf(file, fcntl.LOCK_EX, 8, 32)
say('begun')";
    let mut waiter = Waiter::start(both, &path);
    holder.end(Signal::KILL);
    assert_eq!(waiter.word(), "has it");
    for place in [0, 32] {
        let code = format!(
            "
try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, {place}); say('begun'); say('free')
except OSError: say('begun'); say('taken')"
        );
        let mut asked = Waiter::start(&code, &outside);
        assert_eq!(asked.word(), "taken", "at {place}");
    }
    drop(waiter);
    mount.unmount();
}
