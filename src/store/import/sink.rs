//! Writing one layer.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::Import;
use crate::layer::IndexBuilder;
use crate::oci::DiffId;
use crate::store::error::StoreError;
use crate::store::files;
use crate::store::freeing::Patient;
use crate::sys::atomic;

/// Bytes collected before a `write`: large enough that system calls cost nothing beside hashing.
const BUFFER: usize = 1 << 20;

/// Bytes written before the disk is set to work on them: the `fsync` at the end then finds little to do.
const WRITEBACK: u64 = 8 << 20;

/// A layer's tar being written. Dropped without [`LayerSink::commit`], it leaves nothing.
///
/// The sink does not hash: whoever feeds it has verified that the bytes are those of the diff ID before it
/// commits.
#[derive(Debug)]
pub struct LayerSink<'a> {
    import: &'a Import,
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    written: u64,
    /// Of those in the file, how many the disk was told of.
    started: u64,
    in_file: u64,
    placed: bool,
}

impl<'a> LayerSink<'a> {
    pub(super) fn create(import: &'a Import) -> Result<LayerSink<'a>, StoreError> {
        let path = import.next_path();
        let file = new_file(&path).map_err(StoreError::io("create", &path))?;
        Ok(LayerSink {
            import,
            path,
            file,
            buffer: Vec::with_capacity(BUFFER),
            written: 0,
            started: 0,
            in_file: 0,
            placed: false,
        })
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.written
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.written == 0
    }

    /// Makes the tar and its index durable and puts them into place, over a damaged layer if there is one.
    pub fn commit(mut self, layer: &DiffId, index: &IndexBuilder) -> Result<(), StoreError> {
        let store = &self.import.store;
        let layout = store.layout();
        self.flush().map_err(StoreError::io("write", &self.path))?;
        self.file
            .sync_all()
            .map_err(StoreError::io("sync", &self.path))?;

        let temp = self.import.next_path();
        let write = || {
            let written = new_file(&temp).and_then(|mut file| {
                index.write_to(&mut file)?;
                file.sync_all()?;
                Ok(file.metadata()?.len())
            });
            written.inspect_err(|_| atomic::discard(&temp))
        };
        let written = match write() {
            Err(error) if store.is_room_by_now(&error) => write(),
            done => done,
        };
        let bytes = written.map_err(StoreError::io("write", &temp))?;
        self.import.wrote(bytes);

        // Before it is in place: so that no collection finds it unreached.
        self.import.lease.hold(&[layer.0])?;
        // The index first: a reader that finds a blob without its index may call that damage.
        self.import.place(temp, layout.layer_index(layer))?;
        self.import
            .place(self.path.clone(), store.blob_path(&layer.0))?;
        self.placed = true;
        let mark = layout.layer_mark(layer);
        atomic::remove_if_there(&mark).map_err(StoreError::io("remove", &mark))?;
        Ok(())
    }
}

impl Write for LayerSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            self.patient().write_all(bytes)?;
            self.wrote(bytes.len())?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.patient().write_all(&self.buffer)?;
        let length = self.buffer.len();
        self.buffer.clear();
        self.wrote(length)
    }
}

impl LayerSink<'_> {
    fn patient(&self) -> Patient<'_> {
        Patient {
            store: &self.import.store,
            file: &self.file,
        }
    }

    fn wrote(&mut self, length: usize) -> io::Result<()> {
        self.in_file += length as u64;
        let waiting = self.in_file - self.started;
        if waiting >= WRITEBACK {
            atomic::start_writeback(&self.file, self.started, waiting)?;
            self.started = self.in_file;
        }
        Ok(())
    }
}

impl Drop for LayerSink<'_> {
    fn drop(&mut self) {
        if !self.placed {
            atomic::discard(&self.path);
        }
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create_new(true);
    options.mode(files::FILE).open(path)
}
