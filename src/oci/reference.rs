//! Image references: the grammar and normalisation of distribution/reference.

use std::fmt;

use super::digest::Digest;

/// Why a text is no reference; messages are docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Anything outside the grammar.
    #[error("invalid reference format")]
    Format,
}

/// A normalised repository: domain and path (`docker.io`, `library/nginx`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    domain: String,
    path: String,
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

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
    pub fn parse(_name: &str) -> Result<Self, ReferenceError> {
        Err(ReferenceError::Format)
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
    pub fn familiar(&self) -> String {
        String::new()
    }
    /// With everything spelled out: `docker.io/library/nginx`.
    pub fn canonical(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

impl Tag {
    /// Validates a tag.
    pub fn parse(_text: &str) -> Result<Self, ReferenceError> {
        Err(ReferenceError::Format)
    }
    /// `latest`.
    pub fn latest() -> Self {
        Tag("latest".to_owned())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TagRef {
    /// Parses `NAME[:TAG]`, `latest` by default; a digest is refused.
    pub fn parse(_text: &str) -> Result<Self, ReferenceError> {
        Err(ReferenceError::Format)
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
    /// Parses and normalises.
    pub fn parse(_text: &str) -> Result<Self, ReferenceError> {
        Err(ReferenceError::Format)
    }
}

impl fmt::Display for TagRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}
