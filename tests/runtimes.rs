//! Other runtimes on the trees of M: `runc` on a bundle, podman's `--rootfs`, chroot, an overlay by hand.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::container::ByHand;
use crate::common::image::ImageBuilder;
use crate::common::podman::Podman;
use crate::common::sandbox::Sandbox;

/// A system that runs: busybox and some of its links.
fn system(name: &str) -> ImageBuilder {
    let busybox = fs::read("/bin/busybox").or_else(|_| fs::read("/usr/bin/busybox"));
    let busybox = busybox.expect("busybox-static is installed");
    ImageBuilder::new(name)
        .config(|config| {
            config["config"] = serde_json::json!({
                "User": "www:extra", "WorkingDir": "/srv",
                "Env": ["GREETING=hello"], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo nothing"],
                "Volumes": {"/scratch": {}},
            });
        })
        .layer(|l| {
            let l = l
                .dir("bin", 0o755)
                .file("bin/busybox", &busybox)
                .mode(0o755)
                .dir("etc", 0o755)
                .file(
                    "etc/passwd",
                    "root:x:0:0::/:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n",
                )
                .file("etc/group", "root:x:0:\nwww:x:33:\nextra:x:44:\n")
                .dir("srv", 0o755)
                .owner(33, 33)
                .dir("tmp", 0o1777);
            let l = l.dir("scratch", 0o755).owner(33, 33);
            let points = ["proc", "sys", "dev"];
            let l = points.iter().fold(l, |l, point| l.dir(point, 0o755));
            let applets = [
                "sh", "echo", "cat", "id", "ls", "pwd", "touch", "mount", "test",
            ];
            applets
                .iter()
                .fold(l, |l, applet| l.symlink(format!("bin/{applet}"), "busybox"))
        })
}

fn runc(sandbox: &Sandbox, bundle: &Path, name: &str) -> Command {
    let mut runc = Command::new("runc");
    runc.arg("--root").arg(sandbox.path("runc"));
    runc.arg("run").arg("-b").arg(bundle).arg(name);
    runc
}

/// `mica bundle` and `runc run`: the image's configuration, a writable root, nothing copied.
#[test]
fn root_runtimes_bundle_in_runc() {
    let sandbox = Sandbox::new();
    sandbox.load(&system("sys:1"));
    let mount = sandbox.mount();
    let script = "id -u; id -g; pwd; echo $GREETING; echo mine >out; touch /tmp/t /scratch/s; ls /proc/self >/dev/null";
    let bundle = sandbox.path("bundle");
    let path = bundle.to_str().expect("UTF-8");
    sandbox.mica(["bundle", "sys:1", path, script]).ok();
    let run = sandbox.run(runc(&sandbox, &bundle, "one"));
    assert_eq!(run.ok().stdout(), "33\n44\n/srv\nhello\n");
    // Written beside the image, not into it; the declared volume is no part of the root.
    assert_eq!(
        fs::read_to_string(bundle.join("upper/srv/out")).expect("what it wrote"),
        "mine\n"
    );
    assert!(!bundle.join("upper/scratch/s").exists());
    assert!(!mount.image("sys/1/srv/out").exists());
    let size = sandbox
        .sh("du -sk --one-file-system bundle/upper | cut -f1")
        .ok();
    let size: u64 = size.stdout().trim().parse().expect("a number");
    assert!(size < 200, "{size} KiB");
    sandbox.umount("bundle/rootfs");
    sandbox.sh("rm -r bundle").ok();

    // Twice in one place, and without a command.
    sandbox.mkdir("taken");
    fs::write(sandbox.path("taken/file"), "").expect("a file");
    let run = sandbox.mica(["bundle", "sys:1", "taken"]).fails();
    assert!(
        run.stderr().contains("taken is not empty"),
        "{}",
        run.describe()
    );
    sandbox.load(
        &ImageBuilder::new("bare:1")
            .config(|config| config["config"] = serde_json::json!({}))
            .layer(|l| l.file("f", "")),
    );
    let run = sandbox.mica(["bundle", "bare:1", "bare"]).fails();
    assert!(
        run.stderr().contains("no command specified"),
        "{}",
        run.describe()
    );
    assert!(!sandbox.path("bare").exists());
    let run = sandbox.mica(["bundle", "none:1", "bare"]).fails();
    assert!(
        run.stderr().contains("No such image: none:1"),
        "{}",
        run.describe()
    );
}

/// A read-only bundle is the tree in M itself.
#[test]
fn root_runtimes_read_only_bundle() {
    let sandbox = Sandbox::new();
    sandbox.load(&system("sys:1"));
    let script = "touch /srv/x 2>/dev/null || echo refused; touch /scratch/s && echo volume";
    // Without a mount there is no tree.
    let run = sandbox.mica(["bundle", "--read-only", "sys:1", "bundle", script]);
    assert!(run.fails().stderr().contains("mica mount"));
    let mount = sandbox.mount();
    sandbox
        .mica(["bundle", "--read-only", "sys:1", "bundle", script])
        .ok();
    let bundle = sandbox.path("bundle");
    let config = fs::read(bundle.join("config.json")).expect("config.json");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let root = config["root"]["path"].as_str().expect("a path");
    assert!(
        root.starts_with(mount.point.to_str().expect("UTF-8")),
        "{root}"
    );
    let run = sandbox.run(runc(&sandbox, &bundle, "two"));
    assert_eq!(run.ok().stdout(), "refused\nvolume\n");
    assert_eq!(fs::read_dir(&bundle).expect("the bundle").count(), 1);
}

/// `podman run --rootfs M/images/r/t:O` runs on the tree and leaves it alone.
#[test]
fn root_runtimes_podman_rootfs() {
    let sandbox = Sandbox::new();
    sandbox.load(&system("sys:1"));
    let mount = sandbox.mount();
    let podman = Podman::new(&sandbox, sandbox.path("podman"));
    let tree = format!("{}:O", mount.image("sys/1").display());
    let run = sandbox.run(podman.run(&[
        "--rootfs",
        &tree,
        "/bin/sh",
        "-c",
        "echo new >/srv/new && cat /srv/new /etc/passwd",
    ]));
    let out = run.ok().stdout();
    assert!(out.starts_with("new\nroot:x:0:0:"), "{out}");
    assert!(!mount.image("sys/1/srv/new").exists());
}

/// `chroot` into a tag directory, and kernel overlayfs on top of it by hand.
#[test]
fn root_runtimes_chroot_and_overlay() {
    let sandbox = Sandbox::new();
    sandbox.load(&system("sys:1"));
    let mount = sandbox.mount();
    let mut chroot = Command::new("chroot");
    chroot.arg("--userspec=33:44").arg(mount.image("sys/1"));
    chroot.args([
        "/bin/sh",
        "-c",
        "id -u; id -g; cat /etc/group | /bin/busybox head -1",
    ]);
    assert_eq!(sandbox.run(chroot).ok().stdout(), "33\n44\nroot:x:0:\n");

    let overlay = ByHand::new(&sandbox, &mount, "sys:1", "hand");
    overlay.sh(
        "chroot . /bin/sh -c 'echo x >/srv/x; cat /srv/x; /bin/busybox chmod 4755 /bin/busybox'",
    );
    let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode();
    assert_eq!(mode(&overlay.root.join("bin/busybox")) & 0o7777, 0o4755);
    assert_eq!(mode(&mount.image("sys/1/bin/busybox")) & 0o7777, 0o755);
}
