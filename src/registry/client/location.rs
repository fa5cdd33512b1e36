//! URLs of one registry: which are its own, and where a `Location` leads.

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

    /// A `Location` seen from a URL.
    pub(in crate::registry) fn resolve(&self, from: &str, location: &str) -> Option<String> {
        let (scheme, rest) = from.split_once("://")?;
        let host = rest.split(['/', '?']).next()?;
        if location.starts_with("http://") || location.starts_with("https://") {
            Some(location.to_owned())
        } else if location.starts_with("//") {
            Some(format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Some(format!("{scheme}://{host}{location}"))
        } else {
            None
        }
    }
}
