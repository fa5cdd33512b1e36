//! A tar that is being written, straight into the store: one thread writes it, the pipeline of every other layer takes it from
//! there. Nothing is on disk twice.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::layer::Limits;
use crate::oci::DiffId;
use crate::ops::transfer::ingest::{IntakeError, write};
use crate::store::Import;
use crate::sys::threads;

/// Size of the pieces that go from one thread to the other.
const PIECE: usize = 256 << 10;
/// Pieces on the way.
const PIECES: usize = 4;

/// Which side failed.
pub(in crate::ops) enum ProduceError<E> {
    /// Writing the tar.
    Producer(E),
    /// Taking the layer in.
    Intake(IntakeError),
}

/// Brings the layer that `producer` writes into the store.
pub(in crate::ops) fn produce<T: Send, E: Send + From<io::Error>>(
    import: &Import,
    limits: &Limits,
    producer: impl FnOnce(&mut dyn Write) -> Result<T, E> + Send,
) -> Result<(DiffId, T), ProduceError<E>> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(PIECES);
        let writer = threads::beside(scope, "produce", move || {
            let mut out = Pieces {
                sender,
                piece: Vec::with_capacity(PIECE),
            };
            let written = producer(&mut out)?;
            out.end()?;
            Ok(written)
        })
        .map_err(|error| ProduceError::Intake(IntakeError::Read(error)))?;
        let mut content = Content {
            receiver,
            piece: Vec::new(),
            at: 0,
            ended: false,
        };
        let taken = write(import, limits, &|_| {}, &mut content);
        // If the intake has failed, the writer must not wait for a reader.
        drop(content);
        let written: Result<T, E> = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (written, taken) {
            // A writer whose bytes nobody takes any more fails, too: not it is at fault. One that breaks off cuts the tar short.
            (_, Err(error)) if !is_cut_short(&error) => Err(ProduceError::Intake(error)),
            (Err(error), _) => Err(ProduceError::Producer(error)),
            (Ok(_), Err(error)) => Err(ProduceError::Intake(error)),
            (Ok(written), Ok((pumped, _))) => Ok((pumped.diff_id, written)),
        }
    })
}

/// Whether the producer stopped before the end.
fn is_cut_short(error: &IntakeError) -> bool {
    matches!(error, IntakeError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof)
}

/// Sends what is written in pieces; an empty one is the end.
struct Pieces {
    sender: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn send(&mut self, next: Vec<u8>) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, next);
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.send(piece).map_err(gone)
    }

    fn end(mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.send(Vec::new())?;
        }
        self.send(Vec::new())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() + bytes.len() > PIECE && !self.piece.is_empty() {
            self.send(Vec::with_capacity(PIECE))?;
        }
        self.piece.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads what [`Pieces`] sends. Without the end it is cut off, and that is an error.
struct Content {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.piece.get(self.at..).unwrap_or_default();
            if !rest.is_empty() {
                let length = rest.len().min(buffer.len());
                for (to, from) in buffer.iter_mut().zip(rest.iter()) {
                    *to = *from;
                }
                self.at += length;
                return Ok(length);
            }
            if self.ended {
                return Ok(0);
            }
            let gone = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
            self.piece = self.receiver.recv().map_err(gone)?;
            self.at = 0;
            self.ended = self.piece.is_empty();
        }
    }
}
