//! A thread with a table of descriptors of its own.
//!
//! A process that is killed lets go of its descriptors when its last thread ends. One that cannot end, because it waits in the
//! kernel for something which only that letting go would bring about, waits for ever, and so does everybody else. Such a thread
//! has a table to itself (`unshare(2)`, `CLONE_FILES`), with nothing in it that others wait for: a standard stream can be a pipe whose
//! reader waits for its end.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::mpsc::sync_channel;
use std::thread::Builder;

/// Runs `work` in a thread that has `file` and no other descriptor, not even one to log to; the rest of the process does not have
/// `file` any more. Where the kernel refuses it, the thread shares the process's descriptors, with a warning.
#[allow(unsafe_code)]
pub fn spawn(
    builder: Builder,
    file: OwnedFd,
    work: impl FnOnce(OwnedFd) + Send + 'static,
) -> io::Result<()> {
    let number = file.into_raw_fd();
    let (tell, told) = sync_channel(1);
    let spawned = builder.spawn(move || {
        let alone = leave_all_but(number);
        if let Err(error) = &alone {
            log::warn!("a thread shares the descriptors of its process: {error}");
        }
        // Nobody listens only if the one who spawns has panicked.
        let _ = tell.send(alone.is_ok());
        // SAFETY: the number was owned and is given away to this thread; if tables were parted, the other one is closed below.
        work(unsafe { OwnedFd::from_raw_fd(number) });
    });
    let gone = match &spawned {
        Ok(_) => told.recv() == Ok(true),
        Err(_) => true,
    };
    if gone {
        // SAFETY: in this table the number is nobody's: the thread has its own, or never began.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    spawned.map(drop)
}

/// Gives the calling thread a table of its own with `keep` in it.
#[allow(unsafe_code)]
fn leave_all_but(keep: RawFd) -> io::Result<()> {
    let keep = keep.unsigned_abs();
    // SAFETY: takes no memory; from here on this thread sees a copy of the table.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let below = keep.checked_sub(1).map(|last| (0, last));
    for (first, last) in below
        .into_iter()
        .chain([(keep.saturating_add(1), u32::MAX)])
    {
        // SAFETY: closes in this thread's table, whose numbers nobody else uses. It fails before Linux 5.9 only, where all stay open.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_thread_has_what_it_was_given_and_the_process_has_it_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let other = File::create(dir.path().join("other")).unwrap();
        let given = File::create(dir.path().join("given")).unwrap();
        let number = given.as_raw_fd();
        let (tell, told) = channel();
        spawn(Builder::new(), given.into(), move |file| {
            let open = fs::read_dir("/proc/thread-self/fd").unwrap();
            let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            let links: Vec<_> = links.collect();
            tell.send((file.as_raw_fd(), links)).unwrap();
        })
        .unwrap();
        let (its_number, links) = told.recv().unwrap();
        assert_eq!(its_number, number);
        assert!(links.contains(&dir.path().join("given")), "{links:?}");
        assert!(!links.contains(&dir.path().join("other")), "{links:?}");
        let here = fs::read_dir("/proc/self/fd").unwrap();
        let here: Vec<_> = here
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .collect();
        assert!(!here.contains(&dir.path().join("given")), "{here:?}");
        assert!(here.contains(&dir.path().join("other")));
        drop(other);
    }
}
