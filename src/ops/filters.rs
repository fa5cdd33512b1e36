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

/// Whether a name is what a filter says: docker's regular expression, anywhere in it. One that is none means the name itself.
pub(in crate::ops) fn is_named(name: &str, pattern: &str) -> bool {
    let expression = regex::bytes::RegexBuilder::new(pattern)
        .unicode(false)
        .build();
    name == pattern || expression.is_ok_and(|expression| expression.is_match(name.as_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_names_are_regular_expressions() {
        for (pattern, expected) in [
            ("web", true),
            ("^web", true),
            ("^web$", false),
            ("^web-1$", true),
            ("^(web|db)-[0-9]+$", true),
            (r"web-\d", true),
            ("w.b", true),
            ("", true),
            ("other", false),
            ("[", false),
        ] {
            assert_eq!(is_named("web-1", pattern), expected, "{pattern}");
        }
        assert!(is_named("[", "["));
    }
}
