//! Content digests. Only `sha256` is accepted: every identity mica keeps is one.
//!
//! Source: OCI image spec, descriptor.md "Digests"; image config "Layer DiffID" and "Layer ChainID".

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A sha256 digest, 32 bytes. Displays as `sha256:<64 lower hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Neither `sha256:<hex>` nor any `algorithm:hex`.
    #[error("invalid checksum digest format: {0:?}")]
    Format(String),
    /// A well-formed digest of another algorithm than sha256.
    #[error("unsupported digest algorithm: {0:?} (only sha256 is supported)")]
    Algorithm(String),
    /// Not 64 lower-case hexadecimal digits.
    #[error("invalid checksum digest length or digits: {0:?}")]
    Hex(String),
}

impl Digest {
    /// Wraps the 32 raw bytes of a finished sha256.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Parses 64 lower-case hex digits without the algorithm prefix.
    pub fn from_hex(hex: &str) -> Result<Self, DigestError> {
        let bad = || DigestError::Hex(hex.to_owned());
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(bad());
        }
        let value = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            match pair {
                [hi, lo] => {
                    *byte = value(*hi).ok_or_else(bad)? << 4 | value(*lo).ok_or_else(bad)?
                }
                _ => return Err(bad()),
            }
        }
        Ok(Digest(out))
    }

    /// The 64 lower-case hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut s, b| {
            // Writing to a String cannot fail.
            let _ = write!(s, "{b:02x}");
            s
        })
    }

    /// The first 12 hex digits, as docker's tables show.
    pub fn short(&self) -> String {
        self.hex().chars().take(12).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = s
            .split_once(':')
            .ok_or_else(|| DigestError::Format(s.to_owned()))?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(algorithm.to_owned()));
        }
        Digest::from_hex(hex)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The 64 lower-case hex digits, without the algorithm.
            pub fn hex(&self) -> String {
                self.0.hex()
            }
            /// The first 12 hex digits.
            pub fn short(&self) -> String {
                self.0.short()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl FromStr for $name {
            type Err = DigestError;
            fn from_str(s: &str) -> Result<Self, DigestError> {
                s.parse().map($name)
            }
        }
    };
}

digest_newtype! {
    /// sha256 of a layer's uncompressed tar.
    DiffId
}
digest_newtype! {
    /// sha256 over a stack of layers: `chain(0) = diff(0)`, `chain(n) = sha256(chain(n-1) + " " + diff(n))`.
    ChainId
}
digest_newtype! {
    /// sha256 of the image's config JSON, byte for byte.
    ImageId
}

impl ChainId {
    /// The chain IDs of a stack of layers, bottom first; as many as `layers`.
    pub fn chain(layers: &[DiffId]) -> Vec<ChainId> {
        let mut out: Vec<ChainId> = Vec::with_capacity(layers.len());
        for diff in layers {
            let next = match out.last() {
                None => ChainId(diff.0),
                Some(parent) => ChainId(Digest::of(format!("{parent} {diff}").as_bytes())),
            };
            out.push(next);
        }
        out
    }
}
