//! Why something in a container does not run.

use std::fmt::Display;

/// Why the container does not run: an exit code, docker's, and a text.
#[derive(Debug)]
pub(in crate::runtime) struct Failure {
    pub(in crate::runtime) code: u8,
    pub(in crate::runtime) text: String,
}

impl Failure {
    /// mica's own failure to start anything.
    pub(in crate::runtime) fn start(text: String) -> Failure {
        Failure { code: 125, text }
    }
}

/// Errors with what was being done.
pub(in crate::runtime) trait Fails<T> {
    fn fails(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Fails<T> for Result<T, E> {
    fn fails(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::start(format!("{what}: {error}")))
    }
}
