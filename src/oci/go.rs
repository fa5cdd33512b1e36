//! Whether programs in Go read a document: containers/image decodes manifests and configs into structs, and a value of another type
//! in any field it knows is an error. podman then lists no image at all, not only not that one.
//!
//! We read more leniently, and of fewer fields. These are the fields of `manifest.Schema2Image`, `imgspecv1.Image` and
//! `imgspecv1.Manifest` with their types; `null` is none to any of them, names count in any case, and what is not listed is ignored.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

/// A type of Go's, as its decoder takes it.
enum Type {
    Text,
    /// `[]byte`
    Base64,
    Bool,
    Int,
    /// `time.Time`
    Time,
    /// `map[string]struct{}`
    Set,
    /// `map[string]string`
    Texts,
    List(&'static Type),
    Struct(&'static [(&'static str, Type)]),
    /// What makes a document one of another kind.
    Nothing,
}

use Type::{Base64, Bool, Int, List, Nothing, Set, Struct, Text, Texts, Time};

const RUN: Type = Struct(&[
    ("Hostname", Text),
    ("Domainname", Text),
    ("User", Text),
    ("AttachStdin", Bool),
    ("AttachStdout", Bool),
    ("AttachStderr", Bool),
    ("ExposedPorts", Set),
    ("Tty", Bool),
    ("OpenStdin", Bool),
    ("StdinOnce", Bool),
    ("Env", List(&Text)),
    ("Cmd", List(&Text)),
    (
        "Healthcheck",
        Struct(&[
            ("Test", List(&Text)),
            ("Interval", Int),
            ("Timeout", Int),
            ("StartPeriod", Int),
            ("StartInterval", Int),
            ("Retries", Int),
        ]),
    ),
    ("ArgsEscaped", Bool),
    ("Image", Text),
    ("Volumes", Set),
    ("WorkingDir", Text),
    ("Entrypoint", List(&Text)),
    ("NetworkDisabled", Bool),
    ("MacAddress", Text),
    ("OnBuild", List(&Text)),
    ("Labels", Texts),
    ("StopSignal", Text),
    ("StopTimeout", Int),
    ("Shell", List(&Text)),
]);

const STEP: Type = Struct(&[
    ("created", Time),
    ("author", Text),
    ("created_by", Text),
    ("comment", Text),
    ("empty_layer", Bool),
]);

const CONFIG: Type = Struct(&[
    ("id", Text),
    ("parent", Text),
    ("comment", Text),
    ("created", Time),
    ("container", Text),
    ("container_config", RUN),
    ("docker_version", Text),
    ("author", Text),
    ("config", RUN),
    ("architecture", Text),
    ("variant", Text),
    ("os", Text),
    ("os.version", Text),
    ("os.features", List(&Text)),
    ("size", Int),
    (
        "rootfs",
        Struct(&[("type", Text), ("diff_ids", List(&Text))]),
    ),
    ("history", List(&STEP)),
]);

const DESCRIPTOR: Type = Struct(&[
    ("mediaType", Text),
    ("digest", Text),
    ("size", Int),
    ("urls", List(&Text)),
    ("annotations", Texts),
    ("data", Base64),
    ("artifactType", Text),
    (
        "platform",
        Struct(&[
            ("architecture", Text),
            ("os", Text),
            ("os.version", Text),
            ("os.features", List(&Text)),
            ("variant", Text),
        ]),
    ),
]);

const MANIFEST: Type = Struct(&[
    ("schemaVersion", Int),
    ("mediaType", Text),
    ("artifactType", Text),
    ("config", DESCRIPTOR),
    ("layers", List(&DESCRIPTOR)),
    ("subject", DESCRIPTOR),
    ("annotations", Texts),
    ("manifests", Nothing),
    ("fsLayers", Nothing),
    ("history", Nothing),
]);

/// Whether an image config can be read.
///
/// # Errors
/// The field that cannot.
pub fn reads_config(bytes: &[u8]) -> Result<(), String> {
    reads(bytes, &CONFIG)
}

/// Whether an image manifest can be read.
///
/// # Errors
/// The field that cannot.
pub fn reads_manifest(bytes: &[u8]) -> Result<(), String> {
    reads(bytes, &MANIFEST)
}

fn reads(bytes: &[u8], kind: &Type) -> Result<(), String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match value {
        Value::Object(_) => fits(&value, kind),
        _ => Err("no object".to_owned()),
    }
}

fn fits(value: &Value, kind: &Type) -> Result<(), String> {
    let fine = match (value, kind) {
        (Value::Null, _) => true,
        (_, Nothing) => false,
        (Value::String(text), Base64) => BASE64_STANDARD.decode(text).is_ok(),
        (Value::String(text), Time) => is_time(text.as_bytes()),
        (Value::String(_), Text) | (Value::Bool(_), Bool) => true,
        (Value::Number(number), Int) => number.is_i64(),
        (Value::Array(list), List(of)) => {
            return list.iter().try_for_each(|value| fits(value, of));
        }
        (Value::Object(map), Set) => map.values().all(|v| v.is_object() || v.is_null()),
        (Value::Object(map), Texts) => map.values().all(|v| v.is_string() || v.is_null()),
        (Value::Object(map), Struct(fields)) => {
            return map.iter().try_for_each(|(name, value)| {
                let field = fields.iter().find(|(field, _)| same(field, name));
                field.map_or(Ok(()), |(field, kind)| {
                    fits(value, kind).map_err(|at| match at.is_empty() {
                        true => (*field).to_owned(),
                        false => format!("{field}.{at}"),
                    })
                })
            });
        }
        _ => false,
    };
    match fine {
        true => Ok(()),
        false => Err(String::new()),
    }
}

/// As Go compares names: the long s and the Kelvin sign are letters, too.
fn same(field: &str, name: &str) -> bool {
    field.eq_ignore_ascii_case(name)
        || !name.is_ascii() && field.to_lowercase() == name.to_uppercase().to_lowercase()
}

/// `time.RFC3339`, which Go takes exactly: `2006-01-02T15:04:05Z07:00`, with any fraction of a second.
fn is_time(text: &[u8]) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:dd";
    let Some((head, rest)) = text.split_at_checked(pattern.len()) else {
        return false;
    };
    let is = |(byte, like): (&u8, &u8)| match like {
        b'd' => byte.is_ascii_digit(),
        like => byte == like,
    };
    let number = |from: usize, count: usize| -> u32 {
        let digits = head.iter().skip(from).take(count);
        digits.fold(0, |n, digit| n * 10 + u32::from(digit.wrapping_sub(b'0')))
    };
    if !head.iter().zip(pattern).all(is) {
        return false;
    }
    let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    let zone = match rest.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            match fraction.split_at_checked(digits) {
                Some((some, zone)) if !some.is_empty() => zone,
                _ => return false,
            }
        }
        _ => rest,
    };
    let zone_fits = match zone {
        b"Z" => true,
        [b'+' | b'-', a, b, b':', c, d] => {
            let all = [a, b, c, d].into_iter().all(u8::is_ascii_digit);
            all && (*a, *b) < (b'2', b'4') && *c < b'6'
        }
        _ => false,
    };
    let clock = number(11, 2) < 24 && number(14, 2) < 60 && number(17, 2) < 60;
    (1..=days).contains(&day) && clock && zone_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_go_s() {
        for time in [
            "2024-05-06T07:08:09Z",
            "2024-02-29T07:08:09.123456789Z",
            "0001-01-01T00:00:00Z",
            "2024-05-06T07:08:09.1+02:00",
            "2024-05-06T23:59:59-11:30",
        ] {
            assert!(is_time(time.as_bytes()), "{time}");
        }
        for text in [
            "",
            "yesterday",
            "2024-05-06",
            "2024-05-06 07:08:09Z",
            "2024-05-06t07:08:09z",
            "2024-05-06T07:08:09",
            "2024-05-06T07:08:09.Z",
            "2023-02-29T07:08:09Z",
            "2024-13-01T07:08:09Z",
            "2024-05-00T07:08:09Z",
            "2024-05-06T24:08:09Z",
            "2024-05-06T07:08:60Z",
            "2024-05-06T07:08:09+2:00",
            "2024-05-06T07:08:09+ff:00",
            "2024-05-06T07:08:09Z ",
        ] {
            assert!(!is_time(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn odd_configs_are_named_by_the_field() {
        let read = |value: Value| reads_config(value.to_string().as_bytes());
        let plain = json!({
            "created": null, "unknown": [1], "ID": "x", "size": -1,
            "config": {"Cmd": ["a", null], "Volumes": {"/x": {}}, "Labels": {"a": null}},
            "history": [{"created_by": "x", "empty_layer": true}, null],
        });
        assert_eq!(read(plain), Ok(()));
        for (odd, field) in [
            (json!({"created": "x"}), "created"),
            (json!({"Created": 1}), "created"),
            (json!({"docker_version": 1}), "docker_version"),
            (json!({"size": 1.5}), "size"),
            (json!({"\u{17f}ize": "1"}), "size"),
            (json!({"config": []}), "config"),
            (json!({"config": {"Cmd": "x"}}), "config.Cmd"),
            (json!({"config": {"Volumes": {"/x": 1}}}), "config.Volumes"),
            (
                json!({"container_config": {"Tty": 1}}),
                "container_config.Tty",
            ),
            (json!({"history": [{"created": ""}]}), "history.created"),
        ] {
            assert_eq!(read(odd), Err(field.to_owned()));
        }
        assert!(reads_config(b"[]").is_err() && reads_config(b"{").is_err());
    }

    #[test]
    fn odd_manifests_are_named_by_the_field() {
        let read = |value: Value| reads_manifest(value.to_string().as_bytes());
        let plain = json!({
            "schemaVersion": 2, "config": {"data": "eHh4", "size": 3},
            "layers": [{"urls": ["x"], "annotations": {"a": "b"}}], "manifests": null,
        });
        assert_eq!(read(plain), Ok(()));
        for (odd, field) in [
            (json!({"annotations": {"a": 1}}), "annotations"),
            (json!({"history": []}), "history"),
            (json!({"layers": [{"urls": "x"}]}), "layers.urls"),
            (json!({"config": {"data": "?"}}), "config.data"),
        ] {
            assert_eq!(read(odd), Err(field.to_owned()));
        }
    }
}
