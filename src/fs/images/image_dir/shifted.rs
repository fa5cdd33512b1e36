//! Attributes that have ids in them, for a mount that shows owners shifted. What its ids cannot express is not shown.

use std::borrow::Cow;

use crate::sys::idmap::Shift;

/// `linux/capability.h`: the high byte of the first word.
const REVISION: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;

/// `linux/posix_acl_xattr.h`.
const ACL_VERSION: u32 = 2;
const ACL_USER: u16 = 2;
const ACL_GROUP: u16 = 8;
const ACL_ENTRY: usize = 8;

/// The value of the attribute, if it can be shown.
pub(super) fn value<'a>(shift: &Shift, name: &[u8], value: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    match name {
        b"security.capability" => capabilities(shift, value).map(Cow::Owned),
        b"system.posix_acl_access" | b"system.posix_acl_default" => {
            access_list(shift, value).map(Cow::Owned)
        }
        _ => Some(Cow::Borrowed(value)),
    }
}

fn word(value: &[u8], at: usize) -> Option<u32> {
    let bytes = value.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// Capabilities count below the user whom the namespace has as root, and nowhere else: never those of the host's root.
fn capabilities(shift: &Shift, value: &[u8]) -> Option<Vec<u8>> {
    let magic = word(value, 0)?;
    let root = match (magic & REVISION, value.len()) {
        (REVISION_2, 20) => 0,
        (REVISION_3, 24) => word(value, 20)?,
        _ => return None,
    };
    let root = shift.known_uid(root)?;
    let mut shown = (REVISION_3 | magic & !REVISION).to_le_bytes().to_vec();
    shown.extend_from_slice(value.get(4..20)?);
    shown.extend(root.to_le_bytes());
    Some(shown)
}

fn access_list(shift: &Shift, value: &[u8]) -> Option<Vec<u8>> {
    if word(value, 0)? != ACL_VERSION {
        return None;
    }
    let (head, entries) = value.split_at_checked(4)?;
    let entries = entries.chunks_exact(ACL_ENTRY);
    if !entries.remainder().is_empty() {
        return None;
    }
    let mut shown = head.to_vec();
    for entry in entries {
        let id = word(entry, 4)?;
        let id = match u16::from_le_bytes(entry.get(..2)?.try_into().ok()?) {
            ACL_USER => shift.uid(id),
            ACL_GROUP => shift.gid(id),
            _ => id,
        };
        shown.extend_from_slice(entry.get(..4)?);
        shown.extend(id.to_le_bytes());
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::idmap::{IdMap, IdRange, NOBODY};

    fn shift() -> Shift {
        let ranges = vec![
            IdRange {
                inside: 0,
                outside: 1000,
                count: 1,
            },
            IdRange {
                inside: 1,
                outside: 100_000,
                count: 65_536,
            },
        ];
        let (uids, gids) = (ranges.clone(), ranges);
        Shift::new(IdMap { uids, gids }).unwrap()
    }

    fn caps(magic: u32, root: Option<u32>) -> Vec<u8> {
        let mut value = magic.to_le_bytes().to_vec();
        value.extend([7; 16]);
        value.extend(root.map(u32::to_le_bytes).into_iter().flatten());
        value
    }

    #[test]
    fn capabilities_are_those_of_the_namespace() {
        let shown = |value: &[u8]| capabilities(&shift(), value);
        // The effective bit stays.
        let own = Some(caps(REVISION_3 | 1, Some(1000)));
        assert_eq!(shown(&caps(REVISION_2 | 1, None)), own);
        assert_eq!(shown(&caps(REVISION_3 | 1, Some(0))), own);
        let other = Some(caps(REVISION_3, Some(100_004)));
        assert_eq!(shown(&caps(REVISION_3, Some(5))), other);
        for none in [
            caps(REVISION_3, Some(65_537)),
            caps(REVISION_3, Some(u32::MAX)),
            caps(REVISION_3, None),
            caps(REVISION_2, Some(0)),
            caps(0x0100_0000, None)[..12].to_vec(),
            caps(0x0400_0000, Some(0)),
            Vec::new(),
        ] {
            assert_eq!(shown(&none), None, "{none:?}");
        }
    }

    #[test]
    fn access_lists_name_shifted_ids() {
        let acl = |entries: &[(u16, u32)]| {
            let mut value = ACL_VERSION.to_le_bytes().to_vec();
            for (tag, id) in entries {
                value.extend(tag.to_le_bytes());
                value.extend(6u16.to_le_bytes());
                value.extend(id.to_le_bytes());
            }
            value
        };
        let shown = |value: &[u8]| access_list(&shift(), value);
        let given = acl(&[(1, u32::MAX), (2, 0), (2, 33), (8, 70_000), (16, u32::MAX)]);
        let expected = acl(&[
            (1, u32::MAX),
            (2, 1000),
            (2, 100_032),
            (8, NOBODY),
            (16, u32::MAX),
        ]);
        assert_eq!(shown(&given), Some(expected));
        assert_eq!(shown(&given[..given.len() - 1]), None);
        assert_eq!(shown(&[1, 0, 0, 0]), None);
        assert_eq!(shown(&[]), None);
    }
}
