//! Compressing a layer with gzip on all cores.
//!
//! The input is cut into blocks of a fixed size that are deflated independently and joined, as pigz does it: one gzip
//! member with one checksum, which every reader takes. The output depends on nothing but the input, neither on the
//! number of cores nor on the time: header without name and time.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use flate2::{Compress, Compression, Crc, FlushCompress};
use parking_lot::Mutex;

use crate::sys::threads;

/// Small enough for many in flight, large enough that starting anew costs little: a deflate window is 32 KiB.
const BLOCK: usize = 1 << 20;
/// Beyond this a disk or a network is the limit, and memory grows.
const MAX_WORKERS: usize = 8;
/// The level. Of 704 MB of a Debian image in seconds of one core and MB: level 1 gives 5.4 s and 308 MB, 2 7.5 and 257, 3 7.8 and
/// 249, 4 9.3 and 248, 5 10.3 and 248, 6 11.7 and 248.
const LEVEL: u32 = 3;

/// Deflate, no flags, no time, no extra flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The empty last block of deflate.
const LAST: [u8; 2] = [3, 0];

struct Block {
    crc: Crc,
    deflated: Vec<u8>,
}

type Job = (Vec<u8>, Sender<io::Result<Block>>);

/// Compresses all of `source` into `out`.
pub fn gzip(source: &mut (dyn Read + Send), out: &mut dyn Write) -> io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = cores.min(MAX_WORKERS);
    out.write_all(&HEADER)?;
    let parallel = std::thread::scope(|scope| {
        let source = &mut *source;
        let (to_deflate, jobs) = sync_channel::<Job>(workers);
        let (in_order, results) = sync_channel::<Receiver<io::Result<Block>>>(2 * workers);
        let jobs = std::sync::Arc::new(Mutex::new(jobs));
        for number in 0..workers {
            let jobs = jobs.clone();
            let work = move || {
                loop {
                    let job = jobs.lock().recv();
                    let Ok((plain, answer)) = job else { return };
                    // Nobody waits for it when the writing has failed.
                    let _ = answer.send(deflate(&plain));
                }
            };
            match threads::beside(scope, "deflate", work) {
                Ok(_) => {}
                Err(_) if number == 0 => return None,
                // Fewer do it, too.
                Err(_) => break,
            }
        }
        drop(jobs);
        let read = move || read_blocks(source, &to_deflate, &in_order);
        // If it does not start, no jobs come, and the workers end.
        threads::beside(scope, "read", read).ok()?;
        let mut crc = Crc::new();
        for result in results {
            let ended = |_| Err(io::Error::other("a compressing thread ended"));
            let block = match result.recv().unwrap_or_else(ended) {
                Ok(block) => block,
                Err(error) => return Some(Err(error)),
            };
            if let Err(error) = out.write_all(&block.deflated) {
                return Some(Err(error));
            }
            crc.combine(&block.crc);
        }
        Some(Ok(crc))
    });
    let crc = match parallel {
        Some(done) => done?,
        // No threads are to be had, and nothing has been read yet.
        None => alone(source, out)?,
    };
    out.write_all(&LAST)?;
    out.write_all(&crc.sum().to_le_bytes())?;
    out.write_all(&crc.amount().to_le_bytes())?;
    out.flush()
}

/// All blocks on the caller's thread.
fn alone(source: &mut dyn Read, out: &mut dyn Write) -> io::Result<Crc> {
    let mut crc = Crc::new();
    let mut plain = Vec::with_capacity(BLOCK);
    loop {
        plain.clear();
        if Read::take(&mut *source, BLOCK as u64).read_to_end(&mut plain)? == 0 {
            return Ok(crc);
        }
        let block = deflate(&plain)?;
        out.write_all(&block.deflated)?;
        crc.combine(&block.crc);
    }
}

fn read_blocks(
    source: &mut dyn Read,
    to_deflate: &SyncSender<Job>,
    in_order: &SyncSender<Receiver<io::Result<Block>>>,
) {
    loop {
        let mut plain = Vec::with_capacity(BLOCK);
        let read = Read::take(&mut *source, BLOCK as u64).read_to_end(&mut plain);
        let (answer, result) = channel();
        // The order is told before the work, so a full queue of results holds the reading back.
        if matches!(read, Ok(0)) || in_order.send(result).is_err() {
            return;
        }
        match read {
            Ok(_) => {
                if to_deflate.send((plain, answer)).is_err() {
                    return;
                }
            }
            Err(error) => {
                // If nobody listens, somebody else failed before.
                let _ = answer.send(Err(error));
                return;
            }
        }
    }
}

fn deflate(plain: &[u8]) -> io::Result<Block> {
    let mut crc = Crc::new();
    crc.update(plain);
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    let mut deflated = Vec::with_capacity(plain.len() / 2 + 1024);
    loop {
        let done = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = plain.get(done..).unwrap_or_default();
        compress.compress_vec(rest, &mut deflated, FlushCompress::Sync)?;
        let all = compress.total_in() == plain.len() as u64;
        // Room left over means that everything has been flushed.
        if all && deflated.len() < deflated.capacity() {
            return Ok(Block { crc, deflated });
        }
        deflated.reserve(BLOCK / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::compress::{Compression as Kind, reader};

    #[test]
    fn what_is_compressed_comes_back_and_is_the_same_every_time() {
        let sizes = [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77];
        for (size, noise) in sizes.into_iter().flat_map(|s| [(s, false), (s, true)]) {
            let mut state = 1u64;
            let plain: Vec<u8> = (0..size)
                .map(|i| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    if noise {
                        state.to_be_bytes()[0]
                    } else {
                        i.to_le_bytes()[0]
                    }
                })
                .collect();
            let pack = || {
                let mut packed = Vec::new();
                gzip(&mut plain.as_slice(), &mut packed).unwrap();
                packed
            };
            let packed = pack();
            assert_eq!(packed, pack());
            let mut back = Vec::new();
            reader(Box::new(packed.as_slice()), Kind::Gzip)
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == plain, "{size}");
            // A reader that knows one member only sees everything too.
            let mut one = Vec::new();
            flate2::read::GzDecoder::new(packed.as_slice())
                .read_to_end(&mut one)
                .unwrap();
            assert!(one == plain, "{size}");
        }
    }

    #[test]
    fn regression_one_thread_writes_the_same() {
        let plain: Vec<u8> = (0u32..3_000_000).map(|i| i.to_le_bytes()[1]).collect();
        let (mut many, mut one) = (Vec::new(), Vec::new());
        gzip(&mut plain.as_slice(), &mut many).unwrap();
        let crc = alone(&mut plain.as_slice(), &mut one).unwrap();
        assert!(many[HEADER.len()..many.len() - LAST.len() - 8] == one);
        assert_eq!(crc.amount() as usize, plain.len());
    }

    #[test]
    fn errors_of_either_side_come_out() {
        struct Bad;
        impl Read for Bad {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("bad disk"))
            }
        }
        let error = gzip(&mut Bad, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "bad disk");
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self
                    .0
                    .checked_sub(bytes.len())
                    .ok_or(io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let long = io::repeat(7).take(64 << 20);
        let error = gzip(&mut { long }, &mut Full(5000)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
