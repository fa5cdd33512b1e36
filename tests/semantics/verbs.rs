use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::{hex, image, mounted, names};
use crate::common::sandbox::Sandbox;
use crate::common::user::as_user;

/// The store is a valid OCI image layout at all times: `skopeo copy oci:<store>:<name>:<tag>` works on it, also while it is mounted.
#[test]
fn fuse_skopeo_reads_the_store() {
    let (sandbox, _mount) = mounted(&["app:1", "org/other:2"]);
    for name in ["app:1", "org/other:2"] {
        let source = format!("oci:{}:{name}", sandbox.store().display());
        sandbox
            .sh(&format!(
                "skopeo inspect {source} && skopeo inspect --raw --config {source} > config"
            ))
            .ok();
        let config = fs::read(sandbox.path("config")).expect("the config");
        assert_eq!(config, image(name).config_bytes());
        let target = sandbox.path("copy");
        sandbox
            .sh(&format!(
                "skopeo --insecure-policy copy {source} dir:{}",
                target.display()
            ))
            .ok();
        assert!(target.join(hex(&image(name).id())).is_file());
        fs::remove_dir_all(target).expect("rm");
    }
}

/// A tag is visible only when every byte of its image is stored, verified and synced to disk.
#[test]
fn root_order_of_a_load() {
    let sandbox = Sandbox::new();
    let archive = sandbox.path("app.tar");
    image("app:1").docker_archive(&archive);
    let trace = sandbox.path("trace");
    let mut command = Command::new("strace");
    command
        .args([
            "-f",
            "-y",
            "-e",
            "trace=fsync,fdatasync,rename,renameat,renameat2",
            "-o",
        ])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_mica"))
        .arg("--store")
        .arg(sandbox.store())
        .args(["load", "-i"])
        .arg(&archive);
    sandbox.run(command).ok();
    let trace = fs::read_to_string(trace).expect("the trace");
    let lines: Vec<&str> = trace.lines().collect();
    let published = lines
        .iter()
        .rposition(|l| l.contains("rename") && l.contains("index.json"))
        .unwrap_or_else(|| panic!("index.json was never renamed into place:\n{trace}"));
    for digest in image("app:1")
        .diff_ids()
        .iter()
        .map(|d| hex(d))
        .chain([hex(&image("app:1").id())])
    {
        let renamed = lines
            .iter()
            .position(|l| l.contains("rename") && l.contains(&digest) && l.contains("blobs"))
            .unwrap_or_else(|| panic!("{digest} was never renamed into place:\n{trace}"));
        assert!(
            renamed < published,
            "{digest} came after its name:\n{trace}"
        );
        assert!(
            lines[..renamed].iter().any(|l| l.contains("sync(")),
            "no sync before {digest}:\n{trace}"
        );
        let synced = lines[renamed..published]
            .iter()
            .any(|l| l.contains("sync(") && l.contains("sha256"));
        assert!(
            synced,
            "the directory of {digest} was not synced before the name:\n{trace}"
        );
    }
    let after = lines[published..].iter().any(|l| l.contains("sync("));
    assert!(
        after,
        "the store's directory was not synced after the name:\n{trace}"
    );
}

/// The verbs work with and without a mount, and when one returns, every live mount of the store shows the result.
#[test]
fn fuse_every_mount_shows_the_result() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    sandbox.mica(["tag", "app:1", "app:unmounted"]).ok();
    let (one, two) = (sandbox.mount(), sandbox.mount());
    for mount in [&one, &two] {
        assert_eq!(names(mount.image("app")), ["1", "unmounted"]);
        assert!(!mount.image("app/fresh").exists());
        assert!(!mount.image("other").exists());
    }
    for round in 0..20 {
        sandbox.mica(["tag", "app:1", "app:fresh", "other:x"]).ok();
        for mount in [&one, &two] {
            assert!(mount.image("app/fresh/own").is_file(), "round {round}");
            assert_eq!(
                names(mount.image("app")),
                ["1", "fresh", "unmounted"],
                "round {round}"
            );
            assert_eq!(
                names(mount.path("images")),
                ["app", "other"],
                "round {round}"
            );
        }
        sandbox.mica(["rmi", "app:fresh", "other:x"]).ok();
        for mount in [&one, &two] {
            assert!(!mount.image("app/fresh").exists(), "round {round}");
            assert_eq!(
                names(mount.image("app")),
                ["1", "unmounted"],
                "round {round}"
            );
            assert_eq!(names(mount.path("images")), ["app"], "round {round}");
        }
    }
}

/// Loading an image whose layers are there writes no layer again.
#[test]
fn root_loading_twice() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let blobs = || -> Vec<(u64, i64, i64)> {
        image("app:1")
            .diff_ids()
            .iter()
            .map(|d| {
                fs::metadata(sandbox.store().join("blobs/sha256").join(hex(d))).expect("the blob")
            })
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec()))
            .collect()
    };
    let before = blobs();
    let again = sandbox.load(&image("app:1").tag("app:again"));
    assert_eq!(blobs(), before);
    assert!(
        again.stdout().contains("Loaded image: app:again"),
        "{}",
        again.describe()
    );
    sandbox.load(&image("other:2"));
    assert_eq!(blobs(), before);
}

/// An ordinary user needs no privilege beyond `fusermount3`; the owners shown are the image's all the same.
#[test]
fn fuse_an_ordinary_user() {
    // `nobody`: fusermount3 wants a user with a name.
    const UID: u32 = 65_534;
    let sandbox = Sandbox::as_user(UID);
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let user = |script: &str| {
        let script = script.replace("TAG", mount.image("app/1").to_str().expect("UTF-8"));
        let mut command = as_user(UID, "sh");
        command.args(["-euc", &script]);
        sandbox.run(command)
    };
    let shown = user("stat -c %u:%g:%a TAG/etc/passwd && cat TAG/own")
        .ok()
        .stdout();
    assert_eq!(shown, "0:0:644\napp:1");
    user("rm TAG/own").code(1);
    user("rm -r TAG").ok();
    assert_eq!(sandbox.mica(["images", "-q"]).ok().stdout(), "");
    mount.unmount();
}

/// What `--dry-run` of `rmi`, `image prune`, `system prune` and `gc` lists is what the verb then removes, and the bytes it names are those that the store's blobs and indexes take less afterwards.
#[test]
fn dry_runs_are_exact() {
    let data = |sandbox: &Sandbox| -> u64 {
        let dirs = ["blobs", "layers"].map(|dir| sandbox.store().join(dir));
        let files = sandbox.store_files();
        let data = files
            .iter()
            .filter(|(path, _)| dirs.iter().any(|dir| path.starts_with(dir)));
        data.map(|(path, _)| fs::metadata(path).expect("stat").blocks() * 512)
            .sum()
    };
    let verbs: [&[&str]; 4] = [
        &["rmi", "app:1"],
        &["image", "prune", "-a"],
        &["system", "prune"],
        &["gc"],
    ];
    for verb in verbs {
        let sandbox = Sandbox::new();
        for name in ["app:1", "other:1", "old:1"] {
            sandbox.load(&image(name));
        }
        sandbox.mica(["tag", "app:1", "old:1"]).ok();
        // A name that is taken away, so that the image goes; and something that interrupted work has left.
        sandbox.mica(["rmi", "old:1"]).ok();
        let stray = sandbox.store().join("blobs/sha256").join("0".repeat(64));
        if verb[0] != "rmi" && verb[0] != "image" {
            fs::write(stray, vec![0; 300_000]).expect("write");
        }
        let before = data(&sandbox);
        let dry = sandbox
            .mica(verb.iter().chain(&["--dry-run"]))
            .ok()
            .stdout();
        assert_eq!(data(&sandbox), before, "{verb:?}");
        let force: &[&str] = if verb.contains(&"prune") {
            &["-f"]
        } else {
            &[]
        };
        let real = sandbox.mica(verb.iter().chain(force)).ok().stdout();
        let freed = before - data(&sandbox);
        assert!(freed > 0, "{verb:?}");
        let (list, total) = dry
            .rsplit_once("Total reclaimable space: ")
            .expect("a total");
        assert!(real.starts_with(list), "{verb:?}: {dry}{real}");
        // Four digits of kilobytes.
        let kilobytes: f64 = total.trim().trim_end_matches("kB").parse().expect("kB");
        let exact = freed as f64 / 1000.0;
        assert!(
            (kilobytes - exact).abs() <= exact / 2000.0,
            "{verb:?}: {total} {freed}"
        );
    }
}

/// `image prune` and `system prune` leave every image alone that is somebody's bind mount, working directory or root.
#[test]
fn fuse_prune_leaves_what_is_used() {
    let (sandbox, mount) = mounted(&["cwd:1", "bind:1", "idle:1"]);
    let point = sandbox.mkdir("bound");
    let mut user = Command::new("sleep")
        .arg("1000")
        .current_dir(mount.image("cwd/1/etc"))
        .spawn()
        .expect("sleep");
    let script = format!(
        "mount --bind {} {}",
        mount.image("bind/1").display(),
        point.display()
    );
    sandbox.sh(&script).ok();
    let runs =
        [["image", "prune", "-af"], ["system", "prune", "-af"]].map(|verb| sandbox.mica(verb));
    user.kill().and_then(|()| user.wait()).expect("kill");
    sandbox.umount(&point);
    for run in runs {
        run.ok();
    }
    assert_eq!(names(mount.path("images")), ["bind", "cwd"]);
    sandbox.mica(["image", "prune", "-af"]).ok();
    assert!(names(mount.path("images")).is_empty());
}
