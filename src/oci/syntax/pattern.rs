//! Patterns of paths: Go's `filepath.Match`, and what `.dockerignore` adds to it.
//!
//! A path is bytes; a character is one of UTF-8, or one byte that is none. Time is pattern times path, whatever the pattern.

/// A pattern that Go refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPattern;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// `*`: any characters but `/`.
    Star,
    /// `**` at the end, or at the beginning and nothing special behind it: anything.
    Rest,
    /// `**` before something: nothing, or anything that ends with `/`.
    Directories,
    /// `?`: one character but `/`.
    Any,
    Char(u32),
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
        /// Whether `/` is a character as any other, as in docker's patterns.
        slash: bool,
    },
}

/// What is no plain character of a pattern.
const SPECIAL: &[u32] = &['*' as u32, '?' as u32, '[' as u32, ']' as u32, '\\' as u32];

/// A parsed pattern. It matches whole paths, `/` between the components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

impl Pattern {
    /// Whether a text is more than a name.
    pub fn is_pattern(text: &[u8]) -> bool {
        text.iter().any(|byte| b"*?[\\".contains(byte))
    }

    /// A pattern of `filepath.Match`: two stars are as one.
    pub fn new(text: &[u8]) -> Result<Pattern, BadPattern> {
        Pattern::parse(text, false)
    }

    /// A pattern in which `**` stands for any number of directories.
    pub fn deep(text: &[u8]) -> Result<Pattern, BadPattern> {
        Pattern::parse(text, true)
    }

    fn parse(text: &[u8], deep: bool) -> Result<Pattern, BadPattern> {
        let characters = characters(text);
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(c) = characters.get(at).copied() {
            at += 1;
            let next = characters.get(at).copied();
            tokens.push(match char::from_u32(c) {
                Some('*') if deep && next == Some('*'.into()) => {
                    at += 1;
                    if characters.get(at) == Some(&'/'.into()) {
                        at += 1;
                    }
                    let rest = characters.get(at..).unwrap_or_default();
                    let plain = !rest.iter().any(|c| SPECIAL.contains(c));
                    match rest.first() {
                        None => Token::Rest,
                        // docker looks whether the path ends so.
                        Some(_) if tokens.is_empty() && at == 2 && plain => Token::Rest,
                        Some(_) => Token::Directories,
                    }
                }
                Some('*') => Token::Star,
                Some('?') => Token::Any,
                Some('\\') => {
                    at += 1;
                    Token::Char(next.ok_or(BadPattern)?)
                }
                Some('[') => class(&characters, &mut at, deep)?,
                _ => Token::Char(c),
            });
        }
        Ok(Pattern(tokens))
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.reach(path).last().copied().unwrap_or(false)
    }

    /// For each number of leading characters of `path`, whether the whole pattern can end there.
    fn reach(&self, path: &[u8]) -> Vec<bool> {
        let path = characters(path);
        let mut reached = vec![false; path.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for token in &self.0 {
            reached = step(token, &path, &reached);
        }
        reached
    }

    /// Whether some path below the directory `dir` could match.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        let path = characters(&[dir, b"/"].concat());
        let mut reached = vec![false; path.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for token in &self.0 {
            if matches!(token, Token::Rest | Token::Directories) && reached.contains(&true) {
                return true;
            }
            reached = step(token, &path, &reached);
            if reached.last() == Some(&true) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
thread_local! {
    /// What this thread has looked at, for tests of what it costs.
    pub(in crate::oci) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn step(token: &Token, path: &[u32], reached: &[bool]) -> Vec<bool> {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + path.len() + 1);
    let slash = u32::from('/');
    let mut next = vec![false; path.len() + 1];
    let mut open = false;
    for (at, slot) in next.iter_mut().enumerate() {
        let here = reached.get(at).copied().unwrap_or(false);
        let before = at
            .checked_sub(1)
            .and_then(|i| Some((*path.get(i)?, reached.get(i).copied().unwrap_or(false))));
        *slot = match (token, before) {
            (Token::Star, before) => {
                open = here || (open && before.is_some_and(|(c, _)| c != slash));
                open
            }
            (Token::Rest, _) => {
                open |= here;
                open
            }
            (Token::Directories, before) => {
                let ends = open && before.is_some_and(|(c, _)| c == slash);
                open |= here;
                here || ends
            }
            (_, None) => false,
            (Token::Any, Some((c, from))) => from && c != slash,
            (Token::Char(wanted), Some((c, from))) => from && c == *wanted,
            (
                Token::Class {
                    negated,
                    ranges,
                    slash: any,
                },
                Some((c, from)),
            ) => {
                let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                from && (*any || c != slash) && within != *negated
            }
        };
    }
    next
}

/// `[a-z]`, `[^a-z]`; the `[` is taken.
fn class(characters: &[u32], at: &mut usize, slash: bool) -> Result<Token, BadPattern> {
    let mut take = || {
        let c = characters.get(*at).copied();
        *at += 1;
        c
    };
    let mut c = take();
    let negated = c == Some('^'.into());
    if negated {
        c = take();
    }
    let mut ranges = Vec::new();
    loop {
        let literal = |c: Option<u32>, take: &mut dyn FnMut() -> Option<u32>| match c {
            Some(c) if c == u32::from('\\') => take().ok_or(BadPattern),
            Some(c) if c == u32::from('-') => Err(BadPattern),
            Some(c) => Ok(c),
            None => Err(BadPattern),
        };
        if c == Some(']'.into()) && !ranges.is_empty() {
            return Ok(Token::Class {
                negated,
                ranges,
                slash,
            });
        }
        if c == Some(']'.into()) {
            return Err(BadPattern);
        }
        let low = literal(c, &mut take)?;
        c = take();
        let mut high = low;
        if c == Some('-'.into()) {
            let end = take();
            high = match end {
                Some(end) if end == u32::from(']') => return Err(BadPattern),
                end => literal(end, &mut take)?,
            };
            c = take();
        }
        ranges.push((low, high));
    }
}

/// Characters; a byte that is no UTF-8 is a number above all of them.
fn characters(bytes: &[u8]) -> Vec<u32> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().map(u32::from));
        out.extend(
            chunk
                .invalid()
                .iter()
                .map(|byte| 0x11_0000 + u32::from(*byte)),
        );
    }
    out
}
