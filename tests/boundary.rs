//! What a hostile image, a hostile user of a volume or a killed supervisor gets of the host: nothing.
//!
//! Each test is an attack that got through somewhere, here or in another runtime. Races are made certain: the process that is
//! attacked stops between two of its steps and the attacker has all the time he wants.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use crate::common::sandbox::Sandbox;
use crate::running::{image, left, mica, sandbox, shown, wait_until};

mod copying;
mod kills;
mod links;
mod races;
mod rules;

/// A `mica` that stops at a point; see `sys::pause`.
struct Held {
    directory: PathBuf,
    reader: File,
    child: Option<Child>,
}

impl Held {
    /// Runs the words and returns when it has stopped for the first time.
    #[track_caller]
    fn at(s: &Sandbox, point: &str, line: &str) -> Held {
        let directory = tempfile::Builder::new()
            .prefix("held")
            .tempdir_in(s.dir())
            .unwrap()
            .keep();
        // For whoever mica runs as.
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        open(&directory, 0o755).unwrap();
        for pipe in ["at", "go"].map(|pipe| directory.join(pipe)) {
            let kind = rustix::fs::FileType::Fifo;
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
            open(&pipe, 0o666).unwrap();
        }
        let mut command = s.command();
        command
            .args(line.split_whitespace())
            .env("MICA_PAUSE", format!("{point}={}", directory.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let reader = reader(&directory);
        let child = Some(command.spawn().unwrap());
        let mut held = Held {
            directory,
            reader,
            child,
        };
        held.wait();
        held
    }

    /// Waits until it has stopped.
    #[track_caller]
    fn wait(&mut self) {
        let mut arrived = false;
        wait_until("it has stopped", || {
            let mut fds = [PollFd::new(&self.reader, PollFlags::IN)];
            let now = Timespec::default();
            arrived = poll(&mut fds, Some(&now)).unwrap() > 0;
            arrived || self.child.as_mut().unwrap().try_wait().unwrap().is_some()
        });
        if !arrived {
            let output = self.child.take().unwrap().wait_with_output().unwrap();
            panic!("it did not stop: {output:?}");
        }
        self.reader = reader(&self.directory);
    }

    /// Lets it go on.
    fn go(&self) {
        let mut flags = File::options();
        let flags = flags
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        wait_until("it listens", || {
            match flags.open(self.directory.join("go")) {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "{error}");
                    false
                }
            }
        });
    }

    /// Lets it go on, from wherever it stops, to its end.
    #[track_caller]
    fn end(mut self) -> Output {
        let mut child = self.child.take().unwrap();
        self.go();
        wait_until("it has ended", || {
            let mut fds = [PollFd::new(&self.reader, PollFlags::IN)];
            let now = Timespec::default();
            if poll(&mut fds, Some(&now)).unwrap() > 0 {
                self.reader = reader(&self.directory);
                self.go();
            }
            child.try_wait().unwrap().is_some()
        });
        child.wait_with_output().unwrap()
    }
}

fn reader(directory: &Path) -> File {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = File::options();
    let options = options.read(true).custom_flags(flags);
    options.open(directory.join("at")).unwrap()
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where a volume's data is.
#[track_caller]
fn data(s: &Sandbox, volume: &str) -> PathBuf {
    let path = shown(
        s,
        &format!("volume inspect -f {{{{.Mountpoint}}}} {volume}"),
    );
    PathBuf::from(path.trim())
}

/// A directory of the host that nobody was given, with a secret.
fn secret(s: &Sandbox) -> PathBuf {
    let dir = s.mkdir("secret");
    fs::write(dir.join("key"), "top secret\n").unwrap();
    dir
}
