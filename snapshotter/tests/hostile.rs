//! Images as nobody builds them: what a container sees is what it sees on containerd's own overlayfs snapshotter.

use mica_snapshotter::proto::{CreateRequest, MountsResponse};

use crate::client::{Client, create, labels};
use crate::common::image::ImageBuilder;
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::Sandbox;
use crate::common::walk;
use crate::node::{Containerd, pushed};
use crate::work::{chains, mount, start};

/// Whiteouts, opaque directories, links and types that change from one layer to the next.
fn odd() -> ImageBuilder {
    ImageBuilder::new("odd:1")
        .layer(|l| {
            l.dir(".", 0o711)
                .dir("d", 0o755)
                .file("d/a", "a")
                .file("d/b", "b")
                .hardlink("d/c", "d/a")
                .dir("d/sub", 0o700)
                .owner(12, 34)
                .mtime(1_000_000_000, 123_456_789)
                .file("d/sub/x", "x")
                .dir("opaque", 0o755)
                .file("opaque/lower", "lower")
                .dir("opaque/deep", 0o755)
                .file("opaque/deep/lower", "lower")
                .file("file-then-dir", "file")
                .dir("dir-then-file", 0o755)
                .file("dir-then-file/below", "below")
                .dir("dir-then-link", 0o755)
                .file("dir-then-link/below", "below")
                .symlink("link", "d/a")
                .symlink("link-to-dir", "d")
                .char_device("null", 1, 3)
                .block_device("loop", 7, 1)
                .fifo("fifo")
                .file("set-id", "x")
                .mode(0o6755)
                .owner(5, 6)
                .file("xattr", "x")
                .xattr("user.key", b"value with\nnewline=and more")
        })
        .layer(|l| {
            l.whiteout("d/b")
                .dir("d", 0o711)
                .file("d/new", "new")
                .dir("opaque", 0o750)
                .opaque("opaque")
                .file("opaque/upper", "upper")
                .whiteout("file-then-dir")
                .dir("file-then-dir", 0o755)
                .file("file-then-dir/below", "below")
                .whiteout("dir-then-file")
                .file("dir-then-file", "file")
                .whiteout("dir-then-link")
                .symlink("dir-then-link", "d")
                .symlink("link", "nowhere")
                .whiteout("fifo")
                .whiteout("never-there")
        })
        .layer(|l| {
            l.dir("d", 0o755)
                .dir("d/sub", 0o755)
                .file("d/sub/y", "y")
                .file("d/b", "again")
                .dir("opaque", 0o755)
                .dir("opaque/deep", 0o700)
                .file("opaque/deep/upper", "upper")
                .file("fifo", "a file")
                .hardlink("fifo-too", "fifo")
        })
}

/// A hundred and twenty-seven layers, each of which takes something away from those below.
fn long() -> ImageBuilder {
    let first = ImageBuilder::new("long:1").layer(|mut l| {
        l = l.dir("d", 0o755).dir("o", 0o755);
        for n in 1..127 {
            l = l.file(format!("d/{n}"), format!("{n}"));
        }
        l
    });
    (1..127).fold(first, |image, n| {
        image.layer(|l| {
            // Directories that a layer does not name get the time of the unpacking from containerd.
            let l = l.dir("d", 0o755).dir("o", 0o755);
            let l = match n % 3 {
                0 => l.whiteout(format!("d/{n}")),
                1 => l.file(format!("d/{n}"), "again").mode(0o600).owner(n, n),
                _ => l.opaque("o"),
            };
            l.file(format!("o/{n}"), "own")
        })
    })
}

/// What containers on both see of the same images, entry by entry: by the overlay that each is given.
#[test]
fn net_root_hostile_as_on_overlayfs() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let m = sandbox.mount();
    let snapshotter = start(&sandbox);
    let containerd = Containerd::start(&sandbox);
    let client = Client::connect(&containerd.socket());
    for (n, image) in [odd(), long()].iter().enumerate() {
        let name = pushed(&sandbox, &registry, image, &format!("team/odd-{n}:1"));
        sandbox.mica(["pull", "-q", &name]).ok();
        let chains = chains(image);
        let mut mounted = Vec::new();
        for snapshotter in ["overlayfs", "mica"] {
            containerd.shown(&format!(
                "images pull --plain-http --snapshotter {snapshotter} {name}"
            ));
            let request = CreateRequest {
                snapshotter: snapshotter.into(),
                ..create(
                    &format!("{n}"),
                    &chains[chains.len() - 1],
                    labels(&[("containerd.io/gc.root", "test")]),
                )
            };
            let answer: MountsResponse = client.call("Prepare", request).unwrap();
            let mut mounts = answer.mounts;
            // As containerd does it, paths of a page and more become short.
            for option in &mut mounts[0].options {
                let root = format!("{}/containerd/", sandbox.dir().display());
                *option = option.replace(&root, "containerd/");
            }
            let numbers = "containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/";
            for option in &mut mounts[0].options {
                *option = option.replace(numbers, "n/");
            }
            sandbox.sh(&format!("ln -sfn {numbers} n")).ok();
            mounted.push(mount(&sandbox, &mounts));
        }
        // Nothing was kept of what ctr has unpacked for itself.
        let listed = containerd.shown("snapshots --snapshotter mica ls");
        assert!(listed.contains(&chains[chains.len() - 1]), "{listed}");
        let entries = walk::walk(&mounted[0].at).unwrap().len();
        assert!(entries > 15, "{entries}");
        let mut found = walk::differences(&mounted[0].at, &mounted[1].at).unwrap();
        // The root of a tree has the mode that the image says; containerd's has its own, and another time in each container.
        found.retain(|line| !line.starts_with("/: m"));
        assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
    }
    drop((containerd, snapshotter));
    m.unmount();
}

/// Attributes by which overlayfs would look elsewhere for a directory or a file's data are not an image's to set.
#[test]
fn root_hostile_attributes_of_overlayfs() {
    let sandbox = Sandbox::new();
    let evil = ImageBuilder::new("evil:1")
        .layer(|l| {
            l.dir("secret", 0o700)
                .file("secret/f", "secret")
                .dir("shown", 0o755)
                .file("shown/lower", "x")
        })
        .layer(|l| {
            let mut l = l;
            for (name, key, value) in [
                ("redirected", "trusted.overlay.redirect", "/secret"),
                ("user", "user.overlay.redirect", "/secret"),
                ("shown", "trusted.overlay.opaque", "y"),
            ] {
                l = l
                    .dir(name, 0o755)
                    .xattr(key, value)
                    .file(format!("{name}/own"), "own");
            }
            l.file("data", "")
                .xattr("trusted.overlay.metacopy", "")
                .xattr("trusted.overlay.redirect", "/secret/f")
        });
    sandbox.load(&evil);
    let m = sandbox.mount();
    let running = start(&sandbox);
    let mut parent = String::new();
    for chain in chains(&evil) {
        let wanted = labels(&[("containerd.io/snapshot.ref", &chain)]);
        running
            .client
            .create("Prepare", "x", &parent, wanted)
            .unwrap_err();
        parent = chain;
    }
    let web = mount(&sandbox, &running.client.prepare("web", &parent).unwrap());
    let seen = web.sh("ls redirected user; wc -c <data; ls shown");
    assert_eq!(seen, "redirected:\nown\n\nuser:\nown\n0\nlower\nown\n");
    drop((web, running));
    m.unmount();
}
