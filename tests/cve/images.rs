//! Images: names and entries that lead elsewhere.

use crate::common::image::ImageBuilder;
use crate::common::sandbox::Sandbox;
use mica::oci::Digest;

/// A digest is 64 digits, or it is none: it becomes a path.
#[test]
fn cve_2024_37032_a_digest_that_is_a_path() {
    for text in [
        "sha256:../../../../etc/passwd",
        "sha256:",
        "sha256:../",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "../../x",
        "",
        "sha256:\u{661}\u{662}",
    ] {
        assert!(text.parse::<Digest>().is_err(), "{text}");
    }
    let digits = "a".repeat(64);
    assert!(format!("sha256:{digits}").parse::<Digest>().is_ok());
    for bad in [
        &digits[1..],
        &format!("{digits}a"),
        &"A".repeat(64),
        &"g".repeat(64),
    ] {
        assert!(format!("sha256:{bad}").parse::<Digest>().is_err(), "{bad}");
    }
}

/// An entry for the root itself is a directory or a mistake.
#[test]
fn cve_2021_29136_the_root_is_a_link() {
    let s = Sandbox::new();
    for name in [".", "./", "/", "d/.."] {
        for image in [
            ImageBuilder::new("app:1").layer(|l| l.symlink(name, "/etc").file("evil", "")),
            ImageBuilder::new("app:1").layer(|l| l.file("f", "").hardlink(name, "f")),
            ImageBuilder::new("app:1").layer(|l| l.fifo(name)),
        ] {
            image.docker_archive(&s.path("bad.tar"));
            s.mica(["load", "-i", "bad.tar"]).code(1);
        }
    }
    assert_eq!(s.mica(["images", "-q"]).ok().stdout(), "");
    assert!(!std::path::Path::new("/etc/evil").exists());
}

/// `name@digest` is an image of that name, not one that came by another and has the digest.
#[test]
fn cve_moby_20_10_20_a_digest_of_another_repository() {
    let s = Sandbox::new();
    let evil = ImageBuilder::new("evil/x:1").layer(|l| l.file("f", "evil"));
    s.load(&evil);
    s.load(&ImageBuilder::new("debian:12").layer(|l| l.file("f", "good")));
    let served = s.mica(["inspect", "-f", "{{json .RepoDigests}}", "evil/x:1"]);
    let mut digests = vec![evil.id()];
    let served = served.ok().stdout();
    digests.extend(
        served
            .split(['"', '@'])
            .filter(|text| text.starts_with("sha256:"))
            .map(str::to_owned),
    );
    for digest in digests {
        s.mica(["inspect", &format!("evil/x:1@{digest}")]).ok();
        for name in [
            "debian:12",
            "debian",
            "docker.io/library/debian",
            "evil/y",
            "x",
        ] {
            let run = s.mica(["inspect", &format!("{name}@{digest}")]).code(1);
            assert!(run.stderr().contains("No such"), "{}", run.describe());
            s.mica(["save", "-o", "out.tar", &format!("{name}@{digest}")])
                .code(1);
        }
    }
}

/// A mapped file ends with zeros, whatever its length; one whose blob is cut short is no file of zeros.
#[test]
fn fuse_cve_2022_1011_nothing_stands_behind_the_end_of_a_file() {
    const PAGE: usize = 4096;
    let s = Sandbox::new();
    let sizes = [
        1,
        511,
        512,
        513,
        PAGE - 1,
        PAGE + 1,
        3 * PAGE - 512,
        100_001,
    ];
    s.load(&ImageBuilder::new("app:1").layer(|l| {
        sizes.into_iter().fold(l, |l, size| {
            l.file(format!("f{size}"), vec![b'x'; size])
                .file(format!("z{size}"), vec![b'!'; 700])
        })
    }));
    let mount = s.mount();
    for size in sizes {
        let file = std::fs::File::open(mount.image(format!("app/1/f{size}"))).unwrap();
        let length = size.next_multiple_of(PAGE);
        let (protection, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::PRIVATE);
        // SAFETY: the mapping is new, nothing changes the file, and its last page is there to its end.
        #[allow(unsafe_code)]
        let bytes = unsafe {
            let at = rustix::mm::mmap(std::ptr::null_mut(), length, protection, flags, &file, 0)
                .unwrap();
            let bytes = std::slice::from_raw_parts(at.cast::<u8>(), length).to_vec();
            rustix::mm::munmap(at, length).unwrap();
            bytes
        };
        assert!(bytes[..size].iter().all(|byte| *byte == b'x'), "{size}");
        assert!(bytes[size..].iter().all(|byte| *byte == 0), "{size}");
    }
}

/// A directory that is closed is closed for everybody at once, also for who has just looked into it.
#[test]
fn fuse_cve_libfuse_15_permissions_are_asked_each_time() {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};
    const USER: u32 = 54_420;
    let s = Sandbox::new();
    let mount = s.mount_with(&["-o", "allow_other"]);
    let top = mount.point.join("volumes/vol");
    fs::create_dir(&top).unwrap();
    let dir = top.join("d");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("f"), "secret").unwrap();
    for path in [&top, &dir] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let reads = || {
        let mut command = crate::common::user::as_user(USER, "cat");
        command.arg(dir.join("f"));
        s.run(command).status.success()
    };
    for round in 0..5 {
        assert!(reads(), "{round}");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!reads(), "{round}");
        chown(&dir, Some(USER), Some(USER)).unwrap();
        assert!(reads(), "{round}");
        chown(&dir, Some(0), Some(0)).unwrap();
        assert!(!reads(), "{round}");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
