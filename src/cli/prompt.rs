//! Asking before something goes.

use std::io::{self, BufRead as _, Write as _};

use super::output::Printable;

/// Prints a warning and docker's question; only `y` and `Y` are a yes, an end of input is a no.
pub(super) fn confirm(warning: &[String]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    for line in warning {
        writeln!(out, "{}", Printable(line))?;
    }
    write!(out, "Are you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
