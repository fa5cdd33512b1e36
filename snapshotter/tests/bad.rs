//! Requests and circumstances that are not as they should be.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use mica_snapshotter::proto::{CreateRequest, Empty, Kind, MountsResponse};
use tonic::Code;

use crate::client::{Client, code, create, labels, of};
use crate::common::sandbox::Sandbox;
use crate::work::{Running, command, mount, start, wait_until};

/// Out of order, of what is not there, of what cannot be: containerd's own codes, and nothing half.
#[test]
fn root_bad_requests() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    assert_eq!(code(client.mounts("none")), Code::NotFound);
    assert_eq!(code(client.commit("a", "none")), Code::NotFound);
    assert_eq!(code(client.remove("none")), Code::NotFound);
    assert_eq!(code(client.prepare("a", "none")), Code::NotFound);
    assert_eq!(code(client.view("a", "none")), Code::NotFound);
    client.prepare("active", "").unwrap();
    assert_eq!(code(client.prepare("a", "active")), Code::InvalidArgument);
    client.commit("done", "active").unwrap();
    assert_eq!(code(client.mounts("done")), Code::FailedPrecondition);
    assert_eq!(
        code(client.commit("again", "done")),
        Code::FailedPrecondition
    );
    client.view("view", "done").unwrap();
    assert_eq!(
        code(client.commit("again", "view")),
        Code::FailedPrecondition
    );
    for name in ["", &"x".repeat(5000)] {
        assert_eq!(code(client.prepare(name, "")), Code::InvalidArgument);
        assert_eq!(code(client.commit(name, "view")), Code::InvalidArgument);
    }
    let (long, name) = ("x".repeat(4096), "n".repeat(100));
    let refused = client.create("Prepare", "a", "", labels(&[(&name, &long)]));
    assert_eq!(code(refused), Code::InvalidArgument);
    let many: Vec<(String, String)> = (0..10_000)
        .map(|n| (format!("label-{n}"), "v".repeat(100)))
        .collect();
    let refused = client.create("Prepare", "a", "", many.into_iter().collect());
    assert_eq!(code(refused), Code::InvalidArgument);
    // More than a message may have.
    let huge = client.prepare(&"x".repeat(8 << 20), "");
    assert!(matches!(
        code(huge),
        Code::OutOfRange | Code::Unknown | Code::ResourceExhausted
    ));
    let unknown: Result<Empty, _> = client.call("Nonsense", of("x"));
    assert_eq!(code(unknown), Code::Unimplemented);
    assert_eq!(client.names(&[]), ["done", "view"]);
    // Names are data, not paths.
    let odd = "../../etc/\u{0}\n\u{fffd} \"";
    let mounts = client.prepare(odd, "").unwrap();
    assert!(
        mounts[0]
            .source
            .starts_with(sandbox.store().to_str().unwrap())
    );
    assert_eq!(client.stat(odd).unwrap().name, odd);
    client.remove(odd).unwrap();
    // Bytes that are no gRPC.
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 64],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff",
    ] {
        let mut stream = UnixStream::connect(&running.socket).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Ended, one way or the other.
        let _ = stream.read_to_end(&mut answer);
    }
    assert_eq!(client.names(&[]).len(), 2);
}

/// 1,000 at once: each key is given once, each snapshot has its own directory, and all of them are there afterwards.
#[test]
fn root_bad_a_thousand_at_once() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let requests: Vec<CreateRequest> = (0..1000)
        .map(|n| create(&format!("key-{}", n / 2), "", labels(&[])))
        .collect();
    let answers = running
        .client
        .together::<_, MountsResponse>("Prepare", requests);
    let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(
        bad.into_iter()
            .all(|answer| code(answer) == Code::AlreadyExists)
    );
    let mut sources: Vec<String> = good
        .into_iter()
        .map(|answer| answer.unwrap().mounts[0].source.clone())
        .collect();
    assert_eq!(sources.len(), 500);
    sources.sort();
    sources.dedup();
    assert_eq!(sources.len(), 500);
    assert!(sources.iter().all(|path| fs::metadata(path).is_ok()));
    running.end();
    let running = start(&sandbox);
    assert_eq!(running.client.names(&["kind==active"]).len(), 500);
    let requests: Vec<_> = (0..500).map(|n| of(&format!("key-{n}"))).collect();
    let answers = running.client.together::<_, Empty>("Remove", requests);
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
}

/// A client that goes away: what it began is done whole, or not at all.
#[test]
fn root_bad_a_client_that_disappears() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    for n in 0..20 {
        let client = Client::connect(&running.socket);
        client.leave_behind("Prepare", create(&format!("key-{n}"), "", labels(&[])));
    }
    let client = &running.client;
    wait_until("it has come to rest", || {
        let directories = sandbox.sh("ls store/snapshots | grep -c -v log || true");
        let count = client.names(&[]).len();
        directories.ok().stdout().trim() == count.to_string()
    });
    for name in client.names(&[]) {
        mount(&sandbox, &client.mounts(&name).unwrap()).sh("touch f");
    }
}

/// One snapshotter for a store; a damaged log is not gone on with, and `mica check` says so.
#[test]
fn root_bad_logs() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    running.client.prepare("a", "").unwrap();
    running.client.prepare("b", "").unwrap();
    let second = sandbox.run(command(&sandbox)).fails();
    assert!(
        second.stderr().contains("runs already"),
        "{}",
        second.describe()
    );
    running.end();
    let log = sandbox.store().join("snapshots/log");
    let good = fs::read(&log).unwrap();
    sandbox.mica(["check"]).ok();
    let mut bad = good.clone();
    bad[30] ^= 1;
    fs::write(&log, &bad).unwrap();
    let refused = sandbox.run(command(&sandbox)).fails();
    assert!(
        refused.stderr().contains("damaged"),
        "{}",
        refused.describe()
    );
    let check = sandbox.mica(["check"]).fails();
    assert!(
        check.stdout().contains("snapshots/log"),
        "{}",
        check.describe()
    );
    // Nothing is collected while it is not known what is needed.
    sandbox.mica(["gc"]).fails();
    fs::write(&log, &good).unwrap();
    fs::remove_dir_all(sandbox.store().join("snapshots/1")).unwrap();
    let check = sandbox.mica(["check"]).fails();
    assert!(
        check.stdout().contains("snapshot b"),
        "{}",
        check.describe()
    );
    let running = start(&sandbox);
    running.client.remove("b").unwrap();
    running.end();
    sandbox.mica(["check"]).ok();
}

/// A full disk: the request is refused, what was there stays, and with room it goes on.
#[test]
fn root_bad_full_disk() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    running.end();
    // A store on a small file system.
    sandbox
        .sh("mkdir kept && cp -a store/. kept/ && mount -t tmpfs -o size=2m tmpfs store && cp -a kept/. store/ && chmod 700 store")
        .ok();
    let running = start(&sandbox);
    let client = &running.client;
    client.prepare("before", "").unwrap();
    sandbox
        .sh("dd if=/dev/zero of=store/filler bs=4k 2>/dev/null || true")
        .ok();
    let mut refused = 0;
    let big = "v".repeat(4000);
    for n in 0..8 {
        let labels = labels(&[("big", big.as_str())]);
        match client.create("Prepare", &format!("key-{n}"), "", labels) {
            Ok(_) => {}
            Err(status) => {
                assert!(status.message().contains("No space left"), "{status}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    assert_eq!(client.names(&[]).len(), 1 + 8 - refused);
    client.mounts("before").unwrap();
    fs::remove_file(sandbox.store().join("filler")).unwrap();
    client.prepare("after", "").unwrap();
    let names = client.names(&[]);
    running.end();
    let running = start(&sandbox);
    assert_eq!(running.client.names(&[]), names);
    assert_eq!(running.client.stat("after").unwrap().kind(), Kind::Active);
    let directories = sandbox
        .sh("ls store/snapshots | grep -c -v log")
        .ok()
        .stdout();
    assert_eq!(directories.trim(), names.len().to_string());
    running.end();
    sandbox.sh("umount store").ok();
}

/// A disk that containers have filled is emptied by removals: they need no room. Of a small tmpfs and a small ext4.
#[test]
fn regression_root_bad_full_disk_can_be_emptied() {
    let sandbox = Sandbox::new();
    sandbox
        .sh("truncate -s 24M disk; mkfs.ext4 -q -m 0 disk")
        .ok();
    for (n, mount) in ["-t tmpfs -o size=8m tmpfs", "-o loop disk"]
        .into_iter()
        .enumerate()
    {
        sandbox
            .sh(&format!(
                "mkdir -p store; mount {mount} store; chmod 700 store"
            ))
            .ok();
        let running = start(&sandbox);
        let client = &running.client;
        let long = "n".repeat(200);
        let keys: Vec<String> = (0..100).map(|n| format!("{n}-{long}")).collect();
        for key in &keys {
            client.prepare(key, "").unwrap();
        }
        let big = client.prepare("big", "").unwrap()[0].source.clone();
        sandbox.sh(&format!("dd if=/dev/zero of={big}/f bs=4k 2>/dev/null || true; dd if=/dev/zero of={big}/g bs=1 2>/dev/null || true")).ok();
        let big = "v".repeat(4000);
        let mut more = (0..50).map(|n| {
            let labels = labels(&[("big", big.as_str())]);
            client.create("Prepare", &format!("more-{n}"), "", labels)
        });
        assert!(more.any(|made| made.is_err()), "{n}: it is not full");
        // A restart loses nothing of it.
        drop(running);
        let running = start(&sandbox);
        for key in &keys {
            running.client.remove(key).unwrap();
        }
        running.client.remove("big").unwrap();
        // What was half made when the disk was full.
        for name in running.client.names(&[]) {
            running.client.remove(&name).unwrap();
        }
        running.client.prepare("after", "").unwrap();
        running.client.commit("done", "after").unwrap();
        running.end();
        sandbox.mica(["check"]).ok();
        sandbox.umount("store");
    }
}

/// No inodes: what cannot be made is refused, and leaves nothing.
#[test]
fn root_bad_no_inodes() {
    let sandbox = Sandbox::new();
    sandbox.sh("truncate -s 24M disk; mkfs.ext4 -q -N 64 disk; mkdir store; mount -o loop disk store; chmod 700 store").ok();
    let running = start(&sandbox);
    let client = &running.client;
    let mut made = 0;
    let refused = loop {
        match client.prepare(&format!("key-{made}"), "") {
            Ok(_) => made += 1,
            Err(status) => break status,
        }
        assert!(made < 64);
    };
    assert!(refused.message().contains("No space left"), "{refused}");
    assert!(made > 3);
    let directories = || {
        let listed = sandbox.sh("ls store/snapshots | grep -vc log || true");
        listed.ok().stdout().trim().parse::<usize>().unwrap()
    };
    assert_eq!((client.names(&[]).len(), directories()), (made, made));
    client.commit("done", "key-0").unwrap();
    client.prepare("more", "done").unwrap_err();
    client.remove("key-1").unwrap();
    client.prepare("more", "done").unwrap();
    running.end();
    sandbox.mica(["check"]).ok();
    sandbox.umount("store");
}

/// strace on the snapshotter and all its threads, once it is: does something to it at a system call.
pub fn injecting(running: &Running, calls: &str, what: &str, when: usize) -> Child {
    let pid = running.pid();
    let strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()])
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:{what}:when={when}")])
        .stdin(Stdio::null())
        .spawn()
        .expect("strace");
    wait_until("strace has it", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
        tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        })
    });
    strace
}

/// The end of it, also where it waits for a thread that it has killed.
pub fn leave(mut strace: Child) {
    use rustix::process::{Pid, Signal, kill_process};
    // It may have ended with what it traced.
    let _ = kill_process(Pid::from_child(&strace), Signal::TERM);
    for _ in 0..50 {
        if strace.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // It may end just now.
    let _ = strace.kill();
    strace.wait().unwrap();
}

/// A disk that is full, or broken, at each step of each request: the request is refused and nothing has changed, or it is done.
#[test]
fn root_bad_disk_at_each_step() {
    let sandbox = Sandbox::new();
    let mut running = start(&sandbox);
    running.client.prepare("base", "").unwrap();
    running.client.commit("below", "base").unwrap();
    let mut refused = 0;
    let calls = [
        "mkdir",
        "chown",
        "chmod",
        "pwrite64",
        "fdatasync",
        "syncfs",
        "ftruncate",
        "unlinkat",
        "openat",
    ];
    for (round, call) in calls.into_iter().enumerate() {
        for (when, error) in [(1, "ENOSPC"), (2, "ENOSPC"), (1, "EIO"), (3, "EDQUOT")] {
            let strace = injecting(&running, call, &format!("error={error}"), when);
            let client = &running.client;
            let key = format!("key-{round}-{when}-{error}");
            let name = format!("name-{round}-{when}-{error}");
            let prepared = client.prepare(&key, "below");
            assert_eq!(client.stat(&key).is_ok(), prepared.is_ok(), "{call} {when}");
            if prepared.is_ok() {
                let committed = client.commit(&name, &key);
                assert_eq!(
                    client.stat(&name).is_ok(),
                    committed.is_ok(),
                    "{call} {when}"
                );
                assert_eq!(
                    client.stat(&key).is_ok(),
                    committed.is_err(),
                    "{call} {when}"
                );
                refused += usize::from(committed.is_err());
                let there = if committed.is_ok() { &name } else { &key };
                let removed = client.remove(there);
                assert_eq!(
                    client.stat(there).is_ok(),
                    removed.is_err(),
                    "{call} {when}"
                );
                refused += usize::from(removed.is_err());
            } else {
                assert_eq!(code(prepared), Code::Unknown);
                refused += 1;
            }
            leave(strace);
        }
        // What is acknowledged is on the disk, and what is left over is swept.
        let names = running.client.names(&[]);
        running.kill();
        running = start(&sandbox);
        assert_eq!(running.client.names(&[]), names, "{call}");
        let script = "ls store/snapshots | grep -c -v log";
        let directories = sandbox.sh(script).ok().stdout();
        assert_eq!(directories.trim(), names.len().to_string(), "{call}");
        sandbox.mica(["check"]).ok();
    }
    assert!(refused >= 12, "{refused}");
}

/// Without descriptors for another connection those that are there go on; with some again, others do too.
#[test]
fn root_bad_no_descriptors() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    running.client.prepare("a", "").unwrap();
    let limit = |most: &str| {
        let pid = running.pid();
        sandbox
            .sh(&format!("prlimit --pid {pid} --nofile={most}:4096"))
            .ok();
    };
    let open = fs::read_dir(format!("/proc/{}/fd", running.pid()))
        .unwrap()
        .count();
    limit(&(open + 8).to_string());
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(UnixStream::connect(&running.socket).unwrap());
    }
    let said = || fs::read_to_string(sandbox.path("snapshotter.log")).unwrap_or_default();
    wait_until("it has too few", || {
        said().contains("accepting a connection")
    });
    running.client.stat("a").unwrap();
    let refused = running.client.prepare("b", "");
    assert_eq!(running.client.stat("b").is_ok(), refused.is_ok());
    // It waits between two tries.
    assert!(said().lines().count() < 200);
    held.clear();
    limit("1024");
    let other = Client::connect(&running.socket);
    wait_until("it answers others again", || other.stat("a").is_ok());
    running.client.prepare("c", "").unwrap();
    running.end();
    sandbox.mica(["check"]).ok();
}

/// Other users of the machine get no answer, whatever has become of the socket's mode.
#[test]
fn root_bad_other_users() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let script = "import socket, sys\n\
        s = socket.socket(socket.AF_UNIX); s.settimeout(30)\n\
        try:\n  s.connect(sys.argv[1])\n\
        except PermissionError: print('refused'); sys.exit()\n\
        try:\n  s.send(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes([0,0,0,4,0,0,0,0,0])); print(len(s.recv(9)))\n\
        except (BrokenPipeError, ConnectionResetError): print(0)";
    let ask = |user: &str| {
        let mut command = Command::new("setpriv");
        command.args([
            &format!("--reuid={user}"),
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            script,
        ]);
        command.arg(&running.socket);
        sandbox.run(command).ok().stdout()
    };
    assert_eq!(ask("54321"), "refused\n");
    sandbox.sh("chmod 666 snapshotter.sock").ok();
    assert_eq!(ask("54321"), "0\n");
    assert_eq!(ask("0"), "9\n");
}
