//! One path component.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

/// The longest name a directory entry may have, in bytes (Linux `NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// A path component: 1 to 255 bytes, without `/` and NUL, neither `.` nor `..`. Any other byte is allowed.
///
/// Displays escaped, so that a hostile name cannot steer a terminal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName(Box<[u8]>);

/// Why bytes are no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("empty name")]
    Empty,
    /// `.` or `..`.
    #[error("name is \".\" or \"..\"")]
    Dots,
    /// More than [`NAME_MAX`] bytes.
    #[error("name is longer than 255 bytes")]
    TooLong,
    /// Contains NUL.
    #[error("name contains a NUL byte")]
    Nul,
    /// Contains `/`.
    #[error("name contains a slash")]
    Slash,
}

impl EntryName {
    /// Validates `bytes`.
    pub fn new(bytes: &[u8]) -> Result<EntryName, NameError> {
        EntryName::check(bytes)?;
        Ok(EntryName(bytes.into()))
    }

    /// Whether `bytes` would be a name, without keeping them.
    pub fn check(bytes: &[u8]) -> Result<(), NameError> {
        match bytes {
            b"" => return Err(NameError::Empty),
            b"." | b".." => return Err(NameError::Dots),
            _ if bytes.len() > NAME_MAX => return Err(NameError::TooLong),
            _ => {}
        }
        for byte in bytes {
            match byte {
                0 => return Err(NameError::Nul),
                b'/' => return Err(NameError::Slash),
                _ => {}
            }
        }
        Ok(())
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for EntryName {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for EntryName {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for EntryName {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for EntryName {
    type Error = NameError;
    fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
        EntryName::new(bytes)
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.escape_ascii(), f)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_components() {
        for good in [
            &b"a"[..],
            b"...",
            b".hidden",
            b"\xff\xfe",
            b"a b\n",
            b"\\",
            &[b'x'; 255],
        ] {
            assert_eq!(
                EntryName::new(good).map(|n| n.as_bytes().to_vec()),
                Ok(good.to_vec())
            );
        }
        for (bad, why) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::Slash),
            (b"a\0", NameError::Nul),
            (&[b'x'; 256], NameError::TooLong),
        ] {
            assert_eq!(EntryName::new(bad), Err(why));
        }
    }

    #[test]
    fn display_escapes_control_characters() {
        let name = EntryName::new(b"a\x1b[31m\xff").unwrap();
        assert_eq!(name.to_string(), "a\\x1b[31m\\xff");
    }
}
