//! The namespaces of a container: noted when it starts, entered by `exec`.
//!
//! Process 1 is the container's and may go where it likes; what `exec` joins is what the supervisor has made.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys::proc::{children, namespace};

/// In the order of entering: the first gives the right to the others. A container of root's has no user namespace.
const KINDS: [(&str, LinkNameSpaceType); 6] = [
    ("user", LinkNameSpaceType::User),
    ("mnt", LinkNameSpaceType::Mount),
    ("pid", LinkNameSpaceType::ProcessID),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("cgroup", LinkNameSpaceType::ControlGroup),
];

/// The namespaces of a process, by their numbers.
pub(super) fn numbers(pid: u32, user: bool) -> io::Result<BTreeMap<String, u64>> {
    let kinds = KINDS.iter().filter(|(kind, _)| user || *kind != "user");
    kinds
        .map(|(kind, _)| Ok(((*kind).to_owned(), namespace(pid, kind)?.1)))
        .collect()
}

/// Namespaces to enter.
#[derive(Debug)]
pub(super) struct Entrance(Vec<(OwnedFd, LinkNameSpaceType)>);

impl Entrance {
    /// Those of a process, which must be the noted ones. `None`: they are not. What was noted may be nothing, by an older
    /// program.
    pub(super) fn open(
        pid: u32,
        user: bool,
        noted: &BTreeMap<String, u64>,
    ) -> io::Result<Option<Entrance>> {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match Entrance::of(pid, user, noted) {
            // The small init of an ordinary user's container is nobody's to look into; what it has started is in the same ones.
            Err(error) if refused(&error) && !noted.is_empty() => {
                let mut found = children(pid).into_iter();
                let found = found.find_map(|child| Entrance::of(child, user, noted).ok().flatten());
                found.map_or(Err(error), |found| Ok(Some(found)))
            }
            other => other,
        }
    }

    fn of(pid: u32, user: bool, noted: &BTreeMap<String, u64>) -> io::Result<Option<Entrance>> {
        let mut found = Vec::new();
        for (kind, link) in KINDS {
            if !user && kind == "user" {
                continue;
            }
            let (descriptor, number) = namespace(pid, kind)?;
            if !noted.is_empty() && noted.get(kind) != Some(&number) {
                return Ok(None);
            }
            found.push((descriptor, link));
        }
        Ok(Some(Entrance(found)))
    }

    /// Of them only what it takes to see the files: the process stays unseen.
    pub(super) fn files_only(self) -> Entrance {
        let (user, files) = (LinkNameSpaceType::User, LinkNameSpaceType::Mount);
        let wanted = self.0.into_iter();
        Entrance(
            wanted
                .filter(|(_, kind)| *kind == user || *kind == files)
                .collect(),
        )
    }

    /// What has to stay open until [`Entrance::enter`].
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|(descriptor, _)| descriptor.as_fd())
    }

    /// Moves this process into them; into the one of process ids, its children.
    pub(super) fn enter(self) -> io::Result<()> {
        for (descriptor, link) in self.0 {
            move_into_link_name_space(descriptor.as_fd(), Some(link))?;
        }
        Ok(())
    }
}
