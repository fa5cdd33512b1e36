//! Moves one layer from its source to where it goes, on three threads: reading and decompressing, hashing, consuming.
//!
//! The stages are joined by bounded channels of reused buffers, so memory does not grow with the layer, and the slowest
//! stage sets the pace. With plain input hashing and writing overlap; with gzip inflating overlaps both.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::archive::fill;
use crate::layer::compress::{self, Compression};
use crate::oci::{DiffId, Digest};
use crate::sys::threads;

/// Size of a buffer: large enough that a hand-over costs nothing beside hashing.
const BUFFER: usize = 1 << 20;
/// Buffers in flight: one per stage and one between each two.
const BUFFERS: usize = 5;

/// What a layer's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) struct Pumped {
    /// Digest of the bytes as they came.
    pub(in crate::ops) blob: Digest,
    /// Digest of the uncompressed tar.
    pub(in crate::ops) diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub(in crate::ops) tar_size: u64,
}

impl Pumped {
    /// Stands where a result was taken away.
    pub(in crate::ops) fn of_nothing() -> Self {
        let nothing = Digest::of(b"");
        Pumped {
            blob: nothing,
            diff_id: DiffId(nothing),
            tar_size: 0,
        }
    }
}

/// Why the pump stopped.
#[derive(Debug)]
pub(in crate::ops) enum PumpError<E> {
    /// The source could not be read or its compression is damaged.
    Read(io::Error),
    /// The consumer refused.
    Consume(E),
}

type Chunk = io::Result<Vec<u8>>;

/// Reads `source` to its end, removes its compression if asked to, hashes what it was and what it is, and hands the
/// uncompressed bytes to `consume`. `advance` hears of bytes read from the source, on another thread.
pub(in crate::ops) fn pump<E>(
    source: &mut (dyn Read + Send),
    decompress: bool,
    advance: &(dyn Fn(u64) + Sync),
    consume: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<Pumped, PumpError<E>> {
    let in_stages = std::thread::scope(|scope| {
        let source = &mut *source;
        let (free, buffers) = sync_channel::<Vec<u8>>(BUFFERS);
        let (read, to_hash) = sync_channel::<Chunk>(1);
        let (hashed, to_consume) = sync_channel::<Chunk>(1);
        for _ in 0..BUFFERS {
            // The channel holds as many as there are.
            let _ = free.send(Vec::new());
        }
        let hash = move || hash_stage(&to_hash, &hashed);
        let hasher = threads::beside(scope, "hash", hash).ok()?;
        let read = move || {
            read_stage(source, decompress, advance, |plain| match plain {
                Ok(plain) => feed(plain, &buffers, &read),
                // If nobody listens, somebody else failed before.
                Err(error) => drop(read.send(Err(error))),
            })
        };
        // If it does not start, nothing comes to the hasher, which ends.
        let reader = threads::beside(scope, "read", read).ok()?;
        let mut tar_size = 0u64;
        let result = to_consume.into_iter().try_for_each(|chunk| {
            let chunk = chunk.map_err(PumpError::Read)?;
            consume(&chunk).map_err(PumpError::Consume)?;
            tar_size += chunk.len() as u64;
            // The reader may have ended.
            let _ = free.send(chunk);
            Ok(())
        });
        // Without it the reader would wait for a buffer for ever.
        drop(free);
        let blob = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let plain = hasher
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Some(result.map(|()| Pumped {
            blob: blob.unwrap_or(plain),
            diff_id: DiffId(plain),
            tar_size,
        }))
    });
    match in_stages {
        Some(done) => done,
        // No threads are to be had, and nothing has been read yet.
        None => alone(source, decompress, advance, consume),
    }
}

/// The same on the caller's thread.
fn alone<E>(
    source: &mut (dyn Read + Send),
    decompress: bool,
    advance: &(dyn Fn(u64) + Sync),
    consume: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<Pumped, PumpError<E>> {
    let mut hasher = Sha256::new();
    let mut tar_size = 0u64;
    let mut result = Ok(());
    let blob = read_stage(source, decompress, advance, |plain| {
        result = plain.map_err(PumpError::Read).and_then(|plain| {
            let mut buffer = vec![0u8; BUFFER];
            loop {
                let got = fill(plain, &mut buffer).map_err(PumpError::Read)?;
                let bytes = buffer.get(..got).unwrap_or_default();
                hasher.update(bytes);
                consume(bytes).map_err(PumpError::Consume)?;
                tar_size += got as u64;
                if got < BUFFER {
                    return Ok(());
                }
            }
        });
    });
    result?;
    let plain = Digest::from_bytes(hasher.finalize().into());
    Ok(Pumped {
        blob: blob.unwrap_or(plain),
        diff_id: DiffId(plain),
        tar_size,
    })
}

/// Has `take` read the uncompressed bytes. The answer is the digest of the compressed ones; `None` when there is no compression.
fn read_stage(
    source: &mut (dyn Read + Send),
    decompress: bool,
    advance: &(dyn Fn(u64) + Sync),
    take: impl FnOnce(io::Result<&mut dyn Read>),
) -> Option<Digest> {
    let mut hasher = Sha256::new();
    let mut source = Metered { source, advance };
    let mut head = vec![0u8; 512];
    let got = match fill(&mut source, &mut head) {
        Ok(got) => got,
        Err(error) => {
            take(Err(error));
            return None;
        }
    };
    head.truncate(got);
    let compression = if decompress {
        compress::sniff(&head)
    } else {
        Compression::None
    };
    let whole = io::Cursor::new(head).chain(&mut source);
    if compression == Compression::None {
        take(Ok(&mut { whole }));
        return None;
    }
    let tee = Tee {
        source: whole,
        hasher: &mut hasher,
    };
    let mut plain = compress::reader(Box::new(tee), compression);
    take(Ok(&mut plain));
    drop(plain);
    Some(Digest::from_bytes(hasher.finalize().into()))
}

fn feed(plain: &mut dyn Read, buffers: &Receiver<Vec<u8>>, out: &SyncSender<Chunk>) {
    while let Ok(mut buffer) = buffers.recv() {
        buffer.resize(BUFFER, 0);
        let chunk = fill(plain, &mut buffer).map(|got| {
            buffer.truncate(got);
            buffer
        });
        let last = chunk.as_ref().map_or(true, |chunk| chunk.len() < BUFFER);
        if out.send(chunk).is_err() || last {
            return;
        }
    }
}

fn hash_stage(input: &Receiver<Chunk>, out: &SyncSender<Chunk>) -> Digest {
    let mut hasher = Sha256::new();
    for chunk in input {
        if let Ok(bytes) = &chunk {
            hasher.update(bytes);
        }
        if out.send(chunk).is_err() {
            break;
        }
    }
    Digest::from_bytes(hasher.finalize().into())
}

/// Reports what is read.
struct Metered<'a> {
    source: &'a mut (dyn Read + Send),
    advance: &'a (dyn Fn(u64) + Sync),
}

impl Read for Metered<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buf)?;
        (self.advance)(got as u64);
        Ok(got)
    }
}

/// Hashes what is read.
struct Tee<'a, R> {
    source: R,
    hasher: &'a mut Sha256,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buf)?;
        self.hasher.update(buf.get(..got).unwrap_or_default());
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn run(input: &[u8]) -> (Result<Pumped, PumpError<()>>, Vec<u8>) {
        let mut out = Vec::new();
        let result = pump(&mut { input }, true, &|_| {}, &mut |chunk| {
            out.extend_from_slice(chunk);
            Ok(())
        });
        (result, out)
    }

    #[test]
    fn plain_and_compressed_bytes_arrive_whole_with_both_digests() {
        let sizes = [
            0,
            1,
            511,
            512,
            BUFFER - 1,
            BUFFER,
            BUFFER + 1,
            3 * BUFFER + 17,
        ];
        for size in sizes {
            let plain: Vec<u8> = (0..size)
                .map(|i| u8::try_from(i * 7 % 251).unwrap())
                .collect();
            let (pumped, out) = run(&plain);
            let pumped = pumped.unwrap();
            assert!(out == plain);
            assert_eq!(pumped.diff_id.0, Digest::of(&plain));
            assert_eq!(
                (pumped.blob, pumped.tar_size),
                (Digest::of(&plain), size as u64)
            );

            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain).unwrap();
            let packed = encoder.finish().unwrap();
            let (pumped, out) = run(&packed);
            let pumped = pumped.unwrap();
            assert!(out == plain);
            assert_eq!(pumped.diff_id.0, Digest::of(&plain));
            assert_eq!(pumped.blob, Digest::of(&packed));
        }
    }

    type Pump = fn(
        &mut (dyn Read + Send),
        bool,
        &(dyn Fn(u64) + Sync),
        &mut dyn FnMut(&[u8]) -> Result<(), &'static str>,
    ) -> Result<Pumped, PumpError<&'static str>>;

    #[test]
    fn regression_one_thread_does_as_well_as_three() {
        let plain = vec![7u8; 3 * BUFFER + 17];
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain).unwrap();
        let packed = encoder.finish().unwrap();
        for (input, decompress) in [(&plain, true), (&packed, true), (&packed, false)] {
            let with = |pump: Pump| {
                let mut out = Vec::new();
                let pumped = pump(
                    &mut input.as_slice() as &mut (dyn Read + Send),
                    decompress,
                    &|_| {},
                    &mut |chunk: &[u8]| {
                        out.extend_from_slice(chunk);
                        Ok(())
                    },
                );
                (pumped.unwrap(), out)
            };
            assert!(with(super::pump) == with(alone));
        }
        let cut = &packed[..packed.len() / 2];
        let cut = alone(&mut { cut }, true, &|_| {}, &mut |_| Ok::<_, ()>(()));
        assert!(matches!(cut, Err(PumpError::Read(_))));
        let refused = alone(&mut plain.as_slice(), true, &|_| {}, &mut |_| Err("enough"));
        assert!(matches!(refused, Err(PumpError::Consume("enough"))));
    }

    #[test]
    fn a_consumer_that_refuses_ends_the_pump() {
        let plain = vec![0u8; 20 * BUFFER];
        let mut calls = 0;
        let result = pump(&mut plain.as_slice(), true, &|_| {}, &mut |_| {
            calls += 1;
            if calls == 3 { Err("enough") } else { Ok(()) }
        });
        assert!(matches!(result, Err(PumpError::Consume("enough"))));
        assert_eq!(calls, 3);
    }

    #[test]
    fn damaged_compression_is_an_error() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![7u8; 3 * BUFFER]).unwrap();
        let packed = encoder.finish().unwrap();
        for cut in [11, packed.len() / 2, packed.len() - 8, packed.len() - 1] {
            let (result, _) = run(&packed[..cut]);
            assert!(matches!(result, Err(PumpError::Read(_))), "cut at {cut}");
        }
        let mut wrong = packed.clone();
        let crc = packed.len() - 8;
        wrong[crc] ^= 1;
        assert!(matches!(run(&wrong).0, Err(PumpError::Read(_))));
    }
}
