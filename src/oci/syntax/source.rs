//! From the text of a Dockerfile to its instructions: directives, comments, continued lines, heredocs.

use super::{ChangeError, lex};

/// A line longer than this is refused, as docker does.
const MAX_LINE: usize = 65_535;

/// One instruction as it is written, continued lines joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logical {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// The text.
    pub text: String,
    /// Texts that follow it.
    pub heredocs: Vec<Heredoc>,
}

/// A text inside a Dockerfile: `<<NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// What ends it.
    pub name: String,
    /// What is written behind the `<<`, and a `-` if there is one.
    pub word: String,
    /// Its lines.
    pub content: String,
    /// Variables are replaced: the name has no quotes.
    pub expand: bool,
    /// The number before the `<<`.
    pub descriptor: Option<u32>,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {line}: {text}")]
pub struct DockerfileError {
    /// Counted from 1.
    pub line: usize,
    /// docker's words.
    pub text: String,
}

impl DockerfileError {
    pub(in crate::oci) fn at(line: usize) -> impl Fn(ChangeError) -> DockerfileError {
        move |ChangeError(text)| DockerfileError { line, text }
    }
}

/// The instructions of a text, and the character that continues lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// In order.
    pub lines: Vec<Logical>,
    /// `\`, unless a directive says otherwise.
    pub escape: char,
}

/// Reads a text.
pub fn read(bytes: &[u8]) -> Result<Source, DockerfileError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = lines_of(bytes)?;
    let escape = directives(&lines)?;
    let mut out = Vec::new();
    let mut pending: Option<Logical> = None;
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        at += 1;
        let trimmed = line.trim_start();
        // A comment or a blank line inside a continued instruction does not end it.
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let logical = pending.get_or_insert_with(|| Logical {
            line: at,
            text: String::new(),
            heredocs: Vec::new(),
        });
        match continued(line, escape) {
            Some(part) => logical.text.push_str(part),
            None => {
                logical.text.push_str(line);
                if let Some(mut logical) = pending.take() {
                    logical.text = logical.text.trim().to_owned();
                    logical.heredocs = heredocs(&logical, escape, &lines, &mut at)?;
                    out.push(logical);
                }
            }
        }
    }
    if let Some(mut logical) = pending {
        logical.text = logical.text.trim().to_owned();
        if !logical.text.is_empty() {
            out.push(logical);
        }
    }
    Ok(Source { lines: out, escape })
}

fn lines_of(bytes: &[u8]) -> Result<Vec<&str>, DockerfileError> {
    let mut lines = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let fault = |text: &str| DockerfileError {
            line: number + 1,
            text: text.to_owned(),
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE {
            return Err(fault(&format!(
                "dockerfile line greater than maximum allowed size of {MAX_LINE}"
            )));
        }
        if line.contains(&0) {
            return Err(fault("the line contains a NUL byte"));
        }
        let line = std::str::from_utf8(line).map_err(|_| fault("the line is not valid UTF-8"))?;
        lines.push(line);
    }
    Ok(lines)
}

/// The directives at the top; only `escape` means something here.
fn directives(lines: &[&str]) -> Result<char, DockerfileError> {
    let mut escape = '\\';
    for (number, line) in lines.iter().enumerate() {
        let Some((key, value)) = directive(line) else {
            break;
        };
        if key.eq_ignore_ascii_case("escape") {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    return Err(DockerfileError {
                        line: number + 1,
                        text: format!("invalid escape token '{value}' does not match ` or \\"),
                    });
                }
            };
        }
    }
    Ok(escape)
}

/// `# key=value`.
fn directive(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let named = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then_some((key, value))
}

/// The line without the character that continues it; `None`: it ends here. Two of them are one that does not.
fn continued(line: &str, escape: char) -> Option<&str> {
    let part = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!part.ends_with(escape)).then_some(part)
}

/// The texts that an instruction announces.
fn heredocs(
    logical: &Logical,
    escape: char,
    lines: &[&str],
    at: &mut usize,
) -> Result<Vec<Heredoc>, DockerfileError> {
    let (name, rest) = lex::split(&logical.text);
    let takes = ["RUN", "COPY", "ADD"];
    if !takes.iter().any(|take| name.eq_ignore_ascii_case(take)) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for word in lex::words(rest, escape) {
        let Some((descriptor, word)) = announced(&word) else {
            continue;
        };
        let (tabs, quoted) = match word.strip_prefix('-') {
            Some(quoted) => (true, quoted),
            None => (false, word),
        };
        let name = lex::Expand::plain(escape).word(quoted);
        let name = name.map_err(DockerfileError::at(logical.line))?;
        let mut content = String::new();
        loop {
            let Some(line) = lines.get(*at) else {
                return Err(DockerfileError {
                    line: logical.line,
                    text: format!("unterminated heredoc: {name}"),
                });
            };
            *at += 1;
            let line = match tabs {
                true => line.trim_start_matches('\t'),
                false => line,
            };
            if line == name {
                break;
            }
            content.push_str(line);
            content.push('\n');
        }
        found.push(Heredoc {
            expand: quoted == name,
            word: word.to_owned(),
            name,
            content,
            descriptor,
        });
    }
    Ok(found)
}

/// `3<<NAME`: the number, and what is behind.
fn announced(word: &str) -> Option<(Option<u32>, &str)> {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = word.strip_suffix(digits).unwrap_or_default();
    let rest = digits.strip_prefix("<<")?;
    let name = rest.strip_prefix('-').unwrap_or(rest);
    (!name.is_empty() && !name.contains('<')).then(|| (number.parse().ok(), rest))
}

/// Whether a word announces a heredoc.
pub(in crate::oci) fn announces(word: &str) -> bool {
    announced(word).is_some()
}
