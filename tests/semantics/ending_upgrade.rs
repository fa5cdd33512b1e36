//! When another version of mica takes the daemon's place.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::image;
use crate::common::keeper::{daemon, kill, surviving, surviving_with};
use crate::common::mount::runs;
use crate::common::sandbox::Sandbox;

/// `mica mount --replace M` has a new version of mica take the place of the daemon, and who uses images, volumes or `M/stores` sees as little of it as of its death.
#[test]
fn fuse_ending_for_an_upgrade() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = surviving(&sandbox);
    let new = copy_of_mica(&sandbox);
    let mut open = File::open(mount.image("app/1/usr/big")).expect("open");
    let stores = File::open(mount.path("stores/containers")).expect("open");
    fs::create_dir(mount.path("volumes/data")).expect("mkdir");
    fs::write(mount.path("volumes/data/f"), "written").expect("write");
    let bound = sandbox.mkdir("bound");
    rustix::mount::mount_bind(mount.path("volumes/data"), &bound).expect("bind");
    let mut in_volume = File::create(mount.path("volumes/data/g")).expect("create");
    let program = |pid: rustix::process::Pid| {
        fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).expect("its program")
    };
    let before = daemon(&mount);
    assert_ne!(program(before), new);
    replaced(&sandbox, &new, &mount.point).ok();
    assert!(!runs(before));
    assert_eq!(program(daemon(&mount)), new);
    fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
    open.read_to_end(&mut Vec::new()).expect("the open file");
    assert_eq!(
        fs::metadata(mount.path("stores/containers"))
            .expect("stat")
            .dev(),
        stores.metadata().expect("stat").dev()
    );
    drop(stores);
    in_volume.write_all(b"more").expect("write");
    drop(in_volume);
    for (name, content) in [("f", "written"), ("g", "more")] {
        assert_eq!(fs::read_to_string(bound.join(name)).expect("read"), content);
    }
    sandbox.umount(&bound);
    // And the next one after a kill is of the new version, too.
    kill(&mount);
    assert_eq!(fs::read(mount.image("app/1/own")).expect("read"), b"app:1");
    assert_eq!(program(daemon(&mount)), new);
    drop(open);
    mount.unmount();
}

/// A program that cannot take over and a mount without `survive=on` are refused, and a version that fails to begin is followed by the one before: the mount is served all the time.
#[test]
fn fuse_ending_for_no_upgrade() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let new = copy_of_mica(&sandbox);
    let fails = format!("{} crashes", new.display());
    let mount = surviving_with(&sandbox, "MICA_NEXT_SERVER", &fails);
    fs::create_dir(mount.path("volumes/data")).expect("mkdir");
    let before = daemon(&mount);
    let served = || fs::metadata(mount.image("app/1/own")).is_ok();
    for program in ["/bin/false", "/bin/no-such-program"] {
        let answer = mount.control(&format!("replace {program}"));
        assert!(
            answer.starts_with("error: ") && answer.contains(program),
            "{answer}"
        );
    }
    let answer = mount.control(&format!("replace {}", other_version(&sandbox).display()));
    assert!(
        answer.contains("cannot take over from this version"),
        "{answer}"
    );
    let log = fs::read_to_string(sandbox.store().join("daemon.log")).expect("the log");
    assert!(log.contains("are of different versions"), "{log}");
    assert!(served() && mount.daemon() == Some(before));
    let refused = replaced(&sandbox, &new, &mount.point).fails();
    assert!(
        refused.stderr().contains("the one before serves on"),
        "{}",
        refused.stderr()
    );
    assert!(served() && mount.daemon() != Some(before));
    mount.unmount();

    let mount = sandbox.mount();
    let refused = replaced(&sandbox, &new, &mount.point).fails();
    assert!(
        refused.stderr().contains("survive=on"),
        "{}",
        refused.stderr()
    );
    mount.unmount();
}

fn copy_of_mica(sandbox: &Sandbox) -> PathBuf {
    let new = sandbox.path("new-mica");
    // Not by fs::copy: a child that another test forks meanwhile would hold it open for writing.
    let copied = std::process::Command::new("install")
        .args(["-m", "755", env!("CARGO_BIN_EXE_mica")])
        .arg(&new)
        .status();
    assert!(copied.expect("install").success());
    new
}

/// This program, but that it speaks another version with keepers.
fn other_version(sandbox: &Sandbox) -> PathBuf {
    const WORD: &[u8] = b"keep-mount/";
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_mica")).expect("the program");
    let windows = bytes.windows(WORD.len()).enumerate();
    let at: Vec<usize> = windows
        .filter(|(_, bytes)| *bytes == WORD)
        .map(|(at, _)| at)
        .collect();
    assert!(!at.is_empty(), "no version in the program");
    for at in at {
        bytes[at + WORD.len()] = b'0';
    }
    let plain = sandbox.path("other-version");
    fs::write(&plain, bytes).expect("a copy");
    let other = sandbox.path("other-mica");
    let installed = std::process::Command::new("install")
        .args(["-m", "755"])
        .args([&plain, &other])
        .status();
    assert!(installed.expect("install").success());
    other
}

fn replaced(sandbox: &Sandbox, program: &Path, point: &Path) -> crate::common::sandbox::Run {
    let mut command = std::process::Command::new(program);
    command.env("MICA_STORE", sandbox.store());
    command.args(["mount", "--replace"]).arg(point);
    sandbox.run(command)
}
