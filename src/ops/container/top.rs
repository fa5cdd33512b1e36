//! `top`: the processes of a container, by the host's `ps`.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::ops::container::run::RunError;
use crate::store::Store;
use crate::sys::proc;
use crate::text::format;

/// What `ps` is asked for when nothing else is wanted; docker's.
const OPTIONS: [&str; 1] = ["-ef"];

/// A table of the processes of the container that `text` means, with the options of `ps` given.
pub fn top(store: &Store, text: &str, options: &[String]) -> Result<String, RunError> {
    let container = crate::ops::container::find(store, text)?;
    let id = &container.record.id;
    let not_running = || RunError::Refused(format!("container {id} is not running"));
    let own = container.state.status.pid().ok_or_else(not_running)?;
    let namespace = |pid: u32| proc::namespace_name(pid, "pid");
    let of_container = namespace(own).ok_or_else(not_running)?;
    // Its number may have become another's.
    if container.is_gone()? {
        return Err(not_running());
    }
    let all = proc::all().map_err(RunError::io("listing processes"))?;
    let inside: BTreeSet<u32> = all
        .into_iter()
        .filter(|pid| namespace(*pid).as_ref() == Some(&of_container))
        .collect();
    let mut command = Command::new("ps");
    match options {
        [] => command.args(OPTIONS),
        options => command.args(options),
    };
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(RunError::io("starting ps (apt install procps)"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said
            .lines()
            .find(|line| !line.is_empty())
            .unwrap_or("it failed");
        return Err(RunError::Refused(format!("ps: {line}")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    table(&text, &inside)
}

/// The rows of `ps` whose process is one of these, in columns.
fn table(text: &str, inside: &BTreeSet<u32>) -> Result<String, RunError> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let at = header
        .iter()
        .position(|title| *title == "PID")
        .ok_or_else(|| RunError::Refused("Couldn't find PID field in ps output".to_owned()))?;
    let rows = lines.filter_map(|line| {
        let mut cells: Vec<String> = Vec::new();
        let mut rest = line.trim_start();
        // The last column holds blanks.
        while cells.len() + 1 < header.len() {
            let (cell, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            cells.push(cell.to_owned());
            rest = after.trim_start();
        }
        // A program chooses what is shown here.
        cells.push(
            rest.chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect(),
        );
        let pid: u32 = cells.get(at)?.parse().ok()?;
        inside.contains(&pid).then_some(cells)
    });
    let rows: Vec<Vec<String>> = rows.collect();
    Ok(format::table(Some(&header), &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_container_only() {
        let text =
            "UID   PID CMD\nroot    1 init\nroot   22 sh -c  two\x1b[31m words\nbob   222 x\n";
        let inside = BTreeSet::from([22]);
        let shown = table(text, &inside).unwrap();
        assert_eq!(
            shown,
            "UID       PID       CMD\nroot      22        sh -c  two?[31m words\n"
        );
        assert!(table("UID CMD\n", &inside).is_err());
    }
}
