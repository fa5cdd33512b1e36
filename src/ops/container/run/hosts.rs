//! `--add-host`, read as docker's client reads it.

use std::net::IpAddr;

use crate::ops::container::run::RunError;

/// What docker replaces by an address of the host: the network is the host's, so it is this machine.
const GATEWAY: (&str, &str) = ("host-gateway", "127.0.0.1");

/// The line of `/etc/hosts` for `NAME:ADDRESS` or `NAME=ADDRESS`.
pub fn line(text: &str) -> Result<String, RunError> {
    let invalid = |why: String| {
        RunError::Usage(format!(
            "invalid argument {text:?} for \"--add-host\" flag: {why}"
        ))
    };
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, given)) = parts.filter(|(name, _)| !name.is_empty()) else {
        return Err(invalid(format!("bad format for add-host: {text:?}")));
    };
    let address = given
        .strip_prefix('[')
        .and_then(|given| given.strip_suffix(']'));
    let address = address.unwrap_or(given);
    // It becomes a line of a file.
    if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(invalid(format!("bad format for add-host: {text:?}")));
    }
    if address == GATEWAY.0 {
        return Ok(format!("{}\t{name}", GATEWAY.1));
    }
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(invalid(format!(
            "invalid IP address in add-host: {given:?}"
        )));
    };
    Ok(format!("{address}\t{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_hosts_are_addresses() {
        let table = [
            ("a:1.2.3.4", "1.2.3.4\ta"),
            ("a=1.2.3.4", "1.2.3.4\ta"),
            ("a:::1", "::1\ta"),
            ("a:[::1]", "::1\ta"),
            ("a=[fe80::1]", "fe80::1\ta"),
            (
                "host.docker.internal:host-gateway",
                "127.0.0.1\thost.docker.internal",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(line(text).unwrap(), expected);
        }
        let table = [
            ("foo:garbage", "invalid IP address in add-host: \"garbage\""),
            ("foo:", "invalid IP address in add-host: \"\""),
            (
                "foo:[1.2.3.4",
                "invalid IP address in add-host: \"[1.2.3.4\"",
            ),
            ("foo", "bad format for add-host: \"foo\""),
            (":1.2.3.4", "bad format for add-host: \":1.2.3.4\""),
            ("a b:1.2.3.4", "bad format for add-host: \"a b:1.2.3.4\""),
            (
                "a\n6.6.6.6 bank=1.2.3.4",
                "bad format for add-host: \"a\\n6.6.6.6 bank=1.2.3.4\"",
            ),
            (
                "a\n6.6.6.6 bank:host-gateway",
                "bad format for add-host: \"a\\n6.6.6.6 bank:host-gateway\"",
            ),
        ];
        for (text, why) in table {
            let error = line(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("invalid argument {text:?} for \"--add-host\" flag: {why}")
            );
        }
    }
}
