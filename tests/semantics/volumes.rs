//! Volumes: kinds, names, life, and mounting them into processes. What happens in files is in another chapter.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::errno;
use crate::common::image::ImageBuilder;
use crate::common::keeper::wait_until;
use crate::common::podman::Podman;
use crate::common::sandbox::Sandbox;
use crate::common::user::as_user;
use crate::ephemeral::{
    LINGER, TIMES, User, WAIT, ephemeral, goes, is_there, mount, remains, stays, until,
};

/// What shows that a volume is ephemeral.
const MARK: &str = "user.mica.ephemeral";

fn names(sandbox: &Sandbox) -> String {
    sandbox.mica(["volume", "ls", "-q"]).ok().stdout()
}

/// `mkdir M/volumes/<name>` and `mica volume create <name>` make the same persistent volume; `rmdir`, only of an empty one, and `mica volume rm` remove it with its data.
#[test]
fn fuse_volumes_persistent() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    fs::create_dir(volumes.join("one")).expect("mkdir");
    assert_eq!(
        sandbox.mica(["volume", "create", "one"]).ok().stdout(),
        "one\n"
    );
    sandbox.mica(["volume", "create", "two"]).ok();
    assert_eq!(errno(fs::create_dir(volumes.join("two"))), Errno::EXIST);
    assert_eq!(names(&sandbox), "one\ntwo\n");
    for name in ["one", "two"] {
        fs::write(volumes.join(name).join("f"), name).expect("a file");
        assert_eq!(errno(fs::remove_dir(volumes.join(name))), Errno::NOTEMPTY);
    }
    sandbox.mica(["volume", "rm", "one"]).ok();
    assert!(!volumes.join("one").exists());
    sandbox.sh(&format!("rm -r {}/two", volumes.display())).ok();
    assert_eq!(names(&sandbox), "");
    let data = sandbox.store().join("volumes");
    assert_eq!(fs::read_dir(data).expect("volumes").count(), 0);
}

/// `ln -s /host/path M/volumes/<name>` makes a bind of a directory or a file; what is missing is ENOENT, what lies in M or in the store EINVAL.
#[test]
fn fuse_volumes_binds_are_made_with_ln() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    let host = sandbox.mkdir("host");
    fs::write(host.join("f"), "host's").expect("a file");
    symlink(&host, volumes.join("dir")).expect("ln -s");
    symlink(host.join("f"), volumes.join("file")).expect("ln -s");
    assert_eq!(
        fs::read_to_string(volumes.join("dir/f")).expect("read"),
        "host's"
    );
    assert_eq!(
        fs::read_to_string(volumes.join("file")).expect("read"),
        "host's"
    );
    assert!(fs::metadata(volumes.join("file")).expect("stat").is_file());
    fs::write(volumes.join("file"), "ours").expect("write");
    assert_eq!(fs::read_to_string(host.join("f")).expect("read"), "ours");
    for (target, expected) in [
        (host.join("none"), Errno::NOENT),
        (mount.path("images"), Errno::INVAL),
        (volumes.join("dir"), Errno::INVAL),
        (sandbox.store().join("blobs"), Errno::INVAL),
        ("relative".into(), Errno::INVAL),
        ("/dev/null".into(), Errno::INVAL),
    ] {
        let made = symlink(&target, volumes.join("bad"));
        assert_eq!(errno(made), expected, "{}", target.display());
    }
    assert_eq!(errno(symlink(&host, volumes.join("dir"))), Errno::EXIST);
    assert_eq!(names(&sandbox), "dir\nfile\n");
}

/// `rmdir` of a bound directory and `rm` of a bound file detach it; the host's data stays.
#[test]
fn fuse_volumes_binds_are_detached() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    let host = sandbox.mkdir("host");
    fs::write(host.join("f"), "x").expect("a file");
    symlink(&host, volumes.join("dir")).expect("ln -s");
    symlink(host.join("f"), volumes.join("file")).expect("ln -s");
    fs::remove_dir(volumes.join("dir")).expect("rmdir");
    fs::remove_file(volumes.join("file")).expect("rm");
    assert_eq!(names(&sandbox), "");
    assert_eq!(fs::read_to_string(host.join("f")).expect("read"), "x");
}

/// A bind follows its path: a file that is replaced there shows up, one that vanishes is ENOENT, and the rest of M lives.
#[test]
fn fuse_volumes_binds_follow_the_path() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    let host = sandbox.mkdir("host");
    let source = host.join("f");
    fs::write(&source, "old").expect("a file");
    symlink(&source, volumes.join("file")).expect("ln -s");
    symlink(&host, volumes.join("dir")).expect("ln -s");
    assert_eq!(
        fs::read_to_string(volumes.join("file")).expect("read"),
        "old"
    );
    fs::write(host.join("new"), "new").expect("a file");
    fs::rename(host.join("new"), &source).expect("mv");
    assert_eq!(
        fs::read_to_string(volumes.join("file")).expect("read"),
        "new"
    );
    fs::remove_dir_all(&host).expect("rm -r");
    for name in ["file", "dir"] {
        assert_eq!(errno(fs::metadata(volumes.join(name))), Errno::NOENT);
    }
    fs::create_dir(volumes.join("other")).expect("mkdir");
    fs::read_dir(mount.path("images")).expect("ls");
    // It can still be taken away, and comes back with its source.
    sandbox.mica(["volume", "rm", "dir"]).ok();
    fs::create_dir(&host).expect("mkdir");
    fs::write(&source, "again").expect("a file");
    assert_eq!(
        fs::read_to_string(volumes.join("file")).expect("read"),
        "again"
    );
}

/// A name outside docker's grammar for volumes, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, is EINVAL to make and ENOENT to look up.
#[test]
fn fuse_volumes_names() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    fs::create_dir(volumes.join("ok")).expect("mkdir");
    for name in [".hidden", "a", "_a", "a b", "\u{e4}\u{e4}", "a:b"] {
        assert_eq!(
            errno(fs::create_dir(volumes.join(name))),
            Errno::INVAL,
            "{name}"
        );
        assert_eq!(
            errno(symlink("/etc", volumes.join(name))),
            Errno::INVAL,
            "{name}"
        );
        assert_eq!(
            errno(fs::rename(volumes.join("ok"), volumes.join(name))),
            Errno::INVAL,
            "{name}"
        );
        assert_eq!(
            errno(fs::metadata(volumes.join(name))),
            Errno::NOENT,
            "{name}"
        );
    }
    assert_eq!(names(&sandbox), "ok\n");
}

/// `mv` renames a volume without copying it; onto one that exists it fails with EEXIST and changes nothing.
#[test]
fn fuse_volumes_are_renamed() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    for name in ["one", "two"] {
        fs::create_dir(volumes.join(name)).expect("mkdir");
        fs::write(volumes.join(name).join("f"), name).expect("a file");
    }
    let source = |name: &str| {
        let run = sandbox.mica(["volume", "inspect", "-f", "{{.Source}}", name]);
        fs::metadata(run.ok().stdout().trim())
            .expect("the data")
            .ino()
    };
    let before = source("one");
    fs::rename(volumes.join("one"), volumes.join("three")).expect("mv");
    assert_eq!(source("three"), before);
    assert_eq!(
        errno(fs::rename(volumes.join("three"), volumes.join("two"))),
        Errno::EXIST
    );
    assert_eq!(names(&sandbox), "three\ntwo\n");
    assert_eq!(
        fs::read_to_string(volumes.join("three/f")).expect("read"),
        "one"
    );
    assert_eq!(
        fs::read_to_string(volumes.join("two/f")).expect("read"),
        "two"
    );
    assert!(!volumes.join("one").exists());
}

/// A volume that somebody uses is neither removed nor renamed: EBUSY, and the daemon's log names the processes.
#[test]
fn fuse_volumes_in_use_are_busy() {
    let sandbox = Sandbox::new();
    let mount = sandbox.mount();
    let volumes = mount.path("volumes");
    fs::create_dir(volumes.join("used")).expect("mkdir");
    let mut command = Command::new("sleep");
    let user = User::start(command.arg("1000").current_dir(volumes.join("used")));
    assert_eq!(errno(fs::remove_dir(volumes.join("used"))), Errno::BUSY);
    assert_eq!(
        errno(fs::rename(volumes.join("used"), volumes.join("other"))),
        Errno::BUSY
    );
    let log = fs::read_to_string(sandbox.store().join("daemon.log")).expect("the log");
    let expected = format!("volume is in use - [{}]", user.pid());
    assert!(log.contains(&expected), "{expected}: {log}");
    drop(user);
    fs::remove_dir(volumes.join("used")).expect("rmdir");
}

/// `mica hold VOLUME... -- COMMAND` keeps volumes in use until the command and its children have ended; its exit status is the command's.
#[test]
fn fuse_volumes_are_held() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    fs::create_dir(mount.path("volumes/data")).expect("mkdir");
    let data = ephemeral(&sandbox, "brief");
    let script = "sleep 3 >/dev/null 2>&1 & exit 7";
    sandbox
        .mica(["hold", "data", "brief", "--", "sh", "-c", script])
        .code(7);
    assert_eq!(
        errno(fs::remove_dir(mount.path("volumes/data"))),
        Errno::BUSY
    );
    thread::sleep(LINGER * 2);
    assert!(is_there(&sandbox, "brief"));
    goes(&sandbox, &mount, "brief", &data);
    fs::remove_dir(mount.path("volumes/data")).expect("rmdir");
}

/// `mica hold -v NAME:/PATH[:ro] -- COMMAND` shows a command of the host the volume's own directory at a place that is there, in a mount namespace that ends with it: what it writes is in M at once, and the volume is in use.
#[test]
fn fuse_volumes_are_shown_to_a_command() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let inside = mount.path("volumes/data");
    fs::create_dir(&inside).expect("mkdir");
    let at = sandbox.mkdir("at");
    let place = |mode: &str| format!("data:{}{mode}", at.display());
    let script = format!(
        "rmdir {0} 2>&1 || echo x >{1}/f; cat {0}/f",
        inside.display(),
        at.display()
    );
    let hold = |mode: &str, script: &str| {
        sandbox.mica(["hold", "-v", &place(mode), "--", "sh", "-c", script])
    };
    let said = hold("", &script).ok().stdout();
    assert!(said.contains("busy") && said.ends_with("\nx\n"), "{said}");
    let run = hold(":ro", &format!("rm {}/f", at.display())).fails();
    assert!(run.stderr().contains("Read-only"), "{}", run.describe());
    assert_eq!(fs::read_dir(&at).expect("at").count(), 0);
    fs::remove_file(inside.join("f")).expect("rm");
    fs::remove_dir(&inside).expect("rmdir");
}

/// `mica hold --mount type=image,src=IMAGE,dst=/PATH -- COMMAND` shows it the tree of an image, read-only, and whole also when the image is removed meanwhile.
#[test]
fn fuse_images_are_shown_to_a_command() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "whole\n")));
    let at = sandbox.mkdir("at").display().to_string();
    let script = format!(
        "touch {at}/f 2>&1 || true; {0} --store {1} rmi app:1 >/dev/null; {0} --store {1} gc >/dev/null; cat {at}/f",
        env!("CARGO_BIN_EXE_mica"),
        sandbox.store().display()
    );
    let image = format!("type=image,src=app:1,dst={at}");
    let run = sandbox.mica(["hold", "--mount", &image, "--", "sh", "-c", &script]);
    let said = run.ok().stdout();
    assert!(
        said.contains("Read-only") && said.ends_with("\nwhole\n"),
        "{said}"
    );
}

/// While `volumes.json` is damaged no volume changes, no data is deleted and `mica check` says what to do; images are not concerned.
#[test]
fn fuse_volumes_damaged_list() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "x")));
    let first = sandbox.mount();
    let data = ephemeral(&sandbox, "kept");
    let list = sandbox.store().join("volumes.json");
    let good = fs::read(&list).expect("the list");
    fs::write(&list, "{").expect("damage");
    let check = |mount: &crate::common::sandbox::Mount| {
        assert!(fs::create_dir(mount.path("volumes/new")).is_err());
        assert!(fs::remove_dir(mount.path("volumes/kept")).is_err());
        assert_eq!(
            fs::read_to_string(mount.image("app/1/f")).expect("read"),
            "x"
        );
        let check = sandbox.mica(["check"]).code(1);
        let text = check.stdout() + &check.stderr();
        assert!(
            text.contains("volumes.json is damaged")
                && text.contains("put a good copy in its place"),
            "{text}"
        );
    };
    check(&first);
    first.unmount();
    let second = sandbox.mount_with(&["-o", TIMES]);
    check(&second);
    thread::sleep(WAIT + LINGER);
    assert_eq!(fs::read_to_string(&list).expect("the list"), "{");
    assert!(data.join("file").exists());
    fs::write(&list, good).expect("a good copy");
    goes(&sandbox, &second, "kept", &data);
}

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

/// The sticky bit of a volume's root means what it means everywhere: users cannot remove each other's files, and the volume stays.
#[test]
fn fuse_volumes_sticky_bit() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    let run = sandbox.sh(&format!(
        "cd {}/volumes && mkdir shared && printf shared >shared/file && chmod 1777 shared && stat -c %a shared && cd shared &&
         setpriv --reuid 54401 --clear-groups touch theirs && ! setpriv --reuid 54402 --clear-groups rm -f theirs",
        mount.point.display()
    ));
    assert_eq!(run.ok().stdout(), "1777\n");
    thread::sleep(WAIT);
    remains(&sandbox, &mount, "shared");
}

/// What is found under `user.mica.` on the host's directory of a volume is neither shown nor obeyed.
#[test]
fn fuse_volumes_marks_of_the_host() {
    let sandbox = Sandbox::new();
    let mount = mount(&sandbox);
    sandbox.mica(["volume", "create", "plain"]).ok();
    let source = sandbox.mica(["volume", "inspect", "-f", "{{.Source}}", "plain"]);
    let data = PathBuf::from(source.ok().stdout().trim());
    fs::write(data.join("file"), "plain").expect("a file");
    for name in [MARK, "user.mica.else", "user.own"] {
        rustix::fs::setxattr(&data, name, b"1", XattrFlags::empty()).expect("setfattr");
    }
    let top = mount.path("volumes/plain");
    let mut value = [0; 8];
    assert_eq!(
        rustix::fs::getxattr(&top, MARK, &mut value),
        Err(Errno::NODATA)
    );
    assert_eq!(
        rustix::fs::getxattr(&top, "user.mica.else", &mut value),
        Err(Errno::NODATA)
    );
    assert_eq!(rustix::fs::getxattr(&top, "user.own", &mut value), Ok(1));
    let mut list = [0; 256];
    let length = rustix::fs::listxattr(&top, &mut list).expect("the list");
    assert_eq!(&list[..length], b"user.own\0");
    let set = rustix::fs::setxattr(&top, "user.mica.else", b"1", XattrFlags::empty());
    assert_eq!(set, Err(Errno::PERM));
    thread::sleep(WAIT);
    remains(&sandbox, &mount, "plain");
}

/// A volume can be mounted into processes with `mount --bind`, `unshare -m`, `bwrap --bind` and `podman run -v`: both sides see what is written at once, and each is a use.
#[test]
fn root_volumes_in_processes() {
    let sandbox = Sandbox::new();
    // podman takes its time.
    let mount = sandbox.mount_with(&["-o", "volume_wait=60,volume_linger=0.5"]);
    sandbox.mkdir("at");
    let volumes = mount.path("volumes");
    let volumes = volumes.display();
    let podman = Podman::new(&sandbox, sandbox.mkdir("storage"));
    let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox"));
    let image = ImageBuilder::new("sys:1").layer(|l| {
        l.dir("bin", 0o755)
            .file("bin/busybox", busybox.expect("busybox-static is installed"))
            .mode(0o755)
            .symlink("bin/sh", "busybox")
            .dir("proc", 0o755)
            .dir("sys", 0o755)
            .dir("dev", 0o755)
            .dir("data", 0o755)
            .dir("etc", 0o755)
    });
    let archive = sandbox.path("sys.tar");
    image.docker_archive(&archive);
    sandbox
        .run(podman.command(&["load", "-q", "-i", archive.to_str().expect("UTF-8")]))
        .ok();
    let container = podman.run(&[
        "--name",
        "mica-forms",
        "-v",
        &format!("{volumes}/podman:/data"),
        "localhost/sys:1",
        "/bin/busybox",
        "sh",
        "-c",
        "echo mine >/data/out; exec /bin/busybox sleep 1000",
    ]);
    let line = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words
            .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let environment: String = container
        .get_envs()
        .filter_map(|(key, value)| Some(format!("{}={} ", key.to_str()?, value?.to_str()?)))
        .collect();
    let wait = |name: &str| format!("while ! [ -s {volumes}/{name}/out ]; do sleep 0.05; done");
    let forms = [
        (
            "bind",
            format!("mount --bind {volumes}/bind at; echo mine >at/out; READY; sleep 1000"),
            true,
        ),
        (
            "unshare",
            format!(
                "exec unshare -m sh -c 'mount --bind {volumes}/unshare at; echo mine >at/out; READY; exec sleep 1000'"
            ),
            false,
        ),
        (
            "bwrap",
            format!(
                "bwrap --ro-bind / / --dev /dev --bind {volumes}/bwrap /mnt sh -c 'echo mine >/mnt/out; exec sleep 1000' & {}; READY; wait",
                wait("bwrap")
            ),
            false,
        ),
        (
            "podman",
            format!(
                "env {environment} {} & {}; READY; wait",
                line(&container),
                wait("podman")
            ),
            false,
        ),
    ];
    for (name, script, unmount) in forms {
        let data = ephemeral(&sandbox, name);
        let user = User::shell(&sandbox, &script);
        assert_eq!(
            fs::read_to_string(mount.path("volumes").join(name).join("out")).expect("out"),
            "mine\n"
        );
        stays(&sandbox, &mount, name);
        let busy = sandbox.mica(["volume", "rm", name]).code(1);
        assert!(
            busy.stderr().contains("volume is in use - ["),
            "{}",
            busy.describe()
        );
        if name == "podman" {
            sandbox.run(podman.command(&["kill", "mica-forms"])).ok();
        }
        drop(user);
        if unmount {
            // The mount is of this test's own namespace: it is a use without any process of its own.
            stays(&sandbox, &mount, name);
            sandbox.umount("at");
        }
        goes(&sandbox, &mount, name, &data);
    }
}
