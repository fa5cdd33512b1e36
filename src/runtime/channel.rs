//! The line between a supervisor and the process that becomes the container.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

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
    let flags = SocketFlags::CLOEXEC;
    let (one, two) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((Channel(one), Channel(two)))
}

impl Channel {
    pub(super) fn send(
        &self,
        message: &impl Serialize,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.map(|fd| [fd]);
        if let Some(descriptors) = &descriptors {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let bytes = [IoSlice::new(&bytes)];
        loop {
            match sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other.map(drop)?),
            }
        }
    }

    /// The next message; `None` when the other end is closed.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut buffer = vec![0u8; MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
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
        let message = serde_json::from_slice(buffer.get(..got).unwrap_or_default())?;
        let descriptor = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(Some((message, descriptor)))
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
