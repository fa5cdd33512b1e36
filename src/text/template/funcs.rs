//! Functions: Go's own, and docker's (`templates.basicFunctions`).

use std::cmp::Ordering;

use crate::text::template::printf;
use crate::text::template::value::Value;

const NAMES: &[&str] = &[
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print",
    "printf", "println", "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// The longest padding that is made.
const MAX_PAD: i128 = 1 << 16;

/// Whether there is such a function.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether docker shows the name of a column as it is where a row shows what this function makes of its value.
pub(super) fn keeps_headers(name: &str) -> bool {
    matches!(name, "json" | "title" | "lower" | "upper" | "truncate")
}

/// Calls a function; `and` and `or` are the evaluator's.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let count = |want: usize| match arguments.len() == want {
        true => Ok(()),
        false => Err(format!(
            "wrong number of args: want {want} got {}",
            arguments.len()
        )),
    };
    let text = |name: &str, i: usize| match arguments.get(i) {
        Some(Value::Text(text)) => Ok(text.as_str()),
        Some(other) => Err(format!(
            "wrong type for {name}; expected string; got {}",
            other.type_name()
        )),
        None => Err(format!("missing argument for {name}")),
    };
    let integer = |i: usize| match arguments.get(i) {
        Some(Value::Int(n)) => Ok(*n),
        Some(other) => Err(format!("expected int; got {}", other.type_name())),
        None => Err("missing argument".to_owned()),
    };
    let changed = |change: &dyn Fn(&str) -> String| {
        count(1)?;
        Ok(Value::Text(change(text("value", 0)?)))
    };
    match name {
        "not" => {
            count(1)?;
            Ok(Value::Bool(!arguments.iter().any(Value::is_true)))
        }
        "eq" => {
            let Some((first, rest)) = arguments.split_first().filter(|(_, rest)| !rest.is_empty())
            else {
                return Err("missing argument for comparison".to_owned());
            };
            for other in rest {
                if equal(first, other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        "ne" | "lt" | "le" | "gt" | "ge" => {
            let [one, two] = arguments else {
                return count(2).map(|()| Value::Nil);
            };
            Ok(Value::Bool(match name {
                "ne" => !equal(one, two)?,
                "lt" => order(one, two)?.is_lt(),
                "le" => order(one, two)?.is_le(),
                "gt" => order(one, two)?.is_gt(),
                _ => order(one, two)?.is_ge(),
            }))
        }
        "len" => {
            count(1)?;
            let length = match arguments {
                [Value::Text(text)] => text.len(),
                [Value::List(list)] => list.len(),
                [Value::Map(map)] => map.len(),
                [Value::Record(record)] => record.fields.len(),
                [other, ..] => return Err(format!("len of type {}", other.type_name())),
                [] => 0,
            };
            Ok(Value::Int(i128::try_from(length).unwrap_or(i128::MAX)))
        }
        "index" => index(arguments),
        "slice" => slice(arguments),
        "print" => Ok(Value::Text(printf::print(arguments))),
        "println" => {
            let words: Vec<String> = arguments.iter().map(Value::to_string).collect();
            Ok(Value::Text(format!("{}\n", words.join(" "))))
        }
        "printf" => {
            let (_, rest) = arguments.split_first().ok_or("missing format")?;
            Ok(Value::Text(printf::printf(text("format", 0)?, rest)))
        }
        "json" => {
            count(1)?;
            let value = arguments.first().unwrap_or(&Value::Nil);
            serde_json::to_string(value)
                .map(Value::Text)
                .map_err(|e| e.to_string())
        }
        "split" => {
            count(2)?;
            let (whole, separator) = (text("value", 0)?, text("separator", 1)?);
            let parts: Vec<String> = match separator {
                "" => whole.chars().map(String::from).collect(),
                separator => whole.split(separator).map(str::to_owned).collect(),
            };
            Ok(Value::List(parts.into_iter().map(Value::Text).collect()))
        }
        "join" => {
            count(2)?;
            let Some(Value::List(list)) = arguments.first() else {
                return Err("wrong type for value; expected []string".to_owned());
            };
            let parts: Vec<String> = list.iter().map(Value::to_string).collect();
            Ok(Value::Text(parts.join(text("separator", 1)?)))
        }
        "title" => changed(&title),
        "lower" => changed(&str::to_lowercase),
        "upper" => changed(&str::to_uppercase),
        "pad" => {
            count(3)?;
            let blanks = |n: i128| " ".repeat(usize::try_from(n.clamp(0, MAX_PAD)).unwrap_or(0));
            let (source, before, after) = (text("value", 0)?, integer(1)?, integer(2)?);
            Ok(Value::Text(match source {
                "" => String::new(),
                source => format!("{}{source}{}", blanks(before), blanks(after)),
            }))
        }
        "truncate" => {
            count(2)?;
            let length = usize::try_from(integer(1)?).unwrap_or(0);
            let source = text("value", 0)?;
            // docker cuts bytes; never within a character.
            let end = (0..=length.min(source.len()))
                .rev()
                .find(|end| source.is_char_boundary(*end));
            Ok(Value::Text(
                source.get(..end.unwrap_or(0)).unwrap_or(source).to_owned(),
            ))
        }
        name => Err(format!("function \"{name}\" not defined")),
    }
}

/// Go's `strings.Title`: the first letter of each word.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::new();
    for c in text.chars() {
        match inside {
            true => out.push(c),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphanumeric() || matches!(c, '_' | '\'');
    }
    out
}

fn equal(one: &Value, two: &Value) -> Result<bool, String> {
    match (one, two) {
        (Value::Nil, other) | (other, Value::Nil) => Ok(*other == Value::Nil),
        (Value::Bool(_), Value::Bool(_)) | (Value::Text(_), Value::Text(_)) => Ok(one == two),
        (Value::Int(_), Value::Int(_)) | (Value::Float(_), Value::Float(_)) => Ok(one == two),
        (Value::List(_) | Value::Map(_) | Value::Record(_), _)
        | (_, Value::List(_) | Value::Map(_) | Value::Record(_)) => {
            Err("non-comparable type".to_owned())
        }
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn order(one: &Value, two: &Value) -> Result<Ordering, String> {
    match (one, two) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => Ok(a.total_cmp(b)),
        (
            Value::Bool(_)
            | Value::Nil
            | Value::List(_)
            | Value::Map(_)
            | Value::Unset(_)
            | Value::Record(_),
            _,
        ) => Err("invalid type for comparison".to_owned()),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let (first, keys) = arguments.split_first().ok_or("missing value")?;
    let mut here = first.clone();
    for key in keys {
        here = match (here, key) {
            (Value::List(list), Value::Int(i)) => usize::try_from(*i)
                .ok()
                .and_then(|i| list.get(i).cloned())
                .ok_or_else(|| format!("index out of range: {i}"))?,
            (Value::Text(text), Value::Int(i)) => usize::try_from(*i)
                .ok()
                .and_then(|i| text.as_bytes().get(i).copied())
                .map(|byte| Value::Int(byte.into()))
                .ok_or_else(|| format!("index out of range: {i}"))?,
            // Go's zero of what the map holds; that of text is what docker's maps need.
            (Value::Map(map), Value::Text(key)) => {
                map.get(key).cloned().unwrap_or(Value::Text(String::new()))
            }
            (Value::Record(record), Value::Text(key)) => {
                record.get(key).cloned().unwrap_or(Value::Nil)
            }
            (Value::Nil, _) => return Err("index of untyped nil".to_owned()),
            (here, key) => {
                let (of, by) = (here.type_name(), key.type_name());
                return Err(format!("can't index item of type {of} with {by}"));
            }
        };
    }
    Ok(here)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (first, bounds) = arguments.split_first().ok_or("missing value")?;
    let length = match first {
        Value::Text(text) => text.len(),
        Value::List(list) => list.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let bound = |i: usize, default: usize| match bounds.get(i) {
        None => Ok(default),
        Some(Value::Int(n)) => {
            let n = usize::try_from(*n).ok().filter(|n| *n <= length);
            n.ok_or_else(|| "index out of range".to_owned())
        }
        Some(other) => Err(format!(
            "cannot index slice/array with type {}",
            other.type_name()
        )),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let cut = match first {
        Value::Text(text) => text.get(from..to).map(|text| Value::Text(text.to_owned())),
        Value::List(list) => list.get(from..to).map(|list| Value::List(list.to_vec())),
        _ => None,
    };
    match bounds.len() {
        0..=2 => cut.ok_or_else(|| format!("invalid slice index: {from} > {to}")),
        n => Err(format!("too many slice indexes: {n}")),
    }
}
