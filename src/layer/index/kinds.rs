//! Kinds of extended attributes that programs ask for file by file, whether a layer has any or not.

use crate::layer::format;

/// A set of kinds of extended attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XattrKinds(pub(in crate::layer) u32);

impl XattrKinds {
    /// All of them: for layers of which nothing is known.
    pub const ALL: XattrKinds = XattrKinds(u32::MAX);

    /// The kind that the attribute `name` is of.
    pub fn of(name: &[u8]) -> XattrKinds {
        XattrKinds(match name {
            b"security.selinux" => format::HAS_LABEL,
            b"system.posix_acl_access" => format::HAS_ACCESS_ACL,
            b"system.posix_acl_default" => format::HAS_DEFAULT_ACL,
            b"security.capability" => format::HAS_CAPABILITY,
            _ => format::HAS_OTHER,
        })
    }

    /// Whether this is a kind with a name of its own, which all files are asked for by `ls -l` and others.
    pub fn is_probed(self) -> bool {
        self.0 & format::HAS_OTHER == 0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: XattrKinds) -> XattrKinds {
        XattrKinds(self.0 | other.0)
    }

    /// Whether the two have a kind in common.
    pub fn meets(self, other: XattrKinds) -> bool {
        self.0 & other.0 != 0
    }
}
