//! One registry: requests with retries, redirects and tokens; documents read and checked.
//!
//! Rules. A request is tried again after a lost connection, 408, 429 and 5xx, with growing pauses, until the deadline; a
//! 401 is answered with a token once. A redirect is followed at most five times, never from https to http,
//! and credentials go to the registry's own host only. Documents are read up to a limit and checked against the digest
//! asked for or announced.
//!
//! Sources: OCI distribution spec 1.1; distribution's `docs/spec/auth`.

mod answer;
mod documents;
mod location;
mod request;
mod retry;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Method, Request, Response, StatusCode};
use ureq::{Agent, AsSendBody, Body};

use crate::oci::{Digest, ManifestOrIndex, MediaType, Repository};

use super::RegistryError;
use super::auth::Authority;
use super::credentials::{self, Credential};
use super::endpoint;
use super::proxy::Proxies;
use super::settings::{self, Mirror};

pub(super) use answer::{announced, header_text};
pub(super) use location::resolve;
pub(super) use request::Call;
pub use retry::Failure;
pub(super) use retry::{PROGRESS, Patience, Retry, is_transient, retry_after};

/// How to talk to registries.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts and networks that may be talked to over plain http or with any certificate.
    pub insecure: Vec<String>,
    /// Who is asked before Docker Hub.
    pub mirrors: Vec<Mirror>,
    /// For how long a request that makes no progress is tried again, and how long a server may take over
    /// 64 KiB.
    pub retry_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            retry_for: Duration::from_secs(30),
        }
    }
}

/// A manifest or an index as served.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
    /// The type the server declared, else the document's own.
    pub media_type: MediaType,
    /// What they say.
    pub document: ManifestOrIndex,
}

/// One registry. Cheap to clone; all methods may be called from several threads.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.0.base)
    }
}

struct Inner {
    agent: Agent,
    proxies: Proxies,
    /// As the user writes it.
    domain: String,
    /// Where it is.
    host: String,
    /// `https://host` or `http://host`.
    base: String,
    authority: Authority,
    retry_for: Duration,
}

/// Whether the other side speaks TLS, and something about it does not hold: no reason to send things in the clear.
fn is_of_tls(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else {
        return false;
    };
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause| {
        use rustls::Error;
        matches!(
            cause,
            Error::InvalidCertificate(_)
                | Error::NoCertificatesPresented
                | Error::AlertReceived(_)
                | Error::PeerIncompatible(_)
        )
    })
}

/// What an error says, without the library's word for where it comes from.
fn plain(reason: &str) -> &str {
    reason.strip_prefix("io: ").unwrap_or(reason)
}

/// The scope of reading a repository.
pub(super) fn pull_scope(repository: &Repository) -> String {
    format!("repository:{}:pull", repository.path())
}

impl Client {
    /// Finds out how a registry is talked to, with the credential that the user's files hold for the
    /// repository.
    pub fn connect(repository: &Repository, options: &Options) -> Result<Client, RegistryError> {
        Client::connect_as(repository.domain(), options, credentials::find(repository)?)
    }

    /// Those that are to be asked before the registry of a repository itself: of Docker Hub's the mirrors.
    pub fn mirrors<'o>(repository: &Repository, options: &'o Options) -> &'o [Mirror] {
        match repository.domain() {
            "docker.io" => &options.mirrors,
            _ => &[],
        }
    }

    /// The client of one of them, with the credential that the user's files hold for it, and never Docker Hub's.
    pub fn connect_to_mirror(
        mirror: &Mirror,
        repository: &Repository,
        options: &Options,
    ) -> Result<Client, RegistryError> {
        let there = Repository::parse(&format!("{}/{}", mirror.host, repository.path()));
        let credential = match there {
            Ok(there) => credentials::find(&there)?,
            // A host that is none in a reference has none.
            Err(_) => None,
        };
        let insecure = settings::is_among(&options.insecure, &mirror.host);
        let inner = Inner {
            agent: endpoint::agent(&mirror.host, insecure)?,
            proxies: Proxies::from_env()?,
            domain: repository.domain().to_owned(),
            base: mirror.to_string(),
            host: mirror.host.clone(),
            authority: Authority::new(credential),
            retry_for: options.retry_for,
        };
        match inner.ping() {
            Ok(()) => Ok(Client(Arc::new(inner))),
            Err(error) => Err(inner.unreachable(error.to_string())),
        }
    }

    /// The same with a credential at hand, or with none.
    pub fn connect_as(
        domain: &str,
        options: &Options,
        credential: Option<Credential>,
    ) -> Result<Client, RegistryError> {
        let host = endpoint::host_of(domain);
        let insecure = settings::is_among(&options.insecure, &host)
            || settings::is_among(&options.insecure, domain);
        let mut inner = Inner {
            agent: endpoint::agent(&host, insecure)?,
            proxies: Proxies::from_env()?,
            domain: domain.to_owned(),
            base: format!("https://{host}"),
            host,
            authority: Authority::new(credential),
            retry_for: options.retry_for,
        };
        match inner.ping() {
            Ok(()) => {}
            Err(error) => {
                let reason = plain(&error.to_string()).to_owned();
                let speaks_tls = is_of_tls(&error) || matches!(error, ureq::Error::Timeout(_));
                let reachable = !matches!(error, ureq::Error::HostNotFound);
                if speaks_tls || !reachable {
                    return Err(inner.unreachable(reason));
                }
                inner.base = format!("http://{}", inner.host);
                let plain = inner.ping();
                if !(insecure || endpoint::is_loopback(&inner.host)) {
                    let host = inner.host.clone();
                    return Err(match plain {
                        Ok(()) => RegistryError::PlainHttp { host, reason },
                        Err(_) => inner.unreachable(reason),
                    });
                }
                plain.map_err(|error| inner.unreachable(error.to_string()))?;
            }
        }
        Ok(Client(Arc::new(inner)))
    }

    /// As the user writes it.
    pub fn domain(&self) -> &str {
        &self.0.domain
    }

    pub(super) fn retry_for(&self) -> Duration {
        self.0.retry_for
    }

    fn unreachable(&self, reason: String) -> RegistryError {
        self.0.unreachable(reason)
    }

    pub(super) fn host(&self) -> &str {
        &self.0.host
    }

    /// Checks that the credential is good: asks for the registry's root with it.
    pub fn check_login(&self) -> Result<(), RegistryError> {
        let call = Call::new(Method::GET, "/v2/".to_owned(), "login".to_owned(), "");
        let response = self.call(&call)?;
        self.expect(&call, response, &[StatusCode::OK]).map(drop)
    }
}

impl Inner {
    /// One request, through the proxy that is meant for it.
    fn run(&self, request: Request<impl AsSendBody>) -> Result<Response<Body>, ureq::Error> {
        let proxy = self.proxies.of(request.uri());
        let takes_in = matches!(*request.method(), Method::PUT | Method::PATCH);
        let mut config = self.agent.configure_request(request).proxy(proxy);
        if takes_in {
            config = config.timeout_per_read(Some(endpoint::DIGESTION));
        }
        self.agent.run(config.build())
    }

    /// Whether somebody answers at all, whatever they say.
    fn ping(&self) -> Result<(), ureq::Error> {
        let request = Request::get(format!("{}/v2/", self.base)).body(())?;
        let response = self.run(request)?;
        // A TLS server answers plain http with this, and is no plain server.
        if self.base.starts_with("http://") && response.status() == StatusCode::BAD_REQUEST {
            return Err(ureq::Error::Tls("it wants https"));
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            *self.authority.challenge.lock() = token::wanted(&response);
        }
        Ok(())
    }

    fn unreachable(&self, reason: String) -> RegistryError {
        RegistryError::Unreachable {
            host: self.host.clone(),
            reason: plain(&reason).to_owned(),
        }
    }
}
