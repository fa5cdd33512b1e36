//! `HEALTHCHECK [OPTIONS] CMD ..` and `HEALTHCHECK NONE`.

use super::value::json_array;
use super::{ChangeError, lex, refuse};
use crate::oci::config::Healthcheck;

pub(super) fn parse(rest: &str) -> Result<Healthcheck, ChangeError> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    let mut options = 0;
    while rest.starts_with("--") {
        let (option, behind) = lex::split(rest);
        rest = behind;
        options += 1;
        let Some((name, value)) = option.split_once('=') else {
            return refuse(format!("missing a value on flag: {option}"));
        };
        match name {
            "--interval" => check.interval = duration(name, value)?,
            "--timeout" => check.timeout = duration(name, value)?,
            "--start-period" => check.start_period = duration(name, value)?,
            "--start-interval" => check.start_interval = duration(name, value)?,
            "--retries" => match value.parse() {
                Ok(retries) if retries >= 0 => check.retries = retries,
                _ => {
                    return refuse(format!(
                        "--retries cannot be negative or no number: {value:?}"
                    ));
                }
            },
            _ => return refuse(format!("unknown flag: {name}")),
        }
    }
    let (kind, command) = lex::split(rest);
    match kind.to_ascii_uppercase().as_str() {
        "" => refuse("HEALTHCHECK requires at least one argument"),
        "NONE" if !command.is_empty() || options > 0 => {
            refuse("HEALTHCHECK NONE takes no arguments")
        }
        "NONE" => {
            check.test = vec!["NONE".to_owned()];
            Ok(check)
        }
        "CMD" => {
            check.test = match json_array(command)? {
                Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            };
            match command {
                "" | "[]" => refuse("Missing command after HEALTHCHECK CMD"),
                _ => Ok(check),
            }
        }
        _ => refuse(format!(
            "Unknown type {:?} in HEALTHCHECK (try CMD)",
            kind.to_ascii_uppercase()
        )),
    }
}

/// Go's `1h30m`, `500ms`, `1.5s`, in nanoseconds.
fn duration(option: &str, text: &str) -> Result<i64, ChangeError> {
    let nanos = parse_duration(text)
        .ok_or_else(|| ChangeError(format!("time: invalid duration {text:?}")))?;
    match nanos {
        0 => Ok(0),
        nanos if nanos < 1_000_000 => refuse(format!(
            "{option:?} cannot be less than 1ms",
            option = option.trim_start_matches('-')
        )),
        nanos => Ok(nanos),
    }
}

fn parse_duration(text: &str) -> Option<i64> {
    const UNITS: &[(&str, i64)] = &[
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0i64;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (number, behind) = rest.split_at_checked(digits)?;
        let unit = behind.len()
            - behind
                .trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.')
                .len();
        let (unit, behind) = behind.split_at_checked(unit)?;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(*scale)?)?;
        let mut place = *scale;
        for digit in fraction.bytes() {
            place /= 10;
            let digit = i64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
            total = total.checked_add(digit.checked_mul(place)?)?;
        }
        rest = behind;
    }
    Some(total)
}
