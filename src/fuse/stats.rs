//! Counts of requests by kind: what a workload costs, for tests and benchmarks.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! operations {
    ($($variant:ident $name:literal,)*) => {
        /// A kind of FUSE request (names as in the kernel, lower case).
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[allow(missing_docs)]
        pub enum Op { $($variant,)* }

        impl Op {
            /// All kinds, in the order of their counters.
            pub const ALL: &'static [Op] = &[$(Op::$variant,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Op::$variant => $name,)* }
            }
        }
    };
}

operations! {
    Lookup "lookup",
    Forget "forget",
    GetAttr "getattr",
    SetAttr "setattr",
    ReadLink "readlink",
    Open "open",
    Read "read",
    Write "write",
    Release "release",
    Flush "flush",
    FSync "fsync",
    OpenDir "opendir",
    ReadDir "readdir",
    ReadDirPlus "readdirplus",
    ReleaseDir "releasedir",
    FSyncDir "fsyncdir",
    StatFs "statfs",
    GetXattr "getxattr",
    ListXattr "listxattr",
    SetXattr "setxattr",
    RemoveXattr "removexattr",
    Access "access",
    Create "create",
    MkNod "mknod",
    MkDir "mkdir",
    SymLink "symlink",
    Link "link",
    Unlink "unlink",
    RmDir "rmdir",
    Rename "rename",
    Lseek "lseek",
    IoCtl "ioctl",
    Poll "poll",
    Fallocate "fallocate",
    CopyFileRange "copy_file_range",
    Lock "lock",
}

/// The counters of one mount.
#[derive(Debug)]
pub struct Stats {
    requests: Vec<AtomicU64>,
    panics: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            requests: Op::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            panics: AtomicU64::new(0),
        }
    }
}

impl Stats {
    pub(super) fn count(&self, op: Op) {
        // The counters stand in the order of the enum.
        if let Some(counter) = self.requests.get(op as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests of this kind have come.
    pub fn requests(&self, op: Op) -> u64 {
        let counter = self.requests.get(op as usize);
        counter.map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// How many handlers have panicked.
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// `name count` lines of what is not zero, then `total` and `panics`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut total = 0u64;
        for &op in Op::ALL {
            let count = self.requests(op);
            total = total.saturating_add(count);
            if count > 0 {
                text.push_str(&format!("{} {count}\n", op.name()));
            }
        }
        text.push_str(&format!("total {total}\npanics {}\n", self.panics()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_rendered_by_name() {
        let stats = Stats::default();
        stats.count(Op::Lookup);
        stats.count(Op::Lock);
        stats.count(Op::Lookup);
        assert_eq!(stats.render(), "lookup 2\nlock 1\ntotal 3\npanics 0\n");
        for (i, &op) in Op::ALL.iter().enumerate() {
            assert_eq!(op as usize, i);
        }
    }
}
