//! `${x#..}`, `${x%..}`, `${x/../..}`: patterns on values, in which `*` is anything and `?` any character.

enum Token {
    Star,
    Any,
    Char(char),
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut characters = pattern.chars();
    let mut out = Vec::new();
    while let Some(c) = characters.next() {
        out.push(match c {
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => match characters.next() {
                Some(next) => Token::Char(next),
                None => Token::Char('\\'),
            },
            c => Token::Char(c),
        });
    }
    out
}

/// The lengths of beginnings of `text` that match, ascending.
fn beginnings(tokens: &[Token], text: &[char]) -> Vec<usize> {
    let mut reached = vec![false; text.len() + 1];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for token in tokens {
        #[cfg(test)]
        super::pattern::LOOKED_AT.set(super::pattern::LOOKED_AT.get() + text.len() + 1);
        let mut next = vec![false; text.len() + 1];
        let mut open = false;
        for (at, slot) in next.iter_mut().enumerate() {
            let here = reached.get(at).copied().unwrap_or(false);
            let before = at
                .checked_sub(1)
                .and_then(|i| Some((*text.get(i)?, reached.get(i).copied()?)));
            *slot = match (token, before) {
                (Token::Star, _) => {
                    open |= here;
                    open
                }
                (Token::Any, Some((_, from))) => from,
                (Token::Char(wanted), Some((c, from))) => from && c == *wanted,
                (_, None) => false,
            };
        }
        reached = next;
    }
    let lengths = reached.iter().enumerate();
    lengths
        .filter(|(_, reached)| **reached)
        .map(|(at, _)| at)
        .collect()
}

/// Takes a beginning, or an end, away.
pub(super) fn cut(value: &str, pattern: &str, end: bool, longest: bool) -> String {
    let mut text: Vec<char> = value.chars().collect();
    let mut tokens = tokens(pattern);
    if end {
        text.reverse();
        tokens.reverse();
    }
    let lengths = beginnings(&tokens, &text);
    let length = match longest {
        true => lengths.last(),
        false => lengths.first(),
    };
    let mut rest = text.split_off(length.copied().unwrap_or(0));
    if end {
        rest.reverse();
    }
    rest.into_iter().collect()
}

/// Puts `new` in the place of the first match, or of all.
pub(super) fn replace(value: &str, pattern: &str, new: &str, all: bool) -> String {
    let text: Vec<char> = value.chars().collect();
    let tokens = tokens(pattern);
    let (mut out, mut at, mut done) = (String::new(), 0, false);
    while let Some(rest) = text.get(at..) {
        let longest = match done && !all {
            true => None,
            false => beginnings(&tokens, rest).last().copied().filter(|n| *n > 0),
        };
        match (longest, rest.first()) {
            (Some(length), _) => {
                out.push_str(new);
                at += length;
                done = true;
            }
            (None, Some(c)) => {
                out.push(*c);
                at += 1;
            }
            (None, None) => break,
        }
    }
    out
}
