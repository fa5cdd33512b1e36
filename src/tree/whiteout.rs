//! What `.wh.` names in a layer mean.
//!
//! Source: OCI image spec, layer.md "Whiteouts". `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` hides
//! everything its directory has in the layers below, other `.wh..wh.*` names are bookkeeping of AUFS that found
//! its way into layers (docker's `WhiteoutMetaPrefix`). A marker never hides anything of its own layer.

/// Starts every marker.
pub const PREFIX: &[u8] = b".wh.";
/// Starts AUFS bookkeeping, and the opaque marker.
pub const META_PREFIX: &[u8] = b".wh..wh.";
/// The opaque marker.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// The meaning of a path component that starts with `.wh.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker<'a> {
    /// Hides this name of the layers below. The name is 1 to 255 bytes and neither `.` nor `..`.
    Whiteout(&'a [u8]),
    /// Hides all that the layers below have in this directory.
    Opaque,
    /// AUFS bookkeeping: to be dropped.
    AufsMetadata,
    /// `.wh.`, `.wh..`, `.wh...`, or hides a name longer than any name can be.
    Invalid,
}

/// The marker that `component` is; `None` for an ordinary name.
pub fn classify(component: &[u8]) -> Option<Marker<'_>> {
    let hidden = component.strip_prefix(PREFIX)?;
    Some(if component == OPAQUE {
        Marker::Opaque
    } else if component.starts_with(META_PREFIX) {
        Marker::AufsMetadata
    } else if matches!(hidden, b"" | b"." | b"..") || hidden.len() > super::NAME_MAX {
        Marker::Invalid
    } else {
        Marker::Whiteout(hidden)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers() {
        let long = [b".wh.".as_slice(), &[b'x'; 255]].concat();
        let too_long = [b".wh.".as_slice(), &[b'x'; 256]].concat();
        for (component, expected) in [
            (&b"file"[..], None),
            (b".wh", None),
            (b"x.wh.y", None),
            (b".WH.y", None),
            (b".wh.file", Some(Marker::Whiteout(b"file"))),
            (b".wh.....", Some(Marker::Whiteout(b"...."))),
            (b".wh....", Some(Marker::Whiteout(b"..."))),
            (b".wh..file", Some(Marker::Whiteout(b".file"))),
            (b".wh.", Some(Marker::Invalid)),
            (b".wh..", Some(Marker::Invalid)),
            (b".wh...", Some(Marker::Invalid)),
            (b".wh..wh..opq", Some(Marker::Opaque)),
            (b".wh..wh.plnk", Some(Marker::AufsMetadata)),
            (b".wh..wh.aufs", Some(Marker::AufsMetadata)),
            (b".wh..wh.", Some(Marker::AufsMetadata)),
            (b".wh..wh..opq2", Some(Marker::AufsMetadata)),
            (&long, Some(Marker::Whiteout(&[b'x'; 255]))),
            (&too_long, Some(Marker::Invalid)),
        ] {
            assert_eq!(
                classify(component),
                expected,
                "{}",
                component.escape_ascii()
            );
        }
    }
}
