//! The order of versions among tags: digits compare as numbers, everything else bytewise, as `sort -V` does for names like
//! these; and a pre-release (`1.0-rc1`, `2.0-beta`) comes before its release, as semantic versions have it.

use std::cmp::Ordering;

/// Words that begin a pre-release after a hyphen.
const BEFORE: &[&str] = &["alpha", "beta", "dev", "nightly", "pre", "rc", "snapshot"];

/// Compares two tags.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (one, left_rest) = part(left);
        let (two, right_rest) = part(right);
        let order = match (one, two) {
            (Part::End, Part::End) => return a.cmp(b),
            (Part::Number(x), Part::Number(y)) => number(x, y),
            (x, y) => x.rank().cmp(&y.rank()).then_with(|| x.text().cmp(y.text())),
        };
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
}

#[derive(Clone, Copy)]
enum Part<'a> {
    PreRelease(&'a str),
    End,
    Number(&'a str),
    Text(&'a str),
}

impl<'a> Part<'a> {
    /// What comes first when the parts are of different kinds.
    fn rank(self) -> u8 {
        match self {
            Part::PreRelease(_) => 0,
            Part::End => 1,
            Part::Number(_) => 2,
            Part::Text(_) => 3,
        }
    }

    fn text(self) -> &'a str {
        match self {
            Part::PreRelease(text) | Part::Number(text) | Part::Text(text) => text,
            Part::End => "",
        }
    }
}

/// The first run of digits or of anything else, and what follows.
fn part(text: &str) -> (Part<'_>, &str) {
    let Some(first) = text.chars().next() else {
        return (Part::End, "");
    };
    let digits = first.is_ascii_digit();
    let end = text.find(|c: char| c.is_ascii_digit() != digits);
    let (run, rest) = text.split_at(end.unwrap_or(text.len()));
    if digits {
        return (Part::Number(run), rest);
    }
    let word = run.strip_prefix('-').unwrap_or_default();
    let word: String = word.chars().take_while(char::is_ascii_alphabetic).collect();
    let before = BEFORE.contains(&word.to_ascii_lowercase().as_str());
    (
        if before {
            Part::PreRelease(run)
        } else {
            Part::Text(run)
        },
        rest,
    )
}

/// Digits as a number, however many.
fn number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_order() {
        let ordered = [
            "0.9",
            "1.0-alpha",
            "1.0-rc1",
            "1.0-rc2",
            "1.0-rc10",
            "1",
            "1.0",
            "1.0-alpine",
            "1.0.1",
            "1.2",
            "1.10",
            "1.10-beta.2-slim",
            "2",
            "10",
            "99999999999999999999999",
            "latest",
            "v1",
            "v2",
            "v10",
        ];
        let mut sorted = ordered;
        sorted.reverse();
        sorted.sort_by(|a, b| compare(a, b));
        // "1.10-beta.2-slim" is before the release it announces, "1" before all that begins with "1.".
        let expected = [
            "0.9",
            "1",
            "1.0-alpha",
            "1.0-rc1",
            "1.0-rc2",
            "1.0-rc10",
            "1.0",
            "1.0-alpine",
            "1.0.1",
            "1.2",
            "1.10-beta.2-slim",
            "1.10",
            "2",
            "10",
            "99999999999999999999999",
            "latest",
            "v1",
            "v2",
            "v10",
        ];
        assert_eq!(sorted, expected);
        assert_eq!(compare("01", "1"), Ordering::Less);
        assert_eq!(compare("1.0", "1.0"), Ordering::Equal);
    }
}
