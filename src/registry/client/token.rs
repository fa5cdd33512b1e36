//! Who the client is to the registry: challenges answered, tokens fetched and kept.

use std::net::{IpAddr, ToSocketAddrs as _};

use ureq::Body;
use ureq::http::{Method, Response, header};

use crate::registry::RegistryError;
use crate::registry::auth::{Challenge, TokenAnswer, challenge, query_escape};
use crate::registry::credentials::Credential;

use super::answer::{message, read_limited, scope_name};
use super::retry::{Failure, is_transient};
use super::{Call, Client};

/// Largest answer of a token server.
const MAX_ANSWER: u64 = 4 << 20;

/// What a registry that knows nobody yet wants to see.
pub(super) fn wanted(response: &Response<Body>) -> Option<Challenge> {
    let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
    headers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter_map(challenge)
        .max_by_key(|found| matches!(found, Challenge::Bearer { .. }))
}

impl Client {
    pub(super) fn authorization(&self, call: &Call<'_>) -> Result<Option<String>, Failure> {
        let challenge = self.0.authority.challenge.lock().clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => {
                let credential = self.0.authority.credential.as_ref();
                Ok(credential.and_then(Credential::basic))
            }
            Some(Challenge::Bearer { realm, service, .. }) => {
                if let Some(token) = self.0.authority.token(call.scope) {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let token = self.fetch_token(&realm, service.as_deref(), call.scope)?;
                let value = format!("Bearer {token}");
                self.0.authority.keep(call.scope, token);
                Ok(Some(value))
            }
        }
    }

    /// A 401: learns what is wanted; the token that did not do is dropped.
    pub(super) fn challenged(
        &self,
        call: &Call<'_>,
        response: &Response<Body>,
    ) -> Result<(), Failure> {
        if let Some(found) = wanted(response) {
            *self.0.authority.challenge.lock() = Some(found);
        }
        self.0.authority.drop_token(call.scope);
        Ok(())
    }

    fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<String, Failure> {
        let what = format!("a token for {}", self.0.domain);
        let fail = |reason: String| {
            Failure::Final(RegistryError::Malformed {
                what: what.clone(),
                reason,
            })
        };
        // What is told to the token server is as secret as what is told to the registry.
        let both_plain = realm.starts_with("http://") && self.0.base.starts_with("http://");
        if !realm.starts_with("https://") && !both_plain {
            return Err(fail("its server is not reached by https".to_owned()));
        }
        if leads_inside(realm, &self.0.base) {
            return Err(fail(
                "its server is a private address, the registry is not".to_owned(),
            ));
        }
        let mut parameters: Vec<(&str, String)> = Vec::new();
        if let Some(service) = service {
            parameters.push(("service", service.to_owned()));
        }
        let scopes = scope.split(' ').filter(|s| !s.is_empty());
        let credential = self.0.authority.credential.as_ref();
        let request = match credential {
            Some(Credential::IdentityToken(token)) => {
                parameters.push(("grant_type", "refresh_token".to_owned()));
                parameters.push(("refresh_token", token.clone()));
                parameters.push(("client_id", "mica".to_owned()));
                parameters.push(("scope", scope.to_owned()));
                ureq::http::Request::builder()
                    .method(Method::POST)
                    .uri(realm)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form(&parameters))
            }
            _ => {
                parameters.extend(scopes.map(|scope| ("scope", scope.to_owned())));
                if let Some(Credential::Password { user, .. }) = credential {
                    parameters.push(("account", user.clone()));
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{separator}{}", form(&parameters));
                let mut request = ureq::http::Request::builder().method(Method::GET).uri(url);
                if let Some(basic) = credential.and_then(Credential::basic) {
                    request = request.header(header::AUTHORIZATION, basic);
                }
                request.body(String::new())
            }
        };
        let request = request.map_err(|_| fail("its server's URL makes no sense".to_owned()))?;
        let response = match request.method() == Method::GET {
            true => self.0.run(request.map(|_| ())),
            false => self.0.run(request),
        };
        // The error of a URL is left out: the URL is the registry's and may hold anything.
        let response = response.map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                fail("its server's URL makes no sense".to_owned())
            }
            error => Failure::Lost(error),
        })?;
        if is_transient(response.status()) {
            let reason = format!("its server answered {}", response.status().as_u16());
            return Err(Failure::Lost(ureq::Error::Io(std::io::Error::other(
                reason,
            ))));
        }
        if !response.status().is_success() {
            let message = message(response, self);
            return Err(Failure::Final(RegistryError::Denied {
                what: scope_name(scope, &self.0.domain),
                host: self.0.domain.clone(),
                message,
            }));
        }
        let bytes = read_limited(response, MAX_ANSWER, &what, self).map_err(Failure::Final)?;
        // serde_json's messages of data can quote what they found.
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|_| fail("its server's answer makes no sense".to_owned()))?;
        answer
            .token()
            .ok_or_else(|| fail("its server's answer holds none".to_owned()))
    }
}

/// Whether a registry out there sends us to a machine in here, which would get its password and answer as if asked by us. A
/// server of tokens elsewhere is how registries work (that of Docker Hub has another name), so that alone says nothing.
fn leads_inside(realm: &str, base: &str) -> bool {
    is_private(realm) && !is_private(base)
}

/// Whether a URL leads to this machine or its private networks, by its address or by what its name resolves to here.
fn is_private(url: &str) -> bool {
    let Ok(uri) = url.parse::<ureq::http::Uri>() else {
        return false;
    };
    let Some(host) = uri.host() else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return is_private_address(address);
    }
    // A name that does not resolve here is a proxy's concern.
    let addresses = (host, uri.port_u16().unwrap_or(443)).to_socket_addrs();
    let mut addresses = addresses.into_iter().flatten();
    addresses.any(|address| is_private_address(address.ip()))
}

fn is_private_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

fn form(parameters: &[(&str, String)]) -> String {
    let pairs = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", query_escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cve_2026_48978_a_realm_in_here_of_a_registry_out_there() {
        let outside = "https://192.0.2.1";
        for realm in [
            "https://127.0.0.1:8080/t",
            "https://10.1.2.3/t",
            "https://169.254.169.254/latest",
            "https://[::1]/t",
            "https://[::ffff:192.168.0.1]/t",
            "https://[fe80::1]/t",
            "https://0.0.0.0/t",
            "https://localhost/t",
        ] {
            assert!(leads_inside(realm, outside), "{realm}");
            assert!(!leads_inside(realm, "http://127.0.0.1:5000"), "{realm}");
        }
        assert!(!leads_inside("https://198.51.100.7/token", outside));
        assert!(!leads_inside("no URL", outside));
    }
}
