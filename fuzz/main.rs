//! Fuzz targets for whatever parses what is hostile: `contrib/fuzz` runs each for a minute.
//!
//! A driver of our own, because cargo-fuzz needs a nightly compiler: it mutates well-formed specimens (bytes flipped, cut, doubled,
//! spliced, and words of the grammar strewn in), which finds panics, overflows, hangs and unbounded memory; it knows nothing of
//! coverage. The targets are functions of bytes, so another driver can call them too. What failed is written to `fuzz/found/`,
//! and `contrib/fuzz TARGET FILE` runs it again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub
)]

mod archive;
mod layer;
mod registry;
mod texts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What reads bytes.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Well-formed inputs.
    pub specimens: fn() -> Vec<Vec<u8>>,
    /// Words that mean something in it.
    pub words: &'static [&'static str],
    /// Reads one input. Errors are answers; a panic is a fault.
    pub read: fn(&[u8]),
}

const TARGETS: &[&[Target]] = &[
    layer::TARGETS,
    archive::TARGETS,
    texts::TARGETS,
    registry::TARGETS,
];

/// Longest input: what is worse when longer is bounded by limits that have tests of their own.
const MAX_BYTES: usize = 64 << 10;
/// One input must not take longer than this, in a debug build on a busy machine.
const TOO_LONG: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let all = || TARGETS.iter().copied().flatten();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["list"] => {
            all().for_each(|target| println!("{}", target.name));
            ExitCode::SUCCESS
        }
        ["run", name, seconds] => match all().find(|target| target.name == *name) {
            Some(target) => run(target, seconds.parse().unwrap()),
            None => usage(),
        },
        ["again", name, file] => match all().find(|target| target.name == *name) {
            Some(target) => {
                (target.read)(&std::fs::read(file).unwrap());
                ExitCode::SUCCESS
            }
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: list | run TARGET SECONDS | again TARGET FILE");
    ExitCode::FAILURE
}

fn run(target: &Target, seconds: u64) -> ExitCode {
    let seed = std::env::var("MICA_FUZZ_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.subsec_nanos().into())
    });
    println!("{}: MICA_FUZZ_SEED={seed}", target.name);
    let mut random = Random(seed | 1);
    let specimens = (target.specimens)();
    for specimen in &specimens {
        (target.read)(specimen);
    }
    // A hang is noticed by another thread, which leaves the input behind.
    static SINCE: AtomicU64 = AtomicU64::new(0);
    let begin = Instant::now();
    let current = PathBuf::from(format!("fuzz/found/{}-hung", target.name));
    std::fs::create_dir_all("fuzz/found").unwrap();
    let watched = current.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let since = Duration::from_millis(SINCE.load(Ordering::Relaxed));
            if begin.elapsed().saturating_sub(since) > TOO_LONG {
                eprintln!("longer than {TOO_LONG:?}: {}", watched.display());
                std::process::exit(1);
            }
        }
    });
    let end = begin + Duration::from_secs(seconds);
    let mut runs = 0u64;
    while Instant::now() < end {
        let input = mutated(&mut random, &specimens, target.words);
        let now = u64::try_from(begin.elapsed().as_millis()).unwrap();
        SINCE.store(now, Ordering::Relaxed);
        if runs.is_multiple_of(64) {
            // Cheap enough, and near what hangs.
            let _ = std::fs::write(&current, &input);
        }
        if catch_unwind(AssertUnwindSafe(|| (target.read)(&input))).is_err() {
            let path = Path::new("fuzz/found").join(format!("{}-{seed}-{runs}", target.name));
            std::fs::write(&path, &input).unwrap();
            eprintln!("{}: panicked: {}", target.name, path.display());
            return ExitCode::FAILURE;
        }
        runs += 1;
    }
    let _ = std::fs::remove_file(&current);
    println!("{}: {runs} inputs", target.name);
    ExitCode::SUCCESS
}

/// xorshift64*: repeatable, and no crate.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap();
        usize::try_from(self.next() % end).unwrap()
    }
}

fn mutated(random: &mut Random, specimens: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut bytes = specimens[random.below(specimens.len())].clone();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(64).min(bytes.len() - at.min(bytes.len()));
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 => drop(bytes.drain(at..at + length)),
            3 => {
                let copy = bytes[at..at + length].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let other = &specimens[random.below(specimens.len())];
                let from = random.below(other.len());
                let part = &other[from..(from + random.below(512)).min(other.len())];
                bytes.splice(at..at, part.iter().copied());
            }
            5 => bytes.truncate(at),
            6 => {
                let digits = random.next().to_string();
                bytes.splice(at..at + length.min(digits.len()), digits.into_bytes());
            }
            7 if !words.is_empty() => {
                let word = words[random.below(words.len())];
                bytes.splice(at..at, word.bytes());
            }
            _ => {
                let value = random.next().to_le_bytes();
                let end = (at + random.below(8)).min(bytes.len());
                bytes.splice(at..end, value);
            }
        }
        bytes.truncate(MAX_BYTES);
    }
    bytes
}
