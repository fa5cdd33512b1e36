//! containerd's filters (its package `filters`): `kind==active,labels."containerd.io/x"~=/y/`. Selectors between commas must
//! all hold; of several filters one is enough.

use mica::store::snapshots::{Snapshot, SnapshotKind};
use regex::Regex;

/// Larger than any regular expression of a client's, compiled.
const MAX_REGEX: usize = 1 << 20;
/// More than anybody asks for at once: all of them are in memory together.
const MAX_REGEXES: usize = 64;

/// Why a filter cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?}: {reason} at byte {at}")]
pub struct FilterError {
    filter: String,
    reason: &'static str,
    at: usize,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

/// One or more filters.
#[derive(Debug)]
pub struct Filters(Vec<Vec<Selector>>);

impl Filters {
    /// Reads them.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse(texts: &[String]) -> Result<Filters, FilterError> {
        let mut parsed = Vec::new();
        let mut regexes = 0;
        for text in texts {
            let parser = Parser {
                text,
                at: 0,
                regexes,
            };
            let (selectors, count) = parser.filter()?;
            regexes = count;
            parsed.push(selectors);
        }
        Ok(Filters(parsed))
    }

    /// Whether a snapshot is meant. Without any filter all are.
    pub fn admits(&self, snapshot: &Snapshot) -> bool {
        let all = |selectors: &Vec<Selector>| selectors.iter().all(|s| s.holds(snapshot));
        self.0.is_empty() || self.0.iter().any(all)
    }
}

impl Selector {
    fn holds(&self, snapshot: &Snapshot) -> bool {
        let value = field(snapshot, &self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(text) => value == Some(text),
            Test::NotEqual(text) => value.unwrap_or_default() != text,
            Test::Matches(regex) => regex.is_match(value.unwrap_or_default()),
        }
    }
}

fn field<'a>(snapshot: &'a Snapshot, path: &[String]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    match (first.as_str(), rest) {
        ("kind", []) => Some(match snapshot.kind {
            SnapshotKind::View => "view",
            SnapshotKind::Active => "active",
            SnapshotKind::Committed => "committed",
        }),
        ("name", []) => Some(&snapshot.name),
        ("parent", []) => Some(snapshot.parent.as_deref().unwrap_or_default()),
        ("labels", [_, ..]) => snapshot.labels.get(&rest.join(".")).map(String::as_str),
        _ => None,
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Found so far, in this filter and those before.
    regexes: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn fail<T>(&self, reason: &'static str) -> Result<T, FilterError> {
        Err(FilterError {
            // An error has to fit the headers of an answer.
            filter: self.text.chars().take(200).collect(),
            reason,
            at: self.at,
        })
    }

    fn take(&mut self, word: &str) -> bool {
        let is_there = self.rest().starts_with(word);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn filter(mut self) -> Result<(Vec<Selector>, usize), FilterError> {
        let mut selectors = Vec::new();
        if self.text.is_empty() {
            return Ok((selectors, self.regexes));
        }
        loop {
            selectors.push(self.selector()?);
            if self.rest().is_empty() {
                return Ok((selectors, self.regexes));
            }
            if !self.take(",") {
                return self.fail("expected a comma");
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, FilterError> {
        let mut path = vec![self.field()?];
        while self.take(".") {
            path.push(self.field()?);
        }
        let test = if self.take("==") {
            Test::Equal(self.value()?)
        } else if self.take("!=") {
            Test::NotEqual(self.value()?)
        } else if self.take("~=") {
            let pattern = self.value()?;
            self.regexes += 1;
            if self.regexes > MAX_REGEXES {
                return self.fail("too many regular expressions");
            }
            let mut builder = regex::RegexBuilder::new(&pattern);
            match builder.size_limit(MAX_REGEX).build() {
                Ok(regex) => Test::Matches(regex),
                Err(_) => return self.fail("expected a regular expression"),
            }
        } else {
            Test::Present
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, FilterError> {
        if self.rest().starts_with('"') {
            return self.quoted('"');
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let rest = self.rest();
        let name = rest.split(|c| !is_name(c)).next().unwrap_or_default();
        if name.is_empty() {
            return self.fail("expected a field");
        }
        let name = name.to_owned();
        self.at += name.len();
        Ok(name)
    }

    fn value(&mut self) -> Result<String, FilterError> {
        for quote in ['"', '/', '|'] {
            if self.rest().starts_with(quote) {
                return self.quoted(quote);
            }
        }
        let ends = |c: char| c == ',' || c.is_whitespace();
        let value = self.rest().split(ends).next().unwrap_or_default();
        let value = value.to_owned();
        self.at += value.len();
        Ok(value)
    }

    /// A string as Go quotes it; between other marks a backslash stays what it is, except before such a mark.
    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.at += at + c.len_utf8();
                return Ok(value);
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else {
                break;
            };
            if quote != '"' && escaped != quote {
                value.push('\\');
                value.push(escaped);
                continue;
            }
            let digits = match escaped {
                'n' => {
                    value.push('\n');
                    continue;
                }
                't' => {
                    value.push('\t');
                    continue;
                }
                'r' => {
                    value.push('\r');
                    continue;
                }
                'x' => 2,
                'u' => 4,
                'U' => 8,
                other => {
                    value.push(other);
                    continue;
                }
            };
            let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
            match u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32) {
                Some(c) if hex.len() == digits => value.push(c),
                _ => return self.fail("expected hexadecimal digits after a backslash"),
            }
        }
        self.fail("expected the end of a quotation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(filters: &[&str]) -> bool {
        let time = "2024-01-01T00:00:00Z".parse().unwrap();
        let labels = [("containerd.io/snapshot.ref", "sha256:1"), ("a.b", "x,y")];
        let snapshot = Snapshot {
            name: "default/1/sha256:1".to_owned(),
            parent: None,
            kind: SnapshotKind::Committed,
            number: 0,
            chain: None,
            created: time,
            updated: time,
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            usage: None,
        };
        let texts: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
        Filters::parse(&texts).unwrap().admits(&snapshot)
    }

    #[test]
    fn filters_mean_what_containerd_means_by_them() {
        let table = [
            (vec![], true),
            (vec![""], true),
            (vec!["kind==committed"], true),
            (vec!["kind==active"], false),
            (vec!["kind==active", "kind==committed"], true),
            (vec!["kind==committed,name==x"], false),
            (vec!["name==default/1/sha256:1"], true),
            (vec!["name!=default/1/sha256:1"], false),
            // What containerd asks for after a prepare that exists already.
            (
                vec![r#"labels."containerd.io/snapshot.ref"==sha256:1,parent=="""#],
                true,
            ),
            (
                vec![r#"labels."containerd.io/snapshot.ref"==sha256:1,parent=="x""#],
                false,
            ),
            (vec![r#"labels."containerd.io/snapshot.ref""#], true),
            (vec!["labels.none"], false),
            (vec!["labels.none!=x"], true),
            (vec!["labels"], false),
            (vec![r#"labels.a.b=="x,y""#], true),
            (vec![r#"labels.a.b=="\x78\u002cy""#], true),
            (vec!["name~=^default/[0-9]+/"], true),
            (vec!["name~=/^default\\/9/"], false),
            (vec!["name~=|sha256|,kind~=\"^c\""], true),
        ];
        for (filters, expected) in table {
            assert_eq!(admits(&filters), expected, "{filters:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "=",
            ",",
            "kind==x,",
            "a.",
            "kind==x y",
            "\"",
            "name~=(",
            "name==\"x",
            "a==\"\\x1\"",
            "a==\"\\",
            "name~=/x",
        ] {
            assert!(Filters::parse(&[text.to_owned()]).is_err(), "{text}");
        }
        // A pattern that would take all memory.
        let huge = format!("name~={}", "(a{1000}){1000}");
        assert!(Filters::parse(&[huge]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,40}") {
            let _ = Filters::parse(&[text]);
        }
    }
}
