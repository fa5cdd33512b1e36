//! What it takes to put a process into namespaces of its own: the calls that have no safe wrapper elsewhere.
//!
//! Nothing here decides anything; [`crate::runtime`] does.

use std::ffi::{CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{OpenTreeFlags, open_tree};

use super::fork::Fork;

/// Namespaces that a new process gets of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Users: the process has all capabilities in it, and no ids before they are mapped.
    pub user: bool,
    /// Mounts, process ids, System V IPC and POSIX queues, host name, control groups.
    pub container: bool,
    /// Mounts alone.
    pub mounts: bool,
    /// None of its own: descriptors, which both processes open and close for each other.
    pub shared_descriptors: bool,
}

impl Namespaces {
    fn flags(self) -> c_int {
        let mut flags = 0;
        if self.user {
            flags |= libc::CLONE_NEWUSER;
        }
        if self.mounts {
            flags |= libc::CLONE_NEWNS;
        }
        if self.shared_descriptors {
            flags |= libc::CLONE_FILES;
        }
        if self.container {
            flags |= libc::CLONE_NEWNS
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWCGROUP;
        }
        flags
    }
}

/// [`super::fork::fork`] into new namespaces. As there: only while the process has one thread.
#[allow(unsafe_code)]
pub fn clone_into(namespaces: Namespaces) -> io::Result<Fork> {
    let threads = super::procfs::own_threads()?;
    if threads != 1 {
        return Err(io::Error::other(format!(
            "cannot fork: the process already has {threads} threads"
        )));
    }
    let flags = c_long::from(namespaces.flags() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with no stack given, clone is fork: the child runs on a copy of all memory. This is the
    // only thread, so no lock is held by another in that copy.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags,
            0 as c_long,
            0 as c_long,
            0 as c_long,
            0 as c_long,
        )
    };
    match u32::try_from(pid) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) => Ok(Fork::Parent(pid)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Moves this process into new namespaces. As for [`clone_into`]: only while it has one thread.
#[allow(unsafe_code)]
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    let threads = super::procfs::own_threads()?;
    if threads != 1 {
        return Err(io::Error::other(format!(
            "cannot change namespaces: the process already has {threads} threads"
        )));
    }
    // SAFETY: touches no memory. This is the only thread, so no other one loses descriptors or a working directory.
    let rc = unsafe { libc::unshare(namespaces.flags()) };
    check(c_long::from(rc))
}

/// Sets the host name of the namespace.
#[allow(unsafe_code)]
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of `name`, which lives through the call.
    let rc = unsafe { libc::sethostname(name.as_ptr().cast::<c_char>(), name.len()) };
    check(c_long::from(rc))
}

/// What a mount does not allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountLimits {
    /// Nothing can be changed.
    pub read_only: bool,
    /// Set-user-id bits and file capabilities do nothing.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
}

/// Sets limits on a mount, and with `recursive` on everything mounted below it. What it had already stays.
#[allow(unsafe_code)]
pub fn limit_mount(mount: BorrowedFd<'_>, limits: MountLimits, recursive: bool) -> io::Result<()> {
    let mut set = 0;
    for (wanted, flag) in [
        (limits.read_only, libc::MOUNT_ATTR_RDONLY),
        (limits.no_suid, libc::MOUNT_ATTR_NOSUID),
        (limits.no_dev, libc::MOUNT_ATTR_NODEV),
        (limits.no_exec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if wanted {
            set |= flag;
        }
    }
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the descriptor is open, the path an empty C string, the structure alive and its size given.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(rc)
}

/// A mount of its own, attached nowhere, of what a descriptor stands for: through it the file cannot be written to, nor its mode,
/// owner or times be changed. Needs CAP_SYS_ADMIN in the mount namespace that the descriptor was opened in.
pub fn read_only_clone(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(file, c"", flags)?;
    let limits = MountLimits {
        read_only: true,
        no_suid: true,
        ..MountLimits::default()
    };
    limit_mount(clone.as_fd(), limits, false)?;
    Ok(clone)
}

/// Replaces the program of this process; returns only if that fails.
#[allow(unsafe_code)]
pub fn exec(program: &CString, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        let texts = texts.iter().map(|text| text.as_ptr());
        texts.chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer and, like the strings they point to, live through the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives every signal its default effect again and blocks none: what a new program expects.
#[allow(unsafe_code)]
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: setting the default disposition runs no code; numbers that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is initialised by sigemptyset before it is used.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Sends a signal, by number: real-time signals too.
#[allow(unsafe_code)]
pub fn signal(process: impl AsFd, number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, the information is left to the kernel.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_fd().as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(rc)
}

/// Sends a signal to every process of this process id namespace but the caller.
#[allow(unsafe_code)]
pub fn signal_others(number: i32) {
    // SAFETY: touches no memory. An error means that there is no other process.
    unsafe { libc::kill(-1, number) };
}

/// Installs a seccomp filter: 8 bytes per instruction, as the kernel takes them, and `SECCOMP_FILTER_FLAG_*`. The process must
/// have no_new_privs or `CAP_SYS_ADMIN`.
#[allow(unsafe_code)]
pub fn install_filter(program: &[(u16, u8, u8, u32)], flags: u32) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
        .collect();
    let Ok(len) = u16::try_from(filter.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let program = libc::sock_fprog {
        len,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions live through the call, which copies them.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    check(rc)
}

/// Ends this process at once: no destructors, no buffers; for a forked child that shares them with its parent.
#[allow(unsafe_code)]
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and runs nothing.
    unsafe { libc::_exit(code) }
}

fn check(rc: c_long) -> io::Result<()> {
    match rc {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The descriptors above stderr.
fn open_descriptors() -> io::Result<Vec<c_int>> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        open.extend(name.to_str().and_then(|name| name.parse::<c_int>().ok()));
    }
    open.retain(|fd| *fd > 2);
    Ok(open)
}

/// Closes the descriptors above stderr that a caller has handed down: those without the close-on-exec flag, which everything
/// this program opens has.
#[allow(unsafe_code)]
pub fn close_handed_down() -> io::Result<()> {
    for fd in open_descriptors()? {
        // SAFETY: asks for a flag; a number that is no descriptor is an error.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: the program has opened none of these, so nothing in it owns this one.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}
