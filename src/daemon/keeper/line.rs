//! The line between a keeper and a server: messages with descriptors.
//!
//! A message is a word, and what belongs to it behind a space. The first word of all says the version.
//!
//! What is kept of a mount are the program that serves it, and its connections: for each three descriptors (the connection, and the tree's table and counters), and those of
//! the names that the kernel may know things of it by.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Largest message.
const MAX: usize = 64 << 10;
/// Most descriptors of a message; the kernel's limit is 253.
const MAX_FILES: usize = 250;

/// The first word, with the version of all of them.
const KEEP: &[u8] = b"keep-mount/4 ";

/// What is said.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Message {
    /// All that a mount stands by, in place of what was said before. Either way. With the descriptors of the program and of each connection, as many names
    /// of each as `names` says.
    Keep { names: Vec<usize>, state: Vec<u8> },
    /// The keeper keeps, or the server serves.
    Served,
    /// From a server, with a descriptor: other names, of a connection by its position.
    Names { of: usize, alone: bool },
    /// From a server: the mount is over.
    End,
    /// From a server: this program is to be the next one's, if it can. Answered by `Served` or `No`.
    Try(PathBuf),
    /// From the keeper: why not.
    No(String),
}

/// One end.
#[derive(Debug)]
pub(in crate::daemon) struct Line(OwnedFd);

impl Line {
    pub(super) fn pair() -> io::Result<(Line, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, two) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Line(one), two))
    }

    pub(in crate::daemon) fn send(
        &self,
        message: &Message,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let (word, rest): (&[u8], Cow<'_, [u8]>) = match message {
            Message::Keep { names, state } => {
                let names: Vec<String> = names.iter().map(usize::to_string).collect();
                let names = format!("{} ", names.join(","));
                (KEEP, [names.as_bytes(), state].concat().into())
            }
            Message::Served => (b"served", b"".into()),
            Message::Names { of, alone } => {
                let how = if *alone { "alone" } else { "more" };
                (b"names ", format!("{of} {how}").into_bytes().into())
            }
            Message::End => (b"end", b"".into()),
            Message::Try(program) => (b"try ", program.as_os_str().as_bytes().into()),
            Message::No(reason) => (b"no ", reason.as_bytes().into()),
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let bytes = [IoSlice::new(word), IoSlice::new(&rest)];
        loop {
            match sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// The next message; `None` when the other end is closed.
    pub(in crate::daemon) fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut buffer = vec![0u8; MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut into = [IoSliceMut::new(&mut buffer)];
            match recvmsg(&self.0, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // The other end died with something unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?.bytes,
            }
        };
        if got == 0 {
            return Ok(None);
        }
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                files.extend(descriptors);
            }
        }
        let bytes = buffer.get(..got).unwrap_or_default();
        let message = match bytes {
            b"served" => Message::Served,
            b"end" => Message::End,
            bytes => other(bytes).ok_or_else(|| {
                io::Error::other(
                    "the keeper of this mount and its server are of different versions",
                )
            })?,
        };
        Ok(Some((message, files)))
    }

    /// Whether the other end is closed.
    pub(in crate::daemon) fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let asked = poll(&mut fds, Some(&Timespec::default()));
        let over = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR);
        asked.is_ok() && fds.iter().any(over)
    }

    /// Waits for a message or the end, at most `timeout`; true if there is one.
    pub(in crate::daemon) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).unwrap_or_default();
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other? > 0),
            }
        }
    }
}

/// A message of more than a word.
fn other(bytes: &[u8]) -> Option<Message> {
    if let Some(rest) = bytes.strip_prefix(KEEP) {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (names, state) = (rest.get(..end)?, rest.get(end + 1..)?);
        let names = std::str::from_utf8(names).ok()?.split(',').map(str::parse);
        let names = names.collect::<Result<Vec<usize>, _>>().ok()?;
        let state = state.to_vec();
        return Some(Message::Keep { names, state });
    }
    if let Some(rest) = bytes.strip_prefix(b"names ") {
        let (of, how) = std::str::from_utf8(rest).ok()?.split_once(' ')?;
        let (of, alone) = (of.parse().ok()?, how == "alone");
        return Some(Message::Names { of, alone });
    }
    if let Some(program) = bytes.strip_prefix(b"try ") {
        return Some(Message::Try(OsStr::from_bytes(program).into()));
    }
    let reason = bytes.strip_prefix(b"no ")?;
    Some(Message::No(String::from_utf8_lossy(reason).into_owned()))
}

impl From<OwnedFd> for Line {
    fn from(socket: OwnedFd) -> Self {
        Line(socket)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (one, two) = Line::pair().unwrap();
        let two = Line::from(two);
        let file = std::fs::File::open("/dev/null").unwrap();
        let files: Vec<BorrowedFd<'_>> = (0..203).map(|_| file.as_fd()).collect();
        let keep = || Message::Keep {
            names: vec![200, 3],
            state: b"x y".to_vec(),
        };
        let names = [true, false].map(|alone| Message::Names { of: 1, alone });
        one.send(&keep(), &files).unwrap();
        one.send(&names[0], &files[..1]).unwrap();
        one.send(&Message::End, &[]).unwrap();
        let (message, files) = two.receive().unwrap().unwrap();
        assert_eq!((message, files.len()), (keep(), 203));
        let (message, files) = two.receive().unwrap().unwrap();
        assert_eq!((&message, files.len()), (&names[0], 1));
        assert_eq!(two.receive().unwrap().unwrap().0, Message::End);
        assert!(!two.wait(Duration::ZERO).unwrap() && !two.is_over());
        let [_, more] = names;
        for message in [
            more,
            Message::Try("/a b".into()),
            Message::No("why not".to_owned()),
        ] {
            one.send(&message, &[]).unwrap();
            assert_eq!(two.receive().unwrap().unwrap().0, message);
        }
        rustix::io::write(&one.0, b"keep-mount/1 0 x").unwrap();
        assert!(two.receive().is_err());
        drop(one);
        assert!(two.is_over());
        assert!(two.wait(Duration::ZERO).unwrap());
        assert!(two.receive().unwrap().is_none());
    }
}
