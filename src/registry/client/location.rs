//! URLs of one registry: which are its own, and where a `Location` leads.

use fluent_uri::{Uri, UriRef};

use super::Client;

impl Client {
    pub(in crate::registry) fn absolute(&self, url: &str) -> String {
        match url.starts_with('/') {
            true => format!("{}{url}", self.0.base),
            false => url.to_owned(),
        }
    }

    /// Whether the URL is on the registry's own host, and so may see what it alone may see.
    pub(in crate::registry) fn is_own(&self, url: &str) -> bool {
        url.strip_prefix(&self.0.base)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }
}

/// A `Location`, any URI reference, seen from the URL of the request (RFC 9110 10.2.2, RFC 3986 5.2). What is absolute stays as
/// it is written but for the case of its scheme: storage servers sign their URLs.
pub(in crate::registry) fn resolve(from: &str, location: &str) -> Option<String> {
    let location = location.split('#').next()?;
    if location.is_empty() {
        return None;
    }
    if let Some((scheme, rest)) = location.split_once("://") {
        let known = ["http", "https"];
        if let Some(scheme) = known.iter().find(|one| scheme.eq_ignore_ascii_case(one)) {
            return Some(format!("{scheme}://{rest}"));
        }
    }
    // A reference that is not empty has a path or a query of its own.
    let from = from.split(['?', '#']).next()?;
    match UriRef::parse(location) {
        Ok(reference) if reference.scheme().is_none() => {
            let base = Uri::parse(from).ok()?;
            let found = reference.resolve_against(&base).ok()?;
            Some(found.as_str().to_owned())
        }
        Ok(_) => None,
        // Bytes that a URI has not, as some registries send them.
        Err(_) if location.starts_with('/') && !location.starts_with("//") => {
            let (scheme, rest) = from.split_once("://")?;
            let host = rest.split('/').next()?;
            Some(format!("{scheme}://{host}{location}"))
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn regression_a_location_is_any_reference() {
        let from = "https://r.example:5000/v2/a/blobs/uploads/?x=1";
        let upload = "https://r.example:5000/v2/a/blobs/uploads/";
        for (location, expected) in [
            ("id", &*format!("{upload}id")),
            ("./id?_state=a%2Fb", &*format!("{upload}id?_state=a%2Fb")),
            ("../uploads/id", &*format!("{upload}id")),
            ("?_state=a", &*format!("{upload}?_state=a")),
            ("/v2/b?c#part", "https://r.example:5000/v2/b?c"),
            ("/v2/b?_state=a|b", "https://r.example:5000/v2/b?_state=a|b"),
            ("//s.example/b", "https://s.example/b"),
            (
                "HTTPS://S.example/b/%2e?sig=a|b",
                "https://S.example/b/%2e?sig=a|b",
            ),
            ("HTTP://s.example/", "http://s.example/"),
        ] {
            assert_eq!(
                resolve(from, location).as_deref(),
                Some(expected),
                "{location}"
            );
        }
        for nowhere in ["", "#x", "ftp://s.example/b", "data:,x", "//", "a b"] {
            let found = resolve(from, nowhere);
            assert!(found.is_none() || nowhere == "//", "{nowhere}: {found:?}");
        }
    }
}
