//! What can go wrong with a registry. Messages name host, repository and digest, in docker's words where it has them, and
//! never hold a credential or the query of a URL, which may be one.

use std::io;
use std::path::PathBuf;

use crate::oci::{Digest, DocumentError};

/// A request, or what came of it, that is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke and stayed broken until the deadline.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The last failure.
        reason: String,
    },
    /// The environment names a proxy that is none. Its value is not repeated: it may hold a password.
    #[error("{variable} is no URL of a proxy: expected http://HOST:PORT or socks5://HOST:PORT")]
    Proxy {
        /// Which variable.
        variable: &'static str,
    },
    /// The server speaks plain http and is not on this machine.
    #[error(
        "{host} answers http, not https: {reason}; if that is meant, use --insecure-registry {host}"
    )]
    PlainHttp {
        /// Host and port.
        host: String,
        /// What TLS said.
        reason: String,
    },
    /// The registry wants other credentials, or gives none access.
    #[error(
        "access denied for {what}: it does not exist or may require 'mica login {host}'{message}"
    )]
    Denied {
        /// What was asked for.
        what: String,
        /// Where to log in.
        host: String,
        /// ": " and the server's words, or nothing.
        message: String,
    },
    /// Not there.
    #[error("{what} not found{message}")]
    NotFound {
        /// What was asked for, in docker's words.
        what: String,
        /// ": " and the server's words, or nothing.
        message: String,
    },
    /// Any other answer than success, at the end of all retries.
    #[error("{what}: {host} answered {status}{message}")]
    Status {
        /// What was asked for.
        what: String,
        /// Who answered.
        host: String,
        /// The status code.
        status: u16,
        /// ": " and the server's words, or nothing.
        message: String,
    },
    /// A redirect that is not followed.
    #[error("{what}: {reason}")]
    Redirect {
        /// What was asked for.
        what: String,
        /// Why not.
        reason: String,
    },
    /// More bytes than there may be.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// Which document or blob.
        what: String,
        /// How many there may be.
        limit: u64,
    },
    /// Another number of bytes than announced.
    #[error("{what}: {found} bytes, not the {expected} that were announced")]
    Size {
        /// Which blob.
        what: String,
        /// By its descriptor.
        expected: u64,
        /// By the server.
        found: u64,
    },
    /// Other bytes than asked for.
    #[error("{what}: its bytes are {found}, not {expected}")]
    Digest {
        /// Which document or blob.
        what: String,
        /// What was asked for or announced.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A manifest, index or config that cannot be used.
    #[error("{what}: {source}")]
    Document {
        /// Which.
        what: String,
        /// Why.
        source: DocumentError,
    },
    /// An answer that makes no sense.
    #[error("{what}: {reason}")]
    Malformed {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
    /// A file of credentials or certificates that cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The credential helper failed. Its output is not repeated: it may hold what it guards.
    #[error("the credential helper for {host} failed: {reason}")]
    Helper {
        /// For which registry.
        host: String,
        /// Why.
        reason: &'static str,
    },
    /// The work was given up because another part of it failed.
    #[error("stopped")]
    Stopped,
}

impl From<RegistryError> for io::Error {
    fn from(error: RegistryError) -> Self {
        io::Error::other(error)
    }
}

impl RegistryError {
    /// The error that a reader of ours gave out as an `io::Error`, if it is one.
    pub fn from_io(error: io::Error) -> Result<RegistryError, io::Error> {
        error.downcast::<RegistryError>()
    }
}
