//! The CRI plugin: what the kubelet asks it for, with as much of the messages (`runtime.v1`) as that takes.

use super::*;
use crate::client::Client;

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    image: String,
}

/// `PullImageRequest`, `RemoveImageRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct ImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

/// Requests with an id alone, and answers.
#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, repeated, tag = "2")]
    tags: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Images {
    #[prost(message, repeated, tag = "1")]
    images: Vec<Listed>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct Namespaces {
    /// 2: the node's.
    #[prost(int32, tag = "1")]
    network: i32,
}

/// `LinuxSandboxSecurityContext`
#[derive(Clone, PartialEq, prost::Message)]
struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
}

/// `LinuxPodSandboxConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct LinuxPod {
    #[prost(message, optional, tag = "2")]
    security: Option<PodSecurity>,
}

/// `PodSandboxMetadata`
#[derive(Clone, PartialEq, prost::Message)]
struct PodName {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

/// `PodSandboxConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct Pod {
    #[prost(message, optional, tag = "1")]
    name: Option<PodName>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPod {
    #[prost(message, optional, tag = "1")]
    pod: Option<Pod>,
}

/// `LinuxContainerSecurityContext`
#[derive(Clone, PartialEq, prost::Message)]
struct Security {
    #[prost(message, optional, tag = "3")]
    namespaces: Option<Namespaces>,
}

/// `LinuxContainerConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "2")]
    security: Option<Security>,
}

/// `ContainerConfig`; its metadata begin with the name.
#[derive(Clone, PartialEq, prost::Message)]
struct Container {
    #[prost(message, optional, tag = "1")]
    name: Option<Id>,
    #[prost(message, optional, tag = "2")]
    image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(string, tag = "11")]
    log_path: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod: String,
    #[prost(message, optional, tag = "2")]
    container: Option<Container>,
    #[prost(message, optional, tag = "3")]
    pod_config: Option<Pod>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Exec {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    stdout: Vec<u8>,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Space {
    #[prost(message, optional, tag = "3")]
    bytes: Option<Number>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stats {
    #[prost(message, optional, tag = "4")]
    writable: Option<Space>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatsAnswer {
    #[prost(message, optional, tag = "1")]
    stats: Option<Stats>,
}

/// What the kubelet does, done by a test.
pub struct Kubelet(Client);

impl Kubelet {
    pub fn connect(containerd: &Containerd) -> Kubelet {
        Kubelet(Client::connect(&containerd.socket()))
    }

    #[track_caller]
    fn images<Q, A>(&self, method: &str, request: Q) -> A
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let method = format!("/runtime.v1.ImageService/{method}");
        self.0.call_path(&method, request).expect("an answer")
    }

    #[track_caller]
    fn runtime<Q, A>(&self, method: &str, request: Q) -> A
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let method = format!("/runtime.v1.RuntimeService/{method}");
        self.0.call_path(&method, request).expect("an answer")
    }

    pub fn pull(&self, name: &str) -> String {
        let image = Some(Image { image: name.into() });
        let answer: Id = self.images("PullImage", ImageRequest { image });
        answer.id
    }

    fn exec(&self, id: &str, script: &str) -> String {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let request = Exec {
            id: id.into(),
            command,
            timeout: 60,
        };
        let done: Executed = self.runtime("ExecSync", request);
        assert_eq!(done.code, 0, "{script}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

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
