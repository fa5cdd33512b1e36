//! Text and actions, and the tokens of an action. A position is the number of bytes that follow it.

use crate::text::template::Fault;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// As it is.
    Text(String),
    /// An action.
    Action(Vec<Placed>),
}

/// A token and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    /// The token.
    pub token: Token,
    /// Bytes of the template from its beginning on.
    pub left: usize,
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `if`, `json`, `true`.
    Word(String),
    /// `.Name`, without the dot; follows what it is a field of directly if `joined`.
    Field {
        /// The name.
        name: String,
        /// Whether nothing is between it and the token before.
        joined: bool,
    },
    /// `.`
    Dot,
    /// `$name`; `$` alone is "".
    Variable(String),
    /// A string or character constant.
    Text(String),
    /// A character constant is a number.
    Int(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

fn fault(rest: &str, reason: impl Into<String>) -> Fault {
    Fault {
        left: rest.len(),
        reason: reason.into(),
    }
}

/// Splits a template into its pieces.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let (mut rest, mut trim) = (text, false);
    loop {
        let (mut before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        if trim {
            before = before.trim_start_matches(BLANKS);
        }
        let Some(mut action) = action else {
            push_text(&mut pieces, before);
            return Ok(pieces);
        };
        if let Some(marked) = action.strip_prefix('-').filter(|a| a.starts_with(BLANKS)) {
            before = before.trim_end_matches(BLANKS);
            action = marked;
        }
        push_text(&mut pieces, before);
        (rest, trim) = match action.trim_start_matches(BLANKS).strip_prefix("/*") {
            Some(comment) => comment_end(comment)?,
            None => {
                let (tokens, rest, trim) = tokens_of(action)?;
                pieces.push(Piece::Action(tokens));
                (rest, trim)
            }
        };
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// What follows a comment, and whether blanks there go.
fn comment_end(comment: &str) -> Result<(&str, bool), Fault> {
    let (_, after) = comment
        .split_once("*/")
        .ok_or_else(|| fault(comment, "unclosed comment"))?;
    let trimmed = after.trim_start_matches(BLANKS);
    match (after.strip_prefix("}}"), trimmed.strip_prefix("-}}")) {
        (Some(rest), _) => Ok((rest, false)),
        (None, Some(rest)) if trimmed.len() != after.len() => Ok((rest, true)),
        _ => Err(fault(after, "comment ends before closing delimiter")),
    }
}

/// The tokens up to `}}`, what follows, and whether blanks there go.
fn tokens_of(action: &str) -> Result<(Vec<Placed>, &str, bool), Fault> {
    let mut tokens = Vec::new();
    let mut rest = action;
    let mut blank = true;
    loop {
        let trimmed = rest.trim_start_matches(BLANKS);
        let moved = trimmed.len() != rest.len();
        blank |= moved;
        if let Some(after) = trimmed.strip_prefix("-}}").filter(|_| moved) {
            return Ok((tokens, after, true));
        }
        rest = trimmed;
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        let left = rest.len();
        let token;
        (token, rest) = token_of(rest, blank)?;
        tokens.push(Placed { token, left });
        blank = false;
    }
}

fn token_of(text: &str, blank: bool) -> Result<(Token, &str), Fault> {
    let fail = |reason: &str| fault(text, reason);
    let mut chars = text.chars();
    let first = chars.next().ok_or_else(|| fail("unclosed action"))?;
    let after = chars.as_str();
    let word = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        end.unwrap_or(text.len())
    };
    Ok(match first {
        '|' => (Token::Pipe, after),
        '(' => (Token::Open, after),
        ')' => (Token::Close, after),
        ',' => (Token::Comma, after),
        '=' => (Token::Assign, after),
        ':' => match after.strip_prefix('=') {
            Some(after) => (Token::Declare, after),
            None => return Err(fail("expected :=")),
        },
        '.' if after.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
            let (name, after) = after.split_at(word(after));
            let name = name.to_owned();
            let joined = !blank;
            (Token::Field { name, joined }, after)
        }
        '.' if !after.starts_with(|c: char| c.is_ascii_digit()) => (Token::Dot, after),
        '$' => {
            let (name, after) = after.split_at(word(after));
            (Token::Variable(name.to_owned()), after)
        }
        '`' => {
            let raw = after.split_once('`');
            let (raw, after) = raw.ok_or_else(|| fail("unterminated raw quoted string"))?;
            (Token::Text(raw.to_owned()), after)
        }
        '"' => {
            let found = quoted(after, '"');
            let (text, after) = found.ok_or_else(|| fail("unterminated quoted string"))?;
            (Token::Text(text), after)
        }
        '\'' => {
            let found = quoted(after, '\'');
            let (text, after) = found.ok_or_else(|| fail("unterminated character constant"))?;
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => (Token::Int(u32::from(c).into()), after),
                _ => return Err(fail("malformed character constant")),
            }
        }
        c if c.is_ascii_digit() || matches!(c, '.' | '-' | '+') => number(text)?,
        c if c.is_alphabetic() || c == '_' => {
            let (name, after) = text.split_at(word(text));
            (Token::Word(name.to_owned()), after)
        }
        '}' => return Err(fail("unexpected \"}\" in command")),
        c => {
            let code = u32::from(c);
            let reason = format!("unexpected bad character U+{code:04X} {c:?} in command");
            return Err(fault(text, reason));
        }
    })
}

fn number(text: &str) -> Result<(Token, &str), Fault> {
    let sign = usize::from(text.starts_with(['-', '+']));
    let tail = text.get(sign..).unwrap_or_default();
    let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')));
    let (number, after) = text.split_at(sign + end.unwrap_or(tail.len()));
    let plain = number.replace('_', "");
    let hex = plain.strip_prefix("0x");
    let hex = hex.and_then(|hex| i128::from_str_radix(hex, 16).ok());
    let token = match (plain.parse::<i128>(), plain.parse::<f64>(), hex) {
        (Ok(n), ..) | (.., Some(n)) => Token::Int(n),
        (_, Ok(n), _) if n.is_finite() => Token::Float(n),
        _ => return Err(fault(text, format!("bad number syntax: {number:?}"))),
    };
    Ok((token, after))
}

/// A Go string after its opening quote, and what follows its closing one.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            c if c == quote => return Some((out, chars.as_str())),
            '\n' => return None,
            '\\' => out.push(match chars.next()? {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                'x' => code(&mut chars, 2)?,
                'u' => code(&mut chars, 4)?,
                'U' => code(&mut chars, 8)?,
                c @ ('\\' | '"' | '\'') => c,
                _ => return None,
            }),
            c => out.push(c),
        }
    }
}

fn code(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let hex = chars.as_str().get(..digits)?;
    let code = u32::from_str_radix(hex, 16).ok()?;
    *chars = chars.as_str().get(digits..)?.chars();
    char::from_u32(code)
}
