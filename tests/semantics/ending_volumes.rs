//! Volumes, when the daemon ends.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::{errno, names};
use crate::common::keeper::{daemon, kill, surviving, surviving_with, wait_until};
use crate::common::mount::{Mount, runs};
use crate::common::sandbox::Sandbox;

/// A volume with a file.
fn volume(mount: &Mount, name: &str) -> PathBuf {
    let inside = mount.path("volumes").join(name);
    fs::create_dir(&inside).expect("mkdir");
    fs::write(inside.join("f"), "content").expect("write");
    inside
}

/// The one that holds descriptors for this daemon.
fn holder(daemon: Pid) -> Pid {
    let daemon = daemon.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"));
    let children = children.expect("its children");
    let mut pids = children.split_whitespace().filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "mica-holder\n")
    });
    let pid = pids.next().expect("a holder").parse().expect("a number");
    Pid::from_raw(pid).expect("a process")
}

/// With `survive=on` volumes outlive their daemon as images do: open files, also removed ones, working directories, bind mounts, mappings and inode numbers in them stay what they were, and what was written is there.
#[test]
fn fuse_ending_leaves_volumes_in_use() {
    let sandbox = Sandbox::new();
    let mount = surviving(&sandbox);
    let inside = volume(&mount, "data");
    fs::create_dir(inside.join("dir")).expect("mkdir");
    fs::write(inside.join("dir/x"), "below").expect("write");
    let host = sandbox.mkdir("host");
    std::os::unix::fs::symlink(&host, mount.path("volumes/bound")).expect("a bind volume");
    fs::write(mount.path("volumes/bound/h"), "host's").expect("write");
    let bound = sandbox.mkdir("bound");
    rustix::mount::mount_bind(inside.join("dir"), &bound).expect("bind");
    let both = |path: PathBuf| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(path).expect("open")
    };
    let open = both(inside.join("f"));
    let mut gone = both(inside.join("gone"));
    gone.write_all(b"no name").expect("write");
    fs::remove_file(inside.join("gone")).expect("unlink");
    let hosts = both(mount.path("volumes/bound/h"));
    let mut appended = OpenOptions::new()
        .append(true)
        .create(true)
        .open(inside.join("log"))
        .expect("open");
    let listed = rustix::fs::open(
        &inside,
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let listed = listed.expect("open");
    let mut listing = rustix::fs::Dir::new(listed).expect("a directory");
    let first = listing.next().expect("an entry").expect("an entry");
    let paths = ["f", "dir", "dir/x"].map(|name| inside.join(name));
    let numbers = || {
        paths
            .each_ref()
            .map(|path| fs::metadata(path).expect("stat").ino())
    };
    let before = (numbers(), fs::metadata(&inside).expect("stat").dev());
    let script = "import mmap,sys\nf=open('../f','r+b')\nm=mmap.mmap(f.fileno(),7)\nprint('in',flush=True)\n\
        for line in sys.stdin:\n m[0:1]=line[:1].encode()\n m.flush()\n print(m[:].decode(),open('x').read(),flush=True)\n";
    let mut sitter = Command::new("python3")
        .args(["-c", script])
        .current_dir(inside.join("dir"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut said = std::io::BufReader::new(sitter.stdout.take().expect("its output"));
    let mut ask = sitter.stdin.take().expect("its input");
    let line = |said: &mut std::io::BufReader<_>| {
        let mut line = String::new();
        std::io::BufRead::read_line(said, &mut line).expect("a line");
        line
    };
    assert_eq!(line(&mut said), "in\n");
    for round in ["1", "2", "3"] {
        kill(&mount);
        writeln!(ask, "{round}").expect("a pipe");
        assert_eq!(line(&mut said), format!("{round}ontent below\n"));
        let mut now = [0; 7];
        open.read_exact_at(&mut now, 0).expect("the open file");
        assert_eq!(now[..], *format!("{round}ontent").as_bytes());
        open.write_all_at(round.as_bytes(), 6)
            .expect("the open file");
        open.write_all_at(b"t", 6).expect("the open file");
        open.set_len(7).expect("the open file");
        gone.seek(SeekFrom::Start(0)).expect("seek");
        let mut content = String::new();
        gone.read_to_string(&mut content).expect("the removed file");
        assert_eq!(content, "no name");
        hosts.write_all_at(round.as_bytes(), 0).expect("the host's");
        assert_eq!(
            fs::read_to_string(host.join("h")).expect("read"),
            format!("{round}ost's")
        );
        appended.write_all(round.as_bytes()).expect("append");
        assert_eq!(fs::read(bound.join("x")).expect("the bind mount"), b"below");
        fs::write(bound.join(round), "more").expect("the bind mount");
        assert_eq!(
            before,
            (numbers(), fs::metadata(&inside).expect("stat").dev())
        );
    }
    drop(ask);
    assert!(sitter.wait().expect("the sitter").success());
    assert_eq!(fs::read_to_string(inside.join("log")).expect("read"), "123");
    assert_eq!(names(inside.join("dir")), ["1", "2", "3", "x"]);
    let rest = listing.map(|entry| entry.expect("an entry").file_name().to_owned());
    let mut all: Vec<_> = rest.chain([first.file_name().to_owned()]).collect();
    all.sort();
    let all: Vec<_> = all
        .iter()
        .map(|name| name.to_str().expect("a name"))
        .collect();
    assert_eq!(all, [".", "..", "dir", "f", "log"]);
    drop((open, gone, hosts, appended));
    sandbox.umount(&bound);
    let daemon = daemon(&mount);
    let holder = holder(daemon);
    mount.unmount();
    wait_until("nothing is left", || !runs(daemon) && !runs(holder));
}

/// Locks on files of volumes outlive the daemon, without a moment in which somebody else, on the host or through the mount, could take them.
#[test]
fn fuse_ending_leaves_locks_of_volumes() {
    let sandbox = Sandbox::new();
    let mount = surviving(&sandbox);
    let inside = volume(&mount, "data");
    fs::write(inside.join("g"), "").expect("write");
    let host = |name: &str| {
        let volumes = sandbox.store().join("volumes");
        let id = fs::read_dir(volumes).expect("the volumes").flatten();
        let mut data = id.map(|entry| entry.path().join("_data"));
        data.find(|data| data.is_dir())
            .expect("its data")
            .join(name)
    };
    let flocked = File::open(inside.join("f")).expect("open");
    flock(&flocked, FlockOperation::LockExclusive).expect("flock");
    let mut keeper = Command::new("python3");
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX,10,5)\nprint(flush=True)\nsys.stdin.read()\n";
    let mut keeper = keeper
        .args(["-c", script])
        .arg(inside.join("g"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut said = [0];
    let mut its = keeper.stdout.take().expect("its output");
    its.read_exact(&mut said).expect("it has its lock");
    let free = |path: &Path| {
        let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX|fcntl.LOCK_NB,10,5)\n";
        let mut other = Command::new("python3");
        other.args(["-c", script]).arg(path).stderr(Stdio::null());
        other.status().expect("python3").success()
    };
    let waits = File::open(inside.join("f")).expect("open");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| flock(&waits, FlockOperation::LockExclusive));
        for _ in 0..3 {
            let of_host = File::open(host("f")).expect("open");
            let pid = daemon(&mount);
            kill_process(pid, Signal::KILL).expect("kill");
            while runs(pid) || mount.daemon().is_none() {
                let tried = flock(&of_host, FlockOperation::NonBlockingLockExclusive);
                assert_eq!(tried, Err(Errno::AGAIN));
            }
            let again = File::open(inside.join("f")).expect("open");
            let tried = flock(&again, FlockOperation::NonBlockingLockShared);
            assert_eq!(tried, Err(Errno::AGAIN));
            assert!(!free(&inside.join("g")) && !free(&host("g")));
            assert!(!waiting.is_finished());
        }
        drop(flocked);
        waiting.join().expect("a thread").expect("the next in turn");
    });
    drop(keeper.stdin.take());
    keeper.wait().expect("its end");
    assert!(free(&inside.join("g")) && free(&host("g")));
    drop(waits);
    mount.unmount();
}

/// An ephemeral volume that is in use does not end because its daemon does, and ends after its last user as ever.
#[test]
fn fuse_ending_leaves_ephemeral_volumes() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount_with(&["-o", "survive=on,volume_linger=0.3,volume_wait=60"]);
    sandbox
        .mica(["volume", "create", "--ephemeral", "short"])
        .ok();
    let inside = mount.path("volumes/short");
    let mut open = File::create(inside.join("f")).expect("create");
    for round in 0..3u8 {
        kill(&mount);
        open.write_all(&[round]).expect("write");
        thread::sleep(Duration::from_millis(800));
        assert_eq!(
            fs::read(inside.join("f")).expect("read").len(),
            usize::from(round) + 1
        );
    }
    drop(open);
    wait_until("it has ended", || !inside.exists());
    mount.unmount();
}

/// A holder of descriptors that was killed has no successor before the next daemon has begun: volumes end with the one that is there, what was open in them fails with ENOTCONN or ECONNABORTED, they come back with the next, and nothing that was written is lost.
#[test]
fn fuse_ending_with_its_holder() {
    let sandbox = Sandbox::new();
    let mount = surviving(&sandbox);
    let inside = volume(&mount, "data");
    let file = File::create(inside.join("g")).expect("create");
    file.write_all_at(b"written", 0).expect("write");
    let pid = daemon(&mount);
    kill_process(holder(pid), Signal::KILL).expect("kill");
    kill(&mount);
    let error = errno(file.set_len(0));
    assert!(
        [Errno::NOTCONN, Errno::CONNABORTED].contains(&error),
        "{error}"
    );
    drop(file);
    wait_until("the volumes are back", || {
        fs::read(inside.join("g")).is_ok_and(|content| content == b"written")
    });
    // In place of those before.
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    let point = mount.point.to_str().expect("a path");
    assert_eq!(table.lines().filter(|line| line.contains(point)).count(), 3);
    // And from now on they outlive a daemon again.
    let file = File::open(inside.join("g")).expect("open");
    kill(&mount);
    let mut now = [0; 7];
    file.read_exact_at(&mut now, 0).expect("the open file");
    drop(file);
    mount.unmount();
}

/// Before Linux 6.9 a change in a volume that a daemon has read and not answered fails with ECONNABORTED when it dies, done or not; what is open goes on.
#[test]
fn fuse_ending_of_volumes_on_an_older_kernel() {
    let sandbox = Sandbox::new();
    let mount = surviving_with(&sandbox, "MICA_KERNEL", "6.1");
    let inside = volume(&mount, "data");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(inside.join("f"))
        .expect("open");
    let mut failed = 0;
    for round in 0..6u32 {
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut failed = 0;
                for n in 0..300u32 {
                    match file.write_all_at(&n.to_ne_bytes(), 8) {
                        Ok(()) => {}
                        Err(error) => {
                            assert_eq!(Errno::from_io_error(&error), Some(Errno::CONNABORTED));
                            failed += 1;
                        }
                    }
                }
                failed
            });
            thread::sleep(Duration::from_millis(u64::from(round)));
            kill(&mount);
            failed += writer.join().expect("a thread");
        });
        file.write_all_at(&round.to_ne_bytes(), 8).expect("write");
        let mut now = [0; 4];
        file.read_exact_at(&mut now, 8).expect("read");
        assert_eq!(u32::from_ne_bytes(now), round);
    }
    println!("{failed} writes of 1800 failed");
    drop(file);
    mount.unmount();
}
