//! What the kernel offers.
//!
//! `MICA_KERNEL=6.1` in a build for tests hides what later kernels brought, so that the ways of older ones are tried as well.

use fuser::{InitFlags, KernelConfig};

/// What came when.
const SINCE: &[((u32, u32), InitFlags)] = &[
    ((6, 2), InitFlags::FUSE_HAS_EXPIRE_ONLY),
    ((6, 6), InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP),
    ((6, 9), InitFlags::FUSE_PASSTHROUGH),
    ((6, 9), InitFlags::FUSE_HAS_RESEND),
];

/// The capabilities of the kernel, or of the older one that it is to stand for.
pub(super) fn capabilities(config: &KernelConfig) -> InitFlags {
    offered(config.capabilities())
}

fn offered(really: InitFlags) -> InitFlags {
    let pretended = match cfg!(debug_assertions) {
        true => std::env::var("MICA_KERNEL").ok(),
        false => None,
    };
    match pretended.as_deref().and_then(version) {
        Some(version) => known_to(version, really),
        None => really,
    }
}

/// Whether the kernel that asked this first `question` can send requests again that were read and not answered.
pub(super) fn sends_again(question: &[u8]) -> bool {
    /// In `fuse_init_in`, behind a `fuse_in_header` of 40 bytes.
    const FLAGS: usize = 52;
    const FLAGS2: usize = 56;
    let word = |at: usize| {
        let bytes = question.get(at..at + 4)?;
        Some(u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)))
    };
    let flags = word(FLAGS).unwrap_or(0) | word(FLAGS2).unwrap_or(0) << 32;
    let flags = InitFlags::from_bits_retain(flags);
    let extended = flags.contains(InitFlags::FUSE_INIT_EXT);
    extended && offered(flags).contains(InitFlags::FUSE_HAS_RESEND)
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
    fn who_sends_again_says_so_in_the_second_word() {
        let mut question = vec![0; 104];
        let flags = InitFlags::FUSE_INIT_EXT | InitFlags::FUSE_HAS_RESEND;
        let bytes = flags.bits().to_ne_bytes();
        question[52..60].copy_from_slice(&bytes);
        assert!(sends_again(&question));
        question[52..56].fill(0);
        assert!(!sends_again(&question));
        assert!(!sends_again(&question[..54]));
    }

    #[test]
    fn an_older_kernel_knows_less() {
        let all = InitFlags::all();
        let old = known_to(version("6.1").unwrap(), all);
        assert!(!old.intersects(InitFlags::FUSE_PASSTHROUGH | InitFlags::FUSE_HAS_EXPIRE_ONLY));
        assert!(old.contains(InitFlags::FUSE_POSIX_ACL));
        assert_eq!(known_to((6, 9), all), all);
    }
}
