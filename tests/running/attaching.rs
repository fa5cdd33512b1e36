//! `attach`, and leaving what one is attached to.

use std::io::{Read as _, Write as _};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::*;

/// A `mica` at a terminal of its own.
struct Terminal {
    child: Child,
    master: fs::File,
    seen: String,
}

impl Terminal {
    fn new(s: &Sandbox, words: &[&str]) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let mut command: Command = s.command();
        // A session of its own, with the terminal for its controlling one.
        command.args(words);
        let program = command.get_program().to_owned();
        let mut all = Command::new("setsid");
        all.arg("-cw").arg(program).args(words);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => all.env(key, value),
                None => all.env_remove(key),
            };
        }
        all.current_dir(s.dir());
        all.stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave);
        let child = all.spawn().unwrap();
        let flags = rustix::fs::fcntl_getfl(&master).unwrap();
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        Terminal {
            child,
            master: fs::File::from(master),
            seen: String::new(),
        }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn look(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(got) = self.master.read(&mut buffer) {
            if got == 0 {
                break;
            }
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..got]));
        }
    }

    #[track_caller]
    fn shows(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.seen.contains(text) {
            self.look();
            assert!(Instant::now() < end, "no {text:?} in {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
        let (_, rest) = self.seen.split_once(text).unwrap();
        self.seen = rest.to_owned();
    }

    #[track_caller]
    fn ends(&mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            self.look();
            if let Some(status) = self.child.try_wait().unwrap() {
                self.look();
                return status.code().unwrap();
            }
            assert!(Instant::now() < end, "it does not end: {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn root_a_terminal_is_left_and_attached_to_again() {
    let s = sandbox();
    let mut first = Terminal::new(&s, &["run", "-it", "--name", "two", "app:1", "sh"]);
    first.types("echo on$((1+1))e\n");
    first.shows("on2e");
    first.types("\x10\x11");
    assert_eq!(first.ends(), 0, "{}", first.seen);
    assert!(
        first.seen.contains("read escape sequence"),
        "{:?}",
        first.seen
    );
    assert_eq!(shown(&s, "ps --format {{.Names}}"), "two\n");
    // What comes now is in its log.
    let mut again = Terminal::new(&s, &["attach", "two"]);
    again.types("echo tw$((0))o; stty size\n");
    again.shows("tw0o");
    again.shows("24 80");
    // Two at a time see the same.
    let mut other = Terminal::new(&s, &["start", "-ai", "--detach-keys", "ctrl-x,q", "two"]);
    other.types("echo bo$((7))th\n");
    again.shows("bo7th");
    other.shows("bo7th");
    other.types("\x18q");
    assert_eq!(other.ends(), 0);
    again.types("exit 7\n");
    assert_eq!(again.ends(), 7, "{}", again.seen);
    wait_until("it has ended", || shown(&s, "ps -q").is_empty());
    let log = shown(&s, "logs two");
    assert!(log.contains("tw0o") && log.contains("bo7th"), "{log}");
    assert!(shown(&s, "ps -a --format {{.Status}}").starts_with("Exited (7)"));
    for (line, why) in [
        (
            "attach two",
            "You cannot attach to a stopped container, start it first",
        ),
        ("attach nosuch", "No such container: nosuch"),
        ("attach --detach-keys ctrl-+ two", "invalid detach keys"),
    ] {
        let run = mica(&s, line).fails();
        assert!(run.stderr().contains(why), "{}", run.describe());
    }
    // One that nobody leaves: its status is that of run, it goes when its starter is killed.
    let mut third = Terminal::new(&s, &["run", "--rm", "-it", "app:1", "sh", "-c", "exit 5"]);
    assert_eq!(third.ends(), 5, "{}", third.seen);
    let mut fourth = Terminal::new(&s, &["run", "--rm", "-it", "app:1", "nosuch"]);
    assert_eq!(fourth.ends(), 127, "{}", fourth.seen);
    assert!(
        fourth.seen.contains("executable file not found"),
        "{}",
        fourth.seen
    );
    let mut fifth = Terminal::new(&s, &["run", "--rm", "--name", "five", "-it", "app:1", "sh"]);
    // Not the echo of what was typed: it must be up.
    fifth.types("echo u$((0))p\n");
    fifth.shows("u0p");
    let pid = shown(&s, "inspect -f {{.State.Pid}} five");
    let starter = s.sh("pgrep -f 'run --rm --name five' | while read p; do tr '\\0' ' ' < /proc/$p/cmdline | grep -q '^[^ ]*mica' && echo $p; done | sort -n | head -1").stdout();
    s.sh(&format!("kill -9 {}", starter.trim())).ok();
    wait_until("its process is dead", || {
        !std::path::Path::new(&format!("/proc/{}", pid.trim())).exists()
    });
}

#[test]
fn root_what_runs_in_the_background_is_attached_to() {
    let s = sandbox();
    shown(
        &s,
        "run -d -i --init --name two app:1 -- while read line; do echo got $line; echo err $line >&2; done; exit 3",
    );
    let sh = |script: &str| s.sh(&script.replace("MICA", env!("CARGO_BIN_EXE_mica")));
    let mut command = s.command();
    command
        .args(["attach", "two"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut attached = command.spawn().unwrap();
    attached
        .stdin
        .take()
        .unwrap()
        .write_all(b"one\ntwo\n")
        .unwrap();
    let mut out = [0; 16];
    attached
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut out)
        .unwrap();
    assert_eq!(&out, b"got one\ngot two\n");
    let mut err = [0; 16];
    attached
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut err)
        .unwrap();
    assert_eq!(&err, b"err one\nerr two\n");
    // Without -i nothing is given; signals are passed on, or not.
    sh("timeout -s TERM 1 MICA attach --no-stdin --sig-proxy=false two < /dev/null").code(124);
    assert_eq!(shown(&s, "ps --format {{.Names}}"), "two\n");
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&attached),
        rustix::process::Signal::HUP,
    )
    .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = attached.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            attached.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(129));
    assert!(shown(&s, "ps -a --format {{.Status}}").starts_with("Exited (129)"));
    // A client that does not read holds up nobody's end; one that is killed, nothing.
    shown(
        &s,
        "run -d --name three app:1 -- sleep 1; i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done",
    );
    let mut command = s.command();
    command
        .args(["attach", "three"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut stuck = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut command = s.command();
    command
        .args(["attach", "three"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut killed = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    killed.kill().unwrap();
    killed.wait().unwrap();
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    assert_eq!(shown(&s, "wait three"), "0\n");
    assert_eq!(shown(&s, "logs three").lines().count(), 20000);
    // In front of somebody and without a terminal there is nothing to attach to.
    let _front = Started::new(&s, &["run", "--name", "front", "app:1", "sleep", "1000"]);
    wait_until("it runs", || {
        shown(&s, "ps --format {{.Names}}").contains("front")
    });
    let run = mica(&s, "attach front").code(1);
    assert!(
        run.stderr().contains("cannot be attached to"),
        "{}",
        run.describe()
    );
}
