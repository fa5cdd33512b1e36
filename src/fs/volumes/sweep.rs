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
use std::time::{Duration, Instant};

use super::VolumeTree;
use crate::sys::beneath;

/// How long space of a file removed on the host may stay taken.
const PERIOD: Duration = Duration::from_secs(2);

/// Between two sweeps when descriptors run short, which a program that makes files can have them do within the period.
const PAUSE: Duration = Duration::from_millis(100);

/// What an earlier process was told to forget and did not come to, the kernel has forgotten: it is asked when everything else that was on its way
/// has arrived.
const ARRIVED: Duration = Duration::from_secs(15);

/// Starts the thread, to be unparked when descriptors run short; it ends with the tree.
pub(super) fn start(tree: &Arc<VolumeTree>) -> io::Result<thread::Thread> {
    let tree = Arc::downgrade(tree);
    thread::Builder::new()
        .name("mica-sweep".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || run(&tree))
        .map(|handle| handle.thread().clone())
}

fn run(tree: &Weak<VolumeTree>) {
    let mut kept = Instant::now();
    let mut doubts_end = Some(kept + ARRIVED);
    loop {
        thread::sleep(PAUSE);
        thread::park_timeout(PERIOD);
        let Some(tree) = tree.upgrade() else {
            return;
        };
        if kept.elapsed() >= PERIOD {
            tree.keep_more();
            kept = Instant::now();
        }
        tree.sweep();
        if doubts_end.is_some_and(|end| Instant::now() > end) {
            doubts_end = None;
            let doubtful = tree.nodes.doubtful().into_iter();
            let unknown: Vec<_> = doubtful.filter(|ino| !tree.cache.knows(*ino)).collect();
            tree.nodes.drop_doubtful(&unknown);
        }
    }
}

impl VolumeTree {
    fn sweep(&self) {
        if self.nodes.len() == 0 {
            return;
        }
        let open: HashSet<_> = self.files.nodes().into_iter().collect();
        let too_many = self.budget.is_short(self.nodes.len());
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
