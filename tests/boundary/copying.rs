//! The image's content goes to a new volume as root, while somebody in the volume works against it.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::common::image::ImageBuilder;
use crate::running::user;

fn site(name: &str) -> ImageBuilder {
    image(name).layer(|l| {
        l.dir("srv", 0o755)
            .dir("srv/d", 0o755)
            .owner(33, 44)
            .file("srv/d/evil", "from the image\n")
            .owner(5, 6)
            .mode(0o4755)
    })
}

fn as_found(outside: &Path) -> Vec<(String, u32, u32)> {
    let mut found: Vec<_> = fs::read_dir(outside)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let stat = entry.metadata().unwrap();
            (
                entry.file_name().into_string().unwrap(),
                stat.uid(),
                stat.mode(),
            )
        })
        .collect();
    found.sort();
    let stat = fs::metadata(outside).unwrap();
    found.push((".".to_owned(), stat.uid(), stat.mode()));
    found
}

fn directory_swapped(s: &Sandbox) {
    let outside = secret(s);
    s.load(&site("site:1"));
    shown(s, "volume create vol");
    let before = as_found(&outside);
    let held = Held::at(s, "copy-up-directory", "run --rm -v vol:/srv site:1 true");
    let data = data(s, "vol");
    fs::rename(data.join("d"), data.join("was")).unwrap();
    symlink(&outside, data.join("d")).unwrap();
    let output = held.end();
    assert_eq!(as_found(&outside), before);
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("changed by somebody else meanwhile"));
    assert!(left(s).is_empty());
}

#[test]
fn root_regression_copy_up_directory_swapped_for_a_link() {
    directory_swapped(&sandbox());
}

#[test]
fn fuse_regression_copy_up_directory_swapped_for_a_link_rootless() {
    let s = user(54_342, "54342:700000:65536\n");
    directory_swapped(&s);
}

#[test]
fn root_regression_copy_up_file_swapped_for_a_link() {
    let s = sandbox();
    let outside = secret(&s);
    s.load(&site("site:1"));
    shown(&s, "volume create vol");
    let before = as_found(&outside);
    // Owner, mode, attributes and times are still to be set.
    let held = Held::at(&s, "copy-up-file", "run --rm -v vol:/srv site:1 true");
    let data = data(&s, "vol");
    fs::rename(data.join("d/evil"), data.join("d/was")).unwrap();
    symlink(outside.join("key"), data.join("d/evil")).unwrap();
    held.end();
    assert_eq!(as_found(&outside), before);
    let made = fs::metadata(data.join("d/was")).unwrap();
    assert_eq!((made.uid(), made.mode() & 0o7777), (5, 0o4755));
}

/// What lies in a volume above is no image.
#[test]
fn root_regression_copy_up_reads_nothing_of_the_host() {
    let s = sandbox();
    let outside = secret(&s);
    s.load(&site("site:1"));
    shown(&s, "run --rm -v outer:/srv site:1 true");
    shown(&s, "volume create inner");
    let outer = data(&s, "outer");
    let held = Held::at(
        &s,
        "copy-up",
        "run --rm -v outer:/srv -v inner:/srv/d site:1 true",
    );
    fs::rename(outer.join("d"), outer.join("was")).unwrap();
    symlink(&outside, outer.join("d")).unwrap();
    held.end();
    let found = as_found(&data(&s, "inner"));
    assert!(found.iter().all(|(name, ..)| name != "key"), "{found:?}");
    // Nor when it was a link all the time.
    shown(&s, "volume create second");
    mica(&s, "run --rm -v outer:/srv -v second:/srv/d site:1 true");
    let found = as_found(&data(&s, "second"));
    assert!(found.iter().all(|(name, ..)| name != "key"), "{found:?}");
}

#[test]
fn root_regression_copy_up_and_the_look_before_it_are_one_step() {
    let s = sandbox();
    s.load(&site("site:1"));
    shown(&s, "volume create vol");
    let held = Held::at(&s, "copy-up", "run --rm -v vol:/srv site:1 cat /srv/d/evil");
    let mut second = s.command();
    second
        .args([
            "run",
            "--rm",
            "-v",
            "vol:/srv",
            "site:1",
            "cat",
            "/srv/d/evil",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let second = second.spawn().unwrap();
    let waits = "-> FLOCK  ADVISORY  WRITE";
    wait_until("the second waits", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let inode = fs::metadata(data(&s, "vol").parent().unwrap())
            .unwrap()
            .ino();
        locks
            .lines()
            .any(|line| line.contains(waits) && line.contains(&format!(":{inode} ")))
    });
    assert_eq!(text(&held.end().stdout), "from the image\n");
    let output = second.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "from the image\n");
}

/// A tebibyte of nothing in half a kilobyte.
#[test]
fn root_regression_copy_up_of_holes_takes_no_room() {
    let s = sandbox();
    let size = 1u64 << 40;
    let hole = size - 512;
    s.load(
        &image("holes:1")
            .layer(|l| {
                l.dir("srv", 0o755)
                    .file("srv/big", [b'x'; 512])
                    .pax("GNU.sparse.size", size.to_string())
                    .pax("GNU.sparse.numblocks", "1")
                    .pax("GNU.sparse.map", format!("{hole},512"))
            })
            .config(|c| c["config"]["Volumes"] = serde_json::json!({"/srv": {}})),
    );
    let seen = shown(
        &s,
        "run --rm -v vol:/srv holes:1 -- stat -c %s /srv/big; busybox tail -c 3 /srv/big",
    );
    assert_eq!(seen, format!("{size}\nxxx"));
    let stat = fs::metadata(data(&s, "vol").join("big")).unwrap();
    assert!(stat.blocks() < 2048, "{} blocks", stat.blocks());
    // Declared, it goes again.
    shown(&s, "run --rm holes:1 true");
}

#[test]
fn root_regression_copy_up_that_fails_leaves_an_empty_volume() {
    let s = sandbox();
    s.load(&image("odd:1").layer(|l| {
        let mut path = String::from("srv");
        let mut l = l.dir(&path, 0o755).file("srv/a", "a");
        for _ in 0..300 {
            path.push_str("/d");
            l = l.dir(&path, 0o755);
        }
        l
    }));
    let run = mica(&s, "run --rm -v vol:/srv odd:1 true").code(125);
    assert!(
        run.stderr().contains("mount it with :nocopy"),
        "{}",
        run.describe()
    );
    assert_eq!(fs::read_dir(data(&s, "vol")).unwrap().count(), 0);
    shown(&s, "run --rm -v vol:/srv:nocopy odd:1 true");
}

/// Before, what was filled between the making and the start was not looked at again.
#[test]
fn root_regression_copy_up_never_overwrites() {
    let s = sandbox();
    s.load(&site("site:1"));
    shown(&s, "volume create vol");
    let held = Held::at(&s, "sources", "run --rm -v vol:/srv site:1 ls /srv");
    let data = data(&s, "vol");
    fs::create_dir(data.join("d")).unwrap();
    fs::write(data.join("d/mine"), "mine").unwrap();
    assert_eq!(text(&held.end().stdout), "d\n");
    assert_eq!(fs::read(data.join("d/mine")).unwrap(), b"mine");
    assert!(!data.join("d/evil").exists());
}

#[test]
fn root_regression_volume_on_the_kernels_own_files_is_refused() {
    let s = sandbox();
    let table = [
        ("/proc", None),
        ("/sys", None),
        ("/proc/1/fd", None),
        ("/x", Some("/proc")),
        ("/x", Some("/proc/1")),
        ("/x/fs", Some("sys")),
        ("/x", Some("/proc/kmsg")),
    ];
    for (number, (place, link)) in table.into_iter().enumerate() {
        let name = format!("evil:{number}");
        s.load(
            &image(&name)
                .layer(|l| match link {
                    Some(target) => l.symlink("x", target),
                    None => l.dir("x", 0o755),
                })
                .config(|c| c["config"]["Volumes"] = serde_json::json!({place: {}})),
        );
        let run = mica(&s, &format!("run --rm {name} true")).code(125);
        assert!(run.stderr().contains("cannot mount"), "{}", run.describe());
        let run = mica(&s, &format!("run --rm -v vol:{place} {name} true")).code(125);
        assert!(run.stderr().contains("cannot mount"), "{}", run.describe());
        assert_eq!(fs::read_dir(data(&s, "vol")).unwrap().count(), 0);
    }
    // What a link of the image makes of a place that the user means to be an ordinary one.
    let mounts = [
        "--tmpfs /x".to_owned(),
        format!("-v {}:/x", s.mkdir("demo").display()),
    ];
    for mount in mounts {
        let run = mica(&s, &format!("run --rm {mount} evil:3 true")).code(125);
        assert!(
            run.stderr().contains("in this image that is /proc"),
            "{}",
            run.describe()
        );
    }
    // Who names it means it.
    shown(
        &s,
        "run --rm -v /sys/fs/cgroup:/sys/fs/cgroup:ro app:1 true",
    );
    assert!(left(&s).is_empty());
}

#[test]
fn root_regression_volumes_by_the_thousand() {
    let s = sandbox();
    let volumes = |count: usize| -> serde_json::Value {
        (0..count)
            .map(|i| (format!("/v/{i}"), serde_json::json!({})))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    s.load(&image("many:1").config(|c| c["config"]["Volumes"] = volumes(128)));
    s.load(&image("many:2").config(|c| c["config"]["Volumes"] = volumes(129)));
    let before = fs::metadata(s.store().join("events.log")).map_or(0, |m| m.len());
    assert_eq!(shown(&s, "run --rm many:1 -- ls /v | wc -l"), "128\n");
    assert!(fs::metadata(s.store().join("events.log")).unwrap().len() > before);
    let refused = mica(&s, "run --rm many:2 true").code(125);
    assert!(
        refused.stderr().contains("129 volumes"),
        "{}",
        refused.describe()
    );
    assert!(left(&s).is_empty());
}

#[test]
fn root_regression_volume_path_that_goes_up_means_the_image() {
    let s = sandbox();
    s.load(
        &image("up:1")
            .layer(|l| l.symlink("x", "../../../../etc"))
            .config(|c| {
                c["config"]["Volumes"] =
                    serde_json::json!({"/../../x": {}, "/a/../../../var/lib": {}});
            }),
    );
    // The image's own passwd, not the host's.
    let seen = shown(
        &s,
        "run --rm up:1 -- cat /etc/passwd | grep -c bob; grep -c ' /var/lib ' /proc/self/mounts",
    );
    assert_eq!(seen, "1\n1\n");
}

#[test]
fn fuse_regression_setid_and_capabilities_of_a_rootless_container_count_nowhere() {
    let s = user(54_343, "54343:700000:65536\n");
    s.load(&image("suid:1").layer(|l| {
        l.file("suid", fs::read("/bin/busybox").unwrap())
            .mode(0o4755)
    }));
    shown(&s, "run --name one suid:1 -- touch /suid; chmod 4755 /suid");
    let upper = left(&s)[0].join("upper/suid");
    let stat = fs::metadata(&upper).unwrap();
    assert_ne!(stat.uid(), 0);
    // Nobody else gets there.
    let store = fs::metadata(s.store()).unwrap().permissions().mode();
    let dir = fs::metadata(&left(&s)[0]).unwrap().permissions().mode();
    assert!(store & 0o077 == 0 || dir & 0o077 == 0, "{store:o} {dir:o}");
    shown(&s, "rm one");
}
