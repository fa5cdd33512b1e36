//! PAX extended headers: `LENGTH KEY=VALUE\n` records.
//!
//! Unknown keys are ignored, as docker does: among them `LIBARCHIVE.xattr.*` (libarchive also writes `SCHILY.xattr.*`),
//! `SCHILY.acl.*` and `RHT.security.selinux`. `hdrcharset` is ignored because names are bytes here. An empty value
//! stands for "as in the header".

use super::decimal::decimal;
use super::sparse::PaxSparse;
use crate::layer::error::Problem;

/// The records that matter, of one extended header.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

impl Pax {
    /// Parses all of `data`.
    pub(crate) fn parse(data: &[u8]) -> Result<Pax, Problem> {
        let mut pax = Pax::default();
        let mut rest = data;
        while !rest.is_empty() {
            let (key, value, next) = record(rest).ok_or(Problem::PaxSyntax)?;
            pax.apply(key, value)?;
            rest = next;
        }
        Ok(pax)
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), Problem> {
        let bad = || Problem::PaxValue(key.into());
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            // An attribute may well be empty.
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.apply(name, value).map_err(|()| bad());
        }
        match key {
            _ if value.is_empty() => {}
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.linkpath = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or_else(bad)?),
            b"uid" => self.uid = Some(signed(value).ok_or_else(bad)?),
            b"gid" => self.gid = Some(signed(value).ok_or_else(bad)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
            _ => {}
        }
        Ok(())
    }
}

/// Key, value, and what follows the first record of `data`.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // 20 digits hold any length.
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let (digits, _) = data.split_at_checked(space)?;
    let length = usize::try_from(decimal(digits)?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at_checked(equals)?;
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, value.get(1..)?, rest))
}

fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(digits) => i64::try_from(decimal(digits)?).ok()?.checked_neg(),
        None => i64::try_from(decimal(text)?).ok(),
    }
}

/// `[-]SECONDS[.FRACTION]`, cut to nanoseconds towards the past.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut halves = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(halves.next()?)?).ok()?;
    let mut nanos = 0u32;
    let mut beyond = false;
    if let Some(fraction) = halves.next() {
        let mut unit = 100_000_000;
        for digit in fraction {
            if !digit.is_ascii_digit() {
                return None;
            }
            let digit = u32::from(digit - b'0');
            nanos += digit * unit;
            beyond |= unit == 0 && digit > 0;
            unit /= 10;
        }
    }
    if !negative {
        return Some((seconds, nanos));
    }
    // -1.25 is -2 s + 750,000,000 ns; a digit beyond nanoseconds rounds down, away from zero.
    let nanos = nanos + u32::from(beyond);
    match nanos {
        0 => Some((-seconds, 0)),
        _ => Some(((-seconds).checked_sub(1)?, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        assert_eq!(
            record(b"12 path=a\nb\nrest"),
            Some((&b"path"[..], &b"a\nb"[..], &b"rest"[..]))
        );
        assert_eq!(
            record(b"8 a==b\0\n"),
            Some((&b"a"[..], &b"=b\0"[..], &b""[..]))
        );
        for bad in [
            &b"x path=a\n"[..],
            b"99 path=a\n",
            b"0 path=a\n",
            b"2 path=a\n",
            b"11 path=a\n",
            b"-9 path=a\n",
            b"+9 path=a\n",
            b"9path=a\n\n",
            b"5 =a\n",
            b"7 path\n",
            b"8 a\0=b\n\n",
            b"99999999999999999999999 path=a\n",
        ] {
            assert_eq!(record(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            (&b"0"[..], Some((0, 0))),
            (b"1.5", Some((1, 500_000_000))),
            (b"1.", Some((1, 0))),
            (b"1.000000001", Some((1, 1))),
            (b"1.0000000019", Some((1, 1))),
            (b"-1", Some((-1, 0))),
            (b"-1.25", Some((-2, 750_000_000))),
            (b"-0.5", Some((-1, 500_000_000))),
            (b"-0", Some((0, 0))),
            (b"-0.0000000001", Some((-1, 999_999_999))),
            (b"9223372036854775807", Some((i64::MAX, 0))),
            (b"9223372036854775808", None),
            (b"-9223372036854775807.5", Some((i64::MIN, 500_000_000))),
            (b"", None),
            (b".5", None),
            (b"1e9", None),
            (b"1.5.5", None),
            (b"--1", None),
            (b" 1", None),
        ] {
            assert_eq!(time(text), expected, "{}", text.escape_ascii());
        }
    }
}
