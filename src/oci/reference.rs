//! Image references: the grammar and normalisation of distribution/reference (`regexp.go`, `normalize.go`).
//!
//! Invariants: a [`Repository`] always has a domain (Docker Hub's is `docker.io`) and a path; each component of
//! domain, path and tag fits a file name (no `/`, no leading dot, at most 255 bytes), because the tree under
//! `images/` is made of them; `Repository::parse(r.familiar())` and `Repository::parse(r.canonical())` give `r` again.
//! Error texts are docker's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::{Digest, DigestError};

const HUB: &str = "docker.io";
/// The Hub's name of old, still accepted.
const LEGACY_HUB: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
/// docker's `RepositoryNameTotalLengthMax` for the path. mica holds the domain to it too, as a domain is one file name.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
/// No reference is longer: domain, path, tag and a digest with their separators. Bounds what error texts repeat.
const MAX_TEXT: usize = 2 * MAX_NAME + MAX_TAG + 512;

/// Why a text is no reference; messages are docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Anything outside the grammar.
    #[error("invalid reference format")]
    Format,
    /// Nothing at all.
    #[error("repository name must have at least one component")]
    Empty,
    /// The path is in the grammar but for its case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Domain or path over 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// 64 hex digits are an image ID, never a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// The digest is of an algorithm mica does not keep.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
    /// The digest has not as many digits as its algorithm gives.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// The digest has digits in upper case.
    #[error("invalid checksum digest format")]
    DigestFormat,
    /// A digest where only `NAME[:TAG]` can be.
    #[error("refusing to create a tag with a digest reference")]
    TagWithDigest,
}

/// A normalised repository: domain and path (`docker.io`, `library/nginx`). Cheap to clone, as all names of a store are at
/// each change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    domain: Arc<str>,
    path: Arc<str>,
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// A repository and a tag: what an image is called in the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagRef {
    /// The repository.
    pub repository: Repository,
    /// The tag.
    pub tag: Tag,
}

/// A parsed and normalised reference. No default tag is filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The repository.
    pub repository: Repository,
    /// The tag, when given.
    pub tag: Option<Tag>,
    /// The digest, when given; it decides over the tag.
    pub digest: Option<Digest>,
}

impl Repository {
    /// Parses a repository name without tag and digest, familiar or canonical.
    pub fn parse(name: &str) -> Result<Self, ReferenceError> {
        let reference = Reference::parse(name)?;
        match (reference.tag, reference.digest) {
            (None, None) => Ok(reference.repository),
            _ => Err(ReferenceError::Format),
        }
    }

    /// `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As docker prints it: `nginx`, `org/app`, `localhost:5000/app`.
    ///
    /// Unlike docker's, the domain or `library/` stays where the shorter text would mean another repository:
    /// `docker.io/example.com/app` is not `example.com/app`. Two repositories never share a familiar name.
    pub fn familiar(&self) -> String {
        if *self.domain != *HUB {
            return self.canonical();
        }
        if let Some(name) = self.path.strip_prefix(OFFICIAL)
            && !name.contains('/')
            && !is_identifier(name)
        {
            return name.to_owned();
        }
        match self.path.split_once('/') {
            Some((first, _)) if !is_domain_like(first) => self.path.as_ref().to_owned(),
            _ => self.canonical(),
        }
    }

    /// With everything spelled out: `docker.io/library/nginx`.
    pub fn canonical(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

impl Tag {
    /// Validates a tag.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let valid = text.len() <= MAX_TAG
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        match valid {
            true => Ok(Tag(text.into())),
            false => Err(ReferenceError::Format),
        }
    }

    /// `latest`.
    pub fn latest() -> Self {
        Tag("latest".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TagRef {
    /// Parses `NAME[:TAG]`, `latest` by default; a digest is refused.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let reference = Reference::parse(text)?;
        match reference.digest {
            Some(_) => Err(ReferenceError::TagWithDigest),
            None => Ok(TagRef {
                repository: reference.repository,
                tag: reference.tag.unwrap_or_else(Tag::latest),
            }),
        }
    }

    /// `nginx:latest`.
    pub fn familiar(&self) -> String {
        format!("{}:{}", self.repository.familiar(), self.tag.as_str())
    }

    /// `docker.io/library/nginx:latest`.
    pub fn canonical(&self) -> String {
        format!("{}:{}", self.repository.canonical(), self.tag.as_str())
    }
}

impl Reference {
    /// Parses and normalises (`ParseNormalizedNamed`).
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if is_identifier(text) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        if text.len() > MAX_TEXT {
            return Err(ReferenceError::TooLong);
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or(&remainder);
        if remote.contains(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(remote.to_owned()));
        }
        // Neither path nor tag can hold an '@' and a path can hold no ':', so the first of each is the separator.
        let (named, digest) = match remainder.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match named.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (named, None),
        };
        if !is_domain(domain) || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Format);
        }
        let tag = tag.map(Tag::parse).transpose()?;
        let digest = digest.map(parse_digest).transpose()?;
        if path.len() > MAX_NAME || domain.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Reference {
            repository: Repository {
                domain: domain.into(),
                path: path.into(),
            },
            tag,
            digest,
        })
    }

    /// The tag to use: the given one, or `latest` when there is neither tag nor digest.
    pub fn tag_or_latest(&self) -> Option<Tag> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag.clone()),
            (None, None) => Some(Tag::latest()),
            (None, Some(_)) => None,
        }
    }
}

/// `[a-f0-9]{64}`: an image ID, refused as a name.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the text before the first `/` is taken for a domain.
fn is_domain_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.contains(char::is_uppercase)
}

/// docker's `splitDockerDomain`: the domain, and the rest with `library/` put in front where the Hub needs it.
fn split_domain(text: &str) -> (&str, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((LEGACY_HUB, rest)) => (HUB, rest),
        Some((first, rest)) if is_domain_like(first) => (first, rest),
        _ => (HUB, text),
    };
    match domain == HUB && !remainder.contains('/') {
        true => (domain, format!("{OFFICIAL}{remainder}")),
        false => (domain, remainder.to_owned()),
    }
}

/// `host[:port]`; a host is dotted names or a bracketed IPv6 address without zone.
pub fn is_domain(text: &str) -> bool {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return !address.is_empty()
            && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
            && (port.is_empty() || port.strip_prefix(':').is_some_and(digits));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let component = |c: &str| {
        c.starts_with(|c: char| c.is_ascii_alphanumeric())
            && c.ends_with(|c: char| c.is_ascii_alphanumeric())
            && c.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(component) && port.is_none_or(digits)
}

/// `[a-z0-9]+ ( ([._] | "__" | "-"+) [a-z0-9]+ )*`
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well =
        bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    ends_well
        && bytes.split(alphanumeric).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

/// The digest of a reference, with the three ways in which go-digest refuses one that the grammar lets through.
fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let (algorithm, hex) = text.split_once(':').ok_or(ReferenceError::Format)?;
    let component = |c: &str| {
        c.starts_with(|c: char| c.is_ascii_alphabetic())
            && c.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    let in_grammar = algorithm.split(['-', '_', '+', '.']).all(component)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if !in_grammar {
        return Err(ReferenceError::Format);
    }
    text.parse().map_err(|error| match error {
        DigestError::Algorithm(_) => ReferenceError::DigestAlgorithm,
        _ if hex.len() != 64 => ReferenceError::DigestLength,
        _ => ReferenceError::DigestFormat,
    })
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TagRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

/// The familiar form with what was given: `nginx`, `nginx:1.21`, `nginx@sha256:..`, `nginx:1.21@sha256:..`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository.familiar())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;
    fn from_str(s: &str) -> Result<Self, ReferenceError> {
        Repository::parse(s)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;
    fn from_str(s: &str) -> Result<Self, ReferenceError> {
        Tag::parse(s)
    }
}

impl FromStr for TagRef {
    type Err = ReferenceError;
    fn from_str(s: &str) -> Result<Self, ReferenceError> {
        TagRef::parse(s)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(s: &str) -> Result<Self, ReferenceError> {
        Reference::parse(s)
    }
}

#[cfg(test)]
mod tests;
