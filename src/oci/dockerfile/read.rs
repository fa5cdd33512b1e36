//! From lines to instructions and stages.

use super::{Copy, CopySource, Dockerfile, DockerfileError, Instruction, Run, Stage, Step};
use crate::oci::change::{Change, Line, form};
use crate::oci::syntax::source::{self, Logical, Source};
use crate::oci::syntax::{ChangeError, lex, refuse};

/// Stages and instructions that a file may have; more is nobody's intention.
const MAX_STEPS: usize = 10_000;

pub(super) fn dockerfile(source: &Source) -> Result<Dockerfile, DockerfileError> {
    let Some(first) = source.lines.first() else {
        return Err(DockerfileError {
            line: 1,
            text: "file with no instructions".to_owned(),
        });
    };
    let mut file = Dockerfile {
        arguments: Vec::new(),
        stages: Vec::new(),
        escape: source.escape,
    };
    for (number, line) in source.lines.iter().enumerate() {
        let at = DockerfileError::at(line.line);
        if number >= MAX_STEPS {
            return Err(at(ChangeError(format!(
                "more than {MAX_STEPS} instructions"
            ))));
        }
        let (name, _) = lex::split(&line.text);
        if name.eq_ignore_ascii_case("FROM") {
            let stage = from(line, source.escape).map_err(at)?;
            file.stages.push(stage);
            continue;
        }
        let instruction = instruction(line, source.escape).map_err(&at)?;
        let step = Step {
            line: line.line,
            text: line.text.clone(),
            instruction,
        };
        match (file.stages.last_mut(), &step.instruction) {
            (Some(stage), _) => stage.steps.push(step),
            (None, Instruction::Arg(_)) => file.arguments.push(step),
            (None, _) => {
                return Err(at(ChangeError(
                    "no build stage in current context".to_owned(),
                )));
            }
        }
    }
    if file.stages.is_empty() {
        return Err(DockerfileError {
            line: first.line,
            text: "no build stage in current context".to_owned(),
        });
    }
    Ok(file)
}

/// Reads what ONBUILD has kept.
pub fn trigger(text: &str) -> Result<Step, ChangeError> {
    let line = Logical {
        line: 0,
        text: text.to_owned(),
        heredocs: Vec::new(),
    };
    Ok(Step {
        line: 0,
        text: text.to_owned(),
        instruction: instruction(&line, '\\')?,
    })
}

fn from(line: &Logical, escape: char) -> Result<Stage, ChangeError> {
    let (_, rest) = lex::split(&line.text);
    let mut flags = Flags::take(rest, escape)?;
    let platform = flags.one("platform")?;
    let rest = flags.rest()?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, as_word, name] if as_word.eq_ignore_ascii_case("as") => (*base, Some(*name)),
        _ => return refuse("FROM requires either one or three arguments"),
    };
    let name = name.map(str::to_ascii_lowercase);
    if let Some(name) = &name {
        let letter = |c: char| c.is_ascii_lowercase();
        let more = |c: char| letter(c) || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if !name.starts_with(letter) || !name.chars().all(more) {
            return refuse(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            ));
        }
        if matches!(name.as_str(), "scratch" | "context") {
            return refuse(format!("the stage name {name:?} is reserved"));
        }
    }
    Ok(Stage {
        line: line.line,
        text: line.text.clone(),
        base: base.to_owned(),
        name,
        platform,
        steps: Vec::new(),
    })
}

fn instruction(line: &Logical, escape: char) -> Result<Instruction, ChangeError> {
    let (name, rest) = lex::split(&line.text);
    let upper = name.to_ascii_uppercase();
    Ok(match upper.as_str() {
        "RUN" => Instruction::Run(run(rest, line, escape)?),
        "COPY" | "ADD" => Instruction::Copy(copy(&upper, rest, line, escape)?),
        "ARG" => Instruction::Arg(arguments(rest, escape)?),
        "SHELL" => match form(rest)? {
            Line::Exec(list) if list.is_empty() => {
                return refuse("SHELL requires at least one argument");
            }
            Line::Exec(list) => Instruction::Shell(list),
            Line::Shell(text) if text.is_empty() => {
                return refuse("SHELL requires at least one argument");
            }
            Line::Shell(_) => return refuse("SHELL requires the arguments to be in JSON form"),
        },
        "MAINTAINER" => match rest {
            "" => return refuse("MAINTAINER requires exactly one argument"),
            name => Instruction::Maintainer(name.to_owned()),
        },
        "CMD" | "ENTRYPOINT" | "ENV" | "LABEL" | "EXPOSE" | "HEALTHCHECK" | "STOPSIGNAL"
        | "USER" | "VOLUME" | "WORKDIR" => Instruction::Change(Change::parse(&line.text, escape)?),
        "ONBUILD" => {
            let change = Change::parse(&line.text, escape)?;
            // What the image's users would stumble over is told here.
            trigger(rest)?;
            Instruction::Change(change)
        }
        _ => return refuse(format!("unknown instruction: {name}")),
    })
}

fn run(rest: &str, line: &Logical, escape: char) -> Result<Run, ChangeError> {
    let mut flags = Flags::take(rest, escape)?;
    let mounts = flags.all("mount")?;
    match flags.one("network")?.as_deref() {
        None | Some("default" | "host") => {}
        Some(other) => {
            return refuse(format!(
                "RUN --network={other} is not supported: a build uses the host's network"
            ));
        }
    }
    match flags.one("security")?.as_deref() {
        None | Some("sandbox") => {}
        Some(other) => {
            return refuse(format!(
                "RUN --security={other} is not allowed: a build gives no further rights"
            ));
        }
    }
    let rest = flags.rest()?;
    if rest.is_empty() {
        return refuse("RUN requires at least one argument");
    }
    let command = match form(rest)? {
        Line::Exec(list) if list.is_empty() => {
            return refuse("RUN requires at least one argument");
        }
        command => command,
    };
    Ok(Run {
        line: command,
        mounts,
        heredocs: line.heredocs.clone(),
    })
}

fn copy(name: &str, rest: &str, line: &Logical, escape: char) -> Result<Copy, ChangeError> {
    let mut flags = Flags::take(rest, escape)?;
    let mut copy = Copy {
        add: name == "ADD",
        chown: flags.one("chown")?,
        chmod: flags.one("chmod")?,
        exclude: flags.all("exclude")?,
        ..Copy::default()
    };
    flags.truth("link")?;
    match copy.add {
        true => {
            copy.checksum = flags.one("checksum")?;
            if flags.truth("keep-git-dir")? {
                return refuse("ADD --keep-git-dir: repositories are not supported as sources");
            }
        }
        false => {
            copy.from = flags.one("from")?;
            copy.parents = flags.truth("parents")?;
        }
    }
    let rest = flags.rest()?;
    let words = match form(rest)? {
        Line::Exec(list) => list,
        Line::Shell(text) => lex::words(&text, escape),
    };
    let (destination, sources) = match words.split_last() {
        Some((destination, sources)) if !sources.is_empty() => (destination, sources),
        _ => {
            return refuse(format!(
                "{name} requires at least two arguments, but only {} provided. Destination could not be determined.",
                if words.is_empty() {
                    "none was"
                } else {
                    "one was"
                }
            ));
        }
    };
    copy.destination = destination.clone();
    let mut texts = line.heredocs.iter();
    for source in sources {
        copy.sources.push(match source::announces(source) {
            true => match texts.next() {
                Some(text) => CopySource::Text(text.clone()),
                None => return refuse(format!("heredoc {source} has no text")),
            },
            false => CopySource::Path(source.clone()),
        });
    }
    if source::announces(destination) {
        return refuse(format!("{name}: the destination cannot be a heredoc"));
    }
    Ok(copy)
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, ChangeError> {
    let words = lex::words(rest, escape);
    if words.is_empty() {
        return refuse("ARG requires at least one argument");
    }
    let argument = |word: &String| match word.split_once('=') {
        Some(("", _)) => refuse("ARG names can not be blank"),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word.clone(), None)),
    };
    words.iter().map(argument).collect()
}

/// `--name=value` in front of the arguments.
struct Flags<'a> {
    found: Vec<(String, Option<String>)>,
    rest: &'a str,
}

impl<'a> Flags<'a> {
    fn take(rest: &'a str, escape: char) -> Result<Flags<'a>, ChangeError> {
        let mut flags = Flags {
            found: Vec::new(),
            rest,
        };
        while flags.rest.starts_with("--") {
            let word = lex::words(flags.rest, escape).into_iter().next();
            let word = word.unwrap_or_default();
            // A word is a piece of the text as it stands.
            flags.rest = flags
                .rest
                .strip_prefix(&word)
                .unwrap_or_default()
                .trim_start();
            if word == "--" {
                break;
            }
            let text = word.trim_start_matches("--");
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(lex::Expand::unquoted(value, escape))),
                None => (text, None),
            };
            flags.found.push((name.to_owned(), value));
        }
        Ok(flags)
    }

    fn all(&mut self, name: &str) -> Result<Vec<String>, ChangeError> {
        let mut values = Vec::new();
        for (_, value) in self.found.extract_if(.., |(found, _)| found == name) {
            match value {
                Some(value) if !value.is_empty() => values.push(value),
                _ => return refuse(format!("missing a value on flag: --{name}")),
            }
        }
        Ok(values)
    }

    fn one(&mut self, name: &str) -> Result<Option<String>, ChangeError> {
        let mut values = self.all(name)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => refuse(format!("duplicate flag specified: --{name}")),
        }
    }

    fn truth(&mut self, name: &str) -> Result<bool, ChangeError> {
        let mut truth = false;
        for (_, value) in self.found.extract_if(.., |(found, _)| found == name) {
            truth = match value.as_deref() {
                None | Some("true") => true,
                Some("false") => false,
                Some(other) => {
                    return refuse(format!(
                        "expecting boolean value for flag {name}, not: {other}"
                    ));
                }
            };
        }
        Ok(truth)
    }

    /// What follows them; none may be left.
    fn rest(self) -> Result<&'a str, ChangeError> {
        match self.found.first() {
            Some((name, _)) => refuse(format!("unknown flag: --{name}")),
            None => Ok(self.rest),
        }
    }
}
