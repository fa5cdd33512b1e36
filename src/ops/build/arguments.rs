//! ARG: which arguments a build has where, and what they say.

use std::collections::BTreeMap;

use crate::oci::Platform;
use crate::oci::dockerfile::Expand;

use super::BuildError;

/// Arguments that need no ARG. They come from the caller's world: neither history nor cache knows them.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments of one scope: before the first FROM, or in a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    declared: Vec<(String, Option<String>)>,
}

impl Arguments {
    /// What every build can say of its platforms.
    pub(super) fn of_platforms(target: &Platform) -> Arguments {
        let build = Platform::host();
        let mut declared = Vec::new();
        for (prefix, platform) in [("TARGET", target), ("BUILD", &build)] {
            let variant = platform.variant.clone().unwrap_or_default();
            for (name, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", variant),
            ] {
                declared.push((format!("{prefix}{name}"), Some(value)));
            }
        }
        Arguments { declared }
    }

    /// Declares a name: what the caller gave counts, then the default, then what an outer scope says.
    pub(super) fn declare(
        &mut self,
        name: &str,
        default: Option<String>,
        given: &BTreeMap<String, String>,
        outer: Option<&Arguments>,
    ) {
        let value = given.get(name).cloned().or(default);
        let value = value.or_else(|| outer?.get(name));
        self.declared.retain(|(other, _)| other != name);
        self.declared.push((name.to_owned(), value));
    }

    fn get(&self, name: &str) -> Option<String> {
        let found = self.declared.iter().find(|(other, _)| other == name);
        found.and_then(|(_, value)| value.clone())
    }

    /// `NAME=value` of those that have one and that `env` does not set, sorted by name.
    pub(super) fn beside(&self, env: &[String]) -> Vec<String> {
        let set = |name: &str| env.iter().any(|line| line.split('=').next() == Some(name));
        let mut lines: Vec<String> = self
            .declared
            .iter()
            .filter(|(name, _)| !set(name))
            .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
            .collect();
        lines.sort();
        lines
    }

    /// The variables that an instruction's text is expanded with: the environment goes before arguments.
    pub(super) fn variables(&self, env: &[String]) -> Vec<String> {
        let mut all = env.to_vec();
        all.extend(self.beside(env));
        all
    }
}

/// Those of the caller's arguments that need no ARG.
pub(super) fn predefined(given: &BTreeMap<String, String>) -> Vec<String> {
    let named = given
        .iter()
        .filter(|(name, _)| PREDEFINED.contains(&name.as_str()));
    named
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// Whether a caller's argument is of use without ARG.
pub(super) fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name)
}

/// Expands one word.
pub(super) fn expand(word: &str, env: &[String], escape: char) -> Result<String, BuildError> {
    let expand = Expand {
        env,
        ..Expand::plain(escape)
    };
    expand
        .word(word)
        .map_err(|error| BuildError::Failed(error.to_string()))
}
