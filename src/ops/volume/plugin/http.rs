//! As much of HTTP/1.1 (RFC 9112) as engines speak to plugins: POST with a `Content-Length`, one after the other.
//!
//! A few lines instead of a library: there is one method, no query, no chunk and no upgrade, and every length has a bound. What
//! is not that is an error and the end of the connection.

use std::io::{self, BufRead, Read as _, Write};

/// Request line and headers together.
const MAX_HEAD: u64 = 16 << 10;
/// The largest body; a call has a name and some options.
const MAX_BODY: usize = 1 << 20;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `/VolumeDriver.Get`
    pub path: String,
    /// What was sent.
    pub body: Vec<u8>,
    /// Whether another request may follow.
    pub keep_alive: bool,
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It ended, waited too long, or failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is none that we take: a status and a reason for the answer.
    #[error("{1}")]
    Bad(u16, &'static str),
}

/// Reads a request; `None`: the other side has closed the connection between two.
///
/// # Errors
/// See [`HttpError`]; after any of them the connection is of no use.
pub fn read(from: &mut impl BufRead) -> Result<Option<Request>, HttpError> {
    let mut head = from.take(MAX_HEAD);
    let Some(first) = line(&mut head)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    let (Some("POST"), Some(path), None) = (method, path, words.next()) else {
        return Err(HttpError::Bad(405, "only POST /Call HTTP/1.1"));
    };
    let mut keep_alive = match version {
        Some("HTTP/1.1") => true,
        Some("HTTP/1.0") => false,
        _ => return Err(HttpError::Bad(505, "HTTP/1.1")),
    };
    let path = path.to_owned();
    let mut length: Option<usize> = None;
    loop {
        let cut = HttpError::Bad(431, "the headers are cut off or too long");
        let header = line(&mut head)?.ok_or(cut)?;
        if header.is_empty() {
            break;
        }
        let bad = HttpError::Bad(400, "a header without a colon");
        let (name, value) = header.split_once(':').ok_or(bad)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let parsed = value.parse().ok().filter(|_| digits);
                let bad = HttpError::Bad(400, "a bad or second content-length");
                let parsed = parsed.filter(|_| length.is_none()).ok_or(bad)?;
                length = Some(parsed);
            }
            "transfer-encoding" => {
                return Err(HttpError::Bad(501, "no transfer encodings"));
            }
            "connection" if value.eq_ignore_ascii_case("close") => keep_alive = false,
            _ => {}
        }
    }
    let length = length.unwrap_or(0);
    if length > MAX_BODY {
        return Err(HttpError::Bad(413, "the body is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(Request {
        path,
        body,
        keep_alive,
    }))
}

/// A line before the head ends; `None` at the very end of the input.
fn line(head: &mut io::Take<&mut impl BufRead>) -> Result<Option<String>, HttpError> {
    let mut bytes = Vec::new();
    head.read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = bytes
        .strip_suffix(b"\n")
        .ok_or(HttpError::Bad(431, "the head is cut off or too long"))?;
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let bad = HttpError::Bad(400, "the head is no text");
    let text = std::str::from_utf8(text).map_err(|_| bad)?;
    Ok(Some(text.to_owned()))
}

/// Writes an answer.
///
/// # Errors
/// Those of `to`.
pub fn write(to: &mut impl Write, status: u16, body: &[u8], keep_alive: bool) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        500 => "Internal Server Error",
        _ => "Error",
    };
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/vnd.docker.plugins.v1.1+json\r\n\
         Content-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    );
    to.write_all(&[head.as_bytes(), body].concat())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &[u8]) -> u16 {
        match read(&mut &*text) {
            Err(HttpError::Bad(status, _)) => status,
            Err(HttpError::Io(_)) => 1,
            Ok(None) => 0,
            Ok(Some(_)) => 200,
        }
    }

    #[test]
    fn requests_follow_each_other() {
        let text = b"POST /A HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\n{}POST /B HTTP/1.1\nConnection: close\n\n";
        let mut from = &text[..];
        let first = read(&mut from).unwrap().unwrap();
        assert_eq!((first.path.as_str(), &first.body[..]), ("/A", &b"{}"[..]));
        assert!(first.keep_alive);
        let second = read(&mut from).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.keep_alive), ("/B", false));
        assert!(read(&mut from).unwrap().is_none());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let post = b"POST / HTTP/1.1\r\n".to_vec();
        let with = |rest: &[u8]| status(&[&post[..], rest].concat());
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status(b"POST / HTTP/2\r\n\r\n"), 505);
        assert_eq!(status(b"POST / HTTP/1.1 x\r\n\r\n"), 405);
        assert_eq!(status(b"\xff\xff\r\n\r\n"), 400);
        assert_eq!(status(b"POST"), 431);
        assert_eq!(
            with(b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n{"),
            400
        );
        assert_eq!(with(b"Content-Length: +1\r\n\r\n{"), 400);
        assert_eq!(with(b"Content-Length: 99999999999999999999\r\n\r\n"), 400);
        assert_eq!(with(b"Content-Length: 1048577\r\n\r\n"), 413);
        assert_eq!(
            with(b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
            501
        );
        assert_eq!(with(b"nonsense\r\n\r\n"), 400);
        assert_eq!(with(b"Content-Length: 5\r\n\r\n{}"), 1);
        assert_eq!(with(&b"X: y\r\n".repeat(4000)), 431);
        assert_eq!(with(&[b'a'; 20_000]), 431);
    }
}
