//! docker's number, time, table and JSON formats. Pure; shared by the command line and the files under `info/`.

use std::io::Write as _;

use serde::Serialize;

/// docker's `HumanDuration` (go-units) of a time span in seconds: `About an hour`, `3 weeks`. Negative spans are zero.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, whole_hours) = (seconds / 60, seconds / 3600);
    // Go rounds the hours to the nearest before it compares, except for years.
    let hours = seconds.saturating_add(1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", whole_hours / 24 / 365),
    }
}

/// `human_duration` + ` ago` of the time from `then` to `now`; `N/A` without a time, as docker prints a zero date.
pub fn ago(then: Option<jiff::Timestamp>, now: jiff::Timestamp) -> String {
    match then {
        Some(then) => format!("{} ago", since(then, now)),
        None => "N/A".to_owned(),
    }
}

/// `human_duration` of the time from `then` to `now`, counted to the nanosecond: 59.9 s ago is not a minute ago.
pub fn since(then: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let span = now.as_second().saturating_sub(then.as_second());
    let partial = i64::from(now.subsec_nanosecond() < then.subsec_nanosecond());
    human_duration(span.saturating_sub(partial))
}

/// docker's `HumanSizeWithPrecision(size, 3)`: decimal units, three significant digits, no blank: `5.61MB`, `0B`.
///
/// Where Go's `%.3g` gives `1e+03kB` (from 999.5 of a unit on) the next unit is used: `1MB`.
pub fn human_size(bytes: u64) -> String {
    human_size_with(bytes, 3)
}

/// docker's `HumanSize`: four significant digits, for sums such as `Total reclaimed space: 16.43MB`.
pub fn human_size_4(bytes: u64) -> String {
    human_size_with(bytes, 4)
}

fn human_size_with(bytes: u64, digits: usize) -> String {
    let mut text = String::new();
    for (power, unit) in ["B", "kB", "MB", "GB", "TB", "PB", "EB"].iter().enumerate() {
        // u64::MAX is 18.4 EB: the loop always ends within the list. Go computes in f64 too.
        let value = bytes as f64 / 1000f64.powi(i32::try_from(power).unwrap_or(0));
        let whole_digits = match value {
            v if v >= 100.0 => 3,
            v if v >= 10.0 => 2,
            _ => 1,
        };
        let number = format!("{value:.*}", digits.saturating_sub(whole_digits));
        let number = match number.contains('.') {
            true => number
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned(),
            false => number,
        };
        text = format!("{number}{unit}");
        if value < 1000.0 && number != "1000" {
            break;
        }
    }
    text
}

/// Reads a size: bytes, or with a unit as they are printed (`500MB`, `1.5g`), or a binary one (`2GiB`).
pub fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at_checked(end.unwrap_or(text.len()))?;
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim().to_ascii_lowercase();
    let (letter, base) = match unit.strip_suffix("ib") {
        Some(letter) => (letter, 1024f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000f64),
    };
    let power = ["", "k", "m", "g", "t", "p", "e"]
        .iter()
        .position(|known| *known == letter)?;
    let bytes = number * base.powi(i32::try_from(power).ok()?);
    // Larger than any disk is as large as can be: the cast saturates.
    #[allow(clippy::cast_possible_truncation)]
    (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

/// A table as docker's CLI prints it: Go's tabwriter with minimal width 10 and three blanks between columns, the last
/// column not padded. Cells must not hold tabs or line breaks.
pub fn table(header: Option<&[&str]>, rows: &[Vec<String>]) -> String {
    // The crate adds the padding to the minimum, Go counts it in.
    let mut writer = tabwriter::TabWriter::new(Vec::new()).minwidth(7).padding(3);
    let header = header.map(|cells| cells.join("\t"));
    for line in header
        .into_iter()
        .chain(rows.iter().map(|cells| cells.join("\t")))
    {
        // Writing to memory cannot fail.
        let _ = writeln!(writer, "{line}");
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// JSON as docker's `inspect` prints it: indented by four blanks, with a line break at the end.
pub fn json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut out = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut out, formatter,
    ))?;
    out.push(b'\n');
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// docker's `Ellipsis`: at most `width` characters, the last an ellipsis when something was cut.
pub fn ellipsis(text: &str, width: usize) -> String {
    match text.chars().count() <= width {
        true => text.to_owned(),
        false => {
            let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
            cut.push('…');
            cut
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_units() {
        let (minute, hour, day) = (60, 3600, 86400);
        let table = [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (60 * minute - 1, "59 minutes"),
            (hour, "About an hour"),
            (hour + 29 * minute, "About an hour"),
            (hour + 30 * minute, "2 hours"),
            (47 * hour + 29 * minute, "47 hours"),
            (47 * hour + 30 * minute, "2 days"),
            (13 * day + 23 * hour, "13 days"),
            (14 * day, "2 weeks"),
            (59 * day, "8 weeks"),
            (60 * day, "2 months"),
            (729 * day, "24 months"),
            (730 * day, "2 years"),
            (730 * day - 1, "1 years"),
            (56 * 365 * day, "56 years"),
        ];
        for (seconds, text) in table {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
        let at = |s: &str| s.parse::<jiff::Timestamp>().unwrap();
        let now = at("2026-01-01T00:01:00Z");
        assert_eq!(
            ago(Some(at("2026-01-01T00:00:00.1Z")), now),
            "59 seconds ago"
        );
        assert_eq!(
            ago(Some(at("2026-01-01T00:00:00Z")), now),
            "About a minute ago"
        );
        assert_eq!(
            ago(Some(at("2030-01-01T00:00:00Z")), now),
            "Less than a second ago"
        );
        assert_eq!(ago(None, now), "N/A");
    }

    #[test]
    fn sizes_have_three_digits() {
        let table = [
            (0, "0B"),
            (1, "1B"),
            (999, "999B"),
            (1000, "1kB"),
            (1005, "1kB"),
            (1006, "1.01kB"),
            (4_613, "4.61kB"),
            (10_000, "10kB"),
            (99_949, "99.9kB"),
            (99_951, "100kB"),
            (999_499, "999kB"),
            (999_500, "1MB"),
            (999_999, "1MB"),
            (5_613_130, "5.61MB"),
            (133_713_152, "134MB"),
            (1_000_000_000, "1GB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, text) in table {
            assert_eq!(human_size(bytes), text, "{bytes}");
        }
        assert_eq!(human_size_4(16_432_000), "16.43MB");
        assert_eq!(human_size_4(999_960), "1MB");
        assert_eq!(human_size_4(999_950_000_000), "1TB");
        assert_eq!(human_size_4(0), "0B");
    }

    #[test]
    fn sizes_are_read_back() {
        let table = [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("5.61MB", Some(5_610_000)),
            ("2g", Some(2_000_000_000)),
            ("10 GiB", Some(10 << 30)),
            ("1kib", Some(1024)),
            ("", None),
            ("MB", None),
            ("-1", None),
            ("1x", None),
            ("1.2.3", None),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn tables_are_go_tabwriters() {
        let row = |cells: &[&str]| cells.iter().map(|c| c.to_string()).collect::<Vec<_>>();
        let header = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"];
        let rows = [row(&[
            "123456789012",
            "Less than a second ago",
            "",
            "0B",
            "none",
        ])];
        assert_eq!(
            table(Some(&header), &rows),
            "IMAGE          CREATED                  CREATED BY   SIZE      COMMENT\n\
             123456789012   Less than a second ago                0B        none\n"
        );
        assert_eq!(
            table(Some(&["REPOSITORY", "TAG", "SIZE"]), &[]),
            "REPOSITORY   TAG       SIZE\n"
        );
        assert_eq!(
            table(None, &[row(&["ä", "x"]), row(&["bbbbbbbb", "y"])]),
            "ä          x\nbbbbbbbb   y\n"
        );
        assert_eq!(table(None, &[]), "");
    }

    #[test]
    fn json_is_indented_by_four() {
        let value = serde_json::json!([{"a": {}, "b": [], "c": "<&>\u{1}"}]);
        let text = "[\n    {\n        \"a\": {},\n        \"b\": [],\n        \"c\": \"<&>\\u0001\"\n    }\n]\n";
        assert_eq!(json(&value).unwrap(), text);
        assert_eq!(json(&Vec::<u8>::new()).unwrap(), "[]\n");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(ellipsis("abc", 3), "abc");
        assert_eq!(ellipsis("abcd", 3), "ab…");
        assert_eq!(ellipsis("äöü€", 3), "äö…");
    }
}
