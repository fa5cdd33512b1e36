//! Who uses images and volumes, where no process and no mount of theirs shows it.

use std::fs;
use std::path::Path;

use rustix::io::Errno;

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;

/// An overlay of the host's on a directory.
fn overlay(sandbox: &Sandbox, lower: &Path) -> std::path::PathBuf {
    let scratch = sandbox.mkdir("scratch");
    sandbox
        .sh(&format!("mount -t tmpfs scratch {}", scratch.display()))
        .ok();
    for name in ["upper", "work", "merged"] {
        fs::create_dir(scratch.join(name)).unwrap();
    }
    let merged = scratch.join("merged");
    sandbox
        .sh(&format!(
            "mount -t overlay overlay -o lowerdir={},upperdir={s}/upper,workdir={s}/work {s}/merged",
            lower.display(),
            s = scratch.display()
        ))
        .ok();
    merged
}

/// The kernel has a mount of its own on the directories of an overlay, which no table shows.
#[test]
fn regression_root_an_overlay_keeps_its_image() {
    let sandbox = Sandbox::new();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("f", "content")));
    let mount = sandbox.mount();
    let merged = overlay(&sandbox, &mount.image("app/1"));
    let run = sandbox.mica(["rmi", "app:1"]).code(1);
    let who = format!("overlay {} is using", merged.display());
    assert!(run.stderr().contains(&who), "{}", run.describe());
    let refused = fs::remove_dir(mount.image("app/1")).unwrap_err();
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::BUSY));
    let run = sandbox.mica(["image", "prune", "-af"]).ok();
    assert_eq!(run.stdout(), "Total reclaimed space: 0B\n");
    let run = sandbox.mica(["users", "app:1"]).ok();
    assert!(run.stdout().contains("overlay"), "{}", run.describe());
    assert_eq!(fs::read_to_string(merged.join("f")).unwrap(), "content");
    sandbox.umount(&merged);
    sandbox.mica(["rmi", "app:1"]).ok();
}

#[test]
fn regression_root_an_overlay_keeps_its_volume() {
    let sandbox = Sandbox::new();
    sandbox.mica(["volume", "create", "vol"]).ok();
    let mount = sandbox.mount();
    fs::write(mount.path("volumes/vol/f"), "content").unwrap();
    let merged = overlay(&sandbox, &mount.path("volumes/vol"));
    let run = sandbox.mica(["volume", "rm", "vol"]).code(1);
    assert!(
        run.stderr().contains("volume is in use"),
        "{}",
        run.describe()
    );
    let run = sandbox.mica(["volume", "prune", "-af"]).ok();
    assert_eq!(run.stdout(), "Total reclaimed space: 0B\n");
    assert_eq!(fs::read_to_string(merged.join("f")).unwrap(), "content");
    sandbox.umount(&merged);
    sandbox.mica(["volume", "rm", "vol"]).ok();
}
