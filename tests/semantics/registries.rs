use std::fs;

use super::image;
use crate::common::image::digest;
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::Sandbox;
use crate::common::walk;

/// Everything that was pulled works without the registry: verbs, mounts and saving never touch the network.
#[test]
fn fuse_pulled_images_work_offline() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    registry.push_with_skopeo(&sandbox, &image("app:1"), "app:1");
    let name = registry.name("app:1");
    sandbox.mica(["pull", &name]).ok();
    let path = registry.host();
    drop(registry);
    let mount = sandbox.mount();
    let pulled = mount.point.join("images").join(path).join("app/1");
    assert_eq!(fs::read(pulled.join("own")).expect("read"), b"app:1");
    sandbox.load(&image("app:1"));
    let loaded = mount.point.join("images/app/1");
    assert_eq!(
        walk::differences(&loaded, &pulled).expect("walk"),
        Vec::<String>::new()
    );
    for args in [
        vec!["inspect", &name],
        vec!["history", &name],
        vec!["check"],
    ] {
        sandbox.mica(args).ok();
    }
    sandbox.mica(["save", "-o", "saved.tar", &name]).ok();
}

/// A pull downloads no layer that is stored already.
#[test]
fn fuse_known_layers_are_not_downloaded() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = image("app:1");
    registry.push_with_skopeo(&sandbox, &image, "app:1");
    sandbox.load(&super::image("other:1"));
    registry.lose_blob(&digest(&image.pack.apply(&image.layers[0])));
    sandbox.mica(["pull", &registry.name("app:1")]).ok();
    sandbox.mica(["check"]).ok();
}

/// A pull that fails leaves nothing: neither a name nor bytes.
#[test]
fn fuse_a_failed_pull_leaves_nothing() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = image("app:1");
    registry.push_with_skopeo(&sandbox, &image, "app:1");
    registry.lose_blob(&digest(&image.pack.apply(&image.layers[1])));
    sandbox.load(&super::image("other:1"));
    let mount = sandbox.mount();
    let before = sandbox.store_files();
    let run = sandbox.mica(["pull", &registry.name("app:1")]).code(1);
    assert!(run.stderr().contains("not found"), "{}", run.stderr());
    assert_eq!(sandbox.store_files(), before);
    assert_eq!(super::names(mount.point.join("images")), ["other"]);
}

/// An image that was pushed and pulled back has the same ID, and pushed again it has the same digest.
#[test]
fn fuse_pushed_images_come_back() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let image = image("app:1");
    sandbox.load(&image);
    let name = registry.name("app:1");
    sandbox.mica(["tag", "app:1", &name]).ok();
    let pushed = sandbox.mica(["push", &name]).ok().stdout();
    let back = Sandbox::new();
    back.mica(["pull", &name]).ok();
    let id = back
        .mica(["images", "-q", "--no-trunc", &name])
        .ok()
        .stdout();
    assert_eq!(id.trim(), image.id());
    let again = back.mica(["push", &name]).ok().stdout();
    assert_eq!(again.lines().last(), pushed.lines().last());
}
