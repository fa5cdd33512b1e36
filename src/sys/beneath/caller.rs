//! What a caller may keep of a file's set-id bits when it changes it, found out while it waits in its call.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::Keeps;
use crate::sys::procfs;

/// `CAP_FSETID`.
const FSETID: u32 = 4;

/// How the host would treat thread `thread` with these ids at a change of a file of `group`. Where the thread cannot be looked
/// at (a foreign pid namespace), or makes the call as somebody else, only its ids count.
pub fn keeps(thread: u32, uid: u32, gid: u32, group: u32) -> Keeps {
    let status = match thread {
        0 => None,
        thread => fs::read_to_string(procfs::path(thread, "status")).ok(),
    };
    let known = status.as_deref().and_then(Credentials::parse);
    let by_id = if gid == group {
        Keeps::Group
    } else {
        Keeps::Nothing
    };
    match known.filter(|known| (known.uid, known.gid) == (uid, gid)) {
        Some(known) if known.fsetid && is_in_our_namespace(thread) => Keeps::All,
        Some(known) if known.groups.contains(&group) => Keeps::Group,
        _ => by_id,
    }
}

/// Capabilities of another user namespace are none over files that it does not own.
fn is_in_our_namespace(thread: u32) -> bool {
    let namespace = |of: &str| fs::metadata(format!("/proc/{of}/ns/user")).map(|meta| meta.ino());
    match (namespace("thread-self"), namespace(&thread.to_string())) {
        (Ok(ours), Ok(its)) => ours == its,
        _ => false,
    }
}

#[derive(Debug, Eq, PartialEq)]
struct Credentials {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    fsetid: bool,
}

impl Credentials {
    fn parse(status: &str) -> Option<Credentials> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // Real, effective, saved, of the file system.
        let last = |name| field(name)?.split_ascii_whitespace().nth(3)?.parse().ok();
        let groups = field("Groups:")?.split_ascii_whitespace();
        let capabilities = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
        Some(Credentials {
            uid: last("Uid:")?,
            gid: last("Gid:")?,
            groups: groups.filter_map(|group| group.parse().ok()).collect(),
            fsetid: capabilities & (1 << FSETID) != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_the_file_system() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t50 60 \nCapEff:\t0000000000000010\n";
        let wanted = Credentials {
            uid: 4,
            gid: 8,
            groups: vec![50, 60],
            fsetid: true,
        };
        assert_eq!(Credentials::parse(status), Some(wanted));
        assert_eq!(Credentials::parse("Uid:\t1\n"), None);
    }

    #[test]
    fn an_unknown_thread_is_judged_by_its_ids() {
        assert_eq!(keeps(0, 0, 0, 7), Keeps::Nothing);
        assert_eq!(keeps(0, 1, 7, 7), Keeps::Group);
    }
}
