//! Where a registry is and how one talks to it: https with the system's and private CAs, plain http only on this machine
//! or where the user said so.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as Limit;
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::RegistryError;

/// A connection that does not come up within this long is not there.
const CONNECT: Duration = Duration::from_secs(15);
/// A server that is silent for this long has hung.
const SILENCE: Duration = Duration::from_secs(30);

/// So long it may take over what it was sent: some copy whole blobs before they answer.
pub(super) const DIGESTION: Duration = Duration::from_secs(300);

/// The host that serves a domain of a reference.
pub(super) fn host_of(domain: &str) -> String {
    match domain {
        "docker.io" | "index.docker.io" => "registry-1.docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Whether the host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = without_port(host);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// An agent for one registry. It follows no redirect and takes no status for an error: both are decided by the client.
pub(super) fn agent(host: &str, insecure: bool) -> Result<Agent, RegistryError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .input_buffer_size(256 << 10)
        .output_buffer_size(256 << 10)
        .user_agent(concat!("mica/", env!("CARGO_PKG_VERSION")))
        // Chosen for each request.
        .proxy(None)
        .tls_config(tls(host, insecure)?);
    let connector = DefaultConnector::default();
    Ok(Agent::with_parts(config.build(), connector, Names))
}

/// Looks a name up on a thread that may be left behind; where there is none to be had, here, with the system's own patience.
/// (The library's own resolver panics then.)
#[derive(Debug)]
struct Names;

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let (reason, after) = (timeout.reason, timeout.after);
        let (its_uri, its_config) = (uri.clone(), config.clone());
        let look = move |uri: &Uri, config: &Config| {
            let forever = NextTimeout {
                after: Limit::NotHappening,
                reason,
                ..NextTimeout::default()
            };
            DefaultResolver::default().resolve(uri, config, forever)
        };
        let (sender, answer) = sync_channel(1);
        let thread = thread::Builder::new().name("mica-resolve".to_owned());
        let work = move || {
            // Nobody listens any more when it has taken too long.
            let _ = sender.send(look(&its_uri, &its_config));
        };
        match thread.spawn(work) {
            Err(_) => look(uri, config),
            Ok(_) => match answer.recv_timeout(*after) {
                Ok(found) => found,
                Err(RecvTimeoutError::Timeout) => Err(ureq::Error::Timeout(reason)),
                Err(RecvTimeoutError::Disconnected) => Err(ureq::Error::HostNotFound),
            },
        }
    }
}

/// What a registry's certificate is checked against: the system's CAs and those of `certs.d/<host>`.
fn tls(host: &str, insecure: bool) -> Result<TlsConfig, RegistryError> {
    let mut roots: Vec<Certificate<'static>> = Vec::new();
    if !insecure {
        // A file among the system's that cannot be read is that system's affair.
        let native = rustls_native_certs::load_native_certs();
        roots.extend(
            native
                .certs
                .iter()
                .map(|c| Certificate::from_der(c).to_owned()),
        );
    }
    let mut client = None;
    for dir in certificate_dirs(host) {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => roots.extend(certificates(&path)?),
                Some("cert") => client = Some(client_certificate(&path)?),
                _ => {}
            }
        }
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(client)
        .disable_verification(insecure)
        .build())
}

/// docker's and podman's places, least first.
fn certificate_dirs(host: &str) -> Vec<PathBuf> {
    let mut bases = vec![
        PathBuf::from("/etc/containers/certs.d"),
        PathBuf::from("/etc/docker/certs.d"),
    ];
    let variable = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let home = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    if let Some(home) = home {
        bases.push(home.join("containers/certs.d"));
        bases.push(home.join("docker/certs.d"));
    }
    bases.into_iter().map(|base| base.join(host)).collect()
}

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, RegistryError> {
    let fail = |reason: String| RegistryError::File {
        path: path.to_owned(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    parse_pem(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    Ok(items(path)?.into_iter().filter_map(certificate).collect())
}

/// `client.cert` with `client.key` beside it.
fn client_certificate(path: &Path) -> Result<ClientCert, RegistryError> {
    let key_path = path.with_extension("key");
    let key = items(&key_path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let key = key.ok_or_else(|| RegistryError::File {
        path: key_path,
        reason: "there is no private key in it".to_owned(),
    })?;
    Ok(ClientCert::new_with_certs(&certificates(path)?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_this_machine_only() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.1.2.3",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.com",
            "10.0.0.1:5000",
            "[fe80::1]:5000",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
