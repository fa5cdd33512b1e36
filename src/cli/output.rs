//! What verbs print: error lines in docker's words, text made safe for terminals.

use std::fmt::{self, Write as _};
use std::io::Write as _;

/// An error that docker's daemon would answer: printed with docker's prefix.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DaemonError(pub String);

/// Prints an error on stderr: docker's daemon's with its prefix, every other with ours, causes joined by colons.
pub fn print_error(error: &anyhow::Error) {
    let text = match error.downcast_ref::<DaemonError>() {
        Some(daemon) => format!("Error response from daemon: {daemon}"),
        None => format!("mica: {}", chain(error)),
    };
    // Nothing can be done about a stderr that does not take it.
    let _ = writeln!(std::io::stderr(), "{}", Printable(&text));
}

/// The messages of an error and its causes, leaving out causes that the message before already spells out.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let message = cause.to_string();
        if text.ends_with(&message) {
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
pub struct Printable<'a>(pub &'a str);

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
        assert_eq!(
            chain(&cause.context("reading: disk on fire").context("load")),
            "load: reading: disk on fire"
        );
    }
}
