//! The line between a supervisor and the process that becomes the container.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::fuse::session::{Session, State};
use crate::sys::message;

/// Largest message.
const MAX: usize = 128 << 10;

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// With a descriptor: the FUSE connection to serve the image on.
    Connection,
    /// With a descriptor: the master side of the container's terminal.
    Terminal,
    /// Everything is in place; the paths that had to be made to mount on.
    Ready { made: Vec<String> },
    /// Only from `exec`: the process, as the host sees it.
    Process { pid: u32 },
    /// It will not run.
    Failed { code: u8, text: String },
}

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// The ids are mapped.
    Mapped,
    /// Run the program.
    Go,
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

pub(super) fn pair() -> io::Result<(Channel, Channel)> {
    let (one, two) = message::pair()?;
    Ok((Channel(one), Channel(two)))
}

impl Channel {
    pub(super) fn send(
        &self,
        message: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let descriptor: Vec<_> = descriptor.into_iter().collect();
        message::send(&self.0, &[IoSlice::new(&bytes)], &descriptor)
    }

    /// The next message from who uses what `session` serves, with which it may end without having gone: an error then.
    pub(super) fn receive_while<T: DeserializeOwned>(
        &self,
        session: Option<&Session>,
    ) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        while let Some(session) = session {
            let mut fds = [
                PollFd::new(&self.0, PollFlags::IN),
                PollFd::from_borrowed_fd(session.event_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds.first().is_some_and(|fd| !fd.revents().is_empty()) {
                break;
            }
            if let State::Broken(reason) = session.state() {
                return Err(io::Error::other(reason));
            }
        }
        self.receive()
    }

    /// The next message; `None` when the other end is closed.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let Some((bytes, files)) = message::receive(&self.0, MAX)? else {
            return Ok(None);
        };
        Ok(Some((
            serde_json::from_slice(&bytes)?,
            files.into_iter().next(),
        )))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_with_their_descriptors() {
        let (one, two) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        one.send(&FromChild::Terminal, Some(file.as_fd())).unwrap();
        one.send(
            &FromChild::Ready {
                made: vec!["/a".to_owned()],
            },
            None,
        )
        .unwrap();
        drop(one);
        let (first, descriptor) = two.receive::<FromChild>().unwrap().unwrap();
        assert!(matches!(first, FromChild::Terminal));
        assert!(descriptor.is_some());
        let (second, none) = two.receive::<FromChild>().unwrap().unwrap();
        assert!(matches!(second, FromChild::Ready { made } if made == ["/a"]));
        assert!(none.is_none());
        assert!(two.receive::<FromChild>().unwrap().is_none());
    }
}
