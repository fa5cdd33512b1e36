//! One blob as a stream that survives lost connections: it goes on where it broke off, with a range where the server can,
//! else by reading over what came before.
//!
//! It ends after exactly the announced number of bytes, or with an error. What they are is for the reader to check.

use std::io::{self, Read};
use std::time::Duration;

use ureq::http::{Method, Response, StatusCode, header};
use ureq::{Body, BodyReader, SendBody};

use crate::oci::{Descriptor, Digest, Repository};

use super::RegistryError;
use super::client::{
    Call, Client, Failure, PROGRESS, Patience, Retry, header_text, is_transient, pull_scope,
    retry_after,
};

/// Read over at once, when a server knows no ranges.
const SKIP: usize = 64 << 10;

/// A blob being downloaded.
pub struct BlobReader {
    client: Client,
    url: String,
    scope: String,
    digest: Digest,
    size: u64,
    /// Bytes given out.
    offset: u64,
    /// Whether to ask for what is missing only.
    ranges: bool,
    /// The response being read, and how many of its bytes are to be read over.
    body: Option<(BodyReader<'static>, u64)>,
    patience: Patience,
    /// Since the connection was lost; forgotten with the next [`PROGRESS`] bytes.
    retry: Option<Retry>,
    /// Bytes given out since then.
    progress: u64,
}

impl BlobReader {
    /// `offset`: bytes that the caller has already, from the beginning.
    pub(super) fn new(
        client: Client,
        repository: &Repository,
        blob: &Descriptor,
        offset: u64,
    ) -> Self {
        BlobReader {
            url: format!("/v2/{}/blobs/{}", repository.path(), blob.digest),
            scope: pull_scope(repository),
            digest: blob.digest,
            size: blob.size,
            offset: offset.min(blob.size),
            ranges: true,
            body: None,
            patience: Patience::new(client.retry_for()),
            retry: None,
            progress: 0,
            client,
        }
    }

    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }

    /// Asks for the bytes from `offset` on.
    fn open(&mut self) -> Result<(), RegistryError> {
        let scope = self.scope.clone();
        let mut call = Call::new(Method::GET, self.url.clone(), self.what(), &scope);
        if self.offset > 0 && self.ranges {
            call.headers
                .push((header::RANGE, format!("bytes={}-", self.offset)));
        }
        let response = match self.client.once(&call, &mut SendBody::none) {
            Ok(response) => response,
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Lost(error)) => return self.lost(error.to_string(), None),
        };
        if is_transient(response.status()) {
            let wait = retry_after(&response);
            return match self.pause(wait) {
                true => Ok(()),
                false => self.client.expect(&call, response, &[]).map(drop),
            };
        }
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && self.ranges {
            // It does not want to; everything then, and what is here already is read over.
            self.ranges = false;
            return Ok(());
        }
        let response = self.client.expect(
            &call,
            response,
            &[StatusCode::OK, StatusCode::PARTIAL_CONTENT],
        )?;
        let start = self.start_of(&response)?;
        let skip = self
            .offset
            .checked_sub(start)
            .ok_or_else(|| RegistryError::Malformed {
                what: self.what(),
                reason: format!("the server sends from byte {start}, not {}", self.offset),
            })?;
        self.body = Some((response.into_body().into_reader(), skip));
        Ok(())
    }

    /// Where in the blob the response begins; its announced end must be the blob's.
    fn start_of(&self, response: &Response<Body>) -> Result<u64, RegistryError> {
        let length: Option<u64> =
            header_text(response, header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let range = header_text(response, header::CONTENT_RANGE);
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let start = match range.as_deref().filter(|_| partial).map(range_start) {
            Some(Some(start)) => start,
            Some(None) => {
                return Err(RegistryError::Malformed {
                    what: self.what(),
                    reason: "the server's Content-Range makes no sense".to_owned(),
                });
            }
            // "Partial", and not which part: if it is not the one asked for, the digest will tell.
            None if partial => self.offset,
            None => 0,
        };
        match length.map(|length| start.saturating_add(length)) {
            Some(end) if end != self.size => Err(RegistryError::Size {
                what: self.what(),
                expected: self.size,
                found: end,
            }),
            _ => Ok(start),
        }
    }

    /// The connection is gone: waits, unless it has been long enough.
    fn lost(&mut self, reason: String, wait: Option<Duration>) -> Result<(), RegistryError> {
        self.body = None;
        match self.pause(wait) {
            true => Ok(()),
            false => Err(self.broken(reason)),
        }
    }

    fn pause(&mut self, wait: Option<Duration>) -> bool {
        let retry_for = self.client.retry_for();
        let retry = self.retry.get_or_insert_with(|| Retry::new(retry_for));
        retry.pause(wait)
    }

    fn broken(&self, reason: String) -> RegistryError {
        let reason = reason.strip_prefix("io: ").unwrap_or(&reason);
        RegistryError::Unreachable {
            host: self.client.host().to_owned(),
            reason: format!(
                "{}: the connection broke after {} of {} bytes: {reason}",
                self.what(),
                self.offset,
                self.size
            ),
        }
    }

    /// Reads from the response. The server's time is up, or the connection is lost: `None`, and what to do about it has
    /// been done.
    fn receive(&mut self, buf: &mut [u8]) -> Result<Option<usize>, RegistryError> {
        let Some((body, _)) = self.body.as_mut() else {
            return Ok(None);
        };
        match self.patience.read(body, buf) {
            Ok(0) => self.lost("it ended early".to_owned(), None)?,
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if self.patience.is_over() => return Err(self.broken(error.to_string())),
            Err(error) => self.lost(error.to_string(), None)?,
        }
        Ok(None)
    }

    fn too_long(&self) -> RegistryError {
        RegistryError::TooLarge {
            what: self.what(),
            limit: self.size,
        }
    }
}

/// `bytes 100-199/200`
fn range_start(text: &str) -> Option<u64> {
    let range = text.trim().strip_prefix("bytes")?.trim_start();
    range.split(['-', '/']).next()?.trim().parse().ok()
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let Some((body, skip)) = self.body.as_mut() else {
                if self.offset == self.size && self.offset > 0 {
                    return Ok(0);
                }
                self.open()?;
                continue;
            };
            if *skip > 0 {
                let mut over = vec![0; SKIP.min(usize::try_from(*skip).unwrap_or(SKIP))];
                if let Some(n) = self.receive(&mut over)?
                    && let Some((_, skip)) = self.body.as_mut()
                {
                    *skip = skip.saturating_sub(n as u64);
                }
                continue;
            }
            let rest = self.size - self.offset;
            if rest == 0 {
                // A body that goes on is another blob. One that breaks here has given all there was.
                let more = body.read(&mut [0]).unwrap_or(0);
                self.body = None;
                return match more {
                    0 => Ok(0),
                    _ => Err(self.too_long().into()),
                };
            }
            let wanted = buf.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let into = buf.get_mut(..wanted).unwrap_or_default();
            if let Some(n) = self.receive(into)? {
                self.offset += n as u64;
                self.progress += n as u64;
                if self.progress >= PROGRESS {
                    (self.retry, self.progress) = (None, 0);
                }
                return Ok(n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::range_start;

    #[test]
    fn ranges() {
        assert_eq!(range_start("bytes 100-199/200"), Some(100));
        assert_eq!(range_start("bytes 0-0/*"), Some(0));
        assert_eq!(range_start("bytes */200"), None);
        assert_eq!(range_start("items 1-2/3"), None);
    }
}
