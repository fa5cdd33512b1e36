//! Dockerfiles: the grammar of `mica build`, and of the changes that `commit -c` and `import -c` take. Pure.
//!
//! The rules are BuildKit's: stages, heredocs, `# escape=`, flags. What only changes an image's configuration is
//! [`Change`](super::Change), in one grammar for all three verbs. A mistake is told with its line and docker's words; values are
//! expanded when an instruction is carried out.

pub mod ignore;
mod read;

pub use super::syntax::lex::Expand;
pub use super::syntax::source::{DockerfileError, Heredoc};
pub use super::syntax::{pattern, source};
pub use read::trigger;

use super::change::{Change, Line};

/// A Dockerfile, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// ARG before the first FROM.
    pub arguments: Vec<Step>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// The character that continues lines and takes meanings away.
    pub escape: char,
}

/// What follows one FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Where its FROM is.
    pub line: usize,
    /// The FROM as it is written.
    pub text: String,
    /// The base: an image, an earlier stage, or `scratch`; variables are not replaced yet.
    pub base: String,
    /// `AS`, in lower case.
    pub name: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// What is done.
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it is.
    pub line: usize,
    /// As it is written.
    pub text: String,
    /// What it is.
    pub instruction: Instruction,
}

/// An instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Names, with their defaults.
    Arg(Vec<(String, Option<String>)>),
    /// A command to run.
    Run(Run),
    /// COPY and ADD.
    Copy(Copy),
    /// The shell of what follows.
    Shell(Vec<String>),
    /// The image's author.
    Maintainer(String),
    /// What changes the configuration.
    Change(Change),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub line: Line,
    /// `--mount`, as written.
    pub mounts: Vec<String>,
    /// Texts that belong to it.
    pub heredocs: Vec<Heredoc>,
}

/// COPY or ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// ADD: takes archives apart and gets URLs.
    pub add: bool,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// `--checksum`.
    pub checksum: Option<String>,
    /// What is copied.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub destination: String,
}

/// What a COPY takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, a pattern or a URL.
    Path(String),
    /// A text of the Dockerfile.
    Text(Heredoc),
}

impl Dockerfile {
    /// Reads one.
    pub fn parse(bytes: &[u8]) -> Result<Dockerfile, DockerfileError> {
        read::dockerfile(&source::read(bytes)?)
    }

    /// The stage that a name or a number means, of those before `before`.
    pub fn stage_before(&self, name: &str, before: usize) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        let earlier = self.stages.get(..before)?;
        let named = earlier
            .iter()
            .rposition(|stage| stage.name.as_ref() == Some(&lower));
        let number = || name.parse().ok().filter(|number| *number < before);
        named.or_else(number)
    }
}

#[cfg(test)]
mod tests;
