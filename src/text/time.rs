//! Points in time as docker's filters take them.
//!
//! A Go duration before now (`1h30m`, and beyond Go days and weeks: `30d`, `4w`); Unix seconds, with or without a
//! fraction; RFC 3339; a date or a date and time, in the local zone unless it ends in one.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

const SECOND: f64 = 1e9;

/// The time that a text means; `None` if it means none.
pub fn point(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(age) = duration(text) {
        return now.checked_sub(age).ok();
    }
    if let Some(time) = unix(text) {
        return Some(time);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        let zoned = time.to_zoned(TimeZone::system()).ok()?;
        return Some(zoned.timestamp());
    }
    // A date with a zone.
    let (date, zone) = text.split_at_checked(10)?;
    let zone = match zone {
        "" => return None,
        zone => zone,
    };
    format!("{date}T00:00:00{zone}").parse().ok()
}

/// A span of time in the same spelling, from now on; not negative.
pub fn span(text: &str) -> Option<std::time::Duration> {
    std::time::Duration::try_from(duration(text)?).ok()
}

/// `1h30m`, `1.5h`, `-5s`, `30d`. A bare number is none (it is Unix time), except that Go reads `0` as one.
fn duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut nanos = 0f64;
    let mut any = false;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let number: f64 = number.parse().ok()?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, tail) = tail.split_at_checked(end.unwrap_or(tail.len()))?;
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => SECOND,
            "m" => 60.0 * SECOND,
            "h" => 3600.0 * SECOND,
            "d" => 86_400.0 * SECOND,
            "w" => 7.0 * 86_400.0 * SECOND,
            _ => return None,
        };
        nanos += number * unit;
        any = true;
        rest = tail;
    }
    let span = SignedDuration::try_from_secs_f64(nanos / SECOND).ok()?;
    any.then_some(if negative { -span } else { span })
}

/// Seconds since 1970, with up to nine digits after the point.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-08-01T12:00:00Z");
        let table = [
            ("10m", "2026-08-01T11:50:00Z"),
            ("1h30m", "2026-08-01T10:30:00Z"),
            ("1.5h", "2026-08-01T10:30:00Z"),
            ("-1h", "2026-08-01T13:00:00Z"),
            ("500ms", "2026-08-01T11:59:59.5Z"),
            ("720h", "2026-07-02T12:00:00Z"),
            ("30d", "2026-07-02T12:00:00Z"),
            ("4w", "2026-07-04T12:00:00Z"),
            ("1754049600", "2025-08-01T12:00:00Z"),
            ("1754049600.5", "2025-08-01T12:00:00.5Z"),
            ("2026-07-01T10:00:00Z", "2026-07-01T10:00:00Z"),
            ("2026-07-01T10:00:00.25+02:00", "2026-07-01T08:00:00.25Z"),
            ("2026-07-01Z", "2026-07-01T00:00:00Z"),
            ("2026-07-01+02:00", "2026-06-30T22:00:00Z"),
        ];
        for (text, expected) in table {
            assert_eq!(point(text, now), Some(at(expected)), "{text}");
        }
        for local in ["2026-07-01", "2026-07-01T10:00", "2026-07-01T10:00:00.123"] {
            let time = local.parse::<DateTime>().unwrap();
            let zoned = time.to_zoned(TimeZone::system()).unwrap();
            assert_eq!(point(local, now), Some(zoned.timestamp()), "{local}");
        }
        for bad in [
            "",
            "x",
            "1y",
            "1h2",
            "h",
            "-",
            "1.2.3s",
            "1.2.3",
            "2026-13-01",
            "é2026-07-01",
        ] {
            assert_eq!(point(bad, now), None, "{bad}");
        }
    }
}
