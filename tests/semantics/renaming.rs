use std::fs;
use std::os::unix::fs::symlink;

use rustix::io::Errno;

use super::{errno, mounted, names};
use crate::common::walk;

/// `mv` of a tag directory retags, also into another repository; onto a tag that exists it fails with EEXIST and changes nothing.
#[test]
fn fuse_mv_of_a_tag() {
    let (sandbox, mount) = mounted(&["app:1", "other:2"]);
    let tree = walk::walk(&mount.image("app/1")).expect("the tree");
    let mv = |from: &str, to: &str| {
        let (from, to) = (mount.image(from), mount.image(to));
        sandbox.sh(&format!("mv {} {}", from.display(), to.display()))
    };
    mv("app/1", "app/stable").ok();
    assert_eq!(names(mount.image("app")), ["stable"]);
    mv("app/stable", "other/3").ok();
    assert_eq!(names(mount.image("other")), ["2", "3"]);
    let moved = walk::walk(&mount.image("other/3")).expect("the tree");
    assert!(walk::compare(&tree, &moved).is_empty());
    let taken = fs::rename(mount.image("other/3"), mount.image("other/2"));
    assert_eq!(errno(taken), Errno::EXIST);
    assert_eq!(names(mount.image("other")), ["2", "3"]);
    let list = sandbox.mica(["images"]).ok().stdout();
    assert!(list.contains("other") && !list.contains("stable"), "{list}");
    for bad in ["other/-x", "other/a b", "other/.hidden"] {
        let result = fs::rename(mount.image("other/3"), mount.image(bad));
        assert_eq!(errno(result), Errno::INVAL, "{bad}");
    }
}

/// `mv` of a repository renames it with all its tags at once.
#[test]
fn fuse_mv_of_a_repository() {
    let (sandbox, mount) = mounted(&["app:1", "app:2", "other:3"]);
    let (from, to) = (mount.image("app"), mount.image("moved"));
    sandbox
        .sh(&format!("mv {} {}", from.display(), to.display()))
        .ok();
    assert_eq!(names(mount.path("images")), ["moved", "other"]);
    assert_eq!(names(&to), ["1", "2"]);
    assert_eq!(fs::read_to_string(to.join("2/own")).expect("own"), "app:2");
    sandbox.mica(["inspect", "moved:1", "moved:2"]).ok();
    sandbox.mica(["inspect", "app:1"]).code(1);
    assert_eq!(errno(fs::rename(&to, mount.image("other"))), Errno::EXIST);
    assert_eq!(errno(fs::rename(&to, mount.image("UPPER"))), Errno::INVAL);
}

/// `ln -s OLD NEW` in a repository tags the image that OLD leads to.
#[test]
fn fuse_ln_tags() {
    let (sandbox, mount) = mounted(&["app:1", "other:2"]);
    sandbox
        .sh(&format!(
            "cd {} && ln -s 1 stable",
            mount.image("app").display()
        ))
        .ok();
    assert_eq!(names(mount.image("app")), ["1", "stable"]);
    assert!(
        fs::symlink_metadata(mount.image("app/stable"))
            .expect("stat")
            .is_dir()
    );
    assert_eq!(
        fs::read_to_string(mount.image("app/stable/own")).expect("own"),
        "app:1"
    );
    symlink("../other/2", mount.image("app/second")).expect("a relative path");
    symlink(mount.image("other/2"), mount.image("app/third")).expect("an absolute path");
    for tag in ["second", "third"] {
        let own = mount.image(format!("app/{tag}/own"));
        assert_eq!(fs::read_to_string(own).expect(tag), "other:2");
    }
    assert_eq!(errno(symlink("1", mount.image("app/stable"))), Errno::EXIST);
    assert_eq!(
        errno(symlink("nothing", mount.image("app/x"))),
        Errno::INVAL
    );
    assert_eq!(errno(symlink("1", mount.image("app/-x"))), Errno::INVAL);
    sandbox.mica(["inspect", "app:third"]).ok();
}

/// `mkdir M/images/<name>` makes an empty repository that lasts until the daemon ends or it is removed; in one so made a directory with the name of a tag is refused, so that `cp -r` of a repository ends with one word for each tag and leaves no half of an image.
#[test]
fn fuse_mkdir_makes_a_repository() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let fresh = mount.image("fresh");
    fs::create_dir(&fresh).expect("mkdir");
    assert_eq!(names(mount.path("images")), ["app", "fresh"]);
    assert!(names(&fresh).is_empty());
    fs::rename(mount.image("app/1"), fresh.join("1")).expect("a tag moves in");
    assert_eq!(errno(fs::remove_dir(&fresh)), Errno::NOTEMPTY);
    fs::remove_dir(fresh.join("1")).expect("untag");
    assert!(names(&fresh).is_empty());
    fs::remove_dir(&fresh).expect("rmdir of an empty repository");
    assert_eq!(errno(fs::metadata(&fresh)), Errno::NOENT);
    assert_eq!(errno(fs::create_dir(mount.image("UPPER"))), Errno::INVAL);
    fs::create_dir(&fresh).expect("mkdir");
    mount.unmount();
    let again = sandbox.mount();
    assert_eq!(errno(fs::metadata(again.image("fresh"))), Errno::NOENT);
    sandbox.load(
        &crate::common::image::ImageBuilder::new("other:2")
            .layer(|l| l.dir("d", 0o755).file("d/f", "x")),
    );
    let (from, to) = (again.image("other"), again.image("copy"));
    let copied = sandbox.sh(&format!("cp -r {} {}", from.display(), to.display()));
    let copied = copied.code(1);
    assert_eq!(copied.stderr().lines().count(), 1, "{}", copied.describe());
    assert!(names(&to).is_empty());
    // Anything else is a repository as before.
    fs::create_dir_all(again.image("team/app/web")).expect("mkdir");
}
