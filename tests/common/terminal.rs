//! A terminal for one command, which the test types at.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::sandbox::Sandbox;

/// A `mica` at a terminal of its own.
pub struct Terminal {
    child: Child,
    master: fs::File,
    pub seen: String,
}

impl Terminal {
    /// 24 rows of 80 columns.
    pub fn new(s: &Sandbox, words: &[&str]) -> Terminal {
        Terminal::with(s, words, &[])
    }

    pub fn with(s: &Sandbox, words: &[&str], env: &[(&str, &str)]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&master).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        tcsetwinsize(&master, size(80)).expect("a terminal");
        let name = ptsname(&master, Vec::new()).expect("a terminal");
        let slave = fs::File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a terminal"))
            .expect("a terminal");
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
        all.envs(env.iter().copied());
        all.current_dir(s.dir());
        all.stdin(slave.try_clone().expect("a terminal"))
            .stdout(slave.try_clone().expect("a terminal"))
            .stderr(slave);
        let child = all.spawn().expect("a terminal");
        let flags = rustix::fs::fcntl_getfl(&master).expect("a terminal");
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK).expect("a terminal");
        Terminal {
            child,
            master: fs::File::from(master),
            seen: String::new(),
        }
    }

    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("a terminal");
    }

    pub fn resize(&self, columns: u16) {
        tcsetwinsize(&self.master, size(columns)).expect("a terminal");
    }

    pub fn look(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(got) = self.master.read(&mut buffer) {
            if got == 0 {
                break;
            }
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..got]));
        }
    }

    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.seen.contains(text) {
            self.look();
            assert!(Instant::now() < end, "no {text:?} in {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        }
        let (_, rest) = self.seen.split_once(text).expect("a terminal");
        self.seen = rest.to_owned();
    }

    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            self.look();
            if let Some(status) = self.child.try_wait().expect("a terminal") {
                self.look();
                return status.code().expect("a terminal");
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

fn size(columns: u16) -> Winsize {
    Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
