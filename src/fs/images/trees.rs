//! Trees and their directories: one tree per tag, per ID, per dangling image, per layer.
//!
//! Invariants:
//! - a tree lives from the first look at its root until its [`Subject`] is gone from the view and the kernel has forgotten
//!   its directories; a tag that moves to another image is another subject;
//! - the content (open layers) is shared by the directories of a tree and goes with the last one the kernel knows;
//! - a directory that a staged `rmdir` "removed" is dead for the kernel, so [`Tree::revive`] gives it another number.
//!
//! Lock order: subjects, then numbers or those made; the table of directories is never locked together with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use super::inode::{self, KEPT, MAX_TREES, TreeNo};
use super::lasting::Lasting;
use super::open_layers::{OpenLayers, Slot};
use super::places::Subject;
use crate::fs::api::FsError;
use crate::fs::api::InodeNo;
use crate::layer::merged::{Image, MergedDir};
use crate::layer::{LayerFile, NodeNo};
use crate::oci::DiffId;

/// One tree.
#[derive(Debug)]
pub(super) struct Tree {
    no: TreeNo,
    subject: RwLock<Subject>,
    content: Mutex<Weak<Content>>,
    /// When its use was last noted, see `used`.
    pub used: AtomicU64,
    /// Held while it is being removed: until then nobody is told whether it is there. Since when it is gone.
    pub settled: RwLock<Option<Instant>>,
    /// Directories with another number than the tree's: topmost layer and node.
    revived: RwLock<HashMap<(u16, u32), TreeNo>>,
}

/// What a tree shows, open.
#[derive(Debug)]
pub(super) struct Content {
    /// `None` only while it is being dropped.
    open: Option<Open>,
    /// By position in the image.
    pub slots: Vec<Arc<Slot>>,
}

#[derive(Debug)]
pub(super) enum Open {
    Image(Image),
    /// The layer, and where known an image of the layers below it: its hard links may lead there, and a directory that it does
    /// not describe has the attributes of the one below, as an unpacked layer has.
    Layer(Arc<LayerFile>, OnceLock<Option<Arc<Content>>>),
}

/// A place in a tree.
#[derive(Clone, Debug)]
pub(super) enum At {
    Merged(MergedDir),
    /// In a layer alone: the node, and its path in the layer.
    Layer(NodeNo, Arc<[u8]>),
}

/// A directory that the kernel knows.
#[derive(Debug)]
pub(super) struct DirNode {
    pub ino: InodeNo,
    pub tree: Arc<Tree>,
    /// The directory above; of a root, itself.
    pub parent: InodeNo,
    place: OnceLock<(Arc<Content>, At)>,
    references: AtomicU64,
}

impl Tree {
    fn new(no: TreeNo, subject: Subject) -> Arc<Tree> {
        Arc::new(Tree {
            no,
            subject: RwLock::new(subject),
            content: Mutex::default(),
            used: AtomicU64::new(0),
            settled: RwLock::default(),
            revived: RwLock::default(),
        })
    }

    pub(super) fn subject(&self) -> Subject {
        self.subject.read().clone()
    }

    /// The number of the root directory.
    pub(super) fn root_ino(&self) -> InodeNo {
        inode::directory(self.no, 0, NodeNo(0))
    }

    /// The number of the directory whose topmost part is `node` of the layer at `layer`.
    pub(super) fn ino(&self, layer: u16, node: NodeNo) -> InodeNo {
        let revived = self.revived.read();
        let no = revived.get(&(layer, node.0)).copied().unwrap_or(self.no);
        inode::directory(no, layer, node)
    }
}

impl Content {
    pub(super) fn new(open: Open, slots: Vec<Arc<Slot>>) -> Arc<Content> {
        Arc::new(Content {
            open: Some(open),
            slots,
        })
    }

    pub(super) fn open(&self) -> Result<&Open, FsError> {
        // Taken by `drop` only.
        self.open.as_ref().ok_or(FsError::NotFound)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.open = None;
        for slot in &self.slots {
            slot.close_if_idle();
        }
    }
}

impl DirNode {
    pub(super) fn is_root(&self) -> bool {
        self.ino == self.tree.root_ino()
    }

    /// Where the directory is, if it has been opened: every directory but a root always is.
    pub(super) fn place(&self) -> Option<&(Arc<Content>, At)> {
        self.place.get()
    }
}

/// All trees and directories.
#[derive(Debug)]
pub(super) struct Trees {
    subjects: Mutex<HashMap<Subject, Arc<Tree>>>,
    /// Those made since the last change: by names that may have been gone already.
    made: Mutex<Vec<Subject>>,
    numbers: Mutex<Taken>,
    dirs: RwLock<HashMap<InodeNo, Arc<DirNode>>>,
    lasting: Option<Arc<Lasting>>,
}

#[derive(Debug, Default)]
struct Taken {
    used: HashMap<u32, Weak<Tree>>,
    next: u32,
}

impl Taken {
    fn is_free(&self, no: u32) -> bool {
        let user = self.used.get(&no);
        user.is_none_or(|tree| tree.strong_count() == 0)
    }

    /// One that the store does not give.
    fn take(&mut self) -> Result<TreeNo, FsError> {
        for _ in KEPT.trees..MAX_TREES {
            let no = self.next.max(KEPT.trees);
            self.next = (no + 1) % MAX_TREES;
            if self.is_free(no) {
                return Ok(TreeNo(no));
            }
        }
        Err(FsError::Store(format!(
            "more than {MAX_TREES} image trees are in use"
        )))
    }
}

impl Trees {
    pub(super) fn new(lasting: Option<Arc<Lasting>>) -> Trees {
        let (mut subjects, mut taken) = (HashMap::new(), Taken::default());
        for (no, subject) in lasting.iter().flat_map(|lasting| lasting.trees()) {
            if let Ok(no) = u32::try_from(no) {
                let tree = Tree::new(TreeNo(no), subject.clone());
                taken.used.insert(no, Arc::downgrade(&tree));
                subjects.insert(subject, tree);
            }
        }
        for (no, tree, layer, node) in lasting.iter().flat_map(|lasting| lasting.revived()) {
            let tree = taken.used.get(&tree).and_then(Weak::upgrade);
            if let (Some(tree), Ok(no)) = (tree, u32::try_from(no)) {
                tree.revived.write().insert((layer, node), TreeNo(no));
                taken.used.insert(no, Arc::downgrade(&tree));
            }
        }
        let made = subjects.keys().cloned().collect();
        Trees {
            subjects: Mutex::new(subjects),
            made: Mutex::new(made),
            numbers: Mutex::new(taken),
            dirs: RwLock::default(),
            lasting,
        }
    }

    /// The tree that has a number, or one of whose directories has.
    pub(super) fn numbered(&self, no: u32) -> Option<Arc<Tree>> {
        self.numbers.lock().used.get(&no)?.upgrade()
    }

    /// A directory that the kernel knows from an earlier process. How often it does nobody knows: its first word that it has forgotten it is
    /// the last, and a request that comes after that finds it again.
    pub(super) fn adopt(
        &self,
        tree: &Arc<Tree>,
        ino: InodeNo,
        parent: InodeNo,
        place: Option<(Arc<Content>, At)>,
    ) -> Arc<DirNode> {
        let mut dirs = self.dirs.write();
        let adopted = dirs.entry(ino).or_insert_with(|| {
            Arc::new(DirNode {
                ino,
                tree: tree.clone(),
                parent,
                place: place.map_or_else(OnceLock::new, OnceLock::from),
                references: AtomicU64::new(0),
            })
        });
        adopted.clone()
    }

    /// The tree of a subject; made if need be.
    /// `kept` is the number that the store has for it.
    pub(super) fn tree(
        &self,
        subject: &Subject,
        kept: impl FnOnce() -> Option<u32>,
    ) -> Result<Arc<Tree>, FsError> {
        if let Some(tree) = self.find(subject) {
            return Ok(tree);
        }
        // Without a lock: it may have to be written.
        let kept = kept();
        let mut subjects = self.subjects.lock();
        if let Some(tree) = subjects.get(subject) {
            return Ok(tree.clone());
        }
        let mut numbers = self.numbers.lock();
        let no = match kept.filter(|no| numbers.is_free(*no)) {
            Some(no) => TreeNo(no),
            None => numbers.take()?,
        };
        let tree = Tree::new(no, subject.clone());
        if let Some(lasting) = &self.lasting {
            lasting.put_tree(no.0, subject);
        }
        numbers.used.insert(no.0, Arc::downgrade(&tree));
        subjects.insert(subject.clone(), tree.clone());
        self.made.lock().push(subject.clone());
        Ok(tree)
    }

    /// The tree of a subject, if anybody has looked at it.
    pub(super) fn find(&self, subject: &Subject) -> Option<Arc<Tree>> {
        self.subjects.lock().get(subject).cloned()
    }

    /// Whether `tree` is the one that its subject has now.
    pub(super) fn is_current(&self, tree: &Arc<Tree>) -> bool {
        let subject = tree.subject();
        self.find(&subject)
            .is_some_and(|found| Arc::ptr_eq(&found, tree))
    }

    /// Gives the tree of `from` to `to`: a tag was renamed, its directories stay what they are.
    pub(super) fn rename(&self, from: &Subject, to: &Subject) {
        let mut subjects = self.subjects.lock();
        if let Some(tree) = subjects.remove(from) {
            *tree.subject.write() = to.clone();
            if let Some(lasting) = &self.lasting {
                lasting.put_tree(tree.no.0, to);
            }
            subjects.insert(to.clone(), tree);
        }
    }

    /// Lets go of the trees whose subjects do not exist any more; whether there were any. Those are among `doubtful`, or have been
    /// made by somebody who had not seen an earlier change, or if `layers` have gone are theirs.
    pub(super) fn let_go(
        &self,
        doubtful: Vec<Subject>,
        layers: bool,
        exists: impl Fn(&Subject) -> bool,
    ) -> bool {
        let made = std::mem::take(&mut *self.made.lock());
        let gone: Vec<Arc<Tree>> = {
            let mut subjects = self.subjects.lock();
            let of_layer = |subject: &&Subject| subject.image().is_none();
            let all = subjects.keys().filter(|_| layers).filter(of_layer);
            let all: Vec<Subject> = all.cloned().chain(doubtful).chain(made).collect();
            all.iter()
                .filter(|subject| !exists(subject))
                .filter_map(|subject| subjects.remove(subject))
                .collect()
        };
        for tree in &gone {
            self.drop_lasting(tree);
        }
        // Dropped without the lock: the content may close files.
        !gone.is_empty()
    }

    fn drop_lasting(&self, tree: &Tree) {
        let Some(lasting) = &self.lasting else { return };
        lasting.drop_tree(tree.no.0);
        for no in tree.revived.read().values() {
            lasting.drop_revived(no.0);
        }
    }

    /// Directories that the kernel knows, of trees that do not exist any more.
    pub(super) fn orphans(&self) -> Vec<Arc<DirNode>> {
        let all: Vec<Arc<DirNode>> = self.dirs.read().values().cloned().collect();
        all.into_iter()
            .filter(|dir| !self.is_current(&dir.tree))
            .collect()
    }

    /// Gives the directory another number, as the kernel has marked the present one dead.
    pub(super) fn revive(&self, tree: &Arc<Tree>, dir: &DirNode) -> Result<(), FsError> {
        let Some((_, at)) = dir.place() else {
            return Ok(());
        };
        let (layer, node) = key(at);
        let no = {
            let mut numbers = self.numbers.lock();
            let no = numbers.take()?;
            numbers.used.insert(no.0, Arc::downgrade(tree));
            no
        };
        if let Some(lasting) = &self.lasting {
            lasting.put_revived(no.0, tree.no.0, layer, node.0);
        }
        let before = tree.revived.write().insert((layer, node.0), no);
        if let (Some(lasting), Some(before)) = (&self.lasting, before) {
            lasting.drop_revived(before.0);
        }
        Ok(())
    }

    pub(super) fn get(&self, ino: InodeNo) -> Option<Arc<DirNode>> {
        self.dirs.read().get(&ino).cloned()
    }

    /// The root directory of `tree`, with one reference more.
    pub(super) fn refer_root(&self, tree: &Arc<Tree>) -> Arc<DirNode> {
        let ino = tree.root_ino();
        self.refer(ino, || DirNode {
            ino,
            tree: tree.clone(),
            parent: ino,
            place: OnceLock::new(),
            references: AtomicU64::new(0),
        })
    }

    /// The directory at `at` below `parent`, with one reference more.
    pub(super) fn refer_dir(
        &self,
        parent: &DirNode,
        content: &Arc<Content>,
        at: At,
    ) -> Arc<DirNode> {
        let (layer, node) = key(&at);
        let ino = parent.tree.ino(layer, node);
        self.refer(ino, || DirNode {
            ino,
            tree: parent.tree.clone(),
            parent: parent.ino,
            place: OnceLock::from((content.clone(), at)),
            references: AtomicU64::new(0),
        })
    }

    fn refer(&self, ino: InodeNo, make: impl FnOnce() -> DirNode) -> Arc<DirNode> {
        {
            let dirs = self.dirs.read();
            // Under the table's lock, so that `forget` cannot drop it in between.
            if let Some(dir) = dirs.get(&ino) {
                dir.references.fetch_add(1, Ordering::Relaxed);
                return dir.clone();
            }
        }
        let mut dirs = self.dirs.write();
        let dir = dirs.entry(ino).or_insert_with(|| Arc::new(make()));
        dir.references.fetch_add(1, Ordering::Relaxed);
        dir.clone()
    }

    /// Drops references; the directory goes with the last, and with the last directory the open layers.
    pub(super) fn forget(&self, ino: InodeNo, count: u64) {
        let gone = {
            let mut dirs = self.dirs.write();
            let Some(dir) = dirs.get(&ino) else { return };
            let before = dir.references.fetch_sub(count, Ordering::Relaxed);
            match before <= count {
                true => dirs.remove(&ino),
                false => None,
            }
        };
        // Dropped without the lock: files may be closed.
        drop(gone);
    }

    /// The content of a directory and its place there; `open` makes the content if nobody has it.
    pub(super) fn opened(
        &self,
        dir: &DirNode,
        open: impl FnOnce(&Subject) -> Result<Arc<Content>, FsError>,
    ) -> Result<(Arc<Content>, At), FsError> {
        if let Some((content, at)) = dir.place() {
            return Ok((content.clone(), at.clone()));
        }
        let content = {
            let mut slot = dir.tree.content.lock();
            match slot.upgrade() {
                Some(content) => content,
                None => {
                    let content = open(&dir.tree.subject())?;
                    *slot = Arc::downgrade(&content);
                    content
                }
            }
        };
        let at = match content.open()? {
            Open::Image(image) => At::Merged(image.root().map_err(FsError::from)?),
            Open::Layer(..) => At::Layer(NodeNo(0), Arc::default()),
        };
        let (content, at) = dir.place.get_or_init(|| (content, at));
        Ok((content.clone(), at.clone()))
    }

    #[cfg(test)]
    pub fn dir_count(&self) -> usize {
        self.dirs.read().len()
    }
}

/// What makes a directory's number within its tree.
pub(super) fn key(at: &At) -> (u16, NodeNo) {
    match at {
        // Every directory but a root has a part; the root of an image without layers has none.
        At::Merged(dir) => match dir.parts().first() {
            Some(part) => (part.layer.0, part.node),
            None => (0, NodeNo(0)),
        },
        At::Layer(node, _) => (0, *node),
    }
}

/// Opens the layers of an image.
pub(super) fn open_image(slots: &OpenLayers, layers: &[DiffId]) -> Result<Arc<Content>, FsError> {
    let taken: Vec<Arc<Slot>> = layers.iter().map(|layer| slots.of(layer)).collect();
    let files = taken
        .iter()
        .map(|slot| slots.open(slot).map_err(FsError::from));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let image = Image::new(files).map_err(FsError::from)?;
    Ok(Content::new(Open::Image(image), taken))
}

/// Opens one layer.
pub(super) fn open_layer(slots: &OpenLayers, layer: &DiffId) -> Result<Arc<Content>, FsError> {
    let slot = slots.of(layer);
    let file = slots.open(&slot)?;
    Ok(Content::new(Open::Layer(file, OnceLock::new()), vec![slot]))
}
