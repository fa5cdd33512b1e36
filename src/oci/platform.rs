//! Platforms: `os/architecture[/variant]`.

/// A platform in Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`, when given.
    pub variant: Option<String>,
}
