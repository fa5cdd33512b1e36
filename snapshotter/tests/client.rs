//! A client as containerd has one.

use std::collections::BTreeMap;
use std::path::Path;

use mica_snapshotter::proto::{
    CleanupRequest, CommitRequest, CreateRequest, Empty, FieldMask, Info, InfoResponse, KeyRequest,
    ListRequest, ListResponse, Mount, MountsResponse, SERVICE, UpdateRequest, UsageResponse,
};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub type Labels = BTreeMap<String, String>;

pub struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The code that a request is refused with.
#[track_caller]
pub fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    answer.expect_err("it should be refused").code()
}

fn path(method: &str) -> String {
    format!("/{SERVICE}/{method}")
}

async fn call<Q, A>(channel: Channel, path: &str, request: Q) -> Result<A, Status>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::try_from(path).expect("a path");
    let codec = ProstCodec::<Q, A>::default();
    let mut request = Request::new(request);
    // What containerd itself insists on.
    let namespace = tonic::metadata::MetadataValue::from_static("default");
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    Ok(grpc.unary(request, path, codec).await?.into_inner())
}

impl Client {
    pub fn connect(socket: &Path) -> Client {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("a path");
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Client { runtime, channel }
    }

    pub fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.call_path(&path(method), request)
    }

    /// A method of any service.
    pub fn call_path<Q, A>(&self, path: &str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.runtime
            .block_on(call(self.channel.clone(), path, request))
    }

    /// Many at once, over one connection.
    pub fn together<Q, A>(&self, method: &str, requests: Vec<Q>) -> Vec<Result<A, Status>>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + Send + 'static,
    {
        self.runtime.block_on(async {
            let begin = |request| {
                let (channel, method) = (self.channel.clone(), path(method));
                tokio::spawn(async move { call(channel, &method, request).await })
            };
            let begun: Vec<_> = requests.into_iter().map(begin).collect();
            let mut answers = Vec::new();
            for answer in begun {
                answers.push(answer.await.expect("no panic"));
            }
            answers
        })
    }

    /// Begins a request, and goes away without waiting for the answer.
    pub fn leave_behind<Q: prost::Message + Default + 'static>(self, method: &str, request: Q) {
        let Client { runtime, channel } = self;
        runtime.block_on(async {
            let method = path(method);
            let begun = call::<Q, Empty>(channel, &method, request);
            let soon = std::time::Duration::from_millis(20);
            // Whether it was in time does not matter.
            let _ = tokio::time::timeout(soon, begun).await;
        });
    }

    pub fn create(
        &self,
        method: &str,
        key: &str,
        parent: &str,
        labels: Labels,
    ) -> Result<Vec<Mount>, Status> {
        let answer: MountsResponse = self.call(method, create(key, parent, labels))?;
        Ok(answer.mounts)
    }

    pub fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        self.create("Prepare", key, parent, Labels::new())
    }

    pub fn view(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        self.create("View", key, parent, Labels::new())
    }

    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let answer: MountsResponse = self.call("Mounts", of(key))?;
        Ok(answer.mounts)
    }

    pub fn commit(&self, name: &str, key: &str) -> Result<(), Status> {
        self.commit_with(name, key, Labels::new())
    }

    pub fn commit_with(&self, name: &str, key: &str, labels: Labels) -> Result<(), Status> {
        let request = CommitRequest {
            snapshotter: "mica".into(),
            name: name.into(),
            key: key.into(),
            labels,
        };
        let _: Empty = self.call("Commit", request)?;
        Ok(())
    }

    pub fn remove(&self, key: &str) -> Result<(), Status> {
        let _: Empty = self.call("Remove", of(key))?;
        Ok(())
    }

    pub fn stat(&self, key: &str) -> Result<Info, Status> {
        let answer: InfoResponse = self.call("Stat", of(key))?;
        Ok(answer.info.expect("an info"))
    }

    pub fn update(&self, info: Info, fields: &[&str]) -> Result<Info, Status> {
        let paths = fields.iter().map(|&field| field.to_owned()).collect();
        let request = UpdateRequest {
            snapshotter: "mica".into(),
            info: Some(info),
            update_mask: Some(FieldMask { paths }),
        };
        let answer: InfoResponse = self.call("Update", request)?;
        Ok(answer.info.expect("an info"))
    }

    pub fn usage(&self, key: &str) -> Result<(i64, i64), Status> {
        let answer: UsageResponse = self.call("Usage", of(key))?;
        Ok((answer.size, answer.inodes))
    }

    pub fn cleanup(&self) -> Result<(), Status> {
        let request = CleanupRequest::default();
        let _: Empty = self.call("Cleanup", request)?;
        Ok(())
    }

    pub fn list(&self, filters: &[&str]) -> Result<Vec<Info>, Status> {
        let filters = filters.iter().map(|&text| text.to_owned()).collect();
        let request = ListRequest {
            snapshotter: "mica".into(),
            filters,
        };
        self.runtime.block_on(async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            grpc.ready()
                .await
                .map_err(|e| Status::unavailable(e.to_string()))?;
            let path = PathAndQuery::try_from(path("List")).expect("a path");
            let codec = ProstCodec::<ListRequest, ListResponse>::default();
            let answer = grpc.server_streaming(Request::new(request), path, codec);
            let mut stream = answer.await?.into_inner();
            let mut found = Vec::new();
            while let Some(message) = stream.message().await? {
                found.extend(message.info);
            }
            Ok(found)
        })
    }

    pub fn names(&self, filters: &[&str]) -> Vec<String> {
        let found = self.list(filters).expect("a list").into_iter();
        found.map(|info| info.name).collect()
    }
}

pub fn of(key: &str) -> KeyRequest {
    KeyRequest {
        snapshotter: "mica".into(),
        key: key.into(),
    }
}

pub fn create(key: &str, parent: &str, labels: Labels) -> CreateRequest {
    CreateRequest {
        snapshotter: "mica".into(),
        key: key.into(),
        parent: parent.into(),
        labels,
    }
}
