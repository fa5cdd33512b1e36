//! The gRPC edge: decode, call the snapshotter on a thread that may wait, reply.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message as _;
use tokio::sync::Semaphore;
use tokio_stream::Iter;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::error::SnapshotError;
use crate::proto::{
    CleanupRequest, CommitRequest, CreateRequest, Empty, Info, InfoResponse, KeyRequest,
    ListRequest, ListResponse, MountsResponse, SERVICE, UpdateRequest, UsageResponse,
};
use crate::snapshotter::{Created, Snapshotter};

/// Snapshots in one message of a listing.
const PER_MESSAGE: usize = 100;
/// Bytes in one message of a listing, but for a single snapshot: containerd takes 16 MiB, and others 4.
const MESSAGE_BYTES: usize = 1 << 20;
/// So many requests at once may wait for a mount or a registry: each takes a thread, and who needs neither is to find one.
const WAITING: usize = 256;

/// Answers `containerd.services.snapshots.v1.Snapshots`.
#[derive(Clone)]
pub struct SnapshotService(Arc<Snapshotter>, Arc<Semaphore>);

impl SnapshotService {
    /// The service of a snapshotter.
    pub fn new(snapshotter: Snapshotter) -> SnapshotService {
        SnapshotService(Arc::new(snapshotter), Arc::new(Semaphore::new(WAITING)))
    }
}

type Act<Q, A> = fn(&Snapshotter, Q) -> Result<A, SnapshotError>;

/// One method.
struct Method<Q, A>(Arc<Snapshotter>, Act<Q, A>);

/// Runs to its end even if the client goes away meanwhile: then the client finds it done.
async fn act<Q, A>(on: Arc<Snapshotter>, act: Act<Q, A>, request: Q) -> Result<A, Status>
where
    Q: Send + 'static,
    A: Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || act(&on, request)).await;
    match done {
        Ok(done) => Ok(done?),
        Err(error) => {
            log::error!("a request: {error}");
            Err(Status::internal("the snapshotter failed; see its log"))
        }
    }
}

impl<Q: Send + 'static, A: Send + 'static> UnaryService<Q> for Method<Q, A> {
    type Response = A;
    type Future = BoxFuture<Response<A>, Status>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let run = act(Arc::clone(&self.0), self.1, request.into_inner());
        Box::pin(async { Ok(Response::new(run.await?)) })
    }
}

/// A listing in messages that every client takes.
fn messages(found: Vec<Info>) -> Vec<ListResponse> {
    let mut messages: Vec<ListResponse> = Vec::new();
    let mut room = 0usize;
    for info in found {
        let size = info.encoded_len();
        match messages.last_mut() {
            Some(last) if size <= room && last.info.len() < PER_MESSAGE => {
                room -= size;
                last.info.push(info);
            }
            _ => {
                room = MESSAGE_BYTES.saturating_sub(size);
                messages.push(ListResponse { info: vec![info] });
            }
        }
    }
    messages
}

type Messages = Iter<std::vec::IntoIter<Result<ListResponse, Status>>>;

impl ServerStreamingService<ListRequest> for Method<ListRequest, Vec<Info>> {
    type Response = ListResponse;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, request: Request<ListRequest>) -> Self::Future {
        let run = act(Arc::clone(&self.0), self.1, request.into_inner());
        Box::pin(async {
            let found = run.await?;
            let messages = messages(found).into_iter().map(Ok);
            let messages: Vec<_> = messages.collect();
            Ok(Response::new(tokio_stream::iter(messages)))
        })
    }
}

impl Service<http::Request<Body>> for SnapshotService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (on, waiting) = (Arc::clone(&self.0), Arc::clone(&self.1));
        Box::pin(async move {
            let path = request.uri().path();
            let may_wait = ["/Prepare", "/View", "/Mounts"]
                .iter()
                .any(|m| path.ends_with(m));
            // Never closed.
            let _turn = match may_wait {
                true => waiting.acquire().await.ok(),
                false => None,
            };
            Ok(route(on, request).await)
        })
    }
}

async fn unary<Q, A>(
    on: Arc<Snapshotter>,
    request: http::Request<Body>,
    act: Act<Q, A>,
) -> http::Response<Body>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
    grpc.unary(Method(on, act), request).await
}

async fn route(on: Arc<Snapshotter>, request: http::Request<Body>) -> http::Response<Body> {
    let path = request.uri().path().to_owned();
    let method = path.strip_prefix('/').and_then(|p| p.strip_prefix(SERVICE));
    match method.unwrap_or_default() {
        "/Prepare" => unary(on, request, prepare).await,
        "/View" => unary(on, request, view).await,
        "/Mounts" => unary(on, request, mounts).await,
        "/Commit" => unary(on, request, commit).await,
        "/Remove" => unary(on, request, remove).await,
        "/Stat" => unary(on, request, stat).await,
        "/Update" => unary(on, request, update).await,
        "/Usage" => unary(on, request, usage).await,
        "/Cleanup" => unary(on, request, cleanup).await,
        "/List" => {
            let codec = ProstCodec::<ListResponse, ListRequest>::default();
            let list: Act<ListRequest, Vec<Info>> = |on, r| on.list(&r.filters);
            Grpc::new(codec)
                .server_streaming(Method(on, list), request)
                .await
        }
        _ => Status::unimplemented(format!("{path}: no such method")).into_http(),
    }
}

fn prepare(on: &Snapshotter, r: CreateRequest) -> Result<MountsResponse, SnapshotError> {
    let mounts = on.create(Created::Active, &r.key, &r.parent, r.labels)?;
    Ok(MountsResponse { mounts })
}

fn view(on: &Snapshotter, r: CreateRequest) -> Result<MountsResponse, SnapshotError> {
    let mounts = on.create(Created::View, &r.key, &r.parent, r.labels)?;
    Ok(MountsResponse { mounts })
}

fn mounts(on: &Snapshotter, r: KeyRequest) -> Result<MountsResponse, SnapshotError> {
    let mounts = on.mounts(&r.key)?;
    Ok(MountsResponse { mounts })
}

fn commit(on: &Snapshotter, r: CommitRequest) -> Result<Empty, SnapshotError> {
    on.commit(&r.name, &r.key, r.labels)?;
    Ok(Empty {})
}

fn remove(on: &Snapshotter, r: KeyRequest) -> Result<Empty, SnapshotError> {
    on.remove(&r.key)?;
    Ok(Empty {})
}

fn stat(on: &Snapshotter, r: KeyRequest) -> Result<InfoResponse, SnapshotError> {
    let info = Some(on.stat(&r.key)?);
    Ok(InfoResponse { info })
}

fn update(on: &Snapshotter, r: UpdateRequest) -> Result<InfoResponse, SnapshotError> {
    let mask = r.update_mask.unwrap_or_default().paths;
    let info = Some(on.update(r.info.unwrap_or_default(), &mask)?);
    Ok(InfoResponse { info })
}

fn usage(on: &Snapshotter, r: KeyRequest) -> Result<UsageResponse, SnapshotError> {
    let usage = on.usage(&r.key)?;
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(UsageResponse {
        size: number(usage.size),
        inodes: number(usage.inodes),
    })
}

fn cleanup(on: &Snapshotter, _: CleanupRequest) -> Result<Empty, SnapshotError> {
    on.cleanup()?;
    Ok(Empty {})
}
