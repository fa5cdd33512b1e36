//! The file of this program, out of reach for whoever gets hold of a process that runs it.
//!
//! A process that is about to become a container's program still runs ours, and `/proc/PID/exe` leads to it: the program of an
//! image can be `/proc/self/exe`, or name it as its interpreter. Whoever has opened that for reading can open it again for
//! writing, and change its mode by the descriptor, as far as the file's owner may: root, or the user whose file it is. So what
//! runs is the same file seen through a mount of its own that is read-only and attached nowhere, or, where no mount can be made,
//! a sealed copy in memory.

use std::ffi::{CString, OsString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, StatxAttributes,
    StatxFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs, memfd_create, openat, statx,
};
use rustix::process::{WaitOptions, waitpid};

use super::container::{Namespaces, clone_into, exit_now, read_only_clone};
use super::fork::Fork;

use crate::sys::fd;

/// This program, whatever has become of its file.
pub const OWN: &str = "/proc/self/exe";

/// What nothing can be done to.
const SEALED: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Comes back in a process whose binary nobody can change through it. If this is not one yet, it starts its program again, with
/// the same arguments: to be called before anything is done. Only while the process has one thread.
pub fn run_out_of_reach() -> io::Result<()> {
    let own = openat(CWD, OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    if is_out_of_reach(own.as_fd()) {
        // The kernel has called it by the number of the descriptor that it was started by.
        return Ok(rustix::thread::set_name(c"mica")?);
    }
    let mut why = None;
    for make in [read_only_clone, view_as_user, copy] {
        match make(own.as_fd()) {
            // What is not out of reach now would not be after the exec, and this would never end.
            Ok(made) if is_out_of_reach(made.as_fd()) => return Err(exec(made.as_fd())),
            Ok(_) => {}
            Err(error) => why = Some(error),
        }
    }
    // That of the copy, which nothing but this can keep from being made.
    let why = match why {
        Some(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!(": {error} (vm.memfd_noexec?)")
        }
        Some(error) => format!(": {error}"),
        None => String::new(),
    };
    Err(io::Error::other(format!(
        "neither a read-only view of this program nor a copy in memory can be made{why}"
    )))
}

/// A read-only mount that shows this one file, or a sealed copy.
fn is_out_of_reach(file: BorrowedFd<'_>) -> bool {
    let alone = || {
        let stat = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
        stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    };
    let read_only = || {
        let stat = fstatvfs(file);
        stat.is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
    };
    alone() && read_only() || fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALED))
}

/// The file through a mount of its own, made by a child in namespaces of its own, where an ordinary user has the right to. The descriptor comes through the
/// table, which both share.
fn view_as_user(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let place = rustix::io::fcntl_dupfd_cloexec(file, 3)?;
    let namespaces = Namespaces {
        user: true,
        mounts: true,
        shared_descriptors: true,
        ..Namespaces::default()
    };
    match clone_into(namespaces)? {
        Fork::Child => exit_now(i32::from(put_view(file, &place).is_err())),
        Fork::Parent(child) => {
            let pid = crate::sys::proc::pid(child);
            let status = loop {
                match waitpid(pid, WaitOptions::empty()) {
                    Err(rustix::io::Errno::INTR) => {}
                    other => break other?,
                }
            };
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(place),
                _ => Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
    }
}

/// Puts the view in the place of another descriptor.
fn put_view(file: BorrowedFd<'_>, place: &OwnedFd) -> io::Result<()> {
    // A descriptor belongs to the mount namespace that it was opened in: what it stands for is looked up again in this one.
    let path = std::fs::read_link(OWN)?;
    let here = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let (one, other) = (rustix::fs::fstat(file)?, rustix::fs::fstat(&here)?);
    if (one.st_dev, one.st_ino) != (other.st_dev, other.st_ino) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let view = read_only_clone(here.as_fd())?;
    dup_over(view.as_fd(), place)
}

#[allow(unsafe_code)]
fn dup_over(from: BorrowedFd<'_>, place: &OwnedFd) -> io::Result<()> {
    // SAFETY: both are open descriptors; the owner of `place` goes on owning what that number stands for.
    let rc = unsafe { libc::dup3(from.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) };
    match rc {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A copy in memory that cannot be changed any more.
fn copy(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 know no other than executable ones.
    let copy = memfd_create(c"mica", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create(c"mica", flags))?;
    let (mut from, mut to) = (File::from(file.try_clone_to_owned()?), File::from(copy));
    io::copy(&mut from, &mut to)?;
    fcntl_add_seals(&to, SEALED)?;
    // What is open for writing cannot be run.
    let path = fd::path(&to);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Starts the program in that file with the arguments and the environment of this one. Returns only if that fails.
#[allow(unsafe_code)]
fn exec(file: BorrowedFd<'_>) -> io::Error {
    let text = |text: OsString| CString::new(text.into_vec()).ok();
    let arguments: Vec<CString> = std::env::args_os().filter_map(text).collect();
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut variable = name;
            variable.push("=");
            variable.push(value);
            text(variable)
        })
        .collect();
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both arrays end with a null pointer and, like the strings they point to, live through the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_copy_can_be_run_and_not_be_changed() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"#!/bin/sh\nexit 7\n").unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        assert!(!is_out_of_reach(file.as_fd()));
        let made = copy(file.as_fd()).unwrap();
        assert!(is_out_of_reach(made.as_fd()));
        let path = fd::path(&made);
        assert_eq!(std::fs::read(&path).unwrap(), b"#!/bin/sh\nexit 7\n");
        let again = File::options().write(true).open(&path);
        assert!(again.and_then(|mut file| file.write_all(b"x")).is_err());
    }
}
