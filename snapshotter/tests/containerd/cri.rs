//! The CRI plugin.

use std::fs;

use super::*;
use crate::common::image::ImageBuilder;
use crate::kubelet::*;

/// An image for pods to stand on.
fn pause() -> ImageBuilder {
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

    let node = Some(Namespaces { network: 2 });
    let pod_config = Pod {
        name: Some(PodName {
            name: "pod".into(),
            uid: "1".into(),
            namespace: "default".into(),
        }),
        log_directory: sandbox.mkdir("logs").display().to_string(),
        linux: Some(LinuxPod {
            security: Some(PodSecurity {
                namespaces: node.clone(),
            }),
        }),
    };
    let request = RunPod {
        pod: Some(pod_config.clone()),
    };
    let pod: Id = kubelet.runtime("RunPodSandbox", request);
    let script = "while :; do sleep 1; done";
    let request = CreateContainer {
        pod: pod.id.clone(),
        container: Some(Container {
            name: Some(Id { id: "web".into() }),
            image: Some(Image { image: id.clone() }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: "web.log".into(),
            linux: Some(LinuxContainer {
                security: Some(Security { namespaces: node }),
            }),
        }),
        pod_config: Some(pod_config),
    };
    let web: Id = kubelet.runtime("CreateContainer", request);
    let _: Nothing = kubelet.runtime("StartContainer", web.clone());
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

    let _: Nothing = kubelet.runtime("StopContainer", web.clone());
    let _: Nothing = kubelet.runtime("RemoveContainer", web);
    let _: Nothing = kubelet.runtime("StopPodSandbox", pod.clone());
    let _: Nothing = kubelet.runtime("RemovePodSandbox", pod);
    for image in [&name, &other_name, &pause_name] {
        let image = Some(Image {
            image: image.clone(),
        });
        let _: Nothing = kubelet.images("RemoveImage", ImageRequest { image });
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

/// Two nodes and a registry: what one has built and pushed, the other's containerd pulls through mica and runs. A layer that the
/// other has is not fetched again.
#[test]
fn net_root_containerd_two_nodes() {
    let (one, two) = (Sandbox::new(), Sandbox::new());
    let registry = Registry::start(&one, Kind::Plain);
    let base = pushed(&one, &registry, &image("base:1"), "team/base:1");
    let name = registry.name("team/built:1");
    one.mica(["pull", "-q", &base]).ok();
    let dockerfile = format!("FROM {base}\nRUN echo built >/built\n");
    fs::write(one.mkdir("context").join("Dockerfile"), dockerfile).unwrap();
    one.mica(["build", "-q", "-t", &name, "context"]).ok();
    one.mica(["push", "-q", &name]).ok();

    let m = two.mount();
    let snapshotter = start(&two);
    let containerd = Containerd::start_with(&two, &base);
    let kubelet = Kubelet::connect(&containerd);
    kubelet.pull(&base);
    let before = blobs_fetched(&registry);
    kubelet.pull(&name);
    // The config by both, and the one layer that is new.
    assert!(blobs_fetched(&registry) - before <= 3, "{}", registry.log());
    let run = format!("-n k8s.io run --rm --snapshotter mica {name} one");
    assert_eq!(
        containerd.shown(&format!("{run} -- cat /built /data/old")),
        "built\nnew"
    );
    let ids = |sandbox: &Sandbox| sandbox.mica(["images", "-q", &name]).ok().stdout();
    assert_eq!(ids(&one), ids(&two));
    drop((containerd, snapshotter));
    m.unmount();
}
