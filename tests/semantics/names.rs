use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{errno, hex, image, mounted, names};
use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;

/// `M/images/<repository>/<tag>` is one directory for every tag of the store, `docker.io/` and `library/` left out as docker does.
#[test]
fn fuse_one_directory_for_every_tag() {
    let sandbox = Sandbox::new();
    sandbox.load(
        &image("docker.io/library/app:1")
            .tag("docker.io/org/app:2")
            .tag("localhost:5000/team/app:v1"),
    );
    let mount = sandbox.mount();
    assert_eq!(
        names(mount.path("images")),
        ["app", "localhost:5000", "org"]
    );
    assert_eq!(names(mount.image("app")), ["1"]);
    assert_eq!(names(mount.image("org")), ["app"]);
    assert_eq!(names(mount.image("org/app")), ["2"]);
    for tag in ["app/1", "org/app/2", "localhost:5000/team/app/v1"] {
        assert!(mount.image(tag).join("etc/passwd").is_file(), "{tag}");
    }
}

/// A docker reference works as a path: `M/images/app:1`, `M/images/docker.io/library/app` and `M/images/app@sha256:<id>` resolve, and are never listed.
#[test]
fn fuse_a_reference_is_a_path() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    let id = image("app:1").id();
    let own = |path: &str| fs::read_to_string(mount.image(path));
    for path in [
        "app:1/own".to_owned(),
        "docker.io/library/app/1/own".to_owned(),
        format!("app@{id}/own"),
    ] {
        assert_eq!(
            own(&path).unwrap_or_else(|e| panic!("{path}: {e}")),
            "app:1"
        );
    }
    assert_eq!(names(mount.path("images")), ["app"]);
    assert_eq!(errno(own("app:2/own")), Errno::NOENT);
    assert_eq!(errno(own(&format!("other@{id}/own"))), Errno::NOENT);
}

/// An image without a tag is listed in `M/images/.dangling` under the first 12 digits of its ID, and nowhere else in `M/images`.
#[test]
fn fuse_dangling_images() {
    let sandbox = Sandbox::new();
    let nameless = ImageBuilder::new("").layer(|l| l.file("own", "nameless"));
    sandbox.load(&nameless);
    let mount = sandbox.mount();
    let id12 = &hex(&nameless.id())[..12];
    assert_eq!(names(mount.image(".dangling")), [id12]);
    let own = mount.image(format!(".dangling/{id12}/own"));
    assert_eq!(fs::read_to_string(own).expect("the image"), "nameless");
    let others: Vec<_> = names(mount.path("images"))
        .into_iter()
        .filter(|name| name != ".dangling")
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Every image is listed once in `M/by-id` under its 64-digit ID; any unique prefix of at least four digits resolves too.
#[test]
fn fuse_by_id() {
    let sandbox = Sandbox::new();
    sandbox.load(&image("app:1").tag("app:latest"));
    let mount = sandbox.mount();
    let id = hex(&image("app:1").id());
    assert_eq!(names(mount.path("by-id")), std::slice::from_ref(&id));
    for name in [&id, &id[..4], &id[..12], &format!("sha256:{id}")] {
        let own = mount.path("by-id").join(name).join("own");
        assert_eq!(fs::read_to_string(own).expect(name), "app:1");
    }
    assert_eq!(
        errno(fs::metadata(mount.path("by-id").join(&id[..3]))),
        Errno::NOENT
    );
}

/// Where the tag `foo:bar` meets the repository `foo/bar`, the repository keeps the name `foo/bar` and the tag is listed as `foo/:bar`.
#[test]
fn fuse_tag_against_repository() {
    let (_sandbox, mount) = mounted(&["foo:bar", "foo/bar:1"]);
    assert_eq!(names(mount.image("foo")), [":bar", "bar"]);
    assert_eq!(names(mount.image("foo/bar")), ["1"]);
    let own = |path: &str| fs::read_to_string(mount.image(path)).expect(path);
    assert_eq!(own("foo/:bar/own"), "foo:bar");
    assert_eq!(own("foo/bar/1/own"), "foo/bar:1");
}

/// A name that is not there is ENOENT, and looking it up never touches the network.
#[test]
fn fuse_unknown_names() {
    let (_sandbox, mount) = mounted(&["app:1"]);
    let daemon = mount.daemon().expect("the daemon's pid").as_raw_nonzero();
    let start = Instant::now();
    for name in [
        "nginx",
        "nginx:latest",
        "registry.example.com/x/y",
        ".git",
        ".hidden",
        ".Trash",
        "desktop.ini",
        "app/2",
        "app/1/nothing",
        "Upper",
        "a..b",
        "-x",
    ] {
        assert_eq!(
            errno(fs::symlink_metadata(mount.image(name))),
            Errno::NOENT,
            "{name}"
        );
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    let open: Vec<u64> = fs::read_dir(format!("/proc/{daemon}/fd"))
        .expect("the daemon's files")
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter_map(|target| {
            let text = target.to_string_lossy().into_owned();
            text.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
        .collect();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("/proc/{daemon}/net/{table}")).expect("the table");
        for line in table.lines().skip(1) {
            let inode: u64 = line
                .split_whitespace()
                .nth(9)
                .and_then(|i| i.parse().ok())
                .unwrap_or(0);
            assert!(!open.contains(&inode), "a network socket: {line}");
        }
    }
}
