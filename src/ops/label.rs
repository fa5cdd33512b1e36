//! What a label has to be: docker's filter of that name.

use std::collections::BTreeMap;

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
