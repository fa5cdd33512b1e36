//! What the kernel offers.
//!
//! `MICA_KERNEL=6.1` in a build for tests hides what later kernels brought, so that the ways of older ones are tried as well.

use fuser::{InitFlags, KernelConfig};

/// What came when.
const SINCE: &[((u32, u32), InitFlags)] = &[
    ((6, 2), InitFlags::FUSE_HAS_EXPIRE_ONLY),
    ((6, 6), InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP),
    ((6, 9), InitFlags::FUSE_PASSTHROUGH),
];

/// The capabilities of the kernel, or of the older one that it is to stand for.
pub(super) fn capabilities(config: &KernelConfig) -> InitFlags {
    let pretended = match cfg!(debug_assertions) {
        true => std::env::var("MICA_KERNEL").ok(),
        false => None,
    };
    match pretended.as_deref().and_then(version) {
        Some(version) => known_to(version, config.capabilities()),
        None => config.capabilities(),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn known_to(version: (u32, u32), mut offered: InitFlags) -> InitFlags {
    for (since, flag) in SINCE {
        offered.set(*flag, offered.contains(*flag) && version >= *since);
    }
    offered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_knows_less() {
        let all = InitFlags::all();
        let old = known_to(version("6.1").unwrap(), all);
        assert!(!old.intersects(InitFlags::FUSE_PASSTHROUGH | InitFlags::FUSE_HAS_EXPIRE_ONLY));
        assert!(old.contains(InitFlags::FUSE_POSIX_ACL));
        assert_eq!(known_to((6, 9), all), all);
    }
}
