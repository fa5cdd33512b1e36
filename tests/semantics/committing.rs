use std::fs;

use super::image;
use crate::common::container::ByHand;
use crate::common::sandbox::Sandbox;
use crate::common::walk;

/// An image that was committed shows the tree that the container saw, without what was mounted into it.
#[test]
fn root_a_committed_tree_is_the_containers() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    container.sh("echo new >etc/new; rm etc/hosts; rm -r usr; mkdir usr; ln etc/new usr/again; chmod 600 own");
    sandbox.mica(["commit", "worker", "app:2"]).ok();
    let mut found = walk::differences(&container.root, &mount.image("app/2")).expect("two trees");
    // A tag directory's date is the image's.
    found.retain(|line| !line.starts_with("/: mtime should be "));
    assert_eq!(found, [""; 0]);
    container.sh("mkdir data; mount -t tmpfs tmpfs data; echo volume >data/volume");
    sandbox.mica(["commit", "worker", "app:3"]).ok();
    container.sh("umount data");
    assert_eq!(
        fs::read_dir(mount.image("app/3/data"))
            .expect("the mount point")
            .count(),
        0
    );
}

/// The same changes are the same layer, whenever they are committed; no change is no layer.
#[test]
fn root_commits_are_deterministic() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let layers = |image: &str| {
        let path = mount.path(format!("info/images/{image}/layers"));
        fs::read_to_string(path).expect("the layers")
    };
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    sandbox.mica(["commit", "worker", "app:same"]).ok();
    assert_eq!(layers("app/same"), layers("app/1"));
    container.sh("echo new >etc/new; rm etc/hosts");
    sandbox.mica(["commit", "worker", "app:2"]).ok();
    sandbox.mica(["commit", "worker", "app:3"]).ok();
    assert_eq!(layers("app/2"), layers("app/3"));
    assert_eq!(
        layers("app/2").lines().count(),
        layers("app/1").lines().count() + 1
    );
}

/// `mica diff` names what `diff -r` of the two trees finds, and nothing else.
#[test]
fn root_diff_finds_what_diff_r_finds() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    sandbox.load(&image("app:2"));
    let mount = sandbox.mount();
    assert_eq!(
        sandbox.mica(["diff", "app:1", "app:2"]).ok().stdout(),
        "C /own\n"
    );
    let container = ByHand::new(&sandbox, &mount, "app:1", "worker");
    container.sh("echo x >etc/hosts; rm usr/big2; mkdir -p new/dir; echo y >new/dir/file");
    sandbox.mica(["commit", "worker", "app:3"]).ok();
    let lines = sandbox.mica(["diff", "app:1", "app:3"]).ok().stdout();
    assert_eq!(
        lines,
        "C /etc\nC /etc/hosts\nA /new\nA /new/dir\nA /new/dir/file\nC /usr\nD /usr/big2\n"
    );
    let trees = [mount.image("app/1"), mount.image("app/3")].map(|path| path.display().to_string());
    let found = sandbox.sh(&format!(
        "diff -rq {} {} || test $? = 1",
        trees[0], trees[1]
    ));
    assert_eq!(found.ok().stdout().lines().count(), 3);
}

/// A tree of M is a lower directory for kernel overlayfs like any other.
#[test]
fn root_a_tree_is_a_lower_directory() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let container = ByHand::new(&sandbox, &mount, "app:1", "hand");
    assert_eq!(
        walk::differences(&mount.image("app/1/etc"), &container.root.join("etc")).expect("trees"),
        [""; 0]
    );
    container.sh("echo y >>usr/big; cmp usr/big usr/big2 >/dev/null && exit 1; test $(stat -c %s usr/big) = 300002");
    assert_eq!(
        fs::metadata(mount.image("app/1/usr/big"))
            .expect("stat")
            .len(),
        300_000
    );
}
