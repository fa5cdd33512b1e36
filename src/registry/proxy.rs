//! Which proxy a request goes through, as docker (Go) decides it from the environment.
//!
//! `HTTPS_PROXY` for https, `HTTP_PROXY` for http, else `ALL_PROXY`; lower-case names count too, an empty value is none.
//! `NO_PROXY`: names separated by commas; `example.com` is that host and every host below, `.example.com` or
//! `*.example.com` only those below; addresses and networks (`10.0.0.0/8`); any of them with `:port`; `*` is everything.
//! This machine itself is never reached through a proxy.
//!
//! The proxy makes a tunnel (`CONNECT`), also for plain http. A proxy's password is in no message.

use std::fmt;
use std::net::IpAddr;

use ureq::Proxy;
use ureq::http::Uri;

use super::RegistryError;
use super::endpoint::{is_loopback, without_port};

/// The proxies of the environment.
#[derive(Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Rule>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxies(except {:?})", self.except)
    }
}

/// Hosts that are reached without a proxy.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    All,
    /// The domain, whether the host itself is meant too, and a port.
    Domain(String, bool, Option<u16>),
    /// An address, how many of its leading bits count, and a port.
    Network(IpAddr, u32, Option<u16>),
}

impl Proxies {
    /// As the environment has it.
    pub(super) fn from_env() -> Result<Proxies, RegistryError> {
        let variable = |names: &'static [&'static str]| {
            names.iter().find_map(|name| {
                let value = std::env::var(name).ok()?;
                (!value.trim().is_empty()).then_some((*name, value))
            })
        };
        let proxy = |names: &'static [&'static str]| {
            let Some((name, value)) = variable(names) else {
                return Ok(None);
            };
            let value = value.trim();
            let url = match value.contains("://") {
                true => value.to_owned(),
                false => format!("http://{value}"),
            };
            let proxy = Proxy::new(&url).map_err(|_| RegistryError::Proxy { variable: name })?;
            Ok(Some(proxy))
        };
        let except = variable(&["NO_PROXY", "no_proxy"]).map(|(_, value)| value);
        Ok(Proxies {
            https: proxy(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?,
            http: proxy(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])?,
            except: rules(except.as_deref().unwrap_or_default()),
        })
    }

    /// The one for this URL.
    pub(super) fn of(&self, url: &Uri) -> Option<Proxy> {
        let https = url.scheme_str() == Some("https");
        let proxy = match https {
            true => self.https.as_ref(),
            false => self.http.as_ref(),
        }?;
        let written = url.host()?;
        let host = written.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let without = is_loopback(written) || self.except.iter().any(|rule| rule.fits(host, port));
        (!without).then(|| proxy.clone())
    }
}

fn rules(text: &str) -> Vec<Rule> {
    let entries = text.split(',').map(|entry| entry.trim().to_lowercase());
    entries.filter_map(|entry| rule(&entry)).collect()
}

fn rule(entry: &str) -> Option<Rule> {
    if entry == "*" {
        return Some(Rule::All);
    }
    if let Some((address, bits)) = entry.split_once('/') {
        return Some(Rule::Network(
            address.parse().ok()?,
            bits.parse().ok()?,
            None,
        ));
    }
    // An IPv6 address has colons of its own.
    let whole = entry.ends_with(']') || entry.parse::<IpAddr>().is_ok();
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !whole => (name, Some(port.parse().ok()?)),
        _ => (entry, None),
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(Rule::Network(address, 128, port));
    }
    let below = name.strip_prefix('*').unwrap_or(name).strip_prefix('.');
    let domain = below.unwrap_or(name).trim_end_matches('.');
    (!domain.is_empty()).then(|| Rule::Domain(domain.to_owned(), below.is_none(), port))
}

/// Whether a host, with or without a port, is an address of a network (`10.1.0.0/16`).
pub(super) fn is_in_network(network: &str, host: &str) -> bool {
    let bare = without_port(host);
    let bare = bare.trim_start_matches('[').trim_end_matches(']');
    let network = network.contains('/').then(|| rule(network)).flatten();
    network.is_some_and(|rule| rule.fits(bare, 0))
}

impl Rule {
    fn fits(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_lowercase();
        let at = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Rule::All => true,
            Rule::Domain(domain, itself, wanted) => {
                let below = host
                    .strip_suffix(domain)
                    .is_some_and(|rest| rest.ends_with('.'));
                at(wanted) && (below || (*itself && host == *domain))
            }
            Rule::Network(network, bits, wanted) => {
                let same = host
                    .parse()
                    .is_ok_and(|host| same_network(host, *network, *bits));
                at(wanted) && same
            }
        }
    }
}

fn same_network(one: IpAddr, two: IpAddr, bits: u32) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let ((one, width), (two, other)) = (number(one), number(two));
    let shift = 128u32.saturating_sub(bits.min(width));
    width == other && one.checked_shr(shift) == two.checked_shr(shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_excepted_as_in_go() {
        let except = "example.com, .below.org,*.star.net,10.0.0.0/8,192.168.7.9,port.io:5000,[fe80::1],2001:db8::/32, ,x y:z";
        let proxies = Proxies {
            http: Proxy::new("http://proxy:1").ok(),
            https: Proxy::new("http://proxy:2").ok(),
            except: rules(except),
        };
        let proxied = |url: &str| proxies.of(&url.parse().unwrap()).is_some();
        for url in [
            "https://example.com/v2/",
            "https://A.Example.com:5000/v2/",
            "http://a.below.org/",
            "https://a.star.net/",
            "https://10.200.3.4:5000/",
            "https://192.168.7.9/",
            "https://port.io:5000/",
            "https://[fe80::1]:5000/",
            "https://[2001:db8:1::7]/",
            "http://localhost:5000/",
            "http://127.3.2.1/",
            "https://[::1]:5000/",
        ] {
            assert!(!proxied(url), "{url}");
        }
        for url in [
            "https://notexample.com/",
            "https://example.com.evil.org/",
            "https://below.org/",
            "https://star.net/",
            "https://11.0.0.1/",
            "https://192.168.7.8/",
            "https://port.io/",
            "https://[2001:db9::1]/",
        ] {
            assert!(proxied(url), "{url}");
        }
        assert_eq!(rules("*"), [Rule::All]);
        assert!(Rule::All.fits("anything", 1));
    }
}
