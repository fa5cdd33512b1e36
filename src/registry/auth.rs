//! Tokens: what a registry asks for in `WWW-Authenticate`, and how it is got.
//!
//! Sources: RFC 9110 section 11, distribution's token and OAuth2 specifications.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;
use serde::Deserialize;

use super::credentials::Credential;

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// Where tokens are to be had.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what, if the registry says so.
        scope: Option<String>,
    },
}

/// The tokens of one registry by scope, and who we are there.
#[derive(Default)]
pub(super) struct Authority {
    pub(super) credential: Option<Credential>,
    pub(super) challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<HashMap<String, String>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({:?})", self.credential)
    }
}

impl Authority {
    pub(super) fn new(credential: Option<Credential>) -> Self {
        Authority {
            credential,
            ..Authority::default()
        }
    }

    pub(super) fn token(&self, scope: &str) -> Option<String> {
        self.tokens.lock().get(scope).cloned()
    }

    pub(super) fn keep(&self, scope: &str, token: String) {
        self.tokens.lock().insert(scope.to_owned(), token);
    }

    pub(super) fn drop_token(&self, scope: &str) {
        self.tokens.lock().remove(scope);
    }
}

/// A token server's answer.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenAnswer {
    /// The token, if it can stand in a header.
    pub(super) fn token(self) -> Option<String> {
        let token = self.token.filter(|t| !t.is_empty()).or(self.access_token)?;
        let fits = !token.is_empty() && token.bytes().all(|b| (0x21..0x7f).contains(&b));
        fits.then_some(token)
    }
}

/// Reads a `WWW-Authenticate` header.
pub(super) fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    Some(Challenge::Bearer {
        realm: parameters.remove("realm")?,
        service: parameters.remove("service"),
        scope: parameters.remove("scope").filter(|s| !s.is_empty()),
    })
}

/// `a="b c", d=e`; a quoted value may hold commas and `\"`.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text.trim();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name
            .trim()
            .trim_start_matches(',')
            .trim()
            .to_ascii_lowercase();
        let mut value = String::new();
        let after = after.trim_start();
        let end = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let mut end = quoted.len();
                for (at, c) in quoted.char_indices() {
                    match c {
                        _ if escaped => {
                            value.push(c);
                            escaped = false;
                        }
                        '\\' => escaped = true,
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        _ => value.push(c),
                    }
                }
                quoted.get(end..).unwrap_or("")
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                value.push_str(after.get(..end).unwrap_or("").trim());
                after.get(end..).unwrap_or("")
            }
        };
        found.insert(name, value);
        rest = end;
    }
    found
}

/// Percent-encodes a value for a query.
pub(super) fn query_escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_as_registries_send_them() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".to_owned(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(challenge(text), Some(expected));
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(challenge("basic"), Some(Challenge::Basic));
        assert_eq!(challenge("Negotiate abc"), None);
        assert_eq!(challenge("Bearer service=\"x\""), None);
        let odd = challenge("bearer realm=http://x/t , error=\"a \\\" b\"");
        assert!(matches!(odd, Some(Challenge::Bearer { realm, .. }) if realm == "http://x/t"));
        for broken in ["Bearer realm=\"", "Bearer =", "Bearer ,,,=\"\\", ""] {
            // No answer is the right one; a panic is not.
            let _ = challenge(broken);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let authority = Authority {
            credential: Some(Credential::Password {
                user: "me".to_owned(),
                password: "hunter2".to_owned(),
            }),
            ..Authority::default()
        };
        authority.keep("s", "tok3n".to_owned());
        let shown = format!("{authority:?}");
        assert!(
            !shown.contains("hunter2") && !shown.contains("tok3n"),
            "{shown}"
        );
    }
}
