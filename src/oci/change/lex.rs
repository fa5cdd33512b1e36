//! Lines, words, and the expansion of variables, as docker's Dockerfile parser has them.

use super::{ChangeError, refuse};

/// The instructions of a Dockerfile: comments and blank lines dropped, continued lines joined.
pub(super) fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        // A comment or a blank line inside a continued instruction does not end it.
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let end = line.trim_end_matches([' ', '\t']);
        match end.strip_suffix('\\') {
            Some(part) => pending.push_str(part),
            None => {
                pending.push_str(line);
                lines.push(std::mem::take(&mut pending).trim().to_owned());
            }
        }
    }
    if !pending.trim().is_empty() {
        lines.push(pending.trim().to_owned());
    }
    lines
}

/// The first word, and what follows it.
pub(super) fn split(line: &str) -> (&str, &str) {
    let line = line.trim();
    match line.split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (line, ""),
    }
}

/// Words separated by blanks; quotes and escapes bind and are kept.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        // An escaped character never ends a word or a quote; single quotes know no escapes.
        if c == '\\'
            && quote != Some('\'')
            && let Some(next) = characters.next()
        {
            word.push(next);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `NAME=value NAME=value` or `NAME all the rest`.
pub(super) fn pairs(instruction: &str, rest: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let words = words(rest);
    let Some(first) = words.first() else {
        return refuse(format!("{instruction} requires at least one argument"));
    };
    if !first.contains('=') {
        return match split(rest) {
            (_, "") => refuse(format!("{instruction} must have two arguments")),
            (name, value) => Ok(vec![(name.to_owned(), value.to_owned())]),
        };
    }
    let pair = |word: &String| match word.split_once('=') {
        Some(("", _)) => refuse(format!("{instruction} names can not be blank")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => refuse(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        )),
    };
    words.iter().map(pair).collect()
}

/// Removes quotes and escapes and puts values in the place of variables.
pub(super) fn expand(word: &str, env: &[String]) -> Result<String, ChangeError> {
    let mut lex = Lex {
        rest: word.chars().peekable(),
        env,
    };
    lex.until(None)
}

struct Lex<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    env: &'a [String],
}

impl Lex<'_> {
    /// Expands up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, ChangeError> {
        let mut out = String::new();
        loop {
            let Some(c) = self.rest.next() else {
                return match stop {
                    Some('}') => refuse("unexpected end of statement while looking for matching }"),
                    _ => Ok(out),
                };
            };
            match c {
                c if stop == Some(c) => return Ok(out),
                '\'' => self.single(&mut out)?,
                '"' => self.double(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                '\\' => out.extend(self.rest.next()),
                c => out.push(c),
            }
        }
    }

    fn single(&mut self, out: &mut String) -> Result<(), ChangeError> {
        for c in self.rest.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        refuse("unexpected end of statement while looking for matching single-quote")
    }

    fn double(&mut self, out: &mut String) -> Result<(), ChangeError> {
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.dollar()?),
                '\\' => match self.rest.peek() {
                    Some('"' | '$' | '\\') => out.extend(self.rest.next()),
                    _ => out.push('\\'),
                },
                c => out.push(c),
            }
        }
        refuse("unexpected end of statement while looking for matching double-quote")
    }

    /// What stands behind a `$`.
    fn dollar(&mut self) -> Result<String, ChangeError> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(match name.as_str() {
                "" => "$".to_owned(),
                name => self.value(name).unwrap_or_default(),
            });
        }
        let name = self.name();
        if name.is_empty() {
            return refuse("syntax error: bad substitution");
        }
        let value = self.value(&name);
        let colon = match self.rest.next() {
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(':') => self.rest.next(),
            other => {
                // `${x-y}` asks whether x is set, `${x:-y}` whether it is more than nothing.
                return self.modified(other, &name, value);
            }
        };
        self.modified(colon, &name, value.filter(|value| !value.is_empty()))
    }

    fn modified(
        &mut self,
        modifier: Option<char>,
        name: &str,
        value: Option<String>,
    ) -> Result<String, ChangeError> {
        let Some(modifier) = modifier else {
            return refuse("unexpected end of statement while looking for matching }");
        };
        if !matches!(modifier, '+' | '-' | '?') {
            return refuse(format!("unsupported modifier ({modifier}) in substitution"));
        }
        let word = self.until(Some('}'))?;
        match (modifier, value) {
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            ('-', None) => Ok(word),
            (_, None) if word.is_empty() => refuse(format!("{name}: is not allowed to be unset")),
            (_, None) => refuse(format!("{name}: {word}")),
        }
    }

    /// A name: letters, digits and `_`; a name that begins with a digit is that one digit.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .rest
            .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
        {
            name.push(c);
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                break;
            }
        }
        name
    }

    fn value(&self, name: &str) -> Option<String> {
        self.env
            .iter()
            .filter_map(|line| line.split_once('='))
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value.to_owned())
    }
}
