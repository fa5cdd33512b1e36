//! What it costs to wake somebody up: the price of every FUSE request, whatever answers it.

use std::io::{Read, Write, pipe};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::timing::median;

const ROUNDS: u32 = 1_000;

/// One line: half a round trip between two threads over pipes, on the same processor and on two.
///
/// A request of the kernel is a round trip between the caller and the daemon, which are usually on two processors. On a virtual
/// machine the second one has to be woken by the hypervisor unless the guest polls a little before it halts.
pub fn line() -> String {
    let us = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    let processors: Vec<usize> = sched_getaffinity(None)
        .map(|set| (0..CpuSet::MAX_CPU).filter(|n| set.is_set(*n)).collect())
        .unwrap_or_default();
    let (Some(first), Some(last)) = (processors.first(), processors.last()) else {
        return "wake-ups not measured".to_owned();
    };
    let polling = std::fs::read_to_string("/sys/module/haltpoll/parameters/guest_halt_poll_ns");
    let polling = polling.map_or_else(
        |_| String::new(),
        |ns| format!(" (guest_halt_poll_ns {})", ns.trim()),
    );
    format!(
        "waking a thread: {} on the same processor, {} on another{polling}",
        us(measure(*first, *first)),
        us(measure(*first, *last))
    )
}

fn measure(here: usize, there: usize) -> Duration {
    median(
        (0..5)
            .map(|_| round_trips(here, there) / (2 * ROUNDS))
            .collect(),
    )
}

fn round_trips(here: usize, there: usize) -> Duration {
    let (mut ping_out, mut ping_in) = pipe().expect("pipe");
    let (mut pong_out, mut pong_in) = pipe().expect("pipe");
    let echo = thread::spawn(move || {
        stay_on(there);
        let mut byte = [0];
        while ping_out.read(&mut byte).expect("read") == 1 {
            pong_in.write_all(&byte).expect("write");
        }
    });
    let ask = thread::spawn(move || {
        stay_on(here);
        let mut byte = [0];
        let start = Instant::now();
        for _ in 0..ROUNDS {
            ping_in.write_all(&byte).expect("write");
            pong_out.read_exact(&mut byte).expect("read");
        }
        start.elapsed()
    });
    let elapsed = ask.join().expect("the asking thread");
    echo.join().expect("the answering thread");
    elapsed
}

fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).expect("sched_setaffinity");
}
