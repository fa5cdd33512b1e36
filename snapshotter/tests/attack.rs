//! What an outsider would try: names and bytes that nobody sends, crowds on the same keys, trees that a container's root has made.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mica_snapshotter::proto::{CommitRequest, Empty, Kind, MountsResponse};
use tonic::Code;

use crate::client::{Client, code, create, labels, of};
use crate::common::sandbox::Sandbox;
use crate::layers::unpack;
use crate::work::{Running, chains, image, mount, start, wait_until};

/// `PrepareSnapshotRequest`, with bytes where it has text.
#[derive(Clone, PartialEq, prost::Message)]
struct Raw {
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    parent: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    labels: Vec<RawLabel>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawLabel {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Directories of snapshots there are.
fn directories(sandbox: &Sandbox) -> usize {
    let listed = sandbox.sh("ls store/snapshots | grep -vc log || true");
    listed.ok().stdout().trim().parse().unwrap()
}

/// What is left is what the listing says, now and after a restart, and `mica check` agrees.
fn is_whole(sandbox: &Sandbox, mut running: Running) -> Running {
    let before = running.client.list(&[]).unwrap();
    running.kill();
    let running = start(sandbox);
    assert_eq!(running.client.list(&[]).unwrap(), before);
    sandbox.mica(["check"]).ok();
    running
}

/// Names and labels of any text are kept as they are; bytes that are no text, and too many of them, are refused.
#[test]
fn regression_root_attack_names_and_labels() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    let odd = [
        "..",
        ".",
        "/",
        "../../etc/passwd",
        "a\0b",
        "a\0",
        "a",
        "log",
        "0",
        "1",
        "-rf",
        "\n",
        "%s%n",
        "\u{202e}x",
        "a\u{301}",
        "\u{e1}",
        "{\"put\":1}",
        "$(id)",
        " ",
    ];
    for name in odd {
        let given = labels(&[(name, name), ("containerd.io/snapshot.ref", name)]);
        client.create("Prepare", name, "", given.clone()).unwrap();
        assert_eq!(client.stat(name).unwrap().labels, given);
    }
    let longest = "k".repeat(4096);
    client.prepare(&longest, "").unwrap();
    for name in ["k".repeat(4097), "k".repeat(1 << 20), "\0".repeat(1 << 20)] {
        assert_eq!(code(client.prepare(&name, "")), Code::InvalidArgument);
        // Of what is not there.
        assert_eq!(code(client.stat(&name)), Code::NotFound);
        assert_eq!(code(client.prepare("x", &name)), Code::NotFound);
        assert_eq!(code(client.remove(&name)), Code::NotFound);
        let huge = labels(&[("l", name.as_str())]);
        assert_eq!(
            code(client.create("View", "x", "", huge)),
            Code::InvalidArgument
        );
        let filter = format!("name=={name}");
        assert_eq!(client.names(&[&filter]), [""; 0]);
    }
    for bytes in [
        b"\xff\xfe".to_vec(),
        b"a\xc0\x80".to_vec(),
        b"\xed\xa0\x80".to_vec(),
    ] {
        let label = |name: &[u8], value: &[u8]| {
            vec![RawLabel {
                name: name.into(),
                value: value.into(),
            }]
        };
        let raw = |key: &[u8], parent: &[u8], labels| Raw {
            key: key.into(),
            parent: parent.into(),
            labels,
        };
        for raw in [
            raw(&bytes, b"", vec![]),
            raw(b"x", &bytes, vec![]),
            raw(b"x", b"", label(&bytes, b"v")),
            raw(b"x", b"", label(b"l", &bytes)),
        ] {
            let answer: Result<MountsResponse, _> = client.call("Prepare", raw);
            assert!(matches!(
                code(answer),
                Code::Internal | Code::InvalidArgument
            ));
        }
    }
    assert_eq!(code(client.stat("x")), Code::NotFound);
    assert_eq!(client.names(&[]).len(), odd.len() + 1);
    assert_eq!(directories(&sandbox), odd.len() + 1);
    let running = is_whole(&sandbox, running);
    for name in odd.iter().copied().chain([longest.as_str()]) {
        running.client.remove(name).unwrap();
    }
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
}

/// A thousand requests on the same ten keys at once, all of what can be asked: each is answered with one of containerd's codes, and
/// what is left is whole.
#[test]
fn root_attack_a_crowd_on_the_same_keys() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    unpack(&running, &app, &labels(&[]));
    let top = chains(&app)[2].clone();
    let shifted = labels(&[
        ("containerd.io/snapshot/uidmapping", "0:100000:65536"),
        ("containerd.io/snapshot/gidmapping", "0:100000:65536"),
    ]);
    let allowed = [
        Code::Ok,
        Code::AlreadyExists,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::InvalidArgument,
    ];
    std::thread::scope(|scope| {
        for worker in 0..10 {
            let (socket, top, shifted) = (&running.socket, &top, &shifted);
            scope.spawn(move || {
                let client = Client::connect(socket);
                for n in 0..100usize {
                    let key = format!("key-{}", (worker + n) % 10);
                    let name = format!("name-{}", (worker + n) % 3);
                    let parent = ["", top.as_str(), name.as_str()][n % 3];
                    let labels = if n % 2 == 0 {
                        shifted.clone()
                    } else {
                        labels(&[])
                    };
                    let done = match (worker + n) % 6 {
                        0 | 1 => client.create("Prepare", &key, parent, labels).map(drop),
                        2 => client.remove(&key),
                        3 => client.commit(&name, &key),
                        4 => client.mounts(&key).map(drop),
                        _ => client.remove(&name),
                    };
                    let code = done.map_or_else(|status| status.code(), |()| Code::Ok);
                    assert!(allowed.contains(&code), "{code}");
                }
            });
        }
    });
    let names = running.client.names(&[]);
    for name in &names {
        let info = running.client.stat(name).unwrap();
        if info.kind() != Kind::Committed {
            mount(&sandbox, &running.client.mounts(name).unwrap());
        }
    }
    let running = is_whole(&sandbox, running);
    assert_eq!(directories(&sandbox), names.len() - 3);
    drop(running);
    m.unmount();
}

/// Clients that go away in the middle of each request: it is done whole, or not at all.
#[test]
fn root_attack_clients_that_disappear() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    for n in 0..12 {
        let key = format!("key-{n}");
        client.prepare(&key, "").unwrap();
        mount(&sandbox, &client.mounts(&key).unwrap()).sh("echo x >f; mkdir d; echo y >d/g");
    }
    for n in 0..4 {
        let key = format!("key-{n}");
        let name = format!("name-{n}");
        let commit = CommitRequest {
            name,
            key,
            ..CommitRequest::default()
        };
        Client::connect(&running.socket).leave_behind("Commit", commit);
        Client::connect(&running.socket).leave_behind("Remove", of(&format!("key-{}", n + 4)));
        Client::connect(&running.socket).leave_behind("Usage", of(&format!("key-{}", n + 8)));
        let more = create(&format!("new-{n}"), "name-0", labels(&[]));
        Client::connect(&running.socket).leave_behind("Prepare", more);
    }
    wait_until("it has come to rest", || {
        directories(&sandbox) == client.names(&[]).len()
    });
    for n in 0..4 {
        let kinds = ["key", "name"].map(|what| client.stat(&format!("{what}-{n}")).ok());
        let there: Vec<Kind> = kinds
            .into_iter()
            .flatten()
            .map(|info| info.kind())
            .collect();
        assert!(
            there == [Kind::Active] || there == [Kind::Committed],
            "{there:?}"
        );
        assert!(client.usage(&format!("key-{}", n + 8)).unwrap().1 >= 4);
    }
    is_whole(&sandbox, running);
}

/// What a container's root can make in its upper directory: nothing of it is followed, opened, or in the way.
#[test]
fn root_attack_trees_of_a_container_s_root() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    client.prepare("below-key", "").unwrap();
    client.commit("below", "below-key").unwrap();
    let kept = sandbox.mkdir("kept");
    fs::write(kept.join("f"), "kept").unwrap();
    let mounted = mount(&sandbox, &client.prepare("web", "below").unwrap());
    mounted.sh(&format!(
        "mkfifo fifo; mknod null c 1 3; mknod loop b 7 0; ln -s {0} out; ln -s {0}/f out-file; ln -s loop1 loop2; \
         ln -s loop2 loop1; mkdir -m 0 closed; mkdir -p opaque; setfattr -n user.x -v y opaque; touch immutable; \
         python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'; truncate -s 1T sparse; head -c 100000 /dev/urandom >data; \
         for n in $(seq 200); do ln data link-$n; done; printf x >\"$(printf 'new\\nline\\377')\"",
        kept.display()
    ));
    // Which a container cannot set, but for one that is as good as the host's root.
    let upper = fs::read_dir(sandbox.store().join("snapshots"))
        .unwrap()
        .flatten();
    let upper = upper
        .map(|entry| entry.path().join("fs"))
        .find(|fs| fs.join("fifo").exists())
        .unwrap();
    let script = format!(
        "cd {}; mknod whiteout c 0 0; setfattr -n trusted.overlay.redirect -v /etc opaque; setfattr -n trusted.overlay.opaque -v y opaque; \
         setfattr -n trusted.overlay.metacopy data; chattr +i immutable 2>/dev/null || true",
        upper.display()
    );
    sandbox.sh(&script).ok();
    let (size, inodes) = client.usage("web").unwrap();
    assert!((100_000..2_000_000).contains(&size), "{size}");
    assert!((15..40).contains(&inodes), "{inodes}");
    drop(mounted);
    client.commit("done", "web").unwrap();
    assert_eq!(client.usage("done").unwrap(), (size, inodes));
    // What is left of a removal that cannot be finished is taken away later.
    client.remove("done").unwrap();
    assert_eq!(client.names(&[]), ["below"]);
    sandbox
        .sh(&format!(
            "chattr -i {}/immutable 2>/dev/null || true",
            upper.display()
        ))
        .ok();
    client.cleanup().unwrap();
    assert_eq!(directories(&sandbox), 1);
    assert_eq!(fs::read(kept.join("f")).unwrap(), b"kept");
    // Directories of the snapshotter's own that have become links: nothing behind them is looked at or removed.
    client.prepare("swapped", "below").unwrap();
    let names = sandbox
        .sh("ls store/snapshots | grep -v log | sort -n")
        .ok()
        .stdout();
    let newest = names.lines().last().unwrap().to_owned();
    assert_ne!(newest, "0", "the one below");
    let newest = sandbox.store().join("snapshots").join(newest);
    for part in ["fs", "work"] {
        fs::remove_dir(newest.join(part)).unwrap();
        std::os::unix::fs::symlink(&kept, newest.join(part)).unwrap();
    }
    let usage = client.usage("swapped");
    assert!(
        usage.map_or(true, |(size, _)| size == 0),
        "nothing of it is counted"
    );
    client.remove("swapped").unwrap();
    assert_eq!(fs::read(kept.join("f")).unwrap(), b"kept");
    assert_eq!(directories(&sandbox), 1);
}

fn peak_memory(running: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A hundred thousand files, half of them in one directory and hard links, and five thousand directories one in the other: they are
/// measured and removed, in bounded memory, and others are answered meanwhile.
#[test]
fn root_attack_many_and_deep() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    client.prepare("web", "").unwrap();
    let before = peak_memory(&running);
    let make = "import os\n\
        for n in range(50000): os.close(os.open('f%d' % n, os.O_CREAT, 0o600))\n\
        for n in range(50000): os.link('f%d' % n, 'l%d' % n)\n\
        for n in range(5000): os.mkdir('d'); os.chdir('d')\n";
    let mounted = mount(&sandbox, &client.mounts("web").unwrap());
    mounted.sh(&format!("python3 -c \"{make}\""));
    drop(mounted);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = Client::connect(&running.socket);
        let done = &done;
        let others = scope.spawn(move || {
            let mut answered = 0;
            while !done.load(Ordering::SeqCst) {
                other.prepare("beside", "").unwrap();
                other.remove("beside").unwrap();
                answered += 1;
            }
            answered
        });
        let (_, inodes) = client.usage("web").unwrap();
        assert_eq!(inodes, 1 + 50_000 + 5_000);
        client.commit("done", "web").unwrap();
        client.remove("done").unwrap();
        done.store(true, Ordering::SeqCst);
        assert!(others.join().unwrap() > 0);
    });
    assert_eq!(directories(&sandbox), 0);
    let more = peak_memory(&running) - before;
    assert!(more < 32 << 10, "{more} kB");
}

/// A commit while a container writes: what is committed is something that was there, or it is refused; nothing is half.
#[test]
fn root_attack_commit_while_it_is_written() {
    let sandbox = Sandbox::new();
    let running = start(&sandbox);
    let client = &running.client;
    client.prepare("below-key", "").unwrap();
    client.commit("below", "below-key").unwrap();
    for n in 0..10 {
        let key = format!("key-{n}");
        let mounted = mount(&sandbox, &client.prepare(&key, "below").unwrap());
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (at, stop) = (&mounted.at, &stop);
            scope.spawn(move || {
                let mut n = 0u32;
                while !stop.load(Ordering::SeqCst) {
                    let dir = at.join(format!("d{}", n % 50));
                    if fs::remove_dir_all(&dir).is_err() {
                        fs::create_dir_all(dir.join("e/f")).unwrap();
                        fs::write(dir.join("e/f/g"), "x").unwrap();
                    }
                    n += 1;
                }
            });
            std::thread::sleep(Duration::from_millis(20));
            let committed = client.commit(&format!("name-{n}"), &key);
            stop.store(true, Ordering::SeqCst);
            committed.unwrap();
        });
        drop(mounted);
        let view = client.view("view", &format!("name-{n}")).unwrap();
        mount(&sandbox, &view).sh("find . >/dev/null");
        client.remove("view").unwrap();
    }
    is_whole(&sandbox, running);
}

/// A mount of the store that does not answer holds up who needs it, and nobody else.
#[test]
fn regression_root_attack_a_mount_that_does_not_answer() {
    let sandbox = Sandbox::new();
    let app = image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let running = start(&sandbox);
    unpack(&running, &app, &labels(&[]));
    let top = chains(&app)[2].clone();
    let client = &running.client;
    client.prepare("own", "").unwrap();
    let daemon = m.daemon().unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    let done = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let (socket, top, done) = (&running.socket, &top, &done);
        scope.spawn(move || {
            let client = Client::connect(socket);
            client.prepare("waits", top).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        // Until it is waiting for the mount.
        std::thread::sleep(Duration::from_millis(500));
        let (send, receive) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let client = Client::connect(socket);
            client.prepare("beside", "").unwrap();
            client.commit("committed", "own").unwrap();
            client.remove("beside").unwrap();
            // Nobody may wait any more.
            let _ = send.send(client.names(&[]).len());
        });
        let answered = receive.recv_timeout(Duration::from_secs(20));
        let waited = !done.load(Ordering::SeqCst);
        rustix::process::kill_process(daemon, rustix::process::Signal::CONT).unwrap();
        (answered, waited)
    });
    assert_eq!(answered, (Ok(4), true));
    assert_eq!(client.stat("waits").unwrap().kind(), Kind::Active);
    let _: Empty = client.call("Remove", of("waits")).unwrap();
    drop(running);
    m.unmount();
}
