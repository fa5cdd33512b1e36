//! Words, and the expansion of variables, as docker's Dockerfile parser has them.

use super::substitution;
use super::{ChangeError, refuse};

/// The first word, and what follows it.
pub(in crate::oci) fn split(line: &str) -> (&str, &str) {
    let line = line.trim();
    match line.split_once(char::is_whitespace) {
        Some((name, rest)) => (name, rest.trim()),
        None => (line, ""),
    }
}

/// Words separated by blanks; quotes and escapes bind and are kept.
pub(in crate::oci) fn words(text: &str, escape: char) -> Vec<String> {
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
        if c == escape
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
pub(in crate::oci) fn pairs(
    instruction: &str,
    rest: &str,
    escape: char,
) -> Result<Vec<(String, String)>, ChangeError> {
    let words = words(rest, escape);
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

/// How variables are replaced.
#[derive(Debug, Clone, Copy)]
pub struct Expand<'a> {
    /// `NAME=value`; of a name that is there twice the first counts.
    pub env: &'a [String],
    /// What takes the meaning of the next character away.
    pub escape: char,
    /// Quotes are characters as any other, and so are escapes but before `$` and themselves: the text of a heredoc.
    pub raw: bool,
}

impl<'a> Expand<'a> {
    /// Without variables: removes quotes and escapes.
    pub fn plain(escape: char) -> Expand<'a> {
        Expand {
            env: &[],
            escape,
            raw: false,
        }
    }

    /// A text without its quotes; variables stay. One with a quote that nothing ends stays as it is.
    pub(in crate::oci) fn unquoted(text: &str, escape: char) -> String {
        let (mut out, mut quote) = (String::new(), None);
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match (quote, c) {
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (open, c) if c == escape && open != Some('\'') => {
                    out.push(c);
                    out.extend(characters.next());
                }
                (_, c) => out.push(c),
            }
        }
        match quote {
            Some(_) => text.to_owned(),
            None => out,
        }
    }

    /// Removes quotes and escapes and puts values in the place of variables.
    pub fn word(&self, word: &str) -> Result<String, ChangeError> {
        let mut lex = Lex {
            most: MAX_VALUE.max(word.len().saturating_mul(2)),
            rest: word.chars().peekable(),
            how: *self,
            depth: 0,
        };
        lex.until(None)
    }
}

/// The longest value that variables make, far above what a program can be given; a few lines could double one to any length.
const MAX_VALUE: usize = 1 << 20;
/// Substitutions inside of substitutions: more is nobody's intention.
const MAX_DEPTH: usize = 64;

struct Lex<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    how: Expand<'a>,
    depth: usize,
    /// Bytes that come of it at most.
    most: usize,
}

impl Lex<'_> {
    /// Expands up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<String, ChangeError> {
        let mut out = String::new();
        let (escape, raw) = (self.how.escape, self.how.raw);
        loop {
            self.bounded(&out)?;
            let Some(c) = self.rest.next() else {
                return match stop {
                    Some(_) => refuse("unexpected end of statement while looking for matching }"),
                    None => Ok(out),
                };
            };
            match c {
                c if stop == Some(c) => return Ok(out),
                '\'' if !raw => self.single(&mut out)?,
                '"' if !raw => self.double(&mut out)?,
                '$' => out.push_str(&self.dollar()?),
                c if c == escape && !raw => out.extend(self.rest.next()),
                c if c == escape => match self.rest.next_if(|next| *next == '$' || *next == escape)
                {
                    Some(next) => out.push(next),
                    None => out.push(c),
                },
                c => out.push(c),
            }
        }
    }

    fn bounded(&self, out: &str) -> Result<(), ChangeError> {
        match out.len() > self.most {
            true => refuse("the value that variables make is too long"),
            false => Ok(()),
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
            self.bounded(out)?;
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.dollar()?),
                c if c == self.how.escape => match self.rest.peek().copied() {
                    Some(next) if matches!(next, '"' | '$') || next == c => {
                        out.extend(self.rest.next());
                    }
                    _ => out.push(c),
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
            Some(':') => match self.rest.next() {
                // Only these ask whether there is something.
                modifier @ Some('+' | '-' | '?') => modifier,
                Some(other) => {
                    return refuse(format!("unsupported modifier (:{other}) in substitution"));
                }
                None => None,
            },
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
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return refuse("substitutions are nested too deeply");
        }
        let done = self.substitute(modifier, name, value);
        self.depth -= 1;
        done
    }

    fn substitute(
        &mut self,
        modifier: char,
        name: &str,
        value: Option<String>,
    ) -> Result<String, ChangeError> {
        match modifier {
            '+' | '-' | '?' => {}
            '#' | '%' => {
                let longest = self.rest.next_if_eq(&modifier).is_some();
                let pattern = self.until(Some('}'))?;
                let value = measured(value, &pattern)?;
                return Ok(substitution::cut(
                    &value,
                    &pattern,
                    modifier == '%',
                    longest,
                ));
            }
            '/' => {
                let all = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.pattern()?;
                let new = self.until(Some('}'))?;
                let value = measured(value, &pattern)?;
                return Ok(substitution::replace(&value, &pattern, &new, all));
            }
            _ => return refuse(format!("unsupported modifier ({modifier}) in substitution")),
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

    /// What `${x/` replaces, up to the next slash, which is taken; escapes stay for the pattern.
    fn pattern(&mut self) -> Result<String, ChangeError> {
        let mut out = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                '/' => return Ok(out),
                '}' => break,
                '$' => out.push_str(&self.dollar()?),
                c if c == self.how.escape => {
                    out.push('\\');
                    out.extend(self.rest.next());
                }
                c => out.push(c),
            }
        }
        refuse("syntax error: missing '/' in ${}")
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
        self.how
            .env
            .iter()
            .filter_map(|line| line.split_once('='))
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value.to_owned())
    }
}

/// A value that a pattern is looked for in: the search costs its length twice, times that of the pattern.
fn measured(value: Option<String>, pattern: &str) -> Result<String, ChangeError> {
    const MOST: usize = 1 << 28;
    let value = value.unwrap_or_default();
    let square = value.len().saturating_mul(value.len());
    match square.saturating_mul(pattern.len()) > MOST {
        true => refuse("the value is too long to look for a pattern in it"),
        false => Ok(value),
    }
}
