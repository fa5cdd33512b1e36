//! Time, medians, caches.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command to its end and returns how long that took; it must succeed.
pub fn timed(command: &mut Command) -> Duration {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.spawn().and_then(|child| child.wait_with_output());
    let elapsed = start.elapsed();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    elapsed
}

/// A shell script in which `$ROOT` is a directory.
pub fn script(text: &str, root: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-euc", text])
        .env("ROOT", root)
        .env("LC_ALL", "C");
    command
}

/// Drops clean caches: 1 pages, 2 dentries and inodes, 3 both. What is dirty is written before.
pub fn drop_caches(what: u8) {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", what.to_string()).expect("dropping caches needs root");
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    assert!(!times.is_empty(), "no run, no median");
    times.sort();
    let middle = times.len() / 2;
    match times.len() % 2 {
        1 => times[middle],
        _ => (times[middle - 1] + times[middle]) / 2,
    }
}

/// `rounds` rounds over all candidates, in another order each time; the median of each candidate.
pub fn interleaved(
    rounds: usize,
    candidates: usize,
    mut run: impl FnMut(usize) -> Duration,
) -> Vec<Duration> {
    let mut times = vec![Vec::new(); candidates];
    for round in 0..rounds {
        for step in 0..candidates {
            let candidate = (round + step) % candidates;
            times[candidate].push(run(candidate));
        }
    }
    times.into_iter().map(median).collect()
}

/// Milliseconds with as many digits as they are worth.
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..1.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
