//! The layers of this mount: their numbers, and their open files.
//!
//! A slot counts the kernel's references to the layer's leaves. A layer's files are open while the kernel refers to one of
//! them, or some directory of an image that holds the layer is known to it; so a layer that is removed from the store stays
//! readable exactly until the kernel has forgotten it, and an idle mount holds nothing open.
//!
//! Lock order: the table, then a slot's file. No lock is held while the store opens a layer of another slot.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, RwLock};

use super::inode::{KEPT, SlotNo};
use super::lasting::{Lasting, References};
use crate::layer::LayerFile;
use crate::oci::DiffId;
use crate::store::{Numbered, Numbers, Store, StoreError};

/// One layer.
#[derive(Debug)]
pub(super) struct Slot {
    pub no: SlotNo,
    pub diff_id: DiffId,
    references: References,
    file: Mutex<Option<Arc<LayerFile>>>,
}

/// All layers.
#[derive(Debug)]
pub(super) struct OpenLayers {
    store: Store,
    numbers: Arc<Numbers>,
    lasting: Option<Arc<Lasting>>,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_no: HashMap<SlotNo, Arc<Slot>>,
    by_id: HashMap<DiffId, Arc<Slot>>,
    last: u32,
}

impl Table {
    fn insert(&mut self, slot: Arc<Slot>) {
        self.by_no.insert(slot.no, slot.clone());
        self.by_id.insert(slot.diff_id, slot);
    }
}

impl Slot {
    fn new(no: SlotNo, diff_id: DiffId, references: References) -> Arc<Slot> {
        Arc::new(Slot {
            no,
            diff_id,
            references,
            file: Mutex::new(None),
        })
    }

    /// Counts one more reference of the kernel.
    pub(super) fn refer(&self) {
        self.references.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops references, and closes the files if they were the last ones.
    pub(super) fn forget(&self, count: u64) {
        let before = self.references.fetch_sub(count, Ordering::Relaxed);
        if before < count {
            // The kernel cannot forget what it was never given.
            self.references.store(0, Ordering::Relaxed);
        }
        if before <= count {
            self.close_if_idle();
        }
    }

    /// Closes the files if nobody needs them now.
    pub(super) fn close_if_idle(&self) {
        let mut file = self.file.lock();
        // An image that is being put together has its own count on the file, made under this lock.
        let unused = file
            .as_ref()
            .is_some_and(|file| Arc::strong_count(file) == 1);
        if unused && self.references.load(Ordering::Relaxed) == 0 {
            *file = None;
        }
    }

    fn is_idle(&self) -> bool {
        self.references.load(Ordering::Relaxed) == 0 && self.file.lock().is_none()
    }

    fn open_size(&self) -> Option<u64> {
        self.file.lock().as_ref().map(|file| file.index.tar_size())
    }
}

impl OpenLayers {
    pub(super) fn new(
        store: Store,
        numbers: Arc<Numbers>,
        lasting: Option<Arc<Lasting>>,
    ) -> OpenLayers {
        let mut table = Table::default();
        for (no, references, layer) in lasting.iter().flat_map(|lasting| lasting.slots()) {
            if let Ok(no) = u32::try_from(no) {
                table.insert(Slot::new(SlotNo(no), layer, references));
            }
        }
        OpenLayers {
            store,
            numbers,
            lasting,
            table: RwLock::new(table),
        }
    }

    /// Opens what the kernel refers to files of, so that it stays readable if it is removed from now on.
    pub(super) fn open_referred(&self) {
        let slots: Vec<Arc<Slot>> = self.table.read().by_no.values().cloned().collect();
        for slot in slots {
            if slot.references.load(Ordering::Relaxed) > 0
                && let Err(error) = self.open(&slot)
            {
                log::warn!("a layer whose files are in use: {error}");
            }
        }
    }

    pub(super) fn get(&self, no: SlotNo) -> Option<Arc<Slot>> {
        self.table.read().by_no.get(&no).cloned()
    }

    /// The slot of a layer, if it has one.
    pub(super) fn find(&self, layer: &DiffId) -> Option<Arc<Slot>> {
        self.table.read().by_id.get(layer).cloned()
    }

    /// The slot of a layer; it gets one if need be.
    pub(super) fn of(&self, layer: &DiffId) -> Arc<Slot> {
        if let Some(slot) = self.find(layer) {
            return slot;
        }
        let kept = self.numbers.get(&Numbered::Layer(*layer), || {
            let names = self.store.names();
            names.map_or(Vec::new(), |names| {
                names.layers().into_iter().map(Numbered::Layer).collect()
            })
        });
        let mut table = self.table.write();
        if let Some(slot) = table.by_id.get(layer) {
            return slot.clone();
        }
        let kept = kept.map(SlotNo);
        let no = match kept.filter(|no| !table.by_no.contains_key(no)) {
            Some(no) => no,
            // A thousand million layers in the life of one mount are not a thing; stay unique anyway.
            None => loop {
                table.last = table.last.max(KEPT.layers) % SlotNo::MAX + 1;
                if !table.by_no.contains_key(&SlotNo(table.last)) {
                    break SlotNo(table.last);
                }
            },
        };
        let lasting = self.lasting.as_ref();
        let references = lasting.map_or_else(References::default, |lasting| lasting.count());
        if let Some(lasting) = lasting {
            lasting.put_slot(no.0, &references, layer);
        }
        let slot = Slot::new(no, *layer, references);
        table.insert(slot.clone());
        slot
    }

    /// The layer's files, opened if need be.
    pub(super) fn open(&self, slot: &Slot) -> Result<Arc<LayerFile>, StoreError> {
        let mut file = slot.file.lock();
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let opened = self.store.open_layer(&slot.diff_id)?;
        *file = Some(opened.clone());
        Ok(opened)
    }

    /// Opens the layer's files anew: its blob turned out damaged, and may have been loaded again since. `None`: it has not.
    pub(super) fn reopen(&self, slot: &Slot, old: &Arc<LayerFile>) -> Option<Arc<LayerFile>> {
        let new = self.store.open_layer(&slot.diff_id).ok()?;
        let same = Arc::ptr_eq(&new, old) || same_file(&new, old);
        if same {
            return None;
        }
        *slot.file.lock() = Some(new.clone());
        Some(new)
    }

    /// Lets go of layers that are not among `stored` any more and that nobody uses.
    pub(super) fn retain(&self, stored: &BTreeSet<DiffId>) {
        let gone: Vec<Arc<Slot>> = {
            let table = self.table.read();
            let gone = table
                .by_id
                .values()
                .filter(|slot| !stored.contains(&slot.diff_id));
            gone.cloned().collect()
        };
        for slot in &gone {
            slot.close_if_idle();
        }
        let mut table = self.table.write();
        for slot in gone {
            // The table's two and ours: nobody is about to use it.
            if Arc::strong_count(&slot) == 3 && slot.is_idle() {
                table.by_no.remove(&slot.no);
                table.by_id.remove(&slot.diff_id);
                if let Some(lasting) = &self.lasting {
                    lasting.drop_slot(slot.no.0, &slot.references);
                }
            }
        }
    }

    /// Layers that are not among `stored` but still open, and the bytes of their tars.
    pub(super) fn held(&self, stored: &BTreeSet<DiffId>) -> (u64, u64) {
        let table = self.table.read();
        let held = table
            .by_id
            .values()
            .filter(|slot| !stored.contains(&slot.diff_id));
        held.filter_map(|slot| slot.open_size())
            .fold((0, 0), |(count, bytes), size| {
                (count + 1, bytes + size.next_multiple_of(4096))
            })
    }

    #[cfg(test)]
    pub fn open_count(&self) -> usize {
        let table = self.table.read();
        table
            .by_id
            .values()
            .filter(|slot| slot.open_size().is_some())
            .count()
    }
}

/// Whether two layers have the same blob file open.
fn same_file(a: &LayerFile, b: &LayerFile) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (a.blob().metadata(), b.blob().metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}
