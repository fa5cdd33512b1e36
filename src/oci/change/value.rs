//! Single values: JSON arrays, ports, signals, directories.

use serde_json::Value;

use super::{ChangeError, refuse};

/// The exec form; `None`: this is no JSON array. What stands behind the array is ignored, as docker does.
pub(super) fn json_array(text: &str) -> Result<Option<Vec<String>>, ChangeError> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Vec<Value>>();
    let Some(Ok(list)) = values.next() else {
        return Ok(None);
    };
    let strings = list.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        _ => refuse("when using JSON array syntax, arrays must be comprised of strings only"),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

/// `PORT[-PORT][/PROTOCOL]` as the list of single ports.
pub(super) fn ports(spec: &str) -> Result<Vec<String>, ChangeError> {
    let invalid = || ChangeError(format!("invalid containerPort: {spec}"));
    let (range, protocol) = match spec.split_once('/') {
        Some((range, protocol)) => (range, protocol.to_ascii_lowercase()),
        None => (spec, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return refuse(format!("invalid proto: {protocol}"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (first, last) = (
        number(first).ok_or_else(invalid)?,
        number(last).ok_or_else(invalid)?,
    );
    if first > last {
        return Err(invalid());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// Signals of Linux; real-time ones are `RTMIN+n` and `RTMAX-n`.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether docker would send it.
pub(super) fn check_signal(signal: &str) -> Result<(), ChangeError> {
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, most: u8| {
        let number = name.strip_prefix(prefix).and_then(|n| n.parse::<u8>().ok());
        number.is_some_and(|number| (1..=most).contains(&number))
    };
    let number = signal.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n));
    if number || SIGNALS.contains(&name) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14) {
        return Ok(());
    }
    refuse(format!("invalid signal: {signal}"))
}

/// A directory, absolute and without `.`, `..` and doubled slashes; a relative one is below the one before.
pub(super) fn working_dir(before: &str, path: &str) -> Result<String, ChangeError> {
    if path.is_empty() {
        return refuse("cannot normalize nothing");
    }
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { before };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}
