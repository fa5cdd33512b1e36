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
