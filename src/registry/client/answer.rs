//! Reading what a registry answers: headers, bounded bodies, its own words about an error.

use std::io::Read;

use ureq::Body;
use ureq::http::{Response, header};

use crate::oci::Digest;
use crate::registry::RegistryError;
use crate::text::shown;

use super::{Client, Patience};

/// What an error of the server is cut to.
const MAX_MESSAGE: usize = 300;

pub(in crate::registry) fn header_text(
    response: &Response<Body>,
    name: header::HeaderName,
) -> Option<String> {
    let value = response.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}

/// The digest the registry says a manifest has.
pub(in crate::registry) fn announced(response: &Response<Body>) -> Option<Digest> {
    let value = response.headers().get("docker-content-digest")?;
    value.to_str().ok()?.parse().ok()
}

/// A body that must not be longer than `limit`.
pub(super) fn read_limited(
    response: Response<Body>,
    limit: u64,
    what: &str,
    client: &Client,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let patience = Patience::new(client.retry_for());
    let body = response.into_body().into_reader();
    let mut reader = patience.reader(body).take(limit + 1);
    reader
        .read_to_end(&mut bytes)
        .map_err(|error| client.unreachable(format!("{what}: {error}")))?;
    match bytes.len() as u64 > limit {
        true => Err(RegistryError::TooLarge {
            what: what.to_owned(),
            limit,
        }),
        false => Ok(bytes),
    }
}

/// ": " and what the server says about its error, shortened and made printable; nothing if it says nothing usable.
pub(super) fn message(response: Response<Body>, client: &Client) -> String {
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
pub(super) fn scope_name(scope: &str, otherwise: &str) -> String {
    let path = scope
        .strip_prefix("repository:")
        .and_then(|rest| rest.split(':').next());
    path.unwrap_or(otherwise).to_owned()
}
