//! Bringing blobs and manifests to a registry.
//!
//! A blob is streamed while it is being made (POST, PATCH, PUT): its digest is known at the end only, which is when the
//! registry is told. Source: OCI distribution spec 1.1, "Pushing Blobs in Chunks" with one chunk.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use ureq::http::{Method, StatusCode, header};

use crate::oci::{Digest, MediaType, Repository, Tag};

use super::RegistryError;
use super::client::{Call, Client, Failure, Retry, announced, header_text, is_transient, resolve};

/// Sends what a reader gives.
pub type Send<'a> = dyn FnMut(&mut dyn Read) -> Result<(), Failure> + 'a;

/// The scope of changing a repository.
fn push_scope(repository: &Repository) -> String {
    format!("repository:{}:pull,push", repository.path())
}

impl Client {
    /// Whether the repository has a blob.
    pub fn has_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let scope = push_scope(repository);
        let url = format!("/v2/{}/blobs/{digest}", repository.path());
        let call = Call::new(Method::HEAD, url, format!("blob {digest}"), &scope);
        let response = self.call(&call)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        self.expect(&call, response, &[StatusCode::OK])
            .map(|_| true)
    }

    /// Asks for a blob of another repository of this registry; `false` when it will not give it.
    pub fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<bool, RegistryError> {
        let scope = format!("{} repository:{}:pull", push_scope(repository), from.path());
        let url = format!(
            "/v2/{}/blobs/uploads/?mount={digest}&from={}",
            repository.path(),
            from.path()
        );
        let mut call = Call::new(Method::POST, url, format!("blob {digest}"), &scope);
        call.body = Some(b"");
        let response = self.call(&call)?;
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // The registry has begun an upload in its place. It ends by itself if this does not reach it.
        if response.status() == StatusCode::ACCEPTED
            && let Some(location) = header_text(&response, header::LOCATION)
            && let Some(url) = resolve(&self.absolute(&call.url), &location)
            && self.is_own(&url)
        {
            drop(response);
            let what = format!("upload of {digest}");
            // The registry drops an upload nobody ends; this only spares it the wait.
            let _ = self.call(&Call::new(Method::DELETE, url, what, &scope));
        }
        Ok(false)
    }

    /// Uploads a small blob.
    pub fn upload_bytes(
        &self,
        repository: &Repository,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let scope = push_scope(repository);
        let digest = Digest::of(bytes);
        let location = self.begin_upload(repository, &scope)?;
        self.end_upload(&location, &digest, bytes, &scope)?;
        Ok(digest)
    }

    /// Uploads what `make` gives a reader of; it is asked again when a connection breaks. The answer is what it was.
    pub fn upload(
        &self,
        repository: &Repository,
        what: &str,
        make: &mut dyn FnMut(&mut Send<'_>) -> Result<(), Failure>,
    ) -> Result<(Digest, u64), RegistryError> {
        let scope = push_scope(repository);
        let mut retry = Retry::new(self.retry_for());
        loop {
            let location = self.begin_upload(repository, &scope)?;
            let mut done = None;
            let sent = make(&mut |source| {
                let mut hashing = Hashing {
                    source,
                    hasher: Sha256::new(),
                    length: 0,
                };
                let mut call = Call::new(Method::PATCH, location.clone(), what.to_owned(), &scope);
                call.headers
                    .push((header::CONTENT_TYPE, "application/octet-stream".to_owned()));
                let response = self.stream(&call, &mut hashing)?;
                if is_transient(response.status()) {
                    let reason = format!("answered {}", response.status().as_u16());
                    return Err(Failure::Lost(ureq::Error::Io(io::Error::other(reason))));
                }
                let response = self
                    .expect(
                        &call,
                        response,
                        &[StatusCode::ACCEPTED, StatusCode::NO_CONTENT],
                    )
                    .map_err(Failure::Final)?;
                let next = header_text(&response, header::LOCATION)
                    .and_then(|next| resolve(&location, &next))
                    .unwrap_or_else(|| location.clone());
                let digest = Digest::from_bytes(hashing.hasher.finalize().into());
                done = Some((next, digest, hashing.length));
                Ok(())
            });
            match sent {
                Ok(()) => {}
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Lost(_)) if retry.pause(None) => continue,
                Err(Failure::Lost(error)) => {
                    return Err(RegistryError::Unreachable {
                        host: self.host().to_owned(),
                        reason: format!("{what}: {error}"),
                    });
                }
            }
            let (location, digest, length) = done.ok_or(RegistryError::Stopped)?;
            self.end_upload(&location, &digest, b"", &scope)?;
            return Ok((digest, length));
        }
    }

    fn begin_upload(&self, repository: &Repository, scope: &str) -> Result<String, RegistryError> {
        let url = format!("/v2/{}/blobs/uploads/", repository.path());
        let what = format!("upload to {}", repository.familiar());
        let mut call = Call::new(Method::POST, url, what, scope);
        call.body = Some(b"");
        let response = self.call(&call)?;
        let response = self.expect(&call, response, &[StatusCode::ACCEPTED])?;
        header_text(&response, header::LOCATION)
            .and_then(|location| resolve(&self.absolute(&call.url), &location))
            .ok_or_else(|| RegistryError::Malformed {
                what: call.what,
                reason: "the registry does not say where to".to_owned(),
            })
    }

    fn end_upload(
        &self,
        location: &str,
        digest: &Digest,
        bytes: &[u8],
        scope: &str,
    ) -> Result<(), RegistryError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={digest}");
        let mut call = Call::new(Method::PUT, url, format!("upload of {digest}"), scope);
        call.headers
            .push((header::CONTENT_TYPE, "application/octet-stream".to_owned()));
        call.body = Some(bytes);
        let response = self.call(&call)?;
        self.expect(
            &call,
            response,
            &[StatusCode::CREATED, StatusCode::NO_CONTENT],
        )
        .map(drop)
    }

    /// Puts a manifest under a tag; the digest that the registry returns for it.
    pub fn put_manifest(
        &self,
        repository: &Repository,
        tag: &Tag,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let scope = push_scope(repository);
        let url = format!("/v2/{}/manifests/{tag}", repository.path());
        let what = format!("manifest for {}:{tag}", repository.familiar());
        let mut call = Call::new(Method::PUT, url, what, &scope);
        call.headers
            .push((header::CONTENT_TYPE, media_type.as_str().to_owned()));
        call.body = Some(bytes);
        let response = self.call(&call)?;
        let statuses = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let response = self.expect(&call, response, &statuses)?;
        let expected = Digest::of(bytes);
        match announced(&response) {
            Some(found) if found != expected => Err(RegistryError::Digest {
                what: call.what,
                expected,
                found,
            }),
            _ => Ok(expected),
        }
    }
}

/// Hashes and counts what is read.
struct Hashing<'a> {
    source: &'a mut dyn Read,
    hasher: Sha256,
    length: u64,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buf)?;
        self.hasher.update(buf.get(..got).unwrap_or_default());
        self.length += got as u64;
        Ok(got)
    }
}
