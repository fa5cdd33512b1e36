//! Volumes: kinds, and names.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::thread;

use rustix::io::Errno;

use super::errno;
use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::ephemeral::{LINGER, TIMES, WAIT, ephemeral, goes};

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
