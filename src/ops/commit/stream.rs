//! The upper directory on its way into the store: one thread reads it and writes the tar, the pipeline of every other layer
//! takes it from there. Nothing is on disk twice.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::CommitError;
use crate::layer::Limits;
use crate::layer::from_dir::{self, FromDirError, Source, Written};
use crate::oci::DiffId;
use crate::ops::intake::{self, IntakeError};
use crate::store::Import;

/// Size of the pieces that go from one thread to the other.
const PIECE: usize = 256 << 10;
/// Pieces on the way.
const PIECES: usize = 4;

/// Which side failed.
pub(super) enum StreamError {
    /// Reading the directory.
    Upper(FromDirError),
    /// Taking the layer in.
    Intake(IntakeError),
}

impl StreamError {
    /// As the error of committing the container `name`.
    pub(super) fn of(self, name: &str) -> CommitError {
        let layer = |reason: String| CommitError::Layer {
            name: name.to_owned(),
            reason,
        };
        match self {
            StreamError::Upper(source) => CommitError::Upper {
                name: name.to_owned(),
                source: Box::new(source),
            },
            StreamError::Intake(IntakeError::Store(error)) => error.into(),
            StreamError::Intake(IntakeError::Layer(error)) => layer(error.to_string()),
            StreamError::Intake(IntakeError::Read(error)) => layer(error.to_string()),
            StreamError::Intake(IntakeError::TooLong(id)) => {
                layer(format!("longer than the layer {id} it is"))
            }
        }
    }
}

/// Brings the layer of `source` into the store.
pub(super) fn layer(
    import: &Import,
    limits: &Limits,
    source: &Source<'_>,
) -> Result<(DiffId, Written), StreamError> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(PIECES);
        let writer = scope.spawn(move || {
            let mut out = Pieces {
                sender,
                piece: Vec::with_capacity(PIECE),
            };
            let written = from_dir::write(source, &mut out)?;
            out.end().map_err(FromDirError::Output)?;
            Ok(written)
        });
        let mut content = Content {
            receiver,
            piece: Vec::new(),
            at: 0,
            ended: false,
        };
        let taken = intake::write(import, limits, &|_| {}, &mut content);
        // If the intake has failed, the writer must not wait for a reader.
        drop(content);
        let written: Result<Written, FromDirError> = writer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (written, taken) {
            // The writer failed because nobody took its bytes any more.
            (Err(FromDirError::Output(_)), Err(error)) => Err(StreamError::Intake(error)),
            (Err(error), _) => Err(StreamError::Upper(error)),
            (Ok(_), Err(error)) => Err(StreamError::Intake(error)),
            (Ok(written), Ok((pumped, _))) => Ok((pumped.diff_id, written)),
        }
    })
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
