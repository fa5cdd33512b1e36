//! Changes to an image's config in Dockerfile grammar: what `commit -c` and `import -c` take.
//!
//! Grammar and effect are docker's: the texts are joined to one Dockerfile, comments and continuation lines included; the
//! shell form of CMD and ENTRYPOINT gets the image's SHELL in front; values are expanded with the environment as it is
//! before their instruction; ENTRYPOINT without CMD drops the image's command. One thing differs: `ENTRYPOINT []`
//! takes the entry point away and keeps the command (docker's commit leaves everything as it was).
//!
//! Only what changes a config is accepted: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME
//! WORKDIR.

mod health;
mod value;

use super::config::{Healthcheck, RunConfig};
pub use super::syntax::ChangeError;
use super::syntax::lex::{self, Expand};
use super::syntax::{refuse, source};

/// One instruction, parsed; values are expanded when it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change(Instruction);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Instruction {
    Cmd(Line),
    Entrypoint(Line),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<(String, String)>),
    Onbuild(String),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// The two forms of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// A JSON array.
    Exec(Vec<String>),
    /// Anything else: one text for a shell.
    Shell(String),
}

/// Reads changes, all or none. Each text may be several lines.
pub fn parse<S: AsRef<str>>(changes: &[S]) -> Result<Vec<Change>, ChangeError> {
    let texts: Vec<&str> = changes.iter().map(AsRef::as_ref).collect();
    let source = source::read(texts.join("\n").as_bytes());
    let source = source.map_err(|error| ChangeError(error.text))?;
    let line = |line: &source::Logical| Change::parse(&line.text, source.escape);
    source.lines.iter().map(line).collect()
}

/// Applies `changes` in order.
pub fn apply(changes: &[Change], config: &mut RunConfig) -> Result<(), ChangeError> {
    let mut cmd_set = false;
    for change in changes {
        let env = config.env.clone();
        let expand = Expand {
            env: &env,
            ..Expand::plain('\\')
        };
        change.apply(config, &expand, &mut cmd_set)?;
    }
    Ok(())
}

impl Change {
    /// Reads one instruction.
    pub fn parse(line: &str, escape: char) -> Result<Change, ChangeError> {
        instruction(line, escape).map(Change)
    }

    /// Applies it. `cmd_set`: the command was set by an instruction before, not by the image below. The answer is the
    /// instruction with its values, as docker's history says it.
    pub fn apply(
        &self,
        config: &mut RunConfig,
        expand: &Expand<'_>,
        cmd_set: &mut bool,
    ) -> Result<String, ChangeError> {
        let expanded = |word: &String| expand.word(word);
        Ok(match &self.0 {
            Instruction::Cmd(line) => {
                let command = command(line, config);
                let text = format!("CMD {}", quoted(&command));
                config.cmd = Some(command);
                config.args_escaped = false;
                *cmd_set = true;
                text
            }
            Instruction::Entrypoint(line) => {
                let command = command(line, config);
                let text = format!("ENTRYPOINT {}", quoted(&command));
                let line = Some(command).filter(|line| !line.is_empty());
                if line.is_some() && !*cmd_set {
                    config.cmd = None;
                }
                config.entrypoint = line;
                text
            }
            Instruction::Env(pairs) => {
                let mut text = "ENV".to_owned();
                let mut env = config.env.clone();
                for (name, value) in pairs {
                    let (name, value) = (expanded(name)?, expanded(value)?);
                    if name.is_empty() {
                        return refuse("ENV names can not be blank");
                    }
                    set_env(&mut env, &name, &value);
                    text.push_str(&format!(" {name}={value}"));
                }
                config.env = env;
                text
            }
            Instruction::Expose(specs) => {
                let mut ports = Vec::new();
                for spec in specs {
                    for word in lex::words(&expanded(spec)?, expand.escape) {
                        ports.extend(value::ports(&word)?);
                    }
                }
                let text = format!("EXPOSE {}", specs.join(" "));
                config.exposed_ports.extend(ports);
                config.exposed_ports.sort();
                config.exposed_ports.dedup();
                text
            }
            Instruction::Healthcheck(check) => {
                config.healthcheck = Some(check.clone());
                format!("HEALTHCHECK {}", quoted(&check.test))
            }
            Instruction::Label(pairs) => {
                let mut text = "LABEL".to_owned();
                for (name, value) in pairs {
                    let (name, value) = (expanded(name)?, expanded(value)?);
                    if name.is_empty() {
                        return refuse("LABEL names can not be blank");
                    }
                    text.push_str(&format!(" {name}={value}"));
                    config.labels.insert(name, value);
                }
                text
            }
            Instruction::Onbuild(trigger) => {
                config.on_build.push(trigger.clone());
                format!("ONBUILD {trigger}")
            }
            Instruction::Stopsignal(signal) => {
                let signal = expanded(signal)?;
                value::check_signal(&signal)?;
                config.stop_signal = signal;
                format!("STOPSIGNAL {}", config.stop_signal)
            }
            Instruction::User(user) => {
                config.user = expanded(user)?;
                format!("USER {}", config.user)
            }
            Instruction::Volume(paths) => {
                let mut text = Vec::new();
                for path in paths {
                    let path = expanded(path)?.trim().to_owned();
                    if path.is_empty() {
                        return refuse("VOLUME specified can not be an empty string");
                    }
                    text.push(path.clone());
                    config.volumes.push(path);
                }
                config.volumes.sort();
                config.volumes.dedup();
                format!("VOLUME [{}]", text.join(" "))
            }
            Instruction::Workdir(path) => {
                config.working_dir = value::working_dir(&config.working_dir, &expanded(path)?)?;
                format!("WORKDIR {}", config.working_dir)
            }
        })
    }

    /// Whether it is a WORKDIR: a build makes the directory.
    pub fn is_workdir(&self) -> bool {
        matches!(self.0, Instruction::Workdir(_))
    }
}

/// `["a" "b"]`, as Go prints a list of texts.
fn quoted(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// The arguments a form stands for in this image.
fn command(line: &Line, config: &RunConfig) -> Vec<String> {
    match line {
        Line::Exec(arguments) => arguments.clone(),
        Line::Shell(text) if text.is_empty() => Vec::new(),
        Line::Shell(text) => {
            let mut arguments = config.shell_or_default();
            arguments.push(text.clone());
            arguments
        }
    }
}

/// Sets `NAME=value`, in the place of an earlier value.
fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    let same = |have: &&mut String| have.split('=').next() == Some(name);
    match env.iter_mut().find(same) {
        Some(have) => *have = line,
        None => env.push(line),
    }
}

/// Reads one line.
fn instruction(line: &str, escape: char) -> Result<Instruction, ChangeError> {
    let (name, rest) = lex::split(line);
    let upper = name.to_ascii_uppercase();
    Ok(match upper.as_str() {
        "CMD" => Instruction::Cmd(form(rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(form(rest)?),
        "ENV" => Instruction::Env(lex::pairs("ENV", rest, escape)?),
        "LABEL" => Instruction::Label(lex::pairs("LABEL", rest, escape)?),
        "EXPOSE" => {
            let specs: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            if specs.is_empty() {
                return refuse("EXPOSE requires at least one argument");
            }
            Instruction::Expose(specs)
        }
        "HEALTHCHECK" => Instruction::Healthcheck(health::parse(rest)?),
        "ONBUILD" => Instruction::Onbuild(trigger(rest)?),
        "STOPSIGNAL" => Instruction::Stopsignal(one(&upper, rest)?),
        "USER" => Instruction::User(one(&upper, rest)?),
        "WORKDIR" => Instruction::Workdir(one(&upper, rest)?),
        "VOLUME" => {
            let paths = match form(rest)? {
                Line::Exec(paths) => paths,
                Line::Shell(text) => text.split_whitespace().map(str::to_owned).collect(),
            };
            if paths.is_empty() {
                return refuse("VOLUME requires at least one argument");
            }
            Instruction::Volume(paths)
        }
        _ => return refuse(format!("{name} is not a valid change command")),
    })
}

/// The rest of a line as one argument: these instructions take the line as it is, blanks and all.
fn one(name: &str, rest: &str) -> Result<String, ChangeError> {
    match rest {
        "" => refuse(format!("{name} requires exactly one argument")),
        rest => Ok(rest.to_owned()),
    }
}

pub(super) fn form(rest: &str) -> Result<Line, ChangeError> {
    Ok(match value::json_array(rest)? {
        Some(list) => Line::Exec(list),
        None => Line::Shell(rest.to_owned()),
    })
}

/// What ONBUILD keeps: the line behind it.
fn trigger(rest: &str) -> Result<String, ChangeError> {
    let (name, _) = lex::split(rest);
    match name.to_ascii_uppercase().as_str() {
        "" => refuse("ONBUILD requires at least one argument"),
        "ONBUILD" => refuse("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        upper @ ("FROM" | "MAINTAINER") => {
            refuse(format!("{upper} isn't allowed as an ONBUILD trigger"))
        }
        _ => Ok(rest.to_owned()),
    }
}

#[cfg(test)]
mod tests;
