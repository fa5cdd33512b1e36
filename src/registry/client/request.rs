//! One request to its answer: retries, redirects, tokens.

use std::io::Read;

use ureq::http::{Method, Response, StatusCode, header};
use ureq::{Body, SendBody};

use crate::registry::RegistryError;

use super::Client;
use super::answer::{header_text, message, scope_name};
use super::location::resolve;
use super::retry::{Failure, Retry, is_transient, retry_after};

/// Most redirects of one request; registries send one, to where the blobs are.
const MAX_REDIRECTS: usize = 5;

/// One request.
pub(in crate::registry) struct Call<'a> {
    pub(in crate::registry) method: Method,
    /// Beginning with `/`: on the registry; else an absolute URL.
    pub(in crate::registry) url: String,
    pub(in crate::registry) headers: Vec<(header::HeaderName, String)>,
    pub(in crate::registry) body: Option<&'a [u8]>,
    /// What it is for, in messages.
    pub(in crate::registry) what: String,
    /// What the token must allow.
    pub(in crate::registry) scope: &'a str,
}

impl<'a> Call<'a> {
    pub(in crate::registry) fn new(
        method: Method,
        url: String,
        what: String,
        scope: &'a str,
    ) -> Self {
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

impl Client {
    /// Runs a request to its answer: retries, redirects, tokens. The answer may be an error of the server.
    pub(in crate::registry) fn call(
        &self,
        call: &Call<'_>,
    ) -> Result<Response<Body>, RegistryError> {
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
                        return Err(self.unreachable(error.to_string()));
                    }
                }
                Err(Failure::Final(error)) => return Err(error),
                Ok(response) => return Ok(response),
            }
        }
    }

    /// One try, with its redirects, and with a token if one turns out to be needed.
    pub(in crate::registry) fn once(
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
            let response = self.0.run(request).map_err(|error| match error {
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
            let next = resolve(&url, &location)
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
    pub(in crate::registry) fn stream(
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
        self.0.run(request).map_err(|error| match error {
            // An error of the source, which trying again does not make better.
            ureq::Error::Io(error) => match RegistryError::from_io(error) {
                Ok(error) => Failure::Final(error),
                Err(error) => Failure::Lost(ureq::Error::Io(error)),
            },
            error => Failure::Lost(error),
        })
    }

    /// The response if its status is one of these, else the error that it is.
    pub(in crate::registry) fn expect(
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
