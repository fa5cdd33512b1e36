//! What docker's `daemon.json` says of registries, set once for all verbs: which may be talked to over plain http or with any
//! certificate, and which are asked before Docker Hub.
//!
//! Read are `/etc/docker/daemon.json` and, as docker's daemon of an ordinary user does, `daemon.json` in `~/.config/docker`; both
//! count. Of docker's keys `insecure-registries` (`host[:port]`, or a network such as `10.1.0.0/16`, which is for addresses alone: a
//! name is not looked up for it) and `registry-mirrors` (URLs without a path). A file that cannot be read is passed over with a word.

use std::path::PathBuf;

use serde_json::Value;

use super::proxy::is_in_network;

/// More of a file is no configuration.
const MAX: u64 = 1 << 20;

/// What the files say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Hosts and networks that need no certificate.
    pub insecure: Vec<String>,
    /// In the order to ask them, before Docker Hub.
    pub mirrors: Vec<Mirror>,
}

/// A registry that has what Docker Hub has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `http://` or `https://`.
    pub(super) scheme: String,
    /// Host, with its port if it is not the usual one.
    pub(super) host: String,
}

impl std::fmt::Display for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.scheme, self.host)
    }
}

impl Mirror {
    fn parse(url: &str) -> Option<Mirror> {
        let lower = url.to_ascii_lowercase();
        let scheme = ["https://", "http://"]
            .into_iter()
            .find(|scheme| lower.starts_with(scheme))?;
        let host = url.get(scheme.len()..)?.trim_end_matches('/');
        let bad = |c: char| matches!(c, '/' | '?' | '#' | '@') || c.is_whitespace();
        (!host.is_empty() && !host.contains(bad)).then(|| Mirror {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
        })
    }
}

/// Whether a host is among these hosts and networks.
pub(super) fn is_among(insecure: &[String], host: &str) -> bool {
    insecure
        .iter()
        .any(|entry| entry == host || is_in_network(entry, host))
}

/// What the files of this machine and this user say.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    for path in paths() {
        let text = match std::fs::metadata(&path) {
            Err(_) => continue,
            Ok(found) if found.len() > MAX => Err("it is too large".to_owned()),
            Ok(_) => std::fs::read_to_string(&path).map_err(|error| error.to_string()),
        };
        if let Err(why) = text.and_then(|text| settings.add(&text)) {
            log::warn!("{}: {why}; it counts for nothing", path.display());
        }
    }
    settings
}

fn paths() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
    let mut paths = vec![PathBuf::from("/etc/docker/daemon.json")];
    paths.extend(own.map(|dir| dir.join("docker/daemon.json")));
    paths
}

impl Settings {
    /// Takes in what a file says: all of it, or nothing.
    fn add(&mut self, text: &str) -> Result<(), String> {
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let list = |key: &str| -> Result<Vec<String>, String> {
            let wrong = || format!("{key:?} is no list of texts");
            match document.get(key) {
                None => Ok(Vec::new()),
                Some(Value::Array(entries)) => entries
                    .iter()
                    .map(|entry| entry.as_str().map(str::to_owned).ok_or_else(wrong))
                    .collect(),
                Some(_) => Err(wrong()),
            }
        };
        let insecure = list("insecure-registries")?;
        let mirrors = list("registry-mirrors")?.into_iter().map(|url| {
            Mirror::parse(&url)
                .ok_or_else(|| format!("invalid mirror: {url:?} is no http or https URL of a host"))
        });
        let mirrors: Vec<Mirror> = mirrors.collect::<Result<_, _>>()?;
        // docker's tools take a scheme here, too, which means nothing.
        let bare = insecure.into_iter().map(|entry| {
            let entry = entry.trim_end_matches('/');
            let bare = entry.strip_prefix("http://");
            let bare = bare.or_else(|| entry.strip_prefix("https://"));
            bare.unwrap_or(entry).to_owned()
        });
        self.insecure.extend(bare);
        self.mirrors.extend(mirrors);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let mut settings = Settings::default();
        let text = r#"{"insecure-registries": ["reg.example.com:5000", "10.1.0.0/16", "http://a.b"],
            "registry-mirrors": ["https://mirror.example.com/", "HTTP://127.0.0.1:5001"], "debug": true}"#;
        settings.add(text).unwrap();
        assert_eq!(
            settings.insecure,
            ["reg.example.com:5000", "10.1.0.0/16", "a.b"]
        );
        let mirrors: Vec<String> = settings.mirrors.iter().map(Mirror::to_string).collect();
        assert_eq!(
            mirrors,
            ["https://mirror.example.com", "http://127.0.0.1:5001"]
        );
        let before = settings.clone();
        for bad in [
            "",
            "[",
            r#"{"insecure-registries": "x"}"#,
            r#"{"insecure-registries": ["x"], "registry-mirrors": [1]}"#,
            r#"{"registry-mirrors": ["mirror.example.com"]}"#,
            r#"{"registry-mirrors": ["https://mirror.example.com/path"]}"#,
            r#"{"registry-mirrors": ["https://user:secret@mirror.example.com"]}"#,
            r#"{"registry-mirrors": ["https://"]}"#,
        ] {
            assert!(settings.add(bad).is_err(), "{bad}");
            assert_eq!(settings, before, "{bad}");
        }
    }

    #[test]
    fn hosts_are_found_by_name_port_and_network() {
        let insecure = ["reg:5000", "10.1.0.0/16", "fd00::/8", "plain"].map(str::to_owned);
        for (host, among) in [
            ("reg:5000", true),
            ("reg", false),
            ("reg:5001", false),
            ("10.1.2.3:80", true),
            ("10.1.2.3", true),
            ("10.2.0.1:80", false),
            ("[fd00::1]:5000", true),
            ("[fe80::1]", false),
            ("plain", true),
            ("10.1.2.3.example.com", false),
        ] {
            assert_eq!(is_among(&insecure, host), among, "{host}");
        }
    }
}
