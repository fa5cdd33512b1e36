//! Forgetting what was removed behind the kernel's back.
//!
//! The kernel keeps inodes it no longer needs until memory is short, and each keeps a descriptor of ours open: a file that the
//! host removes would keep its space. So now and then nodes without a link are looked for, and the kernel is told to drop
//! their names, upon which it forgets them. The same is done with any nodes when descriptors run short.
//!
//! Directories are left alone: dropping the name of one that somebody has as working directory would be seen.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::VolumeTree;
use crate::sys::beneath;

/// How long space of a file removed on the host may stay taken.
const PERIOD: Duration = Duration::from_secs(2);

/// Starts the thread; it ends with the tree.
pub(super) fn start(tree: &Arc<VolumeTree>) -> io::Result<()> {
    let tree = Arc::downgrade(tree);
    thread::Builder::new()
        .name("mica-sweep".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || run(&tree))?;
    Ok(())
}

fn run(tree: &Weak<VolumeTree>) {
    loop {
        thread::sleep(PERIOD);
        let Some(tree) = tree.upgrade() else {
            return;
        };
        tree.keep_more();
        tree.sweep();
    }
}

impl VolumeTree {
    fn sweep(&self) {
        if self.nodes.len() == 0 {
            return;
        }
        let open: HashSet<_> = self.files.nodes().into_iter().collect();
        let too_many = self.nodes.len().saturating_add(self.files.len()) > most_descriptors();
        for node in self.nodes.leaves() {
            if open.contains(&node.ino) {
                continue;
            }
            let removed = beneath::stat(&*node).is_ok_and(|stat| stat.stx_nlink == 0);
            if (removed || too_many)
                && let Some((parent, name)) = node.last_name()
            {
                self.cache.invalidate_entry(parent, &name);
            }
        }
    }
}

/// Half of what the process may have: the rest is for files that are open.
fn most_descriptors() -> usize {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
    usize::try_from(most).unwrap_or(usize::MAX)
}
