use std::fs;
use std::process::Stdio;
use std::time::Duration;

use super::image;
use crate::common::image::{ImageBuilder, digest};
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::Sandbox;
use crate::common::walk;
use crate::registry::liar::{Liar, layer_digest};

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

/// A pull that fails leaves no name and no image, and no bytes unless trying again may help.
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

/// Two megabytes that no compression makes fewer.
fn large() -> ImageBuilder {
    let mut state = 7u64;
    let noise = std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    });
    ImageBuilder::new("app:1").layer(|l| l.file("big", noise.take(2_000_000).collect::<Vec<_>>()))
}

/// What a pull that was killed or lost its connection has downloaded is gone on with by the next pull; `gc` removes it at once, any change after a day.
#[test]
fn net_broken_downloads_are_gone_on_with() {
    let sandbox = Sandbox::new();
    let image = large();
    let layer = layer_digest(&image, 0);
    let wanted = layer.clone();
    // The rest comes to those who ask for it.
    let liar = Liar::start(&image, move |request, mut answer| {
        if request.path.ends_with(&wanted) && !request.headers.contains_key("range") {
            answer.stall = Some(1_500_000);
        }
        answer
    });
    let partial = sandbox
        .store()
        .join("partial")
        .join(layer.replace("sha256:", ""));
    let kill = || {
        let mut command = sandbox.command();
        command
            .args(["pull", "-q", &liar.name()])
            .stdin(Stdio::null());
        let mut pull = command.spawn().expect("mica");
        while partial.metadata().map_or(0, |file| file.len()) < 1_500_000 {
            std::thread::sleep(Duration::from_millis(5));
        }
        pull.kill().and_then(|()| pull.wait()).expect("kill");
    };
    kill();
    sandbox.mica(["gc"]).ok();
    assert!(!partial.exists());
    kill();
    let file = fs::File::options()
        .write(true)
        .open(&partial)
        .expect("open");
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    file.set_modified(old).expect("utimes");
    drop(file);
    sandbox.load(&super::image("other:1"));
    assert!(!partial.exists());
    kill();
    sandbox.load(&super::image("other:2"));
    sandbox.mica(["pull", "-q", &liar.name()]).ok();
    assert!(!partial.exists());
    sandbox.mica(["check"]).ok();
}

/// Bytes that are not what the manifest says, also when a download is gone on with, never become an image.
#[test]
fn net_wrong_bytes_never_become_an_image() {
    let sandbox = Sandbox::new();
    let image = large();
    let layer = layer_digest(&image, 0);
    let wanted = layer.clone();
    let liar = Liar::start(&image, move |request, mut answer| {
        if request.path.ends_with(&wanted) {
            let last = answer.body.len() - 100_000;
            answer.body[last] ^= 1;
        }
        answer
    });
    let pull = ["pull", "-q", &liar.name()];
    sandbox.mica(pull).code(1);
    // An earlier pull has left the beginning: it is the rest that is wrong.
    let whole = image.pack.apply(&image.layers[0]);
    let dir = sandbox.mkdir("store/partial");
    fs::write(dir.join(layer.replace("sha256:", "")), &whole[..1_200_000]).expect("write");
    sandbox.mica(pull).code(1);
    assert_eq!(sandbox.mica(["images", "-a", "-q"]).ok().stdout(), "");
    assert_eq!(fs::read_dir(dir).expect("readdir").count(), 0);
}

/// A push never makes a manifest of blobs that nobody has seen to be the image's layers, unless that repository has served it.
#[test]
fn net_unseen_blobs_are_not_pushed() {
    let sandbox = Sandbox::new();
    let (one, two) = (
        Registry::start(&sandbox, Kind::Plain),
        Registry::start(&sandbox, Kind::Plain),
    );
    let image = image("app:1");
    let digest = one.push_with_skopeo(&sandbox, &image, "app:1");
    two.push_with_skopeo(&sandbox, &image, "app:1");
    // All layers are here: the manifest comes, and none of its blobs.
    sandbox.load(&super::image("app:1"));
    let name = one.name("app:1");
    assert!(
        sandbox
            .mica(["pull", &name])
            .ok()
            .stdout()
            .contains("Already exists")
    );
    let again = one.name("app:2");
    sandbox.mica(["tag", &name, &again]).ok();
    let out = sandbox.mica(["push", &again]).ok().stdout();
    assert!(
        out.contains("Layer already exists") && out.contains(&digest),
        "{out}"
    );
    // The other registry has those blobs too, but that they are these layers is hearsay.
    let elsewhere = Sandbox::new();
    elsewhere.load(&super::image("app:1"));
    elsewhere.mica(["pull", &name]).ok();
    let far = two.name("app:2");
    elsewhere.mica(["tag", &name, &far]).ok();
    let out = elsewhere.mica(["push", &far]).ok().stdout();
    assert!(
        out.contains(": Pushed\n") && !out.contains(&digest),
        "{out}"
    );
}
