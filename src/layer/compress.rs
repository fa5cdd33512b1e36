//! Telling and undoing the compression of layers and archives.
//!
//! All four formats allow several members (frames, streams) in a row, and all of them are read: gzip from parallel
//! compressors and zstd with skippable frames are made that way. Checksums are verified, a stream cut anywhere is an
//! error, and behind the last member only NUL bytes may follow (tape padding). Anything else there is an error: a
//! reader that stops early would show half a layer.

mod gzip;

use std::io::{self, BufRead, BufReader, Read};

pub use gzip::gzip;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
    /// xz (not the older lzma-alone format).
    Xz,
    /// bzip2.
    Bzip2,
}

/// Bytes that [`sniff`] wants to see.
pub const SNIFF: usize = 6;

/// Read from the compressed stream at once.
const BUFFER: usize = 256 << 10;

/// Memory an xz stream may ask for: `xz -9` needs 65 MiB, the format allows 4 GiB.
const XZ_MEMORY: u64 = 128 << 20;

/// Largest zstd window, as a power of two: 128 MiB, what `zstd --ultra -22` needs and the zstd tool accepts.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Tells the compression by a stream's first bytes, of which [`SNIFF`] are enough. A tar never begins like any of these
/// in practice: its first bytes are a file name.
pub fn sniff(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        _ => Compression::None,
    }
}

/// The uncompressed stream. It does not read ahead of what is asked by more than a buffer, and does not end before
/// `inner` does.
pub fn reader<'a>(
    inner: Box<dyn Read + Send + 'a>,
    compression: Compression,
) -> Box<dyn Read + Send + 'a> {
    if compression == Compression::None {
        return inner;
    }
    let inner = BufReader::with_capacity(BUFFER, inner);
    match compression {
        Compression::None => Box::new(inner),
        Compression::Gzip => Box::new(Members::<_, flate2::bufread::GzDecoder<_>>::new(inner)),
        Compression::Zstd => Box::new(Members::<_, Zstd<_>>::new(inner)),
        Compression::Xz => Box::new(Members::<_, liblzma::bufread::XzDecoder<_>>::new(inner)),
        Compression::Bzip2 => Box::new(Members::<_, bzip2::bufread::BzDecoder<_>>::new(inner)),
    }
}

type Zstd<R> = zstd::stream::read::Decoder<'static, R>;

/// A decoder of one member, which ends exactly behind it.
trait Member<R>: Read + Sized {
    const NAME: &'static str;
    /// Whether a member may begin with this byte.
    fn begins(byte: u8) -> bool;
    fn start(inner: R) -> io::Result<Self>;
    fn into_inner(self) -> R;
}

impl<R: BufRead> Member<R> for flate2::bufread::GzDecoder<R> {
    const NAME: &'static str = "gzip";
    fn begins(byte: u8) -> bool {
        byte == 0x1f
    }
    fn start(inner: R) -> io::Result<Self> {
        Ok(Self::new(inner))
    }
    fn into_inner(self) -> R {
        self.into_inner()
    }
}

impl<R: BufRead> Member<R> for Zstd<R> {
    const NAME: &'static str = "zstd";
    fn begins(byte: u8) -> bool {
        matches!(byte, 0x28 | 0x50..=0x5f)
    }
    fn start(inner: R) -> io::Result<Self> {
        let mut decoder = Self::with_buffer(inner)?.single_frame();
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Ok(decoder)
    }
    fn into_inner(self) -> R {
        self.finish()
    }
}

impl<R: BufRead> Member<R> for liblzma::bufread::XzDecoder<R> {
    const NAME: &'static str = "xz";
    fn begins(byte: u8) -> bool {
        byte == 0xfd
    }
    fn start(inner: R) -> io::Result<Self> {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
        Ok(Self::new_stream(inner, stream))
    }
    fn into_inner(self) -> R {
        self.into_inner()
    }
}

impl<R: BufRead> Member<R> for bzip2::bufread::BzDecoder<R> {
    const NAME: &'static str = "bzip2";
    fn begins(byte: u8) -> bool {
        byte == b'B'
    }
    fn start(inner: R) -> io::Result<Self> {
        Ok(Self::new(inner))
    }
    fn into_inner(self) -> R {
        self.into_inner()
    }
}

/// All members of a stream, one after the other.
struct Members<R, M> {
    state: State<R, M>,
}

enum State<R, M> {
    /// Before the first member, or behind one; the flag says which.
    Between(R, bool),
    In(M),
    /// In the NULs behind the last member.
    Padding(R),
    End,
    /// An error was given out. Every further read is an error too: nothing may mistake it for the end.
    Failed,
}

impl<R: BufRead, M: Member<R>> Members<R, M> {
    fn new(inner: R) -> Self {
        Members {
            state: State::Between(inner, false),
        }
    }

    /// Goes on from a state in which no data is to be had.
    fn advance(&mut self) -> io::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Failed) {
            State::Between(mut inner, any) => match peek(&mut inner)? {
                Some(byte) if !any || M::begins(byte) => State::In(M::start(inner)?),
                Some(0) => State::Padding(inner),
                Some(_) => return Err(invalid::<R, M>("data after the end of the stream")),
                None if any => State::End,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "empty stream")),
            },
            State::In(member) => State::Between(member.into_inner(), true),
            State::Padding(mut inner) => {
                let buffer = inner.fill_buf()?;
                let length = buffer.len();
                if buffer.iter().any(|byte| *byte != 0) {
                    return Err(invalid::<R, M>("data after the end of the stream"));
                }
                inner.consume(length);
                match length {
                    0 => State::End,
                    _ => State::Padding(inner),
                }
            }
            State::End => State::End,
            State::Failed => return Err(invalid::<R, M>("the stream is damaged")),
        };
        Ok(())
    }
}

impl<R: BufRead, M: Member<R>> Read for Members<R, M> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.state {
                State::In(member) => match member.read(buf) {
                    Ok(0) => self.advance()?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                    Err(error) => {
                        self.state = State::Failed;
                        return Err(error);
                    }
                    read => return read,
                },
                State::End => return Ok(0),
                _ => self.advance()?,
            }
        }
    }
}

fn peek(inner: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        match inner.fill_buf() {
            Ok(buffer) => return Ok(buffer.first().copied()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn invalid<R, M: Member<R>>(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", M::NAME))
}

#[cfg(test)]
mod tests;
