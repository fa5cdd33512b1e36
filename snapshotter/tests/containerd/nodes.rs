//! Two nodes on one machine, each with a network, a store, a mount, a containerd and a snapshotter of its own; one registry.

use std::fs;

use super::cri::pause;
use crate::common::image::ImageBuilder;
use crate::common::registry::{Kind, Registry};
use crate::common::sandbox::{Mount, Sandbox};
use crate::kubelet::{Kubelet, ON_NODE};
use crate::network::{Network, REGISTRY};
use crate::node::{Containerd, blobs, fetches, pushed, trust};
use crate::work::{Running, image, start};

/// A node but for its containerd.
fn node(sandbox: &Sandbox, registry: &Registry) -> (Mount, Running) {
    trust(sandbox, registry);
    (sandbox.mount(), start(sandbox))
}

/// How often the node with that address has fetched each of these.
fn fetched(registry: &Registry, node: u8, blobs: &[String]) -> Vec<usize> {
    let fetches = fetches(registry);
    let of = |blob: &String| (format!("10.77.{node}.2"), blob.clone());
    let counts = blobs.iter().map(|blob| fetches.get(&of(blob)));
    counts.map(|count| count.copied().unwrap_or(0)).collect()
}

/// What one node has built and pushed, the other's containerd pulls through mica and runs. What both have of the registry each has
/// fetched once: for whichever image, pod, or client of containerd or mica it was asked for.
#[test]
fn net_root_containerd_two_nodes() {
    let (ground, one, two) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
    crate::common::tier::root();
    let wire = Network::of_registry(&ground);
    let networks = [wire.wired(&ground, 1), wire.wired(&ground, 2)];
    let registry = wire.at(|| Registry::start_at(&ground, Kind::Plain, REGISTRY));
    trust(&ground, &registry);
    let of_two = |name: &str| {
        image(&format!("{name}:1"))
            .layer(|l| l.file("shared", "by two of them"))
            .layer(|l| l.file(name, name))
    };
    let push =
        |image: &ImageBuilder, name: &str| wire.at(|| pushed(&ground, &registry, image, name));
    let pause_name = push(&pause(), "pause:1");
    let base = push(&image("base:1"), "team/base:1");
    let pair = ["left", "right"].map(|name| push(&of_two(name), &format!("team/{name}:1")));
    let name = registry.name("team/built:1");
    let of = |name: &str| wire.at(|| blobs(&ground, name));

    // The one runs the base, builds on it, and pushes.
    let (m_one, snapshotter_one) = networks[0].at(|| node(&one, &registry));
    let containerd_one = networks[0].at(|| Containerd::start_with(&one, &pause_name));
    let kubelet_one = Kubelet::connect(&containerd_one);
    kubelet_one.pull(&base);
    let pod_one = kubelet_one.run("one", &one.mkdir("logs"), &base, ON_NODE);
    let dockerfile = format!("FROM {base}\nRUN echo built >/built\n");
    fs::write(one.mkdir("context").join("Dockerfile"), dockerfile).unwrap();
    networks[0].at(|| {
        one.mica(["build", "-q", "-t", &name, "context"]).ok();
        one.mica(["push", "-q", &name]).ok();
    });
    let layers = of(&name);
    assert_eq!(layers.len(), 4);
    assert_eq!(fetched(&registry, 1, &layers), [1, 1, 1, 0]);

    // The other has nothing of it.
    let (m_two, snapshotter_two) = networks[1].at(|| node(&two, &registry));
    let containerd_two = networks[1].at(|| containerd_one.beside(&two, &pause_name));
    let kubelet_two = Kubelet::connect(&containerd_two);
    let id = kubelet_two.pull(&name);
    let pod_two = kubelet_two.run("two", &two.mkdir("logs"), &id, ON_NODE);
    let script = format!(
        "cat /built /data/old; busybox wget -qO- http://{}/v2/ >/dev/null; busybox grep -c 10.77.2.2 /proc/net/fib_trie >/dev/null",
        registry.host()
    );
    assert_eq!(kubelet_two.exec(&pod_two.1.id, &script), "built\nnew");
    let asked = "10.77.2.2 - - ";
    let log = registry.log();
    let mut lines = log.lines().filter(|line| line.starts_with(asked));
    assert!(lines.any(|line| line.contains("\"GET /v2/ ")), "{log}");
    assert_eq!(fetched(&registry, 2, &layers), [1; 4]);
    let ids = |sandbox: &Sandbox| sandbox.mica(["images", "-q", &name]).ok().stdout();
    assert_eq!(ids(&one), ids(&two));
    assert_eq!(
        fs::read(m_two.path(format!("images/{}/team/built/1/built", registry.host()))).unwrap(),
        b"built\n"
    );

    // The image that it stands on, by mica and by containerd; and two at once that have a layer in common.
    networks[1].at(|| two.mica(["pull", "-q", &base]).ok());
    kubelet_two.pull(&base);
    std::thread::scope(|scope| {
        for name in &pair {
            let kubelet = Kubelet::connect(&containerd_two);
            scope.spawn(move || kubelet.pull(name));
        }
    });
    let mut all = layers.clone();
    for name in pair.iter().chain([&pause_name]) {
        all.extend(of(name));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4 + 3);
    assert_eq!(fetched(&registry, 2, &all), [1; 7], "{}", registry.log());

    // Each has what is its own: what one removes the other runs.
    kubelet_one.stop(pod_one);
    for name in [&base, &pause_name] {
        kubelet_one.remove_image(name);
    }
    drop((kubelet_one, containerd_two.run("version")));
    assert_eq!(kubelet_two.exec(&pod_two.1.id, "cat /built"), "built\n");
    kubelet_two.stop(pod_two);
    drop((containerd_two, snapshotter_two));
    m_two.unmount();
    drop((containerd_one, snapshotter_one));
    m_one.unmount();
    for sandbox in [&one, &two] {
        sandbox.mica(["check"]).ok();
    }
}
