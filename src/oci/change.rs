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
mod lex;
mod value;

use super::config::{Healthcheck, RunConfig};

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
enum Line {
    /// A JSON array.
    Exec(Vec<String>),
    /// Anything else: one text for a shell.
    Shell(String),
}

/// Why a change is refused, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChangeError(pub(super) String);

fn refuse<T>(text: impl Into<String>) -> Result<T, ChangeError> {
    Err(ChangeError(text.into()))
}

/// Reads changes, all or none. Each text may be several lines.
pub fn parse<S: AsRef<str>>(changes: &[S]) -> Result<Vec<Change>, ChangeError> {
    let texts: Vec<&str> = changes.iter().map(AsRef::as_ref).collect();
    let mut parsed = Vec::new();
    for line in lex::lines(&texts.join("\n")) {
        parsed.push(Change(instruction(&line)?));
    }
    Ok(parsed)
}

/// Applies `changes` in order.
pub fn apply(changes: &[Change], config: &mut RunConfig) -> Result<(), ChangeError> {
    let mut cmd_set = false;
    for Change(instruction) in changes {
        let env = config.env.clone();
        let expand = |word: &String| lex::expand(word, &env);
        match instruction {
            Instruction::Cmd(line) => {
                config.cmd = Some(command(line, config));
                config.args_escaped = false;
                cmd_set = true;
            }
            Instruction::Entrypoint(line) => {
                let line = Some(command(line, config)).filter(|line| !line.is_empty());
                if line.is_some() && !cmd_set {
                    config.cmd = None;
                }
                config.entrypoint = line;
            }
            Instruction::Env(pairs) => {
                for (name, value) in pairs {
                    let (name, value) = (expand(name)?, expand(value)?);
                    if name.is_empty() {
                        return refuse("ENV names can not be blank");
                    }
                    set_env(&mut config.env, &name, &value);
                }
            }
            Instruction::Expose(specs) => {
                for spec in specs {
                    for word in lex::words(&expand(spec)?) {
                        config.exposed_ports.extend(value::ports(&word)?);
                    }
                }
                config.exposed_ports.sort();
                config.exposed_ports.dedup();
            }
            Instruction::Healthcheck(check) => {
                config.healthcheck = Some(check.clone());
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    let (name, value) = (expand(name)?, expand(value)?);
                    if name.is_empty() {
                        return refuse("LABEL names can not be blank");
                    }
                    config.labels.insert(name, value);
                }
            }
            Instruction::Onbuild(trigger) => config.on_build.push(trigger.clone()),
            Instruction::Stopsignal(signal) => {
                let signal = expand(signal)?;
                value::check_signal(&signal)?;
                config.stop_signal = signal;
            }
            Instruction::User(user) => config.user = expand(user)?,
            Instruction::Volume(paths) => {
                for path in paths {
                    let path = expand(path)?.trim().to_owned();
                    if path.is_empty() {
                        return refuse("VOLUME specified can not be an empty string");
                    }
                    config.volumes.push(path);
                }
                config.volumes.sort();
                config.volumes.dedup();
            }
            Instruction::Workdir(path) => {
                config.working_dir = value::working_dir(&config.working_dir, &expand(path)?)?;
            }
        }
    }
    Ok(())
}

/// The arguments a form stands for in this image.
fn command(line: &Line, config: &RunConfig) -> Vec<String> {
    match line {
        Line::Exec(arguments) => arguments.clone(),
        Line::Shell(text) if text.is_empty() => Vec::new(),
        Line::Shell(text) => {
            let mut arguments = match &config.shell {
                Some(shell) if !shell.is_empty() => shell.clone(),
                _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            };
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
fn instruction(line: &str) -> Result<Instruction, ChangeError> {
    let (name, rest) = lex::split(line);
    let upper = name.to_ascii_uppercase();
    Ok(match upper.as_str() {
        "CMD" => Instruction::Cmd(form(rest)?),
        "ENTRYPOINT" => Instruction::Entrypoint(form(rest)?),
        "ENV" => Instruction::Env(lex::pairs("ENV", rest)?),
        "LABEL" => Instruction::Label(lex::pairs("LABEL", rest)?),
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

fn form(rest: &str) -> Result<Line, ChangeError> {
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
