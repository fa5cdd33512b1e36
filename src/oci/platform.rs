//! Platforms: `os/architecture[/variant]` in Go's names, and which image of an index runs on one.
//!
//! Matching follows containerd's `platforms.Only`: the same system and architecture, and a variant that is not newer;
//! the newest fitting variant is preferred. (An arm64 machine is not offered 32-bit arm images.)

use std::fmt;
use std::str::FromStr;

/// A platform in Go's names, as some document or user wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`, when given.
    pub variant: Option<String>,
}

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Not `os/architecture[/variant]`.
    #[error(
        "{0:?} is an invalid platform: expected os/architecture[/variant], such as linux/arm64/v8"
    )]
    Format(String),
    /// One word that is neither a system nor an architecture.
    #[error("{0:?}: unknown operating system or architecture")]
    Unknown(String),
}

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "illumos",
    "ios",
    "js",
    "linux",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "wasip1",
    "windows",
];
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x", "wasm",
];

impl Platform {
    /// The platform this program runs on.
    pub fn host() -> Platform {
        let little = cfg!(target_endian = "little");
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            "mips64" if little => "mips64le",
            "mips" if little => "mipsle",
            "loongarch64" => "loong64",
            "wasm32" => "wasm",
            other => other,
        };
        Platform {
            os: normal_system(std::env::consts::OS),
            architecture: architecture.to_owned(),
            variant: None,
        }
        .normalised()
    }

    /// Parses `linux/arm64/v8`, `linux/amd64`, or one of system and architecture alone (the host's other half is used).
    pub fn parse(text: &str) -> Result<Platform, PlatformError> {
        let word = |w: &&str| {
            !w.is_empty()
                && w.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let words: Vec<&str> = text.split('/').collect();
        if !words.iter().all(word) {
            return Err(PlatformError::Format(text.to_owned()));
        }
        let platform = |os: &str, architecture: &str, variant: Option<&str>| Platform {
            os: normal_system(os),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.map(str::to_ascii_lowercase),
        };
        let parsed = match words.as_slice() {
            [os, architecture] => platform(os, architecture, None),
            [os, architecture, variant] => platform(os, architecture, Some(variant)),
            [one] => {
                let host = Platform::host();
                let guess = platform(&host.os, one, None).normalised();
                if SYSTEMS.contains(&normal_system(one).as_str()) {
                    platform(one, &host.architecture, host.variant.as_deref())
                } else if ARCHITECTURES.contains(&guess.architecture.as_str()) {
                    guess
                } else {
                    return Err(PlatformError::Unknown(text.to_owned()));
                }
            }
            _ => return Err(PlatformError::Format(text.to_owned())),
        };
        Ok(parsed.normalised())
    }

    /// Whether an image for `candidate` runs on this platform.
    pub fn matches(&self, candidate: &Platform) -> bool {
        self.rank(candidate).is_some()
    }

    /// How well `candidate` suits: its variant, higher is better; `None` when it does not run here.
    pub(super) fn rank(&self, candidate: &Platform) -> Option<(u32, u32)> {
        let (mine, theirs) = (self.clone().normalised(), candidate.clone().normalised());
        if mine.os != theirs.os || mine.architecture != theirs.architecture {
            return None;
        }
        match (mine.level(), theirs.level()) {
            (Some(limit), Some(level)) if level <= limit => Some(level),
            (Some(_), Some(_)) => None,
            // A variant outside the numbered ones suits only itself.
            _ if mine.variant == theirs.variant => Some((0, 0)),
            _ => None,
        }
    }

    /// The variant as a number: `v8.1` is (8, 1). Without one, the architecture's base.
    fn level(&self) -> Option<(u32, u32)> {
        let base = match self.architecture.as_str() {
            "amd64" => (1, 0),
            "arm" => (7, 0),
            "arm64" => (8, 0),
            _ => (0, 0),
        };
        let Some(variant) = &self.variant else {
            return Some(base);
        };
        let (major, minor) = match variant.strip_prefix('v')?.split_once('.') {
            Some((major, minor)) => (major.parse().ok()?, minor.parse().ok()?),
            None => (variant.strip_prefix('v')?.parse().ok()?, 0),
        };
        Some((major, minor))
    }

    /// With aliases replaced (`x86_64`, `aarch64`, `armhf`) and the architecture's base variant left out.
    fn normalised(self) -> Platform {
        let (architecture, variant) = match self.architecture.to_ascii_lowercase().as_str() {
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386".to_owned(), None),
            "x86_64" | "x86-64" => ("amd64".to_owned(), self.variant),
            "aarch64" => ("arm64".to_owned(), self.variant),
            "armhf" => ("arm".to_owned(), Some("v7".to_owned())),
            "armel" => ("arm".to_owned(), Some("v6".to_owned())),
            other => (other.to_owned(), self.variant),
        };
        let variant = variant
            .filter(|v| !v.is_empty())
            .map(|v| v.to_ascii_lowercase())
            .map(|v| match v.starts_with(|c: char| c.is_ascii_digit()) {
                true => format!("v{v}"),
                false => v,
            });
        let variant = match (architecture.as_str(), variant.as_deref()) {
            ("amd64", Some("v1")) | ("arm64", Some("v8" | "v8.0")) => None,
            ("arm", None) => Some("v7".to_owned()),
            _ => variant,
        };
        Platform {
            os: normal_system(&self.os),
            architecture,
            variant,
        }
    }
}

fn normal_system(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(s: &str) -> Result<Self, PlatformError> {
        Platform::parse(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Descriptor;
    use crate::oci::{Digest, MediaType};

    fn descriptor(platform: Option<&str>, name: &str) -> Descriptor {
        Descriptor {
            media_type: MediaType::oci_manifest(),
            digest: Digest::of(name.as_bytes()),
            size: 1,
            annotations: Default::default(),
            platform: platform.map(|p| {
                let mut words = p.split('/').map(str::to_owned);
                Platform {
                    os: words.next().unwrap(),
                    architecture: words.next().unwrap(),
                    variant: words.next(),
                }
            }),
        }
    }

    #[test]
    fn parses_and_normalises() {
        let host = Platform::host();
        let table = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("macos/arm64", "darwin/arm64"),
            ("linux/weird", "linux/weird"),
        ];
        for (text, normal) in table {
            assert_eq!(Platform::parse(text).unwrap().to_string(), normal, "{text}");
        }
        assert_eq!(Platform::parse("s390x").unwrap().architecture, "s390x");
        assert_eq!(
            Platform::parse("linux").unwrap().architecture,
            host.architecture
        );
        for bad in [
            "",
            "/",
            "linux/",
            "a/b/c/d",
            "li nux/amd64",
            "beos",
            "linux//v8",
        ] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
        assert!(host.matches(&host));
    }

    #[test]
    fn older_variants_run_and_newer_do_not() {
        let table = [
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/amd64/v3", "linux/amd64/v2", true),
            ("linux/arm/v7", "linux/arm/v5", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64", "linux/arm64/v8.2", false),
            ("linux/arm64", "linux/arm/v7", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "unknown/unknown", false),
            ("linux/ppc64le", "linux/ppc64le/power9", false),
        ];
        for (mine, theirs, runs) in table {
            let (mine, theirs) = (
                Platform::parse(mine).unwrap(),
                Platform::parse(theirs).unwrap(),
            );
            assert_eq!(mine.matches(&theirs), runs, "{theirs} on {mine}");
        }
    }

    #[test]
    fn chooses_the_best_of_an_index() {
        let index = [
            descriptor(Some("unknown/unknown"), "attestation"),
            descriptor(None, "plain"),
            descriptor(Some("linux/arm/v5"), "v5"),
            descriptor(Some("linux/arm/v6"), "v6"),
            descriptor(Some("linux/arm/v6"), "v6 again"),
            descriptor(Some("linux/amd64"), "amd64"),
        ];
        let digest = |p: &str| Platform::parse(p).unwrap().choose(&index).unwrap().digest;
        assert_eq!(digest("linux/arm/v7"), Digest::of(b"v6"));
        assert_eq!(digest("linux/amd64"), Digest::of(b"amd64"));
        assert_eq!(digest("linux/s390x"), Digest::of(b"plain"));
        let none = [descriptor(Some("linux/arm/v7"), "arm")];
        assert_eq!(Platform::parse("linux/amd64").unwrap().choose(&none), None);
    }
}
