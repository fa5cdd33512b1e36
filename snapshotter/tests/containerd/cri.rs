//! The CRI plugin.

use std::fs;

use super::*;
use crate::common::image::ImageBuilder;
use crate::kubelet::*;

/// An image for pods to stand on.
pub(super) fn pause() -> ImageBuilder {
    image("pause:1").config(|config| {
        config["config"] =
            serde_json::json!({"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sleep", "1000000"]});
    })
}

/// A pod, from the pull to the end: an image whose layers mica has is pulled without a layer, one that it has not is pulled by
/// mica, and both are M's afterwards.
#[test]
fn net_root_containerd_as_the_kubelet_drives_it() {
    let sandbox = Sandbox::new();
    let registry = Registry::start(&sandbox, Kind::Plain);
    let pause_name = pushed(&sandbox, &registry, &pause(), "pause:1");
    let other = image("other:1").layer(|l| l.file("other", "other"));
    let other_name = pushed(&sandbox, &registry, &other, "team/other:1");
    let app = image("app:1").layer(|l| l.file("app", "app"));
    let name = pushed(&sandbox, &registry, &app, "team/app:1");
    sandbox.mica(["pull", "-q", &name]).ok();
    let m = sandbox.mount();
    let snapshotter = start(&sandbox);
    let containerd = Containerd::start_with(&sandbox, &pause_name);
    let kubelet = Kubelet::connect(&containerd);

    // containerd asks for the manifest and the config; of the layers the registry is asked nothing.
    let before = blobs_fetched(&registry);
    let id = kubelet.pull(&name);
    assert_eq!(id, app.id());
    assert!(blobs_fetched(&registry) - before <= 2, "{}", registry.log());
    // What containerd was never given it cannot give away.
    let archive = sandbox.path("export.tar").display().to_string();
    for line in [
        format!("export {archive} {name}"),
        format!("push --plain-http {name}-copy {name}"),
    ] {
        let refused = containerd.run(&format!("-n k8s.io images {line}"));
        assert!(!refused.status.success(), "{}", refused.describe());
        assert!(
            refused.stderr().contains("not found"),
            "{}",
            refused.describe()
        );
    }
    // The other one has one layer that nobody here has: it is fetched once, by mica.
    let before = blobs_fetched(&registry);
    kubelet.pull(&other_name);
    assert!(blobs_fetched(&registry) - before <= 5, "{}", registry.log());
    let tree = format!("images/{}/team/other/1", registry.host());
    assert_eq!(fs::read(m.path(tree).join("other")).unwrap(), b"other");
    let images: Images = kubelet.images("ListImages", Nothing {});
    let tags: Vec<&String> = images.images.iter().flat_map(|image| &image.tags).collect();
    assert!(
        tags.contains(&&name) && tags.contains(&&other_name),
        "{tags:?}"
    );

    let (pod, web) = kubelet.run("pod", &sandbox.mkdir("logs"), &id, ON_NODE);
    let seen = kubelet.exec(
        &web.id,
        "cat /data/old /app; ls /cache; head -c 100000 /dev/zero >/mine",
    );
    assert_eq!(seen, "newappb\n");
    // The kubelet's figure comes from the snapshotter, every ten seconds.
    wait_until("the writable layer is measured", || {
        let answer: StatsAnswer = kubelet.runtime("ContainerStats", web.clone());
        let writable = answer.stats.and_then(|stats| stats.writable);
        writable
            .and_then(|space| space.bytes)
            .is_some_and(|n| n.value >= 100_000)
    });
    let refused = sandbox.mica(["rmi", &name]).fails();
    assert!(
        refused.stderr().contains("containerd"),
        "{}",
        refused.describe()
    );

    kubelet.stop((pod, web));
    for image in [&name, &other_name, &pause_name] {
        kubelet.remove_image(image);
    }
    wait_until("containerd has collected", || {
        let all = containerd.shown("-n k8s.io snapshots --snapshotter mica ls");
        all.lines().count() == 1
    });
    sandbox.mica(["rmi", &name, &other_name]).ok();
    assert_eq!(sandbox.sh("ls store/snapshots").ok().stdout(), "log\n");
    drop((containerd, snapshotter));
    m.unmount();
}
