//! `mica -h`: the verbs by what they are for, folded to the terminal.

use std::io;

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

/// Every verb that is not hidden, once.
pub(super) const GROUPS: &[(&str, &[&str])] = &[
    (
        "Get and send images",
        &[
            "pull", "push", "load", "save", "import", "export", "login", "logout",
        ],
    ),
    (
        "Look",
        &[
            "images", "tree", "history", "inspect", "diff", "events", "users", "info", "version",
        ],
    ),
    (
        "Names and space",
        &[
            "tag", "pin", "unpin", "rmi", "trash", "restore", "gc", "check",
        ],
    ),
    (
        "Run containers",
        &[
            "run", "create", "start", "stop", "restart", "pause", "unpause", "kill", "wait", "rm",
        ],
    ),
    (
        "Work with containers",
        &[
            "ps", "exec", "attach", "cp", "logs", "top", "port", "rename",
        ],
    ),
    ("From and for containers", &["build", "commit", "bundle"]),
    (
        "The tree and volumes",
        &["mount", "umount", "volume", "hold"],
    ),
    (
        "More",
        &[
            "image",
            "container",
            "system",
            "builder",
            "completion",
            "help",
        ],
    ),
];

/// Wider lines are hard to read.
const WIDEST: usize = 100;
/// Where what a verb does begins.
const INDENT: usize = 14;

/// The command line, with its help.
pub(super) fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    let text = listed(&command, width());
    let command = Cli::command().help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{text}Options:\n{{options}}\n\n{{after-help}}"
    ));
    // The list of a noun's verbs says what each does.
    let global = global(&command);
    command.mut_subcommands(|verb| match verb.has_subcommands() {
        true => verb.mut_subcommands(|verb| built(verb, &global)),
        false => verb,
    })
}

/// The options that every verb takes.
pub(super) fn global(command: &Command) -> Vec<Arg> {
    let global = command.get_arguments().filter(|arg| arg.is_global_set());
    global.cloned().collect()
}

/// A verb with its options: parsing builds only what it meets. It must have the global ones by then.
pub(super) fn built(verb: Command, global: &[Arg]) -> Command {
    let mut verb = verb.args(global);
    verb.build();
    verb
}

fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    match columns {
        0 => WIDEST,
        columns => columns.clamp(40, WIDEST),
    }
}

fn listed(command: &Command, width: usize) -> String {
    let mut text = String::new();
    for (title, verbs) in GROUPS {
        text.push_str(&format!("{title}:\n"));
        for verb in *verbs {
            let found = command.find_subcommand(verb);
            let about = found.and_then(|found| found.get_about());
            let about = about.map(ToString::to_string).unwrap_or_default();
            let room = width.saturating_sub(INDENT).max(20);
            let mut lines = fold(&about, room).into_iter();
            let first = lines.next().unwrap_or_default();
            text.push_str(&format!("  {verb:<12}{first}\n"));
            for line in lines {
                text.push_str(&format!("{:INDENT$}{line}\n", ""));
            }
        }
        text.push('\n');
    }
    text
}

/// Lines of at most so many characters, cut between words.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_one_group() {
        let mut command = Cli::command();
        command.build();
        let visible = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let mut visible: Vec<&str> = visible.map(|verb| verb.get_name()).collect();
        let mut listed: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, verbs)| *verbs)
            .copied()
            .collect();
        visible.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, visible);
    }

    #[test]
    fn help_is_folded_to_any_terminal() {
        let mut command = Cli::command();
        command.build();
        for width in [40, 80, 100] {
            let text = listed(&command, width);
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{width}: {text}");
            assert!(text.contains("\n  pull        Download images"), "{text}");
        }
    }
}
