//! What is tried again, when, and for how long.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use crate::registry::RegistryError;

use super::answer::header_text;

/// The first pause before a retry; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A server that sends fewer bytes than this within the deadline, while somebody waits for them, makes no progress.
pub(in crate::registry) const PROGRESS: u64 = 64 << 10;
/// However short the deadline is: a server may think for so long.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);

/// Why one try gave no answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection: trying again may help.
    Lost(ureq::Error),
    /// Trying again does not help.
    Final(RegistryError),
}

/// When to try again.
pub(in crate::registry) struct Retry {
    deadline: Instant,
    pause: Duration,
}

impl Retry {
    pub(in crate::registry) fn new(retry_for: Duration) -> Self {
        Retry {
            deadline: Instant::now() + retry_for,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits before the next try; `false` when there is no time for one.
    pub(in crate::registry) fn pause(&mut self, asked: Option<Duration>) -> bool {
        let pause = asked.unwrap_or(self.pause).max(self.pause);
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        std::thread::sleep(pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Measures whether a server makes progress. Only the time spent waiting for it counts, not what the reader does between.
pub(in crate::registry) struct Patience {
    limit: Duration,
    waited: Duration,
    received: u64,
}

impl Patience {
    pub(in crate::registry) fn new(limit: Duration) -> Self {
        Patience {
            limit: limit.max(LEAST_PATIENCE),
            waited: Duration::ZERO,
            received: 0,
        }
    }

    /// One read; an error once the server has had its time.
    pub(in crate::registry) fn read(
        &mut self,
        body: &mut dyn Read,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        let start = Instant::now();
        let result = body.read(buf);
        self.waited += start.elapsed();
        if let Ok(got) = &result {
            self.received += *got as u64;
            if self.received >= PROGRESS {
                (self.waited, self.received) = (Duration::ZERO, 0);
            }
        }
        if self.waited <= self.limit {
            return result;
        }
        let (received, seconds) = (self.received, self.waited.as_secs());
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{received} bytes in {seconds} seconds are no progress"),
        ))
    }

    /// Whether the server has had its time.
    pub(in crate::registry) fn is_over(&self) -> bool {
        self.waited > self.limit
    }

    /// Reads a whole body with this patience.
    pub(in crate::registry) fn reader<R: Read>(self, body: R) -> Patient<R> {
        Patient {
            body,
            patience: self,
        }
    }
}

/// A body that is given up when it makes no progress.
pub(in crate::registry) struct Patient<R> {
    body: R,
    patience: Patience,
}

impl<R: Read> Read for Patient<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patience.read(&mut self.body, buf)
    }
}

pub(in crate::registry) fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

pub(in crate::registry) fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = header_text(response, header::RETRY_AFTER)?;
    text.parse().ok().map(Duration::from_secs)
}
