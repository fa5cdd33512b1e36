//! What the kubelet asks the CRI plugin for, with as much of the messages (`runtime.v1`) as that takes.

use std::path::Path;

use crate::client::Client;
use crate::node::Containerd;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub image: String,
}

/// `PullImageRequest`, `RemoveImageRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageRequest {
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
}

/// Requests with an id alone, and answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Id {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Listed {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, repeated, tag = "2")]
    pub tags: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Images {
    #[prost(message, repeated, tag = "1")]
    pub images: Vec<Listed>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Nothing {}

/// `NamespaceOption`; 0: the pod's, 1: the container's, 2: the node's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespaces {
    #[prost(int32, tag = "1")]
    pub network: i32,
    #[prost(int32, tag = "2")]
    pub pid: i32,
    #[prost(message, optional, tag = "5")]
    pub users: Option<Users>,
}

/// `UserNamespace`: what `hostUsers: false` becomes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Users {
    #[prost(int32, tag = "1")]
    pub mode: i32,
    #[prost(message, repeated, tag = "2")]
    pub uids: Vec<Ids>,
    #[prost(message, repeated, tag = "3")]
    pub gids: Vec<Ids>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Ids {
    #[prost(uint32, tag = "1")]
    pub outside: u32,
    #[prost(uint32, tag = "2")]
    pub inside: u32,
    #[prost(uint32, tag = "3")]
    pub count: u32,
}

/// `LinuxSandboxSecurityContext`
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespaces>,
}

/// `LinuxPodSandboxConfig`
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPod {
    #[prost(message, optional, tag = "2")]
    pub security: Option<PodSecurity>,
}

/// `PodSandboxMetadata`
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodName {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `PodSandboxConfig`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pod {
    #[prost(message, optional, tag = "1")]
    pub name: Option<PodName>,
    #[prost(string, tag = "3")]
    pub log_directory: String,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPod>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RunPod {
    #[prost(message, optional, tag = "1")]
    pub pod: Option<Pod>,
}

/// `LinuxContainerSecurityContext`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Security {
    #[prost(message, optional, tag = "3")]
    pub namespaces: Option<Namespaces>,
}

/// `LinuxContainerConfig`
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxContainer {
    #[prost(message, optional, tag = "2")]
    pub security: Option<Security>,
}

/// `ContainerConfig`; its metadata begin with the name.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    #[prost(message, optional, tag = "1")]
    pub name: Option<Id>,
    #[prost(message, optional, tag = "2")]
    pub image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    #[prost(string, tag = "11")]
    pub log_path: String,
    #[prost(message, optional, tag = "15")]
    pub linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateContainer {
    #[prost(string, tag = "1")]
    pub pod: String,
    #[prost(message, optional, tag = "2")]
    pub container: Option<Container>,
    #[prost(message, optional, tag = "3")]
    pub pod_config: Option<Pod>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Exec {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, repeated, tag = "2")]
    pub command: Vec<String>,
    #[prost(int64, tag = "3")]
    pub timeout: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    pub stdout: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Number {
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Space {
    #[prost(message, optional, tag = "3")]
    pub bytes: Option<Number>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Stats {
    #[prost(message, optional, tag = "4")]
    pub writable: Option<Space>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StatsAnswer {
    #[prost(message, optional, tag = "1")]
    pub stats: Option<Stats>,
}

/// The network of the node.
pub const ON_NODE: Namespaces = Namespaces {
    network: 2,
    pid: 0,
    users: None,
};

/// What the kubelet does, done by a test.
pub struct Kubelet(Client);

impl Kubelet {
    pub fn connect(containerd: &Containerd) -> Kubelet {
        Kubelet(Client::connect(&containerd.socket()))
    }

    #[track_caller]
    pub fn images<Q, A>(&self, method: &str, request: Q) -> A
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let method = format!("/runtime.v1.ImageService/{method}");
        self.0.call_path(&method, request).expect("an answer")
    }

    #[track_caller]
    pub fn runtime<Q, A>(&self, method: &str, request: Q) -> A
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

    /// A pod and a container in it that waits; with the network of the node, or what else the namespaces say.
    pub fn run(&self, name: &str, logs: &Path, image: &str, namespaces: Namespaces) -> (Id, Id) {
        let namespaces = Some(namespaces);
        let pod_config = Pod {
            name: Some(PodName {
                name: name.into(),
                uid: name.into(),
                namespace: "default".into(),
            }),
            log_directory: logs.display().to_string(),
            linux: Some(LinuxPod {
                security: Some(PodSecurity {
                    namespaces: namespaces.clone(),
                }),
            }),
        };
        let request = RunPod {
            pod: Some(pod_config.clone()),
        };
        let pod: Id = self.runtime("RunPodSandbox", request);
        let script = "while :; do sleep 1; done";
        let request = CreateContainer {
            pod: pod.id.clone(),
            container: Some(Container {
                name: Some(Id { id: "web".into() }),
                image: Some(Image {
                    image: image.into(),
                }),
                command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                log_path: "web.log".into(),
                linux: Some(LinuxContainer {
                    security: Some(Security { namespaces }),
                }),
            }),
            pod_config: Some(pod_config),
        };
        let container: Id = self.runtime("CreateContainer", request);
        let _: Nothing = self.runtime("StartContainer", container.clone());
        (pod, container)
    }

    /// The end of both.
    pub fn stop(&self, (pod, container): (Id, Id)) {
        let _: Nothing = self.runtime("StopContainer", container.clone());
        let _: Nothing = self.runtime("RemoveContainer", container);
        let _: Nothing = self.runtime("StopPodSandbox", pod.clone());
        let _: Nothing = self.runtime("RemovePodSandbox", pod);
    }

    pub fn remove_image(&self, image: &str) {
        let image = Some(Image {
            image: image.into(),
        });
        let _: Nothing = self.images("RemoveImage", ImageRequest { image });
    }

    pub fn exec(&self, id: &str, script: &str) -> String {
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
