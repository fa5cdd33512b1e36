//! What the filters of all nouns share: labels, and what is wrong with a filter.

use std::collections::BTreeMap;

/// A filter that there is not, or not so. docker's words.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// There is none of that name.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// It does not take that value.
    #[error("invalid filter '{name}=[{value}]'")]
    Value {
        /// The filter.
        name: String,
        /// As given.
        value: String,
    },
    /// `until` twice.
    #[error("more than one until filter specified")]
    ManyUntil,
    /// `used` twice.
    #[error("more than one used filter specified")]
    ManyUsed,
    /// A malformed glob.
    #[error("syntax error in pattern: {0:?}")]
    Pattern(String),
}

/// `KEY` or `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    key: String,
    value: Option<String>,
}

impl Label {
    pub(in crate::ops) fn parse(text: &str) -> Label {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        Label {
            key: key.to_owned(),
            value,
        }
    }

    pub(in crate::ops) fn is_in(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        found.is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}
