//! The checksum of a JSON document of the store, in the document itself.
//!
//! It is the value of the first key, and covers every byte behind it. That it comes first says who wrote it: a mica that knows no
//! checksums keeps the key at best, but never in front, so what it wrote has none and is read as before. A document edited by hand
//! has one that does not fit; without that key it is read again.

use xxhash_rust::xxh3::xxh3_64;

/// Where the checksum is in one kind of document.
pub(super) struct Place {
    /// The document's first bytes, up to the checksum.
    pub before: &'static str,
    /// What is between the checksum and the second key.
    pub after: &'static str,
}

/// Digits of a checksum.
const DIGITS: usize = 16;

impl Place {
    /// Puts the checksum into a document, which is an object with at least one key.
    pub(super) fn seal(&self, document: &[u8]) -> Vec<u8> {
        let Some(rest) = document.strip_prefix(b"{") else {
            return document.to_vec();
        };
        let mut sealed = self.begin(rest.len());
        sealed.extend_from_slice(rest);
        self.finish(&mut sealed);
        sealed
    }

    /// The beginning of a document that is to be as long, up to its second key; [`Place::finish`] puts the checksum in.
    pub(super) fn begin(&self, capacity: usize) -> Vec<u8> {
        let mut document = Vec::with_capacity(capacity + self.head());
        document.extend_from_slice(self.before.as_bytes());
        document.extend_from_slice(&[b'0'; DIGITS]);
        document.extend_from_slice(self.after.as_bytes());
        document
    }

    /// Seals a document that [`Place::begin`] has begun.
    pub(super) fn finish(&self, document: &mut [u8]) {
        let sum = digits(document.get(self.head()..).unwrap_or_default());
        let place = self.before.len()..self.before.len() + DIGITS;
        if let Some(place) = document.get_mut(place) {
            place.copy_from_slice(sum.as_bytes());
        }
    }

    fn head(&self) -> usize {
        self.before.len() + DIGITS + self.after.len()
    }

    /// Refuses a document that has changed since it was sealed, the checksum's own key included.
    pub(super) fn verify(&self, document: &[u8]) -> Result<(), String> {
        let end = self.before.len() + DIGITS;
        let begin = end + self.after.len();
        let (Some(before), Some(sum), Some(after), Some(rest)) = (
            document.get(..self.before.len()),
            document.get(self.before.len()..end),
            document.get(end..begin),
            document.get(begin..),
        ) else {
            return Ok(());
        };
        let named = before == self.before.as_bytes() && after == self.after.as_bytes();
        if named == (sum == digits(rest).as_bytes()) {
            return Ok(());
        }
        Err(
            "its checksum does not fit: put back a copy, or take the checksum out of it if you have edited it yourself"
                .to_owned(),
        )
    }
}

fn digits(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}
