//! The sample image of `make run`, from making it to deleting it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::sandbox::Sandbox;

fn sample(sandbox: &Sandbox, name: &str) -> std::path::PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/sample-image");
    let file = sandbox.path(name);
    let mut command = Command::new(script);
    command.arg(&file);
    sandbox.run(command).ok();
    file
}

/// The same busybox gives the same image, byte for byte; and other tools can read it.
#[test]
fn sample_image_is_reproducible_and_valid() {
    let sandbox = Sandbox::new();
    let (one, two) = (sample(&sandbox, "one.tar"), sample(&sandbox, "two.tar"));
    assert!(
        fs::read(&one).unwrap() == fs::read(two).unwrap(),
        "two runs, two images"
    );
    let run = sandbox
        .sh("skopeo inspect --config docker-archive:one.tar")
        .ok();
    let config: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(
        config["rootfs"]["diff_ids"].as_array().map(Vec::len),
        Some(2)
    );
}

/// Load, mount, run something inside, delete: what `make run` offers to try.
#[test]
fn root_sample_image_runs_and_goes() {
    let sandbox = Sandbox::new();
    let file = sample(&sandbox, "sample.tar");
    let loaded = sandbox.load_file(&file).ok();
    for tag in ["1.0", "latest"] {
        let line = format!("Loaded image: sample:{tag}");
        assert!(loaded.stdout().contains(&line), "{}", loaded.describe());
    }
    let mount = sandbox.mount();
    let root = mount.image("sample/1.0");
    let inside = |script: &str| {
        let mut command = Command::new("chroot");
        command.arg(&root).args(["/bin/sh", "-euc", script]);
        sandbox.run(command).ok().stdout()
    };
    assert_eq!(inside("cat /etc/hello"), "hello from the second layer\n");
    assert!(inside("cat /etc/motd").contains("replaced"));
    assert_eq!(inside("test -e /etc/issue || echo gone"), "gone\n");
    assert_eq!(
        inside("cmp /usr/share/sample/lines /usr/share/sample/the-same-lines"),
        ""
    );
    let repository = mount.image("sample");
    sandbox.run(remove(&repository.join("1.0"))).ok();
    assert!(
        repository.join("latest/etc/motd").exists(),
        "the other tag keeps the image"
    );
    sandbox.run(remove(&repository)).ok();
    assert!(!repository.exists());
    mount.unmount();
    let mut left = sandbox.store_files();
    let data = ["blobs", "layers", "tmp"].map(|name| sandbox.store().join(name));
    left.retain(|(path, _)| data.iter().any(|dir| path.starts_with(dir)));
    assert!(left.is_empty(), "the removed image left {left:?}");
}

fn remove(path: &Path) -> Command {
    let mut command = Command::new("rm");
    command.arg("-r").arg(path);
    command
}
