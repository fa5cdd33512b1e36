use std::fs;
use std::process::Stdio;
use std::time::Duration;

use super::image;
use crate::common::sandbox::Sandbox;
use crate::common::walk;

/// What `mica export` writes is the merged tree exactly, hard links, holes, devices and extended attributes included; imported again it is the same tree, and exported again the same bytes.
#[test]
fn fuse_a_tree_out_and_in_again() {
    let sandbox = Sandbox::new();
    let image = image("app:1").layer(|l| {
        l.file("attributes", "x")
            .xattr("user.a", "b")
            .char_device("null", 1, 3)
            .hardlink("from-above", "etc/hosts")
            .whiteout("own")
    });
    sandbox.load(&image);
    sandbox
        .sh("mkdir tree && truncate -s 5M tree/hole && printf end >> tree/hole && tar -S -C tree -cf hole.tar .")
        .ok();
    sandbox.mica(["import", "hole.tar", "hole:1"]).ok();
    let mount = sandbox.mount();
    for name in ["app", "hole"] {
        let (first, second) = (format!("{name}.1.tar"), format!("{name}.2.tar"));
        sandbox
            .mica(["export", "-o", &first, &format!("{name}:1")])
            .ok();
        sandbox.mica(["import", &first, &format!("{name}:2")]).ok();
        sandbox
            .mica(["export", "-o", &second, &format!("{name}:2")])
            .ok();
        let read = |name: &str| fs::read(sandbox.path(name)).expect("read");
        assert!(read(&first) == read(&second), "{name}");
        let [old, new] = ["1", "2"].map(|tag| mount.point.join("images").join(name).join(tag));
        let mut found = walk::differences(&old, &new).expect("walk");
        // The date of the image.
        found.retain(|line| !line.starts_with("/: mtime"));
        assert_eq!(found, Vec::<String>::new());
    }
    assert!(
        fs::metadata(sandbox.path("hole.1.tar"))
            .expect("stat")
            .len()
            < 100_000
    );
}

/// `mica save` and `mica export` write their file whole or not at all, also when they are killed, and leave nothing else.
#[test]
fn archives_are_whole_or_not_there() {
    let sandbox = Sandbox::new();
    let image = image("app:1").layer(|l| l.file("big", vec![b'x'; 30_000_000]));
    sandbox.load(&image);
    let dir = sandbox.mkdir("out");
    let target = dir.join("file.tar");
    for verb in ["save", "export"] {
        let whole = sandbox.mica([verb, "app:1"]).ok().stdout;
        for number in 0..8 {
            let mut command = sandbox.command();
            command.args([verb, "-o"]).arg(&target).arg("app:1");
            let mut child = command.stdin(Stdio::null()).spawn().expect("mica");
            std::thread::sleep(Duration::from_millis(number * 20));
            child.kill().and_then(|()| child.wait()).expect("kill");
            let there = fs::read_dir(&dir).expect("readdir").count();
            match fs::read(&target) {
                Ok(bytes) => assert!(bytes == whole && there == 1, "{verb}"),
                Err(_) => assert_eq!(there, 0, "{verb}"),
            }
            // It may have ended before.
            let _ = fs::remove_file(&target);
        }
    }
}
