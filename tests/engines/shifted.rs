//! What can go wrong on an ordinary user's mount with `-o idmap=subid`.

use std::io::Read as _;

use super::facts::able;
use super::rootless::{FIRST, Rootless, USER, world};
use super::*;
use crate::common::tier;
use crate::common::user::as_user;

const STAY: &str = "sh -c -- while :; do cat /dev/null; done";
const LIMITS: &str = "--network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

fn mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.contains(&format!(" {} ", point.display()))
}

/// Two ranges, the higher one first: podman sorts them, and so must the owners of a mount.
#[test]
fn root_regression_shifted_ranges_are_in_podman_s_order() {
    let sandbox = Sandbox::as_user(USER);
    let ids = format!("{USER}:400000:1000\n{USER}:{FIRST}:1000\n{USER}:250000:64536\n");
    tier::subordinate_ids_by(&ids);
    sandbox.load(&image("app:1").layer(|l| {
        [1u64, 1000, 1001, 65_536, 66_536]
            .into_iter()
            .fold(l, |l, id| l.file(format!("{id}"), "").owner(id, id))
    }));
    let mount = sandbox.mount_with(&["-o", "idmap=subid"]);
    let podman = Rootless::new(&sandbox);
    podman.shown("mica system connect podman --user --write");
    let names = "1 1000 1001 65536 66536";
    let seen = podman.container("app:1", &format!("cd /; stat -c %n=%u:%g {names}"));
    let expected: String = names
        .split(' ')
        .map(|id| format!("{id}={id}:{id}\n"))
        .collect();
    assert_eq!(seen, expected);
    drop(podman);
    mount.unmount();
}

/// Lines of others, rubbish, bytes that are no text: a user's own line counts. More ranges than the kernel takes are refused.
#[test]
fn root_regression_shifted_by_a_crowded_subuid() {
    let sandbox = Sandbox::as_user(USER);
    sandbox.load(&image("app:1"));
    let others: String = (0..100_000u32)
        .map(|n| format!("user{n}:{}:1\n", 1_000_000 + n))
        .collect();
    let rubbish = "\n:::\n#\nx\n54340\n54340:\n54340:1\n54340:a:b\n54340:-1:5\n54340:5:-1\n54340:0:9\n54340:7:0\n\
        54340:99999999999:1\n54340:1:99999999999\n 54340 : 1 : 1\n";
    let text = format!("{others}{rubbish}{USER}:{FIRST}:65536\n");
    let text = [text.as_bytes(), b"\xff\xfe\x80:1:1\n\0\0\n"].concat();
    tier::subordinate_ids_by(text);
    let mount = sandbox.mount_with(&["-o", "idmap=subid"]);
    let user = Rootless::new(&sandbox);
    let seen = user.shown(&format!(
        "stat -c %u {0}/bin {0}/data",
        mount.image("app/1").display()
    ));
    assert_eq!(seen, format!("{USER}\n{}\n", FIRST + 6));
    mount.unmount();
    let many: String = (0..400u32)
        .map(|n| format!("{USER}:{}:1\n", FIRST + 2 * n))
        .collect();
    tier::subordinate_ids_by(many);
    let at = sandbox.mkdir("refused");
    let words = ["mount", "-o", "idmap=subid"].map(std::ffi::OsStr::new);
    let refused = sandbox.mica(words.into_iter().chain([at.as_os_str()]));
    assert!(
        refused.fails().stderr().contains("340"),
        "the kernel has no such map"
    );
    drop(user);
}

/// Set-id bits and capabilities count in the user's containers as in anybody's, and on the mount itself for nobody.
#[test]
fn root_engines_shifted_rights_of_programs() {
    let sandbox = Sandbox::as_user(USER);
    tier::subordinate_ids(USER);
    // busybox gives such rights up by itself.
    let source = "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d:%d\\n\", geteuid(), getegid()); }";
    fs::write(sandbox.path("id.c"), source).unwrap();
    sandbox.sh("gcc -static -o id id.c").ok();
    let program = fs::read(sandbox.path("id")).unwrap();
    sandbox.load(&able().layer(|l| {
        l.dir("set", 0o755)
            .file("set/id", &program)
            .owner(33, 44)
            .mode(0o6755)
    }));
    let mount = sandbox.mount_with(&["-o", "idmap=subid"]);
    let podman = Rootless::new(&sandbox);
    podman.shown("mica system connect podman --user --write");
    let seen = podman.container(
        "app:1",
        "echo secret >/secret; chmod 600 /secret; chmod 755 /copied-up/cat; \
         for cat in /bin/cat /as-it-came/cat /copied-up/cat; do \
         su -s /bin/sh user -c \"$cat /secret 2>/dev/null || echo refused\"; done; \
         su -s /bin/sh user -c /set/id",
    );
    assert_eq!(seen, "refused\nsecret\nsecret\n33:44\n");
    let id = mount.image("app/1/set/id").display().to_string();
    assert_eq!(podman.shown(&id), format!("{USER}:{USER}\n"));
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let point = format!(" {} ", mount.point.display());
    let line = table.lines().find(|line| line.contains(&point)).unwrap();
    assert!(line.contains("nosuid,nodev"), "{line}");
    drop(podman);
    mount.unmount();
}

/// Other users of the machine get nothing; where the mount lets them in, what the modes say by the shifted owners.
#[test]
fn root_regression_engines_shifted_and_another_user() {
    let (sandbox, mount) = world();
    let stranger = |path: &Path| {
        let mut command = as_user(FIRST + 500_000, "ls");
        command.arg(path);
        sandbox.run(command).status.success()
    };
    for path in [
        mount.point.clone(),
        mount.image("app/1"),
        mount.path("stores/containers"),
    ] {
        assert!(!stranger(&path), "{}", path.display());
    }
    mount.unmount();
    let conf = sandbox.path("fuse.conf");
    fs::write(&conf, "user_allow_other\n").unwrap();
    sandbox.sh("mount --bind fuse.conf /etc/fuse.conf").ok();
    let mount = sandbox.mount_with(&["-o", "idmap=subid,allow_other"]);
    assert!(stranger(&mount.image("app/1/ids")));
    // Of image's 7:8, 0750.
    assert!(!stranger(&mount.image("app/1/data")));
    assert!(!stranger(&mount.path("stores/containers")));
    let removed = {
        let mut command = as_user(FIRST + 500_000, "rm");
        command.arg("-r").arg(mount.image("app/1"));
        sandbox.run(command)
    };
    assert!(!removed.status.success(), "{}", removed.describe());
    // Nor does an owner by the shift have a right that the mount's own user has not given.
    let mut owner = as_user(FIRST + 6, "rm");
    owner.arg("-r").arg(mount.image("app/1/data"));
    sandbox.run(owner).fails();
    assert!(mount.image("app/1/data/old").exists());
    mount.unmount();
}

/// The daemon is killed at each step of the start: the next one mounts at the same place, and nothing is left of the first.
#[test]
fn root_engines_shifted_daemon_killed_while_it_starts() {
    let sandbox = Sandbox::as_user(USER);
    tier::subordinate_ids(USER);
    sandbox.load(&image("app:1"));
    let point = sandbox.mkdir("m");
    for (call, last) in [
        ("mkdirat,mkdir", 2),
        ("bind", 1),
        ("recvmsg", 2),
        ("renameat2", 1),
    ] {
        // One more, at which it serves: killed then.
        for number in 1..=last + 1 {
            let mut strace = Command::new("strace");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let user = format!("mica-test-{USER}");
            strace.args(["-f", "-o", "/dev/null", "-u", &user]);
            strace.args(["-e", &format!("trace={call}"), "-e", &inject]);
            strace.arg(sandbox.path("mica"));
            strace.args(["mount", "-o", "idmap=subid"]).arg(&point);
            strace.env("MICA_STORE", sandbox.store());
            strace.env("HOME", sandbox.dir());
            let mut tracer = strace.spawn().unwrap();
            let end = Instant::now() + Duration::from_secs(60);
            let mut up = false;
            // strace stays with the daemon.
            while tracer.try_wait().unwrap().is_none() && !up {
                assert!(Instant::now() < end, "{call} {number}");
                std::thread::sleep(Duration::from_millis(20));
                let stat = as_user(USER, "stat")
                    .arg(point.join("images/app/1"))
                    .output();
                up = stat.unwrap().status.success() && mounted(&point);
            }
            if up {
                // Killed while it serves, then.
                let serving = sandbox.mounted_already(&point);
                if let Some(pid) = serving.daemon() {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                serving.forget();
            }
            let _ = tracer.kill();
            let _ = tracer.wait();
            let mount = sandbox.mount_on(&point, &["-o", "idmap=subid"]);
            let seen = as_user(USER, "cat")
                .arg(mount.image("app/1/data/old"))
                .output()
                .unwrap();
            assert_eq!(seen.stdout, b"new", "{call} {number}");
            // The next verb that changes something takes away what the first has left.
            sandbox.mica(["tag", "app:1", "app:2"]).ok();
            let leases = fs::read_dir(sandbox.store().join("leases")).unwrap();
            let socks = leases
                .flatten()
                .filter(|entry| entry.path().extension().is_some_and(|e| e == "sock"));
            assert_eq!(socks.count(), 1, "{call} {number}");
            mount.unmount();
        }
    }
    sandbox.mica(["check"]).ok();
}

/// The daemon is killed under a container: errors and no other bytes for who is inside, and after a `mica mount` at the same place
/// podman has everything back.
#[test]
fn root_engines_shifted_daemon_killed_under_a_container() {
    let (sandbox, mount) = world();
    let podman = Rootless::new(&sandbox);
    podman.shown("mica system connect podman --user --write");
    podman.shown(&format!("podman run -d --name web {LIMITS} app:1 {STAY}"));
    let daemon = mount.daemon().unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while crate::common::mount::runs(daemon) {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }
    // It ends, whatever it says.
    podman.run("podman images");
    let point = mount.point.clone();
    mount.forget();
    let mount = sandbox.mount_on(&point, &["-o", "idmap=subid"]);
    podman.shown("podman system migrate");
    podman.run("podman rm -f -t 0 web");
    assert_eq!(podman.container("app:1", "cat /data/old"), "new");
    // The container has gone, and with it its use.
    assert_eq!(podman.shown("podman ps -aq"), "");
    podman.shown("mica rmi app:1");
    drop(podman);
    mount.unmount();
}

/// `rm -r` of an image that a container of the user's stands on: refused, and the image is whole.
#[test]
fn root_engines_shifted_rm_r_during_use() {
    let (sandbox, mount) = world();
    let podman = Rootless::new(&sandbox);
    podman.shown("mica system connect podman --user --write");
    podman.shown(&format!("podman run -d --name web {LIMITS} app:1 {STAY}"));
    let tag = mount.image("app/1").display().to_string();
    for _ in 0..3 {
        let refused = podman.run(&format!("rm -r {tag}")).fails();
        assert!(refused.stderr().contains("busy"), "{}", refused.describe());
    }
    let read = podman.shown("podman exec web cat /data/old /ids/last /cache/b");
    assert_eq!(read, "newlastb");
    assert_eq!(podman.container("app:1", "cat /data/old"), "new");
    podman.shown("podman rm -f -t 0 web");
    podman.shown(&format!("rm -r {tag}"));
    assert_eq!(podman.shown("podman images -q"), "");
    drop(podman);
    mount.unmount();
}

/// A store on a full disk, and a daemon that gets no more descriptors: what is read is right or an error.
#[test]
fn root_engines_shifted_full_disk_and_no_descriptors() {
    let sandbox = Sandbox::as_user(USER);
    tier::subordinate_ids(USER);
    sandbox
        .sh(&format!(
            "mkdir store && mount -t tmpfs -o size=16m,uid={USER},gid={USER},mode=700 tmpfs store"
        ))
        .ok();
    sandbox.load(&image("app:1").layer(|l| {
        (0..200).fold(l.dir("many", 0o755), |l, n| {
            l.file(format!("many/{n}"), format!("{n}\n"))
        })
    }));
    let point = sandbox.mkdir("m");
    sandbox.sh("! cat /dev/zero >store/fill 2>/dev/null").ok();
    // Nobody could know of such a mount: refused.
    let words = ["mount", "-o", "idmap=subid"].map(std::ffi::OsStr::new);
    let refused = sandbox
        .mica(words.into_iter().chain([point.as_os_str()]))
        .fails();
    assert!(
        refused.stderr().contains("No space left"),
        "{}",
        refused.describe()
    );
    fs::remove_file(sandbox.path("store/fill")).unwrap();
    let mount = sandbox.mount_on(&point, &["-o", "idmap=subid"]);
    sandbox.sh("! cat /dev/zero >store/fill 2>/dev/null").ok();
    let podman = Rootless::new(&sandbox);
    podman.run("mica system connect podman --user --write");
    fs::remove_file(sandbox.path("store/fill")).unwrap();
    podman.shown("mica system connect podman --user --write");
    sandbox.sh("! cat /dev/zero >store/fill 2>/dev/null").ok();
    assert_eq!(podman.container("app:1", "cat /data/old"), "new");
    // Untagging may fail for want of room, never by half.
    podman.run("mica rmi app:1");
    fs::remove_file(sandbox.path("store/fill")).unwrap();
    sandbox.mica(["check"]).ok();
    drop(podman);
    mount.unmount();

    sandbox.load(&image("app:2").layer(|l| {
        (0..200).fold(l.dir("many", 0o755), |l, n| {
            l.file(format!("many/{n}"), format!("{n}\n"))
        })
    }));
    let mount = sandbox.mount_with(&["-o", "idmap=subid"]);
    let daemon = mount.daemon().unwrap().as_raw_nonzero().to_string();
    let limit = |number: usize| {
        let mut command = as_user(USER, "prlimit");
        command.args(["--pid", &daemon, &format!("--nofile={number}:")]);
        sandbox.run(command).ok();
    };
    let open = fs::read_dir(format!("/proc/{daemon}/fd")).unwrap().count();
    limit(open);
    // Opened all at once and read while they are open, as the mount's own user.
    let script = "import os, sys\n\
        right = wrong = failed = 0\n\
        for top in sys.argv[1:]:\n\
        \u{20} files = []\n\
        \u{20} for n in range(200):\n\
        \u{20}   try: files.append((n, os.open('%s/many/%d' % (top, n), os.O_RDONLY)))\n\
        \u{20}   except OSError: failed += 1\n\
        \u{20} for n, f in files:\n\
        \u{20}   try:\n\
        \u{20}     if os.read(f, 9) == b'%d\\n' % n: right += 1\n\
        \u{20}     else: wrong += 1\n\
        \u{20}   except OSError: failed += 1\n\
        \u{20}   os.close(f)\n\
        print(right + failed, wrong)\n";
    let mut command = as_user(USER, "/usr/bin/python3");
    command.args(["-c", script]).arg(mount.image("app/2"));
    let seen = sandbox.run(command).ok().stdout();
    assert_eq!(seen, "200 0\n");
    limit(1024);
    let mut again = as_user(USER, "cat");
    again.arg(mount.image("app/2/many/7"));
    assert_eq!(sandbox.run(again).ok().stdout(), "7\n");
    let mut lists = String::new();
    let doc = mount.path("stores/containers/overlay-images/images.json");
    let mut cat = as_user(USER, "cat");
    cat.arg(doc).stdout(Stdio::piped());
    let mut child = cat.spawn().unwrap();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut lists)
        .unwrap();
    child.wait().unwrap();
    assert!(lists.contains("docker.io/library/app:2"), "{lists}");
    mount.unmount();
}
