//! `.dockerignore`: what of a context a build does not see.
//!
//! Patterns are anchored at the context's root; of those that match a path or a directory above it the last one counts, and
//! one with `!` takes the path in again.

use crate::oci::syntax::pattern::Pattern;

/// The rules of one file.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    /// `!`: what matches is taken in again.
    again: bool,
}

/// A line that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error reading .dockerignore: line {line}: syntax error in pattern: {text:?}")]
pub struct IgnoreError {
    /// Counted from 1.
    pub line: usize,
    /// The pattern.
    pub text: String,
}

/// What the rules say of a directory, for what is in it: one answer per rule.
#[derive(Debug, Clone)]
pub struct Matched(Vec<bool>);

impl Ignore {
    /// Reads the file's text.
    pub fn parse(text: &[u8]) -> Result<Ignore, IgnoreError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut rules = Vec::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            // A comment begins in the first column.
            if line.starts_with(b"#") {
                continue;
            }
            let bad = || IgnoreError {
                line: number + 1,
                text: String::from_utf8_lossy(line.trim_ascii()).into_owned(),
            };
            if let Some(rule) = rule(line.trim_ascii()).map_err(|()| bad())? {
                rules.push(rule);
            }
        }
        Ok(Ignore { rules })
    }

    /// Rules out of patterns that stand alone (`--exclude`).
    pub fn of_patterns(patterns: &[String]) -> Result<Ignore, IgnoreError> {
        let mut rules = Vec::new();
        for (number, text) in patterns.iter().enumerate() {
            let bad = |()| IgnoreError {
                line: number + 1,
                text: text.clone(),
            };
            rules.extend(rule(text.as_bytes()).map_err(bad)?);
        }
        Ok(Ignore { rules })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules say of the context's root.
    pub fn root(&self) -> Matched {
        Matched(vec![false; self.rules.len()])
    }

    /// Whether `path`, in a directory of which the rules say `above`, is left out, and what they say of it.
    pub fn look(&self, path: &[u8], above: &Matched) -> (bool, Matched) {
        let mut left_out = false;
        let mut matched = above.clone();
        for (rule, matched) in self.rules.iter().zip(&mut matched.0) {
            // As docker: a rule that would change nothing here counts for nothing, for what is below either.
            if !*matched && rule.again == left_out {
                *matched = rule.pattern.matches(path);
            }
            if *matched {
                left_out = !rule.again;
            }
        }
        (left_out, matched)
    }

    /// Whether `path` is left out; for tests and single questions.
    pub fn excludes(&self, path: &[u8]) -> bool {
        let (mut left_out, mut matched) = (false, self.root());
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends: Vec<usize> = ends.map(|(at, _)| at).chain([path.len()]).collect();
        for end in ends {
            (left_out, matched) = self.look(path.get(..end).unwrap_or_default(), &matched);
        }
        left_out
    }

    /// Whether something below the left-out directory `dir` could be taken in again.
    pub fn may_take_in_below(&self, dir: &[u8]) -> bool {
        let mut again = self.rules.iter().filter(|rule| rule.again);
        again.any(|rule| rule.pattern.may_match_below(dir))
    }
}

/// One trimmed line; nothing in a blank one.
fn rule(line: &[u8]) -> Result<Option<Rule>, ()> {
    let (again, text) = match line.strip_prefix(b"!") {
        Some(rest) => (true, rest.trim_ascii()),
        None => (false, line),
    };
    if line.is_empty() {
        return Ok(None);
    }
    if text.is_empty() {
        return Err(());
    }
    let text = clean(text);
    let pattern = Pattern::deep(&text).map_err(|_| ())?;
    Ok(Some(Rule { pattern, again }))
}

/// Go's `filepath.Clean` without the leading slash: no `.`, no doubled slashes, `..` taken with what is before it.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let absolute = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => drop(parts.pop()),
                _ if absolute => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    match parts.is_empty() {
        true if absolute => Vec::new(),
        true => b".".to_vec(),
        false => parts.join(&b'/'),
    }
}
