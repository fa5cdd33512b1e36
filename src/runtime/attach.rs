//! Attaching to a container that runs: `attach`, `start -a` of one that runs, and leaving `run -it`.
//!
//! The supervisor of a container with a terminal, or with a log, listens at the socket `attach` in the container's directory. On a
//! connection go frames: a byte that says what, four bytes of length (big endian), and as many bytes. The supervisor sends
//! [`HELLO`] at first, then output, and the exit code at the end; the client sends input and the size of its terminal. Signals
//! do not go through it: a client may send them to the container's process itself.
//!
//! A client that does not read holds the program up, as a terminal does; one that is gone does not.

mod client;
mod hub;
mod keys;

use std::io::{self, Read};

pub use client::{AttachOptions, Left, attach};
pub(super) use hub::Hub;
pub use keys::DetachKeys;

/// From the supervisor: whether there is a terminal, and whether input is read; a byte each.
const HELLO: u8 = 0;
/// Standard output, or what came from the terminal.
const OUT: u8 = 1;
/// Standard error.
const ERR: u8 = 2;
/// The end: the exit code, a byte.
const END: u8 = 3;
/// From the client: input.
const INPUT: u8 = 4;
/// Rows and columns, two bytes each, big endian.
const SIZE: u8 = 5;

/// The name of the socket.
const SOCKET: &str = "attach";
/// Longer than this is no frame.
const MAX: usize = 1 << 20;

/// A frame as bytes.
fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(5 + data.len());
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The next frame; `None` at the end.
fn read_frame(from: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut kind = [0];
    loop {
        match from.read(&mut kind) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut data = vec![0; length];
    from.read_exact(&mut data)?;
    let [kind] = kind;
    Ok(Some((kind, data)))
}
