//! `fusermount3`, the setuid helper that lets ordinary users mount and unmount FUSE file systems.
//!
//! Protocol: the helper opens `/dev/fuse`, mounts it, and sends the descriptor over the socket whose number it finds in
//! `_FUSE_COMMFD`. The socket is handed over as its standard input, so no descriptor has to be made inheritable in this process.
//! Its messages (one line on stderr) are kept: they say what the administrator has to allow.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Name of the helper, looked up in `PATH` and then where distributions put it.
const HELPER: &str = "fusermount3";
const HELPER_PLACES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// Why the helper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// There is no `fusermount3` on this machine.
    #[error(
        "fusermount3 is not installed, and only it can mount for an ordinary user: install the package fuse3"
    )]
    Missing,
    /// The file system is in use.
    #[error("busy")]
    Busy,
    /// The helper refused; its own words.
    #[error("{0}")]
    Refused(String),
    /// It could not be run or its answer not be read.
    #[error("running fusermount3: {0}")]
    Io(#[from] io::Error),
}

/// Mounts at `mount_point` with `options` (comma separated) and returns the connection's `/dev/fuse` descriptor.
pub fn mount(mount_point: &Path, options: &str) -> Result<OwnedFd, HelperError> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = helper()?;
    command
        .arg("-o")
        .arg(options)
        .arg("--")
        .arg(mount_point)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn()?;
    // The command keeps its copy of the socket; without this a helper that fails would never look like end of file.
    drop(command);
    let received = receive(&ours);
    let output = child.wait_with_output()?;
    match received? {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(refusal(&output.stderr)),
    }
}

/// Unmounts the FUSE file system at `mount_point`, which must belong to this user.
pub fn unmount(mount_point: &Path, lazy: bool) -> Result<(), HelperError> {
    let mut command = helper()?;
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(mount_point)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(refusal(&output.stderr))
}

fn refusal(stderr: &[u8]) -> HelperError {
    let text = String::from_utf8_lossy(stderr);
    if text.contains("Device or resource busy") {
        return HelperError::Busy;
    }
    let line = text.lines().next().unwrap_or_default().trim();
    // It begins with its own name, with or without a directory.
    let line = match line.split_once(": ") {
        Some((name, rest)) if name.ends_with(HELPER) => rest,
        _ => line,
    };
    HelperError::Refused(if line.is_empty() {
        "fusermount3 failed without a message".to_owned()
    } else if line.contains("/dev/fuse: Permission denied") {
        format!(
            "fusermount3 refused: {line}: root lets everybody open it with chmod 0666 /dev/fuse (for good: a udev rule KERNEL==\"fuse\", MODE=\"0666\")"
        )
    } else {
        format!("fusermount3 refused: {line}")
    })
}

fn helper() -> Result<Command, HelperError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .chain(HELPER_PLACES.iter().map(Into::into))
        .map(|dir| dir.join(HELPER))
        .find(|candidate| candidate.is_file())
        .ok_or(HelperError::Missing)?;
    let mut command = Command::new(OsString::from(program));
    // Its words are matched above.
    command.env("LC_ALL", "C");
    Ok(command)
}

/// The descriptor the helper sends; `None` if it closed the socket without one.
fn receive(socket: &UnixStream) -> Result<Option<OwnedFd>, HelperError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8];
    let mut iov = [IoSliceMut::new(&mut byte)];
    loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket.as_fd(), &mut iov, &mut control, flags) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(io::Error::from(e).into()),
        }
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(device) = descriptors.next()
        {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helpers_own_words_are_kept() {
        let text = b"/usr/bin/fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf\nmore\n";
        let message = refusal(text).to_string();
        assert!(message.starts_with("fusermount3 refused: option allow_other only"));
        assert!(!message.contains("more"));
    }

    #[test]
    fn busy_is_recognised() {
        let text = b"fusermount3: failed to unmount /m: Device or resource busy\n";
        assert!(matches!(refusal(text), HelperError::Busy));
    }
}
