//! Options as docker's client takes them: switches with a truth value (`--rm=false`, `-d=1`), values that stand at their letter
//! (`-eA=1`, `-itv/a:/b`), and any word for a value; what is given again counts as given last.
//!
//! Help, manual pages and completions are those of the command line without it: nobody types a switch like that by hand.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _};

use super::{Cli, help};

/// Parses a command line.
pub(super) fn parse(words: impl Iterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
    let words: Vec<OsString> = words.collect();
    let mut command = tolerant(&words);
    let words = spelled_out(&command, words);
    match command.try_get_matches_from_mut(&words) {
        Err(error) if error.kind() == ErrorKind::DisplayVersion => Err(error),
        Err(error) if error.kind() != ErrorKind::ValueValidation => {
            help::command().try_get_matches_from(words)
        }
        other => other,
    }
}

/// The command line with the verb that these words mean built, its switches taking values; other verbs are names only.
pub(super) fn tolerant(words: &[OsString]) -> Command {
    let command = Cli::command();
    let mut rest = words.iter().skip(1);
    let name = loop {
        match rest.next() {
            None => return command,
            Some(word) if word == "--store" => drop(rest.next()),
            Some(word) if word.as_bytes().starts_with(b"-") => {}
            Some(word) => break word.to_str(),
        }
    };
    let verb = name.and_then(|name| command.find_subcommand(name));
    let Some(name) = verb.map(|verb| verb.get_name().to_owned()) else {
        return command;
    };
    let global = help::global(&command);
    command.mut_subcommand(name, |verb| with_truth(help::built(verb, &global)))
}

fn with_truth(verb: Command) -> Command {
    verb.mut_args(switch).mut_subcommands(with_truth)
}

fn switch(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => {
            let arg = arg.action(ArgAction::Set).num_args(0..=1);
            let arg = arg.require_equals(true).default_missing_value("true");
            // One that is on unless it is said has one.
            let arg = match arg.get_default_values() {
                [] => arg.default_value("false"),
                _ => arg,
            };
            arg.value_parser(truth)
        }
        ArgAction::Set if arg.is_require_equals_set() && is_truth(&arg) => arg.value_parser(truth),
        _ => arg,
    }
}

/// The words of a verb that takes a command of somebody else's, with each of its own options as one long word: the parser takes
/// letters that it does not know, such as those of a value, for the beginning of that command.
fn spelled_out(command: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut found = command;
    let mut rest = words.iter().enumerate().skip(1);
    let at = loop {
        let Some((at, word)) = rest.next() else {
            return words;
        };
        if let Some(verb) = word.to_str().and_then(|word| found.find_subcommand(word)) {
            found = verb;
            let first = found.get_positionals().next();
            if first.is_some_and(Arg::is_allow_hyphen_values_set) {
                break at;
            }
        } else if word == "--store" {
            rest.next();
        } else if !word.as_bytes().starts_with(b"-") {
            return words;
        }
    };
    let (before, after) = words.split_at(at + 1);
    let mut all = before.to_vec();
    let mut after = after.iter();
    while let Some(word) = after.next() {
        match own(found, word, &mut after) {
            Some(mut options) => all.append(&mut options),
            None => {
                all.push(word.clone());
                break;
            }
        }
    }
    all.extend(after.cloned());
    all
}

/// A word that begins with an option, as options of one word each. None: it is none, or not all of it is known.
fn own<'w>(
    verb: &Command,
    word: &OsStr,
    more: &mut (impl Iterator<Item = &'w OsString> + Clone),
) -> Option<Vec<OsString>> {
    if let Some(long) = word.as_bytes().strip_prefix(b"--") {
        let named = |arg: &&Arg| {
            let names = arg.get_long_and_visible_aliases().unwrap_or_default();
            names.iter().any(|name| name.as_bytes() == long)
        };
        let with_value = long.contains(&b'=');
        if long.is_empty() {
            return None;
        }
        let takes = verb.get_arguments().find(named).filter(|arg| waits(arg));
        return Some(vec![match (takes, with_value) {
            (Some(_), false) => match more.next() {
                Some(value) => joined(long, value.as_bytes()),
                None => word.to_owned(),
            },
            _ => word.to_owned(),
        }]);
    }
    let mut letters = word
        .as_bytes()
        .strip_prefix(b"-")
        .filter(|all| !all.is_empty())?;
    let mut rest = more.clone();
    let mut options = Vec::new();
    while let Some((letter, after)) = letters.split_first() {
        let arg = verb
            .get_arguments()
            .find(|arg| arg.get_short() == Some(char::from(*letter)))?;
        let long = arg.get_long()?.as_bytes();
        let value = match (after.strip_prefix(b"="), waits(arg)) {
            (Some(value), _) => value,
            (None, true) if !after.is_empty() => after,
            (None, true) => rest.next()?.as_bytes(),
            (None, false) => {
                options.push(OsString::from_vec([b"--", long].concat()));
                letters = after;
                continue;
            }
        };
        options.push(joined(long, value));
        break;
    }
    *more = rest;
    Some(options)
}

/// Whether an option's value may be the next word.
fn waits(arg: &Arg) -> bool {
    let one = arg
        .get_num_args()
        .is_none_or(|takes| takes.min_values() == 1);
    one && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
        && !arg.is_require_equals_set()
}

fn joined(long: &[u8], value: &[u8]) -> OsString {
    OsString::from_vec([b"--", long, b"=", value].concat())
}

fn is_truth(arg: &Arg) -> bool {
    let defaults = arg.get_default_values();
    defaults
        .iter()
        .any(|text| *text == "true" || *text == "false")
}

/// What Go's strconv.ParseBool takes.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

/// What docker's client says of a switch's value that is none.
pub(super) fn wrong(error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (name, _) = text(ContextKind::InvalidArg)?.split_once("[=")?;
    let value = text(ContextKind::InvalidValue)?;
    let why = truth(value).err()?;
    Some(format!(
        "invalid argument {value:?} for \"{name}\" flag: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(command: &Command, path: &str, tell: &mut impl FnMut(&str, &Arg)) {
        for arg in command.get_arguments() {
            tell(path, arg);
        }
        for verb in command.get_subcommands() {
            all(verb, &format!("{path} {}", verb.get_name()), tell);
        }
    }

    #[test]
    fn regression_a_command_line_builds_its_own_verb_only() {
        let words = ["mica", "--store", "run", "image", "ls", "-q"].map(OsString::from);
        let command = tolerant(&words);
        let options = |path: &[&str]| {
            let verb = path
                .iter()
                .try_fold(&command, |at, name| at.find_subcommand(name));
            verb.unwrap().get_arguments().count()
        };
        assert!(options(&["image", "ls"]) > 5);
        assert_eq!([options(&["run"]), options(&["images"])], [0, 0]);
    }

    #[test]
    fn regression_every_option_may_be_given_again_and_every_switch_has_a_value() {
        let (mut switches, mut scalars) = (0, 0);
        all(
            &with_truth(help::built(Cli::command(), &[])),
            "mica",
            &mut |path, arg| {
                assert!(
                    !matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse),
                    "{path} {arg}"
                );
                if arg.is_positional() || !matches!(arg.get_action(), ArgAction::Set) {
                    return;
                }
                let takes = arg.get_num_args().unwrap_or(1.into());
                match takes.min_values() {
                    0 => switches += 1,
                    _ => scalars += 1,
                }
            },
        );
        assert!(switches > 80 && scalars > 80, "{switches} {scalars}");
        let parsed = |line: &str| parse(line.split(' ').map(OsString::from));
        let matches = parsed("mica run --rm --rm=false -it=F --tty -d=1 --name a --name=b --entrypoint x --entrypoint y -u 1 -u 2 i --rm").unwrap();
        let run = matches.subcommand_matches("run").unwrap();
        let switch = |name: &str| run.get_one::<bool>(name).copied();
        assert_eq!(
            ["rm", "interactive", "tty", "detach", "init"].map(switch),
            [false, true, true, true, false].map(Some)
        );
        let words: Vec<&String> = run.get_many("words").unwrap().collect();
        assert_eq!(words, ["i", "--rm"]);
        let scalar = |name: &str| run.get_one::<String>(name).map(String::as_str);
        assert_eq!(
            ["name", "entrypoint", "user"].map(scalar),
            ["b", "y", "2"].map(Some)
        );
        for line in [
            "mica ps -qa=1 --format x --format y",
            "mica rmi -f=true --force x",
            "mica history --human=0 --no-trunc=T i",
            "mica --store a --store b images",
        ] {
            assert!(parsed(line).is_ok(), "{line}");
        }
        let error = parsed("mica ps --no-trunc=").unwrap_err();
        assert_eq!(
            wrong(&error).unwrap(),
            "invalid argument \"\" for \"--no-trunc\" flag: strconv.ParseBool: parsing \"\": invalid syntax"
        );
        let error = parsed("mica rm --force=yes x").unwrap_err();
        assert_eq!(
            wrong(&error).unwrap(),
            "invalid argument \"yes\" for \"--force\" flag: strconv.ParseBool: parsing \"yes\": invalid syntax"
        );
        // What is shown does not know of it.
        let help = parsed("mica ps --help").unwrap_err().to_string();
        assert!(
            help.contains("--no-trunc") && !help.contains("--no-trunc["),
            "{help}"
        );
    }

    #[test]
    fn regression_values_stand_at_their_letters() {
        for verb in [
            "run",
            "create",
            "container run",
            "--store d container create",
        ] {
            let line = format!(
                "mica {verb} -eA=1 -ite=B=2 -e C=3 -uroot -w=/tmp -v/a:/b -tv /c:/d -hbox -lx=y -p80:80 --label --rm --name=n --net host i -eD=4 -v"
            );
            let words = line.split(' ').map(OsString::from);
            let matches = parse(words).unwrap_or_else(|error| panic!("{verb}: {error}"));
            let (name, found) = matches.subcommand().unwrap();
            let (_, found) = match name {
                "container" => found.subcommand().unwrap(),
                name => (name, found),
            };
            let all = |name: &str| {
                let values = found.get_many::<String>(name).unwrap_or_default();
                values.map(String::as_str).collect::<Vec<_>>()
            };
            assert_eq!(all("env"), ["A=1", "B=2", "C=3"]);
            assert_eq!(all("volume"), ["/a:/b", "/c:/d"]);
            assert_eq!(all("label"), ["x=y", "--rm"]);
            assert_eq!(
                (all("user"), all("workdir"), all("hostname")),
                (vec!["root"], vec!["/tmp"], vec!["box"])
            );
            assert_eq!(
                (all("publish"), all("network")),
                (vec!["80:80"], vec!["host"])
            );
            assert_eq!(all("words"), ["i", "-eD=4", "-v"]);
            assert_eq!(found.get_one::<bool>("interactive"), Some(&true));
        }
        // What is not known is said of the word that was typed.
        let words = |line: &str| {
            let matches = parse(line.split(' ').map(OsString::from)).unwrap();
            let run = matches.subcommand_matches("run").unwrap();
            run.get_many::<String>("words")
                .unwrap()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(words("mica run -it -m512m i"), ["-m512m", "i"]);
        assert_eq!(words("mica run -itx i"), ["-itx", "i"]);
        assert_eq!(words("mica run -- i -eA=1"), ["i", "-eA=1"]);
        assert_eq!(words("mica run - i"), ["-", "i"]);
    }
}
