//! A volume is the host's file system: locks, set-id bits and what close says are the host's.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{script, volume};
use crate::common::sandbox::Sandbox;
use crate::common::tier;

/// Takes the lock of an open file description (`F_OFD_SETLK`) for writing, says so, and goes on as told.
const HOLDER: &str = r#"
import fcntl, os, struct, sys
def ofd(fd, command=37, kind=fcntl.F_WRLCK):
    return fcntl.fcntl(fd, command, struct.pack("hhqqixxxx", kind, 0, 0, 0, 0))
"#;

fn python(code: &str, args: &[&Path]) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg("-c")
        .arg(format!("{HOLDER}\n{code}"))
        .args(args);
    command
}

/// Whether a fresh process gets the lock at once: `free` or `taken`.
fn asked(sandbox: &Sandbox, path: &Path) -> String {
    let ask = "
try:
    ofd(os.open(sys.argv[1], os.O_RDWR)); print('free')
except OSError: print('taken')";
    let run = sandbox.run(python(ask, &[path])).ok();
    run.stdout().trim().to_owned()
}

/// A process that has the lock.
fn holding(path: &Path) -> Child {
    let hold = "ofd(os.open(sys.argv[1], os.O_RDWR)); print('held', flush=True); sys.stdin.read()";
    let mut child = python(hold, &[path])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let said = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
    assert!(said.is_ok() && line == "held\n", "{line}");
    child
}

/// The end of a process is seen at once, the release of its files a moment later.
fn freed(sandbox: &Sandbox, path: &Path) -> bool {
    (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        asked(sandbox, path) == "free"
    })
}

fn ofd_locks_end(sandbox: &Sandbox, inside: &Path, host: &Path) {
    fs::write(inside, "x").unwrap();
    let mut killed = holding(inside);
    assert_eq!(asked(sandbox, inside), "taken");
    assert_eq!(asked(sandbox, host), "taken");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(freed(sandbox, inside), "after SIGKILL");
    assert_eq!(asked(sandbox, host), "free", "on the host");
    let mut ended = holding(inside);
    drop(ended.stdin.take());
    ended.wait().unwrap();
    assert!(freed(sandbox, inside), "after the end");
    let mut closing = python(
        "fd = os.open(sys.argv[1], os.O_RDWR); ofd(fd); copy = os.dup(fd); os.close(fd)
print('copied', flush=True); sys.stdin.readline(); os.close(copy); print('closed', flush=True); sys.stdin.read()",
        &[inside],
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut said = BufReader::new(closing.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "copied");
    assert_eq!(asked(sandbox, inside), "taken", "a copy is open");
    closing.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "closed");
    assert!(freed(sandbox, inside), "after the last close");
    drop(closing.stdin.take());
    closing.wait().unwrap();
}

#[test]
fn fuse_regression_ofd_locks_end_with_their_file() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, host) = volume(&sandbox, &mount, "data");
    ofd_locks_end(&sandbox, &inside.join("f"), &host.join("f"));
}

#[test]
fn fuse_regression_ofd_locks_cost_no_descriptors_when_their_files_are_gone() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    let daemon = mount.daemon().unwrap().as_raw_nonzero();
    let open = || fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count();
    let before = open();
    let lock = "
for i in range(1000):
    path = f'{sys.argv[1]}/{i}'
    fd = os.open(path, os.O_RDWR | os.O_CREAT); ofd(fd); os.close(fd); os.unlink(path)";
    sandbox.run(python(lock, &[&inside])).ok();
    let left = (0..100).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        open()
    });
    let left = left.min().unwrap();
    assert!(left < before + 50, "{before} descriptors, then {left}");
}

#[test]
fn root_regression_set_id_bits_are_left_as_on_the_host() {
    tier::root();
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let (inside, _) = volume(&sandbox, &mount, "data");
    let plain = sandbox.mkdir("plain");
    let run = |at: &Path| {
        let mut setid = Command::new("/usr/bin/python3");
        setid.arg(script("setid.py")).arg(at);
        sandbox.run(setid).ok().stdout()
    };
    let (host, volume) = (run(&plain), run(&inside));
    let differing: Vec<_> = (host.lines().zip(volume.lines()))
        .filter(|(host, volume)| host != volume)
        .collect();
    assert_eq!(host.lines().count(), volume.lines().count());
    assert!(host.lines().count() > 500);
    assert!(differing.is_empty(), "{}: {differing:#?}", differing.len());
}

/// A file system with one file `f`, of which close(2) says that what was written is lost.
#[derive(Debug)]
struct Losing;

impl Losing {
    fn attr(ino: fuser::INodeNo) -> fuser::FileAttr {
        let (kind, perm) = match ino {
            fuser::INodeNo::ROOT => (fuser::FileType::Directory, 0o755),
            _ => (fuser::FileType::RegularFile, 0o666),
        };
        let time = std::time::UNIX_EPOCH;
        fuser::FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl fuser::Filesystem for Losing {
    fn lookup(
        &self,
        _: &fuser::Request,
        _: fuser::INodeNo,
        name: &OsStr,
        reply: fuser::ReplyEntry,
    ) {
        match name == "f" {
            true => reply.entry(&TTL, &Self::attr(fuser::INodeNo(2)), fuser::Generation(0)),
            false => reply.error(fuser::Errno::ENOENT),
        }
    }
    fn getattr(
        &self,
        _: &fuser::Request,
        ino: fuser::INodeNo,
        _: Option<fuser::FileHandle>,
        reply: fuser::ReplyAttr,
    ) {
        reply.attr(&TTL, &Self::attr(ino));
    }
    fn open(
        &self,
        _: &fuser::Request,
        _: fuser::INodeNo,
        _: fuser::OpenFlags,
        reply: fuser::ReplyOpen,
    ) {
        reply.opened(fuser::FileHandle(1), fuser::FopenFlags::FOPEN_DIRECT_IO);
    }
    fn write(
        &self,
        _: &fuser::Request,
        _: fuser::INodeNo,
        _: fuser::FileHandle,
        _: u64,
        data: &[u8],
        _: fuser::WriteFlags,
        _: fuser::OpenFlags,
        _: Option<fuser::LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        reply.written(u32::try_from(data.len()).unwrap());
    }
    fn flush(
        &self,
        _: &fuser::Request,
        _: fuser::INodeNo,
        _: fuser::FileHandle,
        _: fuser::LockOwner,
        reply: fuser::ReplyEmpty,
    ) {
        reply.error(fuser::Errno::EDQUOT);
    }
}

const TTL: Duration = Duration::ZERO;

#[test]
fn root_regression_what_close_says_on_the_host_is_said_in_the_mount() {
    tier::root();
    let sandbox = Sandbox::new();
    let host = sandbox.mkdir("host");
    let session = fuser::Session::new(Losing, &host, &fuser::Config::default()).unwrap();
    let session = session.spawn().unwrap();
    let mount = sandbox.mount();
    let inside = mount.path("volumes/bound");
    std::os::unix::fs::symlink(&host, &inside).unwrap();
    let close = "
fd = os.open(sys.argv[1] + '/f', os.O_WRONLY)
os.write(fd, b'x')
try:
    os.close(fd); print('closed')
except OSError as error: print(error.strerror)";
    let said = |at: &Path| sandbox.run(python(close, &[at])).ok().stdout();
    assert_eq!(said(&host), "Disk quota exceeded\n");
    assert_eq!(said(&inside), "Disk quota exceeded\n");
    mount.unmount();
    session.umount_and_join().unwrap();
}
