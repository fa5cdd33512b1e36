//! What instructions are written in: lines, words, variables, and patterns, as BuildKit's parser has them. Pure.

pub(super) mod lex;
pub mod pattern;
pub mod source;
mod substitution;

/// Why a change is refused, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChangeError(pub(super) String);

pub(super) fn refuse<T>(text: impl Into<String>) -> Result<T, ChangeError> {
    Err(ChangeError(text.into()))
}
