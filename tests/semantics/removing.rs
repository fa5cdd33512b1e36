use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{errno, hex, image, layers, mounted, names};
use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use crate::common::walk;

/// `rmdir`, `rm -r` and `rm -rf` of a tag directory untag the image and free every layer that no other image needs.
#[test]
fn fuse_rm_of_a_tag() {
    for verb in ["rmdir", "rm -r", "rm -rf", "rm -r --one-file-system"] {
        let (sandbox, mount) = mounted(&["app:1", "other:2"]);
        assert_eq!(layers(&sandbox), 3);
        let run = sandbox
            .sh(&format!("{verb} {}", mount.image("app/1").display()))
            .ok();
        assert_eq!(run.stderr(), "", "{verb}");
        assert_eq!(
            errno(fs::metadata(mount.image("app/1"))),
            Errno::NOENT,
            "{verb}"
        );
        assert_eq!(
            names(mount.path("by-id")),
            [hex(&image("other:2").id())],
            "{verb}"
        );
        assert_eq!(layers(&sandbox), 2, "{verb}");
        assert_eq!(
            sandbox.mica(["images", "-q"]).ok().stdout().lines().count(),
            1,
            "{verb}"
        );
        sandbox.mica(["check"]).ok();
    }
}

/// `find -delete` and Python's `shutil.rmtree` remove a tag just as `rm -r` does.
#[test]
fn fuse_other_removers() {
    for script in [
        "find TAG -delete",
        "python3 -c \"import shutil; shutil.rmtree('TAG')\"",
        "ls -lR TAG >/dev/null; rm -r TAG",
    ] {
        let (sandbox, mount) = mounted(&["app:1"]);
        let tag = mount.image("app/1");
        let run = sandbox
            .sh(&script.replace("TAG", tag.to_str().expect("UTF-8")))
            .ok();
        assert_eq!(run.stderr(), "", "{script}");
        assert_eq!(errno(fs::metadata(&tag)), Errno::NOENT, "{script}");
        assert_eq!(layers(&sandbox), 0, "{script}");
    }
}

/// `rm` of `M/images/<name>:<tag>` untags.
#[test]
fn fuse_rm_of_the_alias() {
    let (sandbox, mount) = mounted(&["app:1", "other:2"]);
    sandbox
        .sh(&format!("rm {}", mount.image("app:1").display()))
        .ok();
    assert_eq!(errno(fs::metadata(mount.image("app/1"))), Errno::NOENT);
    assert_eq!(errno(fs::metadata(mount.image("app:1"))), Errno::NOENT);
    assert_eq!(layers(&sandbox), 2);
}

/// `rm -rf` of a repository removes all its tags, and `rm -rf M/images/*` every tag of the store.
#[test]
fn fuse_rm_of_a_repository() {
    let (sandbox, mount) = mounted(&["app:1", "app:2", "app/sub:3", "other:4", "org/x:5"]);
    sandbox
        .sh(&format!("rm -rf {}", mount.image("app").display()))
        .ok();
    assert_eq!(names(mount.path("images")), ["org", "other"]);
    assert_eq!(
        sandbox.mica(["images", "-q"]).ok().stdout().lines().count(),
        2
    );
    sandbox
        .sh(&format!("rm -rf {}/*", mount.path("images").display()))
        .ok();
    assert!(names(mount.path("images")).is_empty());
    assert_eq!(layers(&sandbox), 0);
    sandbox.mica(["check"]).ok();
}

/// Removing one of two tags of an image leaves the other and frees nothing.
#[test]
fn fuse_two_tags_on_one_image() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1").tag("app:latest"));
    let mount = sandbox.mount();
    let before = walk::walk(&mount.image("app/latest")).expect("the tree");
    sandbox
        .sh(&format!("rm -r {}", mount.image("app/1").display()))
        .ok();
    assert_eq!(names(mount.image("app")), ["latest"]);
    assert_eq!(layers(&sandbox), 2);
    let after = walk::walk(&mount.image("app/latest")).expect("the tree");
    assert!(walk::compare(&before, &after).is_empty());
}

/// A layer that another image needs stays, and the other image stays whole.
#[test]
fn fuse_shared_layers_stay() {
    let (sandbox, mount) = mounted(&["app:1", "other:2"]);
    let before = walk::walk(&mount.image("other/2")).expect("the tree");
    sandbox
        .sh(&format!("rm -r {}", mount.image("app/1").display()))
        .ok();
    let after = walk::walk(&mount.image("other/2")).expect("the tree");
    let differences = walk::compare(&before, &after);
    assert!(differences.is_empty(), "{differences:#?}");
    sandbox.sh("echo 3 > /proc/sys/vm/drop_caches").ok();
    let cold = walk::walk(&mount.image("other/2")).expect("the tree");
    assert!(walk::compare(&before, &cold).is_empty());
}

/// `rm` of a single file inside a tag fails with EROFS and removes nothing.
#[test]
fn fuse_rm_of_a_single_file() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let tag = mount.image("app/1");
    for script in [
        "rm TAG/etc/passwd",
        "rm -rf TAG/etc TAG/usr TAG/own",
        "rmdir TAG/etc",
    ] {
        let run = sandbox.sh(&script.replace("TAG", tag.to_str().expect("UTF-8")));
        assert_eq!(run.status.code(), Some(1), "{}", run.describe());
        assert!(
            run.stderr().contains("Read-only file system"),
            "{}",
            run.describe()
        );
    }
    assert_eq!(names(&tag), ["etc", "own", "usr"]);
    assert_eq!(names(tag.join("etc")), ["hosts", "passwd"]);
}

/// An `rm -r` that ends before it removed the tag directory has changed nothing.
#[test]
fn fuse_interrupted_removal() {
    let (sandbox, mount) = mounted(&["app:1"]);
    let tag = mount.image("app/1");
    let before = walk::walk(&tag).expect("the tree");
    // Lists the root, removes all that is in it, and ends without the last rmdir.
    let script = "import os,sys\n\
        for d, dirs, files in os.walk(sys.argv[1], topdown=False):\n\
        \x20 for f in files: os.unlink(os.path.join(d, f))\n\
        \x20 for s in dirs: os.rmdir(os.path.join(d, s))\n";
    let mut remover = Command::new("python3");
    remover.args(["-c", script]).arg(&tag);
    sandbox.run(remover).ok();
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        // The end of the process is noticed a moment after it.
        let now = walk::walk(&tag).map(|tree| walk::compare(&before, &tree));
        match now {
            Ok(differences) if differences.is_empty() => break,
            other => assert!(Instant::now() < end, "{other:#?}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(layers(&sandbox), 2);
    sandbox.sh(&format!("rm -r {}", tag.display())).ok();
    assert_eq!(layers(&sandbox), 0);
}

/// A tag whose tree is somebody's bind mount, working directory or root cannot be removed: EBUSY, and nothing is staged.
#[test]
fn fuse_attached_images_stay() {
    let (sandbox, mount) = mounted(&["app:1", "other:2"]);
    let tag = mount.image("app/1");
    let before = walk::walk(&tag).expect("the tree");
    let refused = |what: &str| {
        assert_eq!(errno(fs::remove_dir(&tag)), Errno::BUSY, "{what}");
        let run = sandbox.sh(&format!("rm -r {}", tag.display()));
        assert_eq!(run.status.code(), Some(1), "{what}: {}", run.describe());
        assert!(
            run.stderr().contains("Device or resource busy"),
            "{what}: {}",
            run.describe()
        );
        let after = walk::walk(&tag).expect("the tree");
        assert!(walk::compare(&before, &after).is_empty(), "{what}");
    };
    let point = sandbox.mkdir("point");
    sandbox
        .sh(&format!(
            "mount --bind {} {}",
            tag.display(),
            point.display()
        ))
        .ok();
    refused("bind mount");
    sandbox.umount(&point);
    let mut sleeper = Command::new("sleep")
        .arg("600")
        .current_dir(tag.join("etc"))
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep");
    refused("working directory");
    sleeper.kill().and_then(|()| sleeper.wait()).expect("kill");
    sandbox.sh(&format!("rm -r {}", tag.display())).ok();
    assert_eq!(names(mount.path("by-id")).len(), 1);
}

/// A file that is open when its image goes stays readable until it is closed; then its layer's space returns.
#[test]
fn fuse_open_files_survive() {
    let sandbox = Sandbox::new();
    let content: Vec<u8> = (0..8_000_000u32).map(|i| (i % 251) as u8).collect();
    sandbox.load(&ImageBuilder::new("app:1").layer(|l| l.file("large", &content)));
    let mount = sandbox.mount();
    let daemon = mount.daemon().expect("the daemon's pid").as_raw_nonzero();
    let held = || {
        fs::read_dir(format!("/proc/{daemon}/fd"))
            .expect("the daemon's files")
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .filter(|target| target.to_string_lossy().ends_with(" (deleted)"))
            .count()
    };
    let mut file = File::open(mount.image("app/1/large")).expect("open");
    let mut first = vec![0u8; 1000];
    file.read_exact(&mut first).expect("the first bytes");
    sandbox
        .sh(&format!("rm -r {}", mount.image("app/1").display()))
        .ok();
    assert_eq!(layers(&sandbox), 0);
    assert!(held() > 0, "the daemon let go of a layer in use");
    sandbox.sh("echo 3 > /proc/sys/vm/drop_caches").ok();
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).expect("the rest");
    assert!(first == content[..1000] && rest == content[1000..]);
    drop(file);
    let end = Instant::now() + Duration::from_secs(10);
    while held() > 0 {
        assert!(
            Instant::now() < end,
            "the daemon keeps the layer of a closed file"
        );
        thread::sleep(Duration::from_millis(20));
        // The kernel forgets an inode when its dentry goes.
        sandbox.sh("echo 2 > /proc/sys/vm/drop_caches").ok();
    }
}

/// `rmdir M/by-id/<id>` removes an image that has no tag and refuses one that has with EBUSY.
#[test]
fn fuse_rm_by_id() {
    let sandbox = Sandbox::new();
    let nameless = ImageBuilder::new("").layer(|l| l.file("own", "nameless"));
    sandbox.load(&nameless);
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount();
    let by_id = |image: &ImageBuilder| mount.path("by-id").join(hex(&image.id()));
    assert_eq!(errno(fs::remove_dir(by_id(&image("app:1")))), Errno::BUSY);
    fs::remove_dir(by_id(&nameless)).expect("an image without a tag");
    assert_eq!(names(mount.path("by-id")), [hex(&image("app:1").id())]);
    assert_eq!(layers(&sandbox), 2);
}

/// `layers/` and `info/` refuse every change with EPERM.
#[test]
fn fuse_layers_and_info_refuse() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    let layer = mount
        .path("layers")
        .join(hex(&image("app:1").diff_ids()[0]));
    assert_eq!(errno(fs::remove_dir(&layer)), Errno::PERM);
    assert_eq!(errno(fs::remove_file(layer.join("tar"))), Errno::PERM);
    assert_eq!(errno(fs::create_dir(mount.path("layers/x"))), Errno::PERM);
    assert_eq!(errno(fs::create_dir(mount.path("info/x"))), Errno::PERM);
    assert_eq!(errno(fs::remove_file(mount.path("info/df"))), Errno::PERM);
    assert_eq!(errno(File::create_new(mount.path("info/x"))), Errno::PERM);
    assert_eq!(
        errno(fs::rename(mount.path("info/df"), mount.path("info/x"))),
        Errno::PERM
    );
}

/// Mounted with `-o rm=off`, nothing can be removed through M.
#[test]
fn fuse_removal_switched_off() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1"));
    let mount = sandbox.mount_with(&["-o", "rm=off"]);
    let before = sandbox.store_files();
    for script in ["rmdir TAG", "rm -r TAG", "rm TAG/own", "rm ALIAS"] {
        let script = script
            .replace("TAG", mount.image("app/1").to_str().expect("UTF-8"))
            .replace("ALIAS", mount.image("app:1").to_str().expect("UTF-8"));
        let mut command = Command::new("sh");
        command.arg("-c").arg(&script).process_group(0);
        let run = sandbox.run(command);
        assert_eq!(run.status.code(), Some(1), "{}", run.describe());
    }
    assert_eq!(names(mount.image("app")), ["1"]);
    assert_eq!(sandbox.store_files(), before);
}
