//! What things of a store are called: volumes and the ids under which their data lies, containers, leases.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// A volume is a directory entry: no longer than those may be.
const MAX_LENGTH: usize = 255;

/// The name of a volume in docker's grammar, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// Why a text is no volume name; docker's words, which come after `create NAME: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeNameError {
    /// One character, or none.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    TooShort,
    /// Longer than a file name may be.
    #[error("volume name is too long, names should be at most {MAX_LENGTH} characters")]
    TooLong,
    /// A character that names do not have.
    #[error(
        "{0:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    Characters(String),
}

impl VolumeName {
    /// Checks a text.
    pub fn parse(text: &str) -> Result<VolumeName, VolumeNameError> {
        let mut bytes = text.bytes();
        let first = bytes.next().ok_or(VolumeNameError::TooShort)?;
        let rest = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if text.len() == 1 {
            return Err(VolumeNameError::TooShort);
        }
        if !first.is_ascii_alphanumeric() || !bytes.all(rest) {
            return Err(VolumeNameError::Characters(text.to_owned()));
        }
        if text.len() > MAX_LENGTH {
            return Err(VolumeNameError::TooLong);
        }
        Ok(VolumeName(text.to_owned()))
    }

    /// A name that nobody has chosen: 64 hexadecimal digits.
    pub fn anonymous() -> io::Result<VolumeName> {
        Ok(VolumeName(random_hex::<32>()?))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = VolumeNameError;

    fn from_str(text: &str) -> Result<VolumeName, VolumeNameError> {
        VolumeName::parse(text)
    }
}

impl TryFrom<String> for VolumeName {
    type Error = VolumeNameError;

    fn try_from(text: String) -> Result<VolumeName, VolumeNameError> {
        VolumeName::parse(&text)
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> String {
        name.0
    }
}

/// What a volume is, whatever it is called: 32 hexadecimal digits, never used twice. The name of its directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId(String);

impl VolumeId {
    /// A new one.
    pub(super) fn new() -> io::Result<VolumeId> {
        Ok(VolumeId(random_hex::<16>()?))
    }

    /// Checks a text.
    pub fn parse(text: &str) -> Option<VolumeId> {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 32 && text.bytes().all(digit)).then(|| VolumeId(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VolumeId {
    type Error = String;

    fn try_from(text: String) -> Result<VolumeId, String> {
        VolumeId::parse(&text).ok_or_else(|| format!("{text:?} is no volume id"))
    }
}

impl From<VolumeId> for String {
    fn from(id: VolumeId) -> String {
        id.0
    }
}

/// 64 lower-case hex digits, random.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// A new one.
    pub fn random() -> io::Result<ContainerId> {
        let mut bytes = [0u8; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(ContainerId(Digest::from_bytes(bytes).hex()))
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12, as docker's tables show.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Digest::from_hex(text) {
            Ok(_) => Ok(ContainerId(text.to_owned())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a lease: `import-4711-1a2b3c-0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(String);

impl LeaseId {
    /// A new one; `kind` is a word for people.
    pub(super) fn new(kind: &str) -> LeaseId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let nanos = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        LeaseId(format!("{kind}-{}-{nanos:x}-{next}", std::process::id()))
    }

    pub(super) fn of_builds() -> LeaseId {
        LeaseId("builds".to_owned())
    }

    pub(super) fn of_container(id: &ContainerId) -> LeaseId {
        LeaseId(format!("run-{id}"))
    }

    pub(super) fn of_plugin() -> LeaseId {
        LeaseId("plugin".to_owned())
    }

    pub(super) fn of_snapshot(number: usize) -> LeaseId {
        LeaseId(format!("snapshot-{number}"))
    }

    pub(super) fn of_engine(number: usize) -> LeaseId {
        LeaseId(format!("engine-{number}"))
    }

    /// One that was found in the directory of the leases.
    pub(super) fn found(name: &str) -> LeaseId {
        LeaseId(name.to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0u8; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        for good in ["data", "a1", "A_b.c-d", "0x", &"n".repeat(255)] {
            assert_eq!(VolumeName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "../x", ".hidden", "_a", "-a", "a/b", "a b", "ä1", "a\n", "./x",
        ] {
            let error = VolumeName::parse(bad).unwrap_err();
            assert_eq!(error, VolumeNameError::Characters(bad.to_owned()), "{bad}");
        }
        assert_eq!(VolumeName::parse(""), Err(VolumeNameError::TooShort));
        assert_eq!(VolumeName::parse("a"), Err(VolumeNameError::TooShort));
        assert_eq!(
            VolumeName::parse(&"n".repeat(256)),
            Err(VolumeNameError::TooLong)
        );
        assert_eq!(
            VolumeName::parse("./x").unwrap_err().to_string(),
            "\"./x\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        );
    }

    #[test]
    fn anonymous_names_and_ids_are_random() {
        let name = VolumeName::anonymous().unwrap();
        assert_eq!(name.as_str().len(), 64);
        assert_eq!(VolumeName::parse(name.as_str()), Ok(name.clone()));
        assert_ne!(name, VolumeName::anonymous().unwrap());
        let id = VolumeId::new().unwrap();
        assert_eq!(VolumeId::parse(id.as_str()), Some(id));
        assert_eq!(VolumeId::parse("../.."), None);
    }
}
