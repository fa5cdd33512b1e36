//! Ephemeral volumes: what keeps one, and how it ends.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::common::keeper::wait_until;
use crate::common::sandbox::Sandbox;
use crate::common::user::as_user;
use crate::ephemeral::{
    LINGER, TIMES, User, WAIT, ephemeral, goes, is_there, mount, remains, stays, until,
};

/// What shows that a volume is ephemeral.
const MARK: &str = "user.mica.ephemeral";

/// An ephemeral volume waits 60 s for its first user and goes 2 s after its last one, or as the mount options say; to look at it is no use.
#[test]
fn fuse_volumes_ephemeral_unused_goes() {
    let sandbox = Sandbox::new();
    let wait = Duration::from_secs(5);
    let mount = sandbox.mount_with(&["-o", "volume_wait=5,volume_linger=0.1"]);
    let begin = Instant::now();
    let data = ephemeral(&sandbox, "unused");
    let volume = mount.path("volumes/unused");
    let directory = File::open(&volume).expect("opendir");
    while begin.elapsed() < wait - Duration::from_secs(2) {
        assert_eq!(fs::read_dir(&volume).expect("ls").count(), 1);
        fs::metadata(volume.join("file")).expect("stat");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(is_there(&sandbox, "unused"));
    goes(&sandbox, &mount, "unused", &data);
    assert!(begin.elapsed() >= wait);
    drop(directory);
    // It is told once it has happened.
    wait_until("the log says so", || {
        let log = fs::read_to_string(sandbox.store().join("daemon.log")).expect("the log");
        log.contains("volume unused: nobody has used it, it has evaporated")
    });
}

/// Open and mapped files, working and root directories, mounts in any mount namespace and leases each keep an ephemeral volume, and SIGKILL of the holder releases it.
#[test]
fn fuse_volumes_ephemeral_every_use_keeps() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let store = sandbox.store();
    let mica = env!("CARGO_BIN_EXE_mica");
    let map = "import mmap,os,sys,time\n\
               f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); f.close(); open(sys.argv[2],'w').close(); time.sleep(1000)";
    fs::write(sandbox.path("map.py"), map).expect("a script");
    fs::create_dir(sandbox.path("at")).expect("a directory");
    let volume = |name: &str| mount.path("volumes").join(name).display().to_string();
    let ways: [(&str, String); 10] = [
        (
            "open",
            format!("exec 3<{}/file; READY; sleep 1000", volume("open")),
        ),
        (
            "writing",
            format!("exec 3>>{}/other; READY; sleep 1000", volume("writing")),
        ),
        (
            "cwd",
            format!("cd {}; READY; exec sleep 1000", volume("cwd")),
        ),
        (
            "below",
            format!(
                "mkdir {0}/d; cd {0}/d; READY; exec sleep 1000",
                volume("below")
            ),
        ),
        (
            "mapped",
            format!(
                "READY; exec python3 map.py {}/file mapped-ready",
                volume("mapped")
            ),
        ),
        (
            "chroot",
            format!(
                "cp /bin/busybox {0}/busybox; READY; exec chroot {0} /busybox sleep 1000",
                volume("chroot")
            ),
        ),
        // Nothing but a mount in a namespace that only this process is in.
        (
            "bound",
            format!(
                "exec unshare -m sh -c 'mount --bind {} at; READY; exec sleep 1000'",
                volume("bound")
            ),
        ),
        (
            "part",
            format!(
                "mkdir {0}/d; exec unshare -m sh -c 'mount --bind {0}/d at; READY; exec sleep 1000'",
                volume("part")
            ),
        ),
        (
            "lease",
            format!(
                "exec {mica} --store {} hold lease -- sh -c 'READY; exec sleep 1000'",
                store.display()
            ),
        ),
        ("host", "cd DATA; READY; exec sleep 1000".to_owned()),
    ];
    for (name, script) in &ways {
        let data = ephemeral(&sandbox, name);
        let script = script.replace("DATA", data.to_str().expect("UTF-8"));
        let user = User::shell(&sandbox, &script);
        if *name == "mapped" {
            until("it is mapped", || sandbox.path("mapped-ready").exists());
        }
        stays(&sandbox, &mount, name);
        drop(user);
        goes(&sandbox, &mount, name, &data);
    }
    assert_eq!(
        fs::read_dir(store.join("volumes"))
            .expect("volumes")
            .count(),
        0
    );
}

/// A chain of users keeps an ephemeral volume though its first ones are long gone.
#[test]
fn fuse_volumes_ephemeral_chain() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let data = ephemeral(&sandbox, "chain");
    let volume = mount.path("volumes/chain");
    let volume = volume.display();
    let one = User::shell(
        &sandbox,
        &format!("echo from-one >{volume}/message; cd {volume}; READY; exec sleep 1000"),
    );
    let two = User::shell(
        &sandbox,
        &format!("exec 3<{volume}/message; READY; exec sleep 1000"),
    );
    drop(one);
    stays(&sandbox, &mount, "chain");
    let three = User::shell(&sandbox, &format!("cd {volume}; READY; exec sleep 1000"));
    drop(two);
    stays(&sandbox, &mount, "chain");
    assert_eq!(
        fs::read_to_string(mount.path("volumes/chain/message")).expect("the message"),
        "from-one\n"
    );
    drop(three);
    goes(&sandbox, &mount, "chain", &data);
}

/// A daemon that starts ends no ephemeral volume before it has seen it unused for the whole time itself.
#[test]
fn fuse_volumes_ephemeral_restart() {
    let sandbox = Sandbox::new();
    let first = mount(&sandbox);
    let (held, gone) = (ephemeral(&sandbox, "held"), ephemeral(&sandbox, "gone"));
    let mica = env!("CARGO_BIN_EXE_mica");
    let hold = |name: &str| {
        let store = sandbox.store();
        let script = format!(
            "exec {mica} --store {} hold {name} -- sh -c 'READY; exec sleep 1000'",
            store.display()
        );
        User::shell(&sandbox, &script)
    };
    let (keeper, leaver) = (hold("held"), hold("gone"));
    let daemon = first.daemon().expect("a daemon");
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).expect("kill");
    drop(leaver);
    thread::sleep(WAIT + LINGER);
    let point = first.point.clone();
    first.forget();
    let again = sandbox.mount_on(&point, &["-o", TIMES]);
    // Nobody knows when its user left: the time begins now.
    assert!(is_there(&sandbox, "gone"));
    goes(&sandbox, &again, "gone", &gone);
    stays(&sandbox, &again, "held");
    drop(keeper);
    goes(&sandbox, &again, "held", &held);
}

/// Whether a volume is ephemeral is in the store alone and shows as `user.mica.ephemeral` on its root: the store's owner and root set and remove it, nobody else, and `mica volume keep` makes a volume persistent.
#[test]
fn fuse_volumes_ephemeral_mark() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let volumes = mount.path("volumes");
    let kind = |kind: &str| {
        let filter = format!("kind={kind}");
        let run = sandbox.mica(["volume", "ls", "-q", "-f", &filter]).ok();
        run.stdout()
    };
    let mark = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(volumes.join(name), MARK, &mut value)
            .map(|length| value[..length].to_vec())
    };
    let set = |name: &str, value: &[u8]| {
        rustix::fs::setxattr(volumes.join(name), MARK, value, XattrFlags::empty())
    };
    ephemeral(&sandbox, "verb");
    ephemeral(&sandbox, "tree");
    assert_eq!(mark("tree"), Ok(b"1".to_vec()));
    fs::set_permissions(volumes.join("tree"), Permissions::from_mode(0o777)).expect("chmod");
    let other = |script: &str| {
        let mut sh = as_user(54_400, "sh");
        sh.args(["-c", script]).current_dir(&volumes);
        sandbox.run(sh)
    };
    let seen = other("getfattr --absolute-names --only-values -n user.mica.ephemeral tree");
    assert_eq!(seen.ok().stdout(), "1");
    other("setfattr -x user.mica.ephemeral tree").fails();
    other("setfattr -n user.mica.ephemeral -v 1 tree").fails();
    rustix::fs::removexattr(volumes.join("tree"), MARK).expect("setfattr -x");
    assert_eq!(
        rustix::fs::removexattr(volumes.join("tree"), MARK),
        Err(Errno::NODATA)
    );
    let kept = sandbox.mica(["volume", "keep", "verb", "tree"]).ok();
    assert_eq!(kept.stdout(), "verb\ntree\n");
    assert_eq!(mark("verb"), Err(Errno::NODATA));
    thread::sleep(WAIT);
    remains(&sandbox, &mount, "verb");
    remains(&sandbox, &mount, "tree");
    assert_eq!(kind("persistent"), "tree\nverb\n");
    assert_eq!(set("tree", b"no"), Err(Errno::INVAL));
    set("tree", b"1").expect("setfattr");
    fs::read(volumes.join("tree/file")).expect("a use");
    until("it evaporates", || !is_there(&sandbox, "tree"));
    sandbox.mica(["volume", "keep", "tree"]).fails();
    let bind = sandbox.mkdir("bound");
    std::os::unix::fs::symlink(bind, volumes.join("bound")).expect("ln -s");
    assert_eq!(set("bound", b"1"), Err(Errno::PERM));
    sandbox.mica(["volume", "keep", "bound"]).fails();
}
