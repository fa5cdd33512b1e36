//! What verbs print: lines on stdout, error lines in docker's words, text made safe for terminals.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};

use crate::ops::build::BuildError;
use crate::ops::container::commit::CommitError;
use crate::ops::container::copy::CopyError;
use crate::ops::container::diff::DiffError;
use crate::ops::container::run::RunError;
use crate::ops::error::ObjectError;
use crate::ops::filters::FilterError;
use crate::ops::image::ImageError;
use crate::ops::space::SpaceError;
use crate::ops::transfer::pull::PullError;
use crate::ops::volume::VolumeError;
use crate::registry::RegistryError;

/// Stdout of a verb that changes things: nothing that happens to the output stops the work.
///
/// A reader that has gone away is no error at all; any other is reported when the work is done.
#[derive(Default)]
pub(super) struct Lines {
    failed: Option<io::Error>,
}

impl Lines {
    /// Prints one line, at once.
    pub(super) fn print(&mut self, line: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(io::stdout(), "{}", Printable(line)).err();
        }
    }

    /// Prints one line that is safe already.
    pub(super) fn print_safe(&mut self, line: &str) {
        if self.failed.is_none() {
            self.failed = writeln!(io::stdout(), "{line}").err();
        }
    }

    /// The error that stopped the output, if it says anything about more than a reader that has gone away.
    pub(super) fn finish(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// Prints whole text on stdout.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints text that a template has made of an image's own: as it is, but safe on a terminal.
pub(super) fn print_foreign(text: &str) -> io::Result<()> {
    if !io::stdout().is_terminal() {
        return print(text);
    }
    let safe =
        text.split_inclusive(['\n', '\t'])
            .map(|part| match part.strip_suffix(['\n', '\t']) {
                Some(line) => format!(
                    "{}{}",
                    Printable(line),
                    part.get(line.len()..).unwrap_or_default()
                ),
                None => Printable(part).to_string(),
            });
    print(&safe.collect::<String>())
}

/// Prints an error on stderr: docker's daemon's with its prefix, every other with ours, causes joined by colons.
pub(super) fn print_error(error: &anyhow::Error) {
    let text = match is_daemons(error) {
        true => format!("Error response from daemon: {error}"),
        false => format!("mica: {}", chain(error)),
    };
    // Nothing can be done about a stderr that does not take it.
    let _ = writeln!(io::stderr(), "{}", Printable(&text));
}

/// Whether docker's daemon says this.
fn is_daemons(error: &anyhow::Error) -> bool {
    error.is::<FilterError>()
        || error.downcast_ref().is_some_and(ImageError::is_daemons)
        || error.downcast_ref().is_some_and(VolumeError::is_daemons)
        || error.downcast_ref().is_some_and(ObjectError::is_daemons)
        || error.downcast_ref().is_some_and(SpaceError::is_daemons)
        || error.downcast_ref().is_some_and(CommitError::is_daemons)
        || error.downcast_ref().is_some_and(RunError::is_daemons)
        || error.downcast_ref().is_some_and(CopyError::is_daemons)
        || error.downcast_ref().is_some_and(BuildError::is_daemons)
        || matches!(error.downcast_ref(), Some(DiffError::NoSuch(_)))
        || matches!(
            error.downcast_ref(),
            Some(PullError::Registry(RegistryError::NotFound { .. }))
        )
}

/// The messages of an error and its causes, leaving out causes that the message before already spells out.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let message = cause.to_string();
        if text.contains(&message) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
    }
    text
}

/// Text from an image or an argument with its control characters escaped (`\n`, `\u{1b}`), so that it can neither break
/// a table nor drive the terminal.
pub(super) struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            // Besides the control characters, those that reorder the line around them.
            let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
            match c.is_control() || reorders {
                true => write!(f, "{}", c.escape_default())?,
                false => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let table = [
            ("plain ä…", "plain ä…"),
            ("a\nb\tc", "a\\nb\\tc"),
            (
                "\x1b[31m\x07\u{9b}\u{202e}",
                "\\u{1b}[31m\\u{7}\\u{9b}\\u{202e}",
            ),
        ];
        for (text, shown) in table {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }

    #[test]
    fn causes_are_joined_once() {
        let cause = anyhow::anyhow!("disk on fire");
        let error = cause.context("reading: disk on fire").context("load");
        assert_eq!(chain(&error), "load: reading: disk on fire");
    }
}
