//! Threads that there may be no room for: a limit on processes (`ulimit -u`, a control group's `pids.max`) is no reason to panic.

use std::io;
use std::thread::{self, Scope, ScopedJoinHandle};

/// Runs `work` beside the caller.
pub fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let thread = thread::Builder::new().name(format!("mica-{name}"));
    thread.spawn_scoped(scope, work).map_err(|error| {
        let hint = "raise the limit of processes (ulimit -u, pids.max)";
        io::Error::new(
            error.kind(),
            format!("no thread can be started ({error}); {hint}"),
        )
    })
}

/// Runs `work` on up to `most` threads at once, of which the caller's is one: what does not start is done by those who did.
pub fn share(name: &str, most: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..most {
            if beside(scope, name, &work).is_err() {
                break;
            }
        }
        work();
    });
}

/// Whether one more thread can be had now.
pub fn are_there() -> bool {
    let thread = thread::Builder::new().stack_size(16 * 1024);
    thread.spawn(|| {}).is_ok_and(|one| one.join().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn work_is_shared_with_the_caller() {
        for most in 0..4 {
            let runs = AtomicUsize::new(0);
            share("test", most, || {
                runs.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(runs.into_inner(), most.max(1));
        }
        assert!(are_there());
    }
}
