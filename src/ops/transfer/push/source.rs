//! A layer's tar as a compressed stream: read and hashed on one thread, compressed on others, read from here.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::layer::{LayerFile, compress};
use crate::oci::{DiffId, Digest};
use crate::sys::threads;

use crate::ops::transfer::push::Packing;

/// Compressed pieces in flight.
const PIECES: usize = 4;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// The compressed layer. It ends only when all of it was right.
pub(super) struct Packed {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
    /// Why it ended in an error, if it did.
    pub(super) failure: Option<String>,
}

impl Read for Packed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.piece.read(buf)? {
                0 if buf.is_empty() => return Ok(0),
                0 => {}
                got => return Ok(got),
            }
            match self.pieces.recv() {
                Ok(Ok(piece)) => self.piece = io::Cursor::new(piece),
                Ok(Err(error)) => {
                    self.failure = Some(error.to_string());
                    return Err(error);
                }
                // The compressing thread is done.
                Err(_) => return Ok(0),
            }
        }
    }
}

/// Runs `with` on the layer, compressed. `advance` hears of bytes of the tar.
pub(super) fn packed<T>(
    layer: &DiffId,
    file: &LayerFile,
    packing: Packing,
    stop: &AtomicBool,
    advance: &(dyn Fn(u64) + Sync),
    with: impl FnOnce(&mut Packed) -> T,
) -> T {
    std::thread::scope(|scope| {
        let (sender, pieces) = sync_channel(PIECES);
        let refusal = sender.clone();
        let started = threads::beside(scope, "compress", move || {
            let mut tar = Tar {
                layer,
                file,
                stop,
                advance,
                offset: 0,
                hasher: Some(Sha256::new()),
            };
            let mut out = Pieces(sender);
            let result = match packing {
                Packing::Gzip => compress::gzip(&mut tar, &mut out),
                Packing::Zstd => zstd::stream::copy_encode(&mut tar, &mut out, ZSTD_LEVEL),
            };
            if let Err(error) = result {
                // If nobody listens, somebody else failed before.
                let _ = out.0.send(Err(error));
            }
        });
        if let Err(error) = started {
            // The reader, which is here, hears of it.
            let _ = refusal.send(Err(error));
        }
        drop(refusal);
        let mut packed = Packed {
            pieces,
            piece: io::Cursor::default(),
            failure: None,
        };
        let result = with(&mut packed);
        // Without it the thread would wait for a reader for ever.
        drop(packed);
        result
    })
}

struct Pieces(SyncSender<io::Result<Vec<u8>>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.send(Ok(bytes.to_vec())) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The tar of a layer; ends with an error if it is not what it is called.
struct Tar<'a> {
    layer: &'a DiffId,
    file: &'a LayerFile,
    stop: &'a AtomicBool,
    advance: &'a (dyn Fn(u64) + Sync),
    offset: u64,
    hasher: Option<Sha256>,
}

impl Read for Tar<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        let rest = self.file.index.tar_size().saturating_sub(self.offset);
        let wanted = buf.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let buf = buf.get_mut(..wanted).unwrap_or_default();
        if rest == 0 {
            return match self.hasher.take() {
                None => Ok(0),
                Some(hasher) => {
                    let found = Digest::from_bytes(hasher.finalize().into());
                    match found == self.layer.0 {
                        true => Ok(0),
                        false => Err(io::Error::other(format!(
                            "it is damaged: its bytes are {found}; load or pull its image again"
                        ))),
                    }
                }
            };
        }
        if buf.is_empty() {
            return Ok(0);
        }
        let got = self.file.blob().read_at(buf, self.offset)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buf.get(..got).unwrap_or_default());
        }
        self.offset += got as u64;
        (self.advance)(got as u64);
        Ok(got)
    }
}
