//! Killed at any moment: what was acknowledged is there, what was not is there whole or not at all, and nothing is left over.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mica_snapshotter::proto::Kind;

use crate::bad::{injecting, leave};
use crate::client::Client;
use crate::common::sandbox::Sandbox;
use crate::work::{mount, start, wait_until};

/// What a snapshot must be. `None`: the request that would make it so was not answered.
type Model = BTreeMap<String, Option<Kind>>;

/// Requests until one is not answered.
fn work(client: &Client, round: u32, stop: &AtomicBool, model: &mut Model) {
    for n in 0.. {
        let (key, name) = (format!("key-{round}-{n}"), format!("name-{round}-{n}"));
        let mut step = |what: &str, after: Option<Kind>, done: Result<(), tonic::Status>| match done
        {
            Ok(()) => {
                match after {
                    Some(kind) => model.insert(what.to_owned(), Some(kind)),
                    None => model.remove(what),
                };
                true
            }
            Err(status) => {
                assert!(stop.load(Ordering::SeqCst), "{status}");
                model.insert(what.to_owned(), None);
                false
            }
        };
        if !step(&key, Some(Kind::Active), client.prepare(&key, "").map(drop)) {
            return;
        }
        let committed = client.commit(&name, &key);
        let answered = committed.is_ok();
        if !step(&name, Some(Kind::Committed), committed) {
            // One of the two.
            step(&key, None, Err(tonic::Status::unknown("")));
            return;
        }
        assert!(answered && step(&key, None, Ok(())));
        if n % 3 == 0 && !step(&name, None, client.remove(&name)) {
            return;
        }
    }
}

#[test]
fn root_crash_at_any_moment() {
    let sandbox = Sandbox::new();
    let mut model = Model::new();
    for round in 0..6 {
        let mut running = start(&sandbox);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let client = Client::connect(&running.socket);
            let (stop, model) = (&stop, &mut model);
            let working = scope.spawn(move || work(&client, round, stop, model));
            std::thread::sleep(Duration::from_millis(u64::from(30 + 37 * round)));
            stop.store(true, Ordering::SeqCst);
            running.kill();
            working.join().expect("the client");
        });
        let running = start(&sandbox);
        let client = &running.client;
        for (name, kind) in std::mem::take(&mut model) {
            let found = client.stat(&name).ok().map(|info| info.kind());
            if kind.is_some() {
                assert_eq!(found, kind, "{name}");
            }
            if let Some(kind) = found {
                model.insert(name, Some(kind));
            }
        }
        // One name each for what is there, and one directory.
        assert_eq!(client.names(&[]).len(), model.len());
        let directories = sandbox
            .sh("ls store/snapshots | grep -c -v log || true")
            .ok();
        assert_eq!(directories.stdout().trim(), model.len().to_string());
        running.end();
        sandbox.mica(["check"]).ok();
    }
    assert!(model.len() > 6, "{model:?}");
}

/// Killed before each system call of Prepare, Commit and Remove that changes something, and each one that makes it last.
#[test]
fn root_crash_at_each_step() {
    let sandbox = Sandbox::new();
    let mut running = start(&sandbox);
    running.client.prepare("base", "").unwrap();
    running.client.commit("below", "base").unwrap();
    let mut killed = [0; 3];
    let calls = [
        "mkdir",
        "chown",
        "chmod",
        "fallocate",
        "pwrite64",
        "fdatasync",
        "syncfs",
        "openat",
        "unlinkat",
    ];
    for call in calls {
        for when in 1..12 {
            let strace = injecting(&running, call, "signal=KILL", when);
            let client = &running.client;
            let (key, name) = (format!("key-{call}-{when}"), format!("name-{call}-{when}"));
            let prepared = client.prepare(&key, "below");
            let written = prepared.as_ref().map(|mounts| {
                let upper = mounts[0]
                    .options
                    .iter()
                    .find_map(|o| o.strip_prefix("upperdir="));
                std::fs::create_dir(format!("{}/d", upper.unwrap())).unwrap();
            });
            let committed = written.is_ok().then(|| client.commit(&name, &key));
            let removed = matches!(committed, Some(Ok(()))).then(|| client.remove(&name));
            let answered = [
                prepared.is_ok(),
                matches!(committed, Some(Ok(()))),
                matches!(removed, Some(Ok(()))),
            ];
            let step = answered.iter().position(|answered| !answered);
            leave(strace);
            running.kill();
            running = start(&sandbox);
            let is = |name: &str| running.client.stat(name).ok().map(|info| info.kind());
            let found = (is(&key), is(&name));
            let expected: &[_] = match step {
                Some(0) => &[(None, None), (Some(Kind::Active), None)],
                Some(1) => &[(Some(Kind::Active), None), (None, Some(Kind::Committed))],
                Some(_) => &[(None, Some(Kind::Committed)), (None, None)],
                None => &[(None, None)],
            };
            assert!(
                expected.contains(&found),
                "{call} {when}: {step:?} {found:?}"
            );
            for name in [&key, &name] {
                if is(name).is_some() {
                    running.client.remove(name).unwrap();
                }
            }
            let left = sandbox
                .sh("ls store/snapshots | tr '\\n' ' '")
                .ok()
                .stdout();
            assert_eq!(left, "0 log ", "{call} {when}");
            match step {
                Some(step) => killed[step] += 1,
                None => break,
            }
        }
    }
    assert!(killed.iter().all(|&n| n >= 3), "{killed:?}");
    running.end();
    sandbox.mica(["check"]).ok();
}

/// What is mounted of a snapshot goes on while the snapshotter is away, and is the same afterwards.
#[test]
fn root_crash_under_a_mount() {
    let sandbox = Sandbox::new();
    let app = crate::work::image("app:1");
    sandbox.load(&app);
    let m = sandbox.mount();
    let mut running = start(&sandbox);
    let chains = crate::work::chains(&app);
    let mut parent = String::new();
    for chain in &chains {
        let wanted = crate::client::labels(&[("containerd.io/snapshot.ref", chain)]);
        let refused = running.client.create("Prepare", "x", &parent, wanted);
        assert_eq!(crate::client::code(refused), tonic::Code::AlreadyExists);
        parent.clone_from(chain);
    }
    let mounted = mount(&sandbox, &running.client.prepare("web", &parent).unwrap());
    mounted.sh("echo 1 >mine; cat data/old");
    running.kill();
    assert_eq!(mounted.sh("echo 2 >>mine; cat data/old"), "new");
    let running = start(&sandbox);
    assert_eq!(running.client.stat("web").unwrap().kind(), Kind::Active);
    assert_eq!(mounted.sh("cat mine"), "1\n2\n");
    running.client.commit("own", "web").unwrap();
    drop(mounted);
    // The daemon of M goes and comes: what is mounted anew is there.
    m.unmount();
    let m = sandbox.mount();
    let mounted = mount(&sandbox, &running.client.view("v", "own").unwrap());
    assert_eq!(mounted.sh("cat mine data/old"), "1\n2\nnew");
    drop(mounted);
    wait_until("it is free", || {
        sandbox
            .sh("! grep -q overlay /proc/self/mountinfo || true")
            .status
            .success()
    });
    drop(running);
    m.unmount();
}
