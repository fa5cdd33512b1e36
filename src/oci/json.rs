//! What manifests and configs have in common as JSON documents: how they are read, with Go's tolerance of `null`.
//!
//! Documents are read into structs of our own rather than oci-spec's: docker's tools decode with Go's rules, so real
//! documents hold `null` for lists and maps, a text for `Cmd`, descriptors without media type, and docker's own fields;
//! oci-spec refuses the first three and drops the last. Unknown fields are ignored; a known field given twice is
//! refused, because two readers could take different ones, and so is one in another case. serde_json refuses nesting deeper than 128 in what is read
//! and skips over the rest without recursion.

use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use super::document::DocumentError;
use super::fields::{self, Fields};

/// Reads `bytes` as one JSON document of at most `limit` bytes.
pub(super) fn read<T: DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
    fields: &Fields,
) -> Result<T, DocumentError> {
    if bytes.len() > limit {
        return Err(DocumentError::TooLarge {
            size: bytes.len(),
            limit,
        });
    }
    let read =
        serde_json::from_slice(bytes).map_err(|error| DocumentError::Json(error.to_string()))?;
    fields::check(bytes, fields)?;
    Ok(read)
}

/// `null` is the empty value, as in Go.
pub(super) fn nullable<'de, D, T>(d: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

/// A list that may be `null` and hold `null`s.
pub(super) fn nullable_list<'de, D, T>(d: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    let list = Option::<Vec<Option<T>>>::deserialize(d)?.unwrap_or_default();
    Ok(list.into_iter().map(Option::unwrap_or_default).collect())
}
