//! Volumes in use, shown to processes, and mounted into them. What happens in files is in another chapter.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::errno;
use crate::common::image::ImageBuilder;
use crate::common::podman::Podman;
use crate::common::sandbox::Sandbox;
use crate::ephemeral::{LINGER, User, WAIT, ephemeral, goes, is_there, mount, remains, stays};

/// What shows that a volume is ephemeral.
const MARK: &str = "user.mica.ephemeral";

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
