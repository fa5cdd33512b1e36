//! One registry: requests with retries, redirects and tokens; documents read and checked.
//!
//! Rules. A request is tried again after a lost connection, 408, 429 and 5xx, with growing pauses, until the deadline; a
//! 401 is answered with a token once. A redirect is followed at most [`MAX_REDIRECTS`] times, never from https to http,
//! and credentials go to the registry's own host only. Documents are read up to a limit and checked against the digest
//! asked for or announced.
//!
//! Sources: OCI distribution spec 1.1; distribution's `docs/spec/auth`.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{Method, Response, StatusCode, header};
use ureq::{Agent, Body, SendBody};

use crate::oci::{Descriptor, Digest, ManifestOrIndex, MediaType, Repository, Tag};

use super::archive::shown;
use super::auth::{Authority, Challenge, TokenAnswer, challenge, query_escape};
use super::credentials::{self, Credential};
use super::endpoint;
use super::{BlobReader, RegistryError};

/// Most redirects of one request; registries send one, to where the blobs are.
const MAX_REDIRECTS: usize = 5;
/// Largest manifest, as everywhere.
const MAX_MANIFEST: u64 = 4 << 20;
/// Largest answer of any other kind: token, error, one page of tags.
const MAX_ANSWER: u64 = 4 << 20;
/// What an error of the server is cut to.
const MAX_MESSAGE: usize = 300;
/// Most pages of a list of tags.
const MAX_PAGES: usize = 10_000;
/// The first pause before a retry; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How to talk to registries.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts that may be talked to over plain http or with any certificate.
    pub insecure: Vec<String>,
    /// For how long a request that makes no progress is tried again.
    pub retry_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            insecure: Vec::new(),
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
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    agent: Agent,
    /// As the user writes it.
    domain: String,
    /// Where it is.
    host: String,
    /// `https://host` or `http://host`.
    base: String,
    authority: Authority,
    retry_for: Duration,
}

/// One request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Beginning with `/`: on the registry; else an absolute URL.
    pub(super) url: String,
    pub(super) headers: Vec<(header::HeaderName, String)>,
    pub(super) body: Option<&'a [u8]>,
    /// What it is for, in messages.
    pub(super) what: String,
    /// What the token must allow.
    pub(super) scope: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, url: String, what: String, scope: &'a str) -> Self {
        Call {
            method,
            url,
            headers: Vec::new(),
            body: None,
            what,
            scope,
        }
    }
}

/// The scope of reading a repository.
pub(super) fn pull_scope(repository: &Repository) -> String {
    format!("repository:{}:pull", repository.path())
}

impl Client {
    /// Finds out how a registry is talked to, with the credential that the user's files hold for it.
    pub fn connect(domain: &str, options: &Options) -> Result<Client, RegistryError> {
        Client::connect_as(domain, options, credentials::find(domain)?)
    }

    /// The same with a credential at hand, or with none.
    pub fn connect_as(
        domain: &str,
        options: &Options,
        credential: Option<Credential>,
    ) -> Result<Client, RegistryError> {
        let host = endpoint::host_of(domain);
        let insecure = options.insecure.iter().any(|h| *h == host || *h == domain);
        let mut inner = Inner {
            agent: endpoint::agent(&host, insecure)?,
            domain: domain.to_owned(),
            base: format!("https://{host}"),
            host,
            authority: Authority::new(credential),
            retry_for: options.retry_for,
        };
        match inner.ping() {
            Ok(()) => {}
            Err(error) => {
                let reason = error.to_string();
                // A certificate that does not hold is no reason to send things in the clear.
                let speaks_tls =
                    reason.contains("certificate") || matches!(error, ureq::Error::Timeout(_));
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

    pub(super) fn host(&self) -> &str {
        &self.0.host
    }

    /// Checks that the credential is good: asks for the registry's root with it.
    pub fn check_login(&self) -> Result<(), RegistryError> {
        let call = Call::new(Method::GET, "/v2/".to_owned(), "login".to_owned(), "");
        let response = self.call(&call)?;
        self.expect(&call, response, &[StatusCode::OK]).map(drop)
    }

    /// The digest a tag has now, if the registry tells it without being asked for the document.
    pub fn digest_of(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Digest>, RegistryError> {
        let scope = pull_scope(repository);
        let call = self.manifest_call(Method::HEAD, repository, tag.as_str(), &scope);
        let response = self.call(&call)?;
        // An error has no body here; asking for the document tells what is wrong.
        match response.status() {
            StatusCode::OK => Ok(announced(&response)),
            _ => Ok(None),
        }
    }

    /// A manifest or an index by tag or digest.
    pub fn manifest(
        &self,
        repository: &Repository,
        tag: Option<&Tag>,
        digest: Option<&Digest>,
    ) -> Result<Fetched, RegistryError> {
        let name = match (digest, tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_string(),
            (None, None) => Tag::latest().to_string(),
        };
        let scope = pull_scope(repository);
        let call = self.manifest_call(Method::GET, repository, &name, &scope);
        let response = self.call(&call)?;
        let response = self.expect(&call, response, &[StatusCode::OK])?;
        let declared = header_text(&response, header::CONTENT_TYPE).map(MediaType);
        let announced = announced(&response);
        let bytes = read_limited(response, MAX_MANIFEST, &call.what, self)?;
        let found = Digest::of(&bytes);
        for expected in digest.copied().into_iter().chain(announced) {
            if expected != found {
                return Err(RegistryError::Digest {
                    what: call.what,
                    expected,
                    found,
                });
            }
        }
        let document = ManifestOrIndex::parse(&bytes, declared.as_ref()).map_err(|source| {
            RegistryError::Document {
                what: call.what.clone(),
                source,
            }
        })?;
        let media_type = declared
            .filter(|t| t.is_manifest() || t.is_index())
            .unwrap_or_else(|| match document {
                ManifestOrIndex::Manifest(_) => MediaType::oci_manifest(),
                ManifestOrIndex::Index(_) => MediaType::oci_index(),
            });
        Ok(Fetched {
            digest: found,
            media_type,
            document,
            bytes,
        })
    }

    fn manifest_call<'a>(
        &self,
        method: Method,
        repository: &Repository,
        name: &str,
        scope: &'a str,
    ) -> Call<'a> {
        let separator = if name.contains(':') { '@' } else { ':' };
        let what = format!("manifest for {}{separator}{name}", repository.familiar());
        let url = format!("/v2/{}/manifests/{name}", repository.path());
        let mut call = Call::new(method, url, what, scope);
        call.headers
            .push((header::ACCEPT, ACCEPT_MANIFEST.to_owned()));
        call
    }

    /// A blob that is small enough for memory, checked.
    pub fn small_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {}", blob.digest);
        if blob.size > limit {
            return Err(RegistryError::TooLarge { what, limit });
        }
        let mut bytes = Vec::new();
        let mut reader = self.blob(repository, blob);
        reader
            .read_to_end(&mut bytes)
            .map_err(|error| match RegistryError::from_io(error) {
                Ok(error) => error,
                Err(error) => self.0.unreachable(error.to_string()),
            })?;
        let found = Digest::of(&bytes);
        match found == blob.digest {
            true => Ok(bytes),
            false => Err(RegistryError::Digest {
                what,
                expected: blob.digest,
                found,
            }),
        }
    }

    /// A blob as a stream of exactly the announced length. Whoever reads it checks the digest.
    pub fn blob(&self, repository: &Repository, blob: &Descriptor) -> BlobReader {
        BlobReader::new(self.clone(), repository, blob)
    }

    /// All tags of a repository.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let scope = pull_scope(repository);
        let what = format!("tags of {}", repository.familiar());
        let malformed = |reason: String| RegistryError::Malformed {
            what: what.clone(),
            reason,
        };
        let mut url = format!("/v2/{}/tags/list", repository.path());
        let mut tags: Vec<Tag> = Vec::new();
        for _ in 0..MAX_PAGES {
            let call = Call::new(Method::GET, url.clone(), what.clone(), &scope);
            let response = self.call(&call)?;
            let response = self.expect(&call, response, &[StatusCode::OK])?;
            let next = header_text(&response, header::LINK).and_then(|link| next_page(&link));
            let bytes = read_limited(response, MAX_ANSWER, &what, self)?;
            let page: Page =
                serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
            for text in page.tags.unwrap_or_default() {
                let tag = Tag::parse(&text)
                    .map_err(|_| malformed(format!("{:?} is no tag", shown(&text))))?;
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
            match next.map(|next| self.resolve(&self.absolute(&url), &next)) {
                None => return Ok(tags),
                Some(Some(next)) if self.is_own(&next) && next != self.absolute(&url) => url = next,
                Some(_) => return Err(malformed("the next page is elsewhere".to_owned())),
            }
        }
        Err(malformed(format!("more than {MAX_PAGES} pages")))
    }

    pub(super) fn absolute(&self, url: &str) -> String {
        match url.starts_with('/') {
            true => format!("{}{url}", self.0.base),
            false => url.to_owned(),
        }
    }

    /// Whether the URL is on the registry's own host, and so may see what it alone may see.
    pub(super) fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.0.base)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// A `Location` seen from a URL.
    pub(super) fn resolve(&self, from: &str, location: &str) -> Option<String> {
        let (scheme, rest) = from.split_once("://")?;
        let host = rest.split(['/', '?']).next()?;
        if location.starts_with("http://") || location.starts_with("https://") {
            Some(location.to_owned())
        } else if location.starts_with("//") {
            Some(format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Some(format!("{scheme}://{host}{location}"))
        } else {
            None
        }
    }

    /// Runs a request to its answer: retries, redirects, tokens. The answer may be an error of the server.
    pub(super) fn call(&self, call: &Call<'_>) -> Result<Response<Body>, RegistryError> {
        let mut retry = Retry::new(self.0.retry_for);
        loop {
            let outcome = self.once(call, &mut || match call.body {
                Some(bytes) => SendBody::from_owned_reader(std::io::Cursor::new(bytes.to_vec())),
                None => SendBody::none(),
            });
            match outcome {
                Ok(response) if is_transient(response.status()) => {
                    let wait = retry_after(&response);
                    if !retry.pause(wait) {
                        return Ok(response);
                    }
                }
                Err(Failure::Lost(error)) => {
                    if !retry.pause(None) {
                        return Err(self.0.unreachable(error.to_string()));
                    }
                }
                Err(Failure::Final(error)) => return Err(error),
                Ok(response) => return Ok(response),
            }
        }
    }

    /// One try, with its redirects, and with a token if one turns out to be needed.
    pub(super) fn once(
        &self,
        call: &Call<'_>,
        body: &mut dyn FnMut() -> SendBody<'static>,
    ) -> Result<Response<Body>, Failure> {
        let mut answered = false;
        let mut url = self.absolute(&call.url);
        let mut redirects = 0;
        loop {
            let own = self.is_own(&url);
            let authorization = match own {
                true => self.authorization(call)?,
                false => None,
            };
            let mut request = ureq::http::Request::builder()
                .method(call.method.clone())
                .uri(&url);
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            if let Some(value) = authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            if let Some(bytes) = call.body {
                request = request.header(header::CONTENT_LENGTH, bytes.len());
            }
            let malformed = |reason: String| {
                Failure::Final(RegistryError::Redirect {
                    what: call.what.clone(),
                    reason,
                })
            };
            let request = request
                .body(body())
                .map_err(|_| malformed("the URL makes no sense".to_owned()))?;
            let response = self.0.agent.run(request).map_err(|error| match error {
                ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                    malformed("the URL makes no sense".to_owned())
                }
                error => Failure::Lost(error),
            })?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && own && !answered {
                answered = true;
                self.challenged(call, &response)?;
                continue;
            }
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(malformed(format!("more than {MAX_REDIRECTS} redirects")));
            }
            let location = header_text(&response, header::LOCATION).unwrap_or_default();
            let next = self
                .resolve(&url, &location)
                .ok_or_else(|| malformed("a redirect to nowhere".to_owned()))?;
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err(malformed(
                    "a redirect from https to http is refused".to_owned(),
                ));
            }
            url = next;
        }
    }

    /// One request with a body that can be read once only. Redirects are not followed.
    pub(super) fn stream(
        &self,
        call: &Call<'_>,
        body: &mut dyn Read,
    ) -> Result<Response<Body>, Failure> {
        let url = self.absolute(&call.url);
        let mut request = ureq::http::Request::builder()
            .method(call.method.clone())
            .uri(&url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        if self.is_own(&url)
            && let Some(value) = self.authorization(call)?
        {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(SendBody::from_reader(body)).map_err(|_| {
            Failure::Final(RegistryError::Redirect {
                what: call.what.clone(),
                reason: "the URL makes no sense".to_owned(),
            })
        })?;
        self.0.agent.run(request).map_err(|error| match error {
            // An error of the source, which trying again does not make better.
            ureq::Error::Io(error) => match RegistryError::from_io(error) {
                Ok(error) => Failure::Final(error),
                Err(error) => Failure::Lost(ureq::Error::Io(error)),
            },
            error => Failure::Lost(error),
        })
    }

    fn authorization(&self, call: &Call<'_>) -> Result<Option<String>, Failure> {
        let challenge = self.0.authority.challenge.lock().clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => {
                let credential = self.0.authority.credential.as_ref();
                Ok(credential.and_then(Credential::basic))
            }
            Some(Challenge::Bearer { realm, service, .. }) => {
                if let Some(token) = self.0.authority.token(call.scope) {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let token = self.fetch_token(&realm, service.as_deref(), call.scope)?;
                let value = format!("Bearer {token}");
                self.0.authority.keep(call.scope, token);
                Ok(Some(value))
            }
        }
    }

    /// A 401: learns what is wanted; the token that did not do is dropped.
    fn challenged(&self, call: &Call<'_>, response: &Response<Body>) -> Result<(), Failure> {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let found = headers
            .iter()
            .filter_map(|value| value.to_str().ok())
            .filter_map(challenge)
            .max_by_key(|found| matches!(found, Challenge::Bearer { .. }));
        if let Some(found) = found {
            *self.0.authority.challenge.lock() = Some(found);
        }
        self.0.authority.drop_token(call.scope);
        Ok(())
    }

    fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<String, Failure> {
        let what = format!("a token for {}", self.0.domain);
        let fail = |reason: String| {
            Failure::Final(RegistryError::Malformed {
                what: what.clone(),
                reason,
            })
        };
        // What is told to the token server is as secret as what is told to the registry.
        let both_plain = realm.starts_with("http://") && self.0.base.starts_with("http://");
        if !realm.starts_with("https://") && !both_plain {
            return Err(fail("its server is not reached by https".to_owned()));
        }
        let mut parameters: Vec<(&str, String)> = Vec::new();
        if let Some(service) = service {
            parameters.push(("service", service.to_owned()));
        }
        let scopes = scope.split(' ').filter(|s| !s.is_empty());
        let credential = self.0.authority.credential.as_ref();
        let request = match credential {
            Some(Credential::IdentityToken(token)) => {
                parameters.push(("grant_type", "refresh_token".to_owned()));
                parameters.push(("refresh_token", token.clone()));
                parameters.push(("client_id", "mica".to_owned()));
                parameters.push(("scope", scope.to_owned()));
                ureq::http::Request::builder()
                    .method(Method::POST)
                    .uri(realm)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form(&parameters))
            }
            _ => {
                parameters.extend(scopes.map(|scope| ("scope", scope.to_owned())));
                if let Some(Credential::Password { user, .. }) = credential {
                    parameters.push(("account", user.clone()));
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{separator}{}", form(&parameters));
                let mut request = ureq::http::Request::builder().method(Method::GET).uri(url);
                if let Some(basic) = credential.and_then(Credential::basic) {
                    request = request.header(header::AUTHORIZATION, basic);
                }
                request.body(String::new())
            }
        };
        let request = request.map_err(|_| fail("its server's URL makes no sense".to_owned()))?;
        let response = match request.method() == Method::GET {
            true => self.0.agent.run(request.map(|_| ())),
            false => self.0.agent.run(request),
        };
        // The error of a URL is left out: the URL is the registry's and may hold anything.
        let response = response.map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                fail("its server's URL makes no sense".to_owned())
            }
            error => Failure::Lost(error),
        })?;
        if is_transient(response.status()) {
            let reason = format!("its server answered {}", response.status().as_u16());
            return Err(Failure::Lost(ureq::Error::Io(std::io::Error::other(
                reason,
            ))));
        }
        if !response.status().is_success() {
            let message = message(response, self);
            return Err(Failure::Final(RegistryError::Denied {
                what: scope_name(scope, &self.0.domain),
                host: self.0.domain.clone(),
                message,
            }));
        }
        let bytes = read_limited(response, MAX_ANSWER, &what, self).map_err(Failure::Final)?;
        // serde_json's messages of data can quote what they found.
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|_| fail("its server's answer makes no sense".to_owned()))?;
        answer
            .token()
            .ok_or_else(|| fail("its server's answer holds none".to_owned()))
    }

    /// The response if its status is one of these, else the error that it is.
    pub(super) fn expect(
        &self,
        call: &Call<'_>,
        response: Response<Body>,
        statuses: &[StatusCode],
    ) -> Result<Response<Body>, RegistryError> {
        let status = response.status();
        if statuses.contains(&status) {
            return Ok(response);
        }
        let what = call.what.clone();
        let host = self.0.domain.clone();
        let message = message(response, self);
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
                what: scope_name(call.scope, &what),
                host,
                message,
            },
            StatusCode::NOT_FOUND => RegistryError::NotFound { what, message },
            _ => RegistryError::Status {
                what,
                host,
                status: status.as_u16(),
                message,
            },
        })
    }
}

impl Inner {
    /// Whether somebody answers at all, whatever they say.
    fn ping(&self) -> Result<(), ureq::Error> {
        let response = self.agent.get(format!("{}/v2/", self.base)).call()?;
        // A TLS server answers plain http with this, and is no plain server.
        if self.base.starts_with("http://") && response.status() == StatusCode::BAD_REQUEST {
            return Err(ureq::Error::Tls("it wants https"));
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
            let found = headers
                .iter()
                .filter_map(|value| value.to_str().ok())
                .filter_map(challenge)
                .max_by_key(|found| matches!(found, Challenge::Bearer { .. }));
            *self.authority.challenge.lock() = found;
        }
        Ok(())
    }

    fn unreachable(&self, reason: String) -> RegistryError {
        RegistryError::Unreachable {
            host: self.host.clone(),
            reason,
        }
    }
}

/// Why one try gave no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection: trying again may help.
    Lost(ureq::Error),
    /// Trying again does not help.
    Final(RegistryError),
}

/// When to try again.
pub(super) struct Retry {
    deadline: Instant,
    pause: Duration,
}

impl Retry {
    pub(super) fn new(retry_for: Duration) -> Self {
        Retry {
            deadline: Instant::now() + retry_for,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits before the next try; `false` when there is no time for one.
    pub(super) fn pause(&mut self, asked: Option<Duration>) -> bool {
        let pause = asked.unwrap_or(self.pause).max(self.pause);
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        std::thread::sleep(pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

pub(super) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = header_text(response, header::RETRY_AFTER)?;
    text.parse().ok().map(Duration::from_secs)
}

pub(super) fn header_text(response: &Response<Body>, name: header::HeaderName) -> Option<String> {
    let value = response.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}

/// The digest the registry says a manifest has.
pub(super) fn announced(response: &Response<Body>) -> Option<Digest> {
    let value = response.headers().get("docker-content-digest")?;
    value.to_str().ok()?.parse().ok()
}

fn read_limited(
    response: Response<Body>,
    limit: u64,
    what: &str,
    client: &Client,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_reader().take(limit + 1);
    reader
        .read_to_end(&mut bytes)
        .map_err(|error| client.0.unreachable(format!("{what}: {error}")))?;
    match bytes.len() as u64 > limit {
        true => Err(RegistryError::TooLarge {
            what: what.to_owned(),
            limit,
        }),
        false => Ok(bytes),
    }
}

/// ": " and what the server says about its error, shortened and made printable; nothing if it says nothing usable.
fn message(response: Response<Body>, client: &Client) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let bytes = read_limited(response, 64 << 10, "error", client).unwrap_or_default();
    let Ok(Errors { errors }) = serde_json::from_slice(&bytes) else {
        return String::new();
    };
    let Some(first) = errors.first() else {
        return String::new();
    };
    let code = first.code.to_lowercase().replace('_', " ");
    let text: String = format!(": {code}: {}", first.message)
        .chars()
        .take(MAX_MESSAGE)
        .collect();
    shown(&text)
}

/// The repository of a scope, for messages.
fn scope_name(scope: &str, otherwise: &str) -> String {
    let path = scope
        .strip_prefix("repository:")
        .and_then(|rest| rest.split(':').next());
    path.unwrap_or(otherwise).to_owned()
}

fn form(parameters: &[(&str, String)]) -> String {
    let pairs = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", query_escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// `</v2/a/tags/list?last=x>; rel="next"`
fn next_page(link: &str) -> Option<String> {
    let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| url.to_owned())
}
