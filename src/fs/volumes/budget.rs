//! How many of the daemon's descriptors the users of its volumes may have.
//!
//! What a user opens through the mount, and each lock held there, is a descriptor of the daemon's, which also serves images,
//! the store and other users. So there is a reserve that volumes never touch, and of the rest one user other than the store's
//! owner and root has a share: who has used it up gets EMFILE, and nobody else gets anything for it.
//!
//! Inodes that the kernel knows have descriptors, too, and who looked one up first can have it stay (`O_PATH`, a working
//! directory). Of these one such user has no more than half; long before, `sweep` makes the kernel forget what nobody uses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::attr::{FileNo, VolumeError};

type Result<T> = std::result::Result<T, VolumeError>;

/// Of so many descriptors one is in the reserve, but so many at least and at most.
const RESERVE: (usize, usize, usize) = (8, 64, 4096);
/// One user may have one of so many.
const SHARE: usize = 4;
/// And of inodes that the kernel knows one of so many.
const SHARE_OF_NODES: usize = 2;

/// The descriptors of one mount's volumes.
#[derive(Debug)]
pub(super) struct Budget {
    /// For all.
    most: usize,
    /// From here on the kernel is made to forget: the rest is for files that are open, and for what comes meanwhile.
    enough: usize,
    /// For one user.
    share: usize,
    /// Whose store it is.
    owner: u32,
    /// Inodes known, as of the last look.
    nodes: AtomicUsize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_user: HashMap<u32, usize>,
    /// Inodes that the kernel knows, by who looked them up first.
    nodes_by_user: HashMap<u32, usize>,
    /// Of open files and directories.
    of_files: HashMap<FileNo, Share>,
}

/// One descriptor; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    user: u32,
}

/// One inode that the kernel knows; given back when dropped.
#[derive(Debug)]
pub(super) struct Known {
    budget: Arc<Budget>,
    user: u32,
}

impl Budget {
    pub(super) fn new(owner: u32) -> Arc<Budget> {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Budget::of(usize::try_from(limit).unwrap_or(usize::MAX), owner)
    }

    fn of(limit: usize, owner: u32) -> Arc<Budget> {
        let (part, least, largest) = RESERVE;
        let most = limit.saturating_sub((limit / part).clamp(least, largest));
        Arc::new(Budget {
            most,
            enough: limit / 2,
            share: most / SHARE,
            owner,
            nodes: AtomicUsize::new(0),
            taken: Mutex::default(),
        })
    }

    /// One more for `user`.
    pub(super) fn take(self: &Arc<Self>, user: u32) -> Result<Share> {
        let mut taken = self.taken.lock();
        let nodes = self.nodes.load(Ordering::Relaxed);
        let own = taken.by_user.entry(user).or_default();
        let too_many = self.is_limited(user) && *own >= self.share;
        if !too_many {
            *own += 1;
        }
        if too_many || taken.all.saturating_add(nodes) >= self.most {
            if !too_many {
                Budget::release(&mut taken, user, 0);
            }
            return Err(Errno::MFILE.into());
        }
        taken.all += 1;
        Ok(Share {
            budget: Arc::clone(self),
            user,
        })
    }

    fn release(taken: &mut Taken, user: u32, count: usize) {
        taken.all = taken.all.saturating_sub(count);
        if let Some(own) = taken.by_user.get_mut(&user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.by_user.remove(&user);
            }
        }
    }

    /// Whether one more inode may be known, besides `nodes`.
    pub(super) fn has_room(&self, nodes: usize) -> Result<()> {
        self.nodes.store(nodes, Ordering::Relaxed);
        if self.taken.lock().all.saturating_add(nodes) >= self.most {
            return Err(Errno::MFILE.into());
        }
        Ok(())
    }

    fn is_limited(&self, user: u32) -> bool {
        user != 0 && user != self.owner
    }

    /// Whether `user` may have the kernel know one more inode.
    pub(super) fn may_know(&self, user: u32) -> Result<()> {
        let taken = self.taken.lock();
        let own = taken.nodes_by_user.get(&user).copied().unwrap_or(0);
        match self.is_limited(user) && own >= self.most / SHARE_OF_NODES {
            true => Err(Errno::MFILE.into()),
            false => Ok(()),
        }
    }

    /// The kernel knows one more, by `user`.
    pub(super) fn know(self: &Arc<Self>, user: u32) -> Known {
        let mut taken = self.taken.lock();
        let own = taken.nodes_by_user.entry(user).or_default();
        *own = own.saturating_add(1);
        Known {
            budget: Arc::clone(self),
            user,
        }
    }

    /// Whether the kernel should know fewer than these.
    pub(super) fn is_short(&self, nodes: usize) -> bool {
        let taken = self.taken.lock();
        let much = self.most / SHARE_OF_NODES / 2;
        let mut users = taken.nodes_by_user.iter();
        taken.all.saturating_add(nodes) > self.enough
            || users.any(|(user, own)| self.is_limited(*user) && *own > much)
    }

    /// A file or directory was closed.
    pub(super) fn charge(&self, file: FileNo, share: Share) {
        self.taken.lock().of_files.insert(file, share);
    }

    pub(super) fn closed(&self, file: FileNo) {
        let gone = self.taken.lock().of_files.remove(&file);
        // It takes the lock itself.
        drop(gone);
    }
}

impl Known {
    pub(super) fn user(&self) -> u32 {
        self.user
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        Budget::release(&mut self.budget.taken.lock(), self.user, 1);
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut taken = self.budget.taken.lock();
        if let Some(own) = taken.nodes_by_user.get_mut(&self.user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.nodes_by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_used_up_his_share_is_refused_and_nobody_else() {
        let budget = Budget::of(1000, 5);
        assert_eq!((budget.most, budget.share), (875, 218));
        let one: Vec<Share> = (0..218).map(|_| budget.take(1).unwrap()).collect();
        assert!(budget.take(1).is_err());
        let two = budget.take(2).unwrap();
        // Root and the owner have what is left.
        let owner: Vec<Share> = (0..400).map(|_| budget.take(5).unwrap()).collect();
        budget.has_room(200).unwrap();
        let root: Vec<Share> = std::iter::from_fn(|| budget.take(0).ok()).collect();
        assert_eq!(root.len(), 875 - 200 - 400 - 1 - 218);
        assert!(budget.has_room(201).is_err());
        drop((one, two, owner, root));
        budget.has_room(0).unwrap();
        assert!(budget.take(1).is_ok());
        assert!(budget.taken.lock().by_user.is_empty());
    }

    #[test]
    fn regression_who_has_the_kernel_know_too_much_is_refused_and_nobody_else() {
        let budget = Budget::of(1000, 5);
        let mut known: Vec<Known> = (0..218).map(|_| budget.know(1)).collect();
        assert!(!budget.is_short(218));
        known.push(budget.know(1));
        assert!(budget.is_short(219));
        while budget.may_know(1).is_ok() {
            known.push(budget.know(1));
        }
        assert_eq!(known.len(), 437);
        for user in [0, 2, 5] {
            budget.may_know(user).unwrap();
        }
        let others: Vec<Known> = (0..500).map(|_| budget.know(5)).collect();
        budget.may_know(5).unwrap();
        known.pop();
        budget.may_know(1).unwrap();
        drop((known, others));
        assert!(budget.taken.lock().nodes_by_user.is_empty());
    }
}
