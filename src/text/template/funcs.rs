//! Functions: Go's own, and docker's (`templates.basicFunctions`).

use std::cmp::Ordering;

use crate::text::template::printf;
use crate::text::template::value::Value;

type Function = fn(&[Value]) -> Result<Value, String>;

/// By name; `and` and `or` are the evaluator's, which need not look at all their arguments.
const FUNCTIONS: &[(&str, Function)] = &[
    ("not", not),
    ("eq", eq),
    ("ne", |arguments| Ok(Value::Bool(!pair(arguments, equal)?))),
    ("lt", |arguments| {
        Ok(Value::Bool(pair(arguments, order)?.is_lt()))
    }),
    ("le", |arguments| {
        Ok(Value::Bool(pair(arguments, order)?.is_le()))
    }),
    ("gt", |arguments| {
        Ok(Value::Bool(pair(arguments, order)?.is_gt()))
    }),
    ("ge", |arguments| {
        Ok(Value::Bool(pair(arguments, order)?.is_ge()))
    }),
    ("len", len),
    ("index", index),
    ("slice", slice),
    ("print", |arguments| {
        Ok(Value::Text(printf::print(arguments)))
    }),
    ("printf", formatted),
    ("println", println),
    ("json", json),
    ("split", split),
    ("join", join),
    ("title", |arguments| changed(arguments, title)),
    ("lower", |arguments| changed(arguments, str::to_lowercase)),
    ("upper", |arguments| changed(arguments, str::to_uppercase)),
    ("pad", pad),
    ("truncate", truncate),
];

/// The longest padding that is made.
const MAX_PAD: i128 = 1 << 16;

/// Whether there is such a function.
pub(super) fn exists(name: &str) -> bool {
    matches!(name, "and" | "or") || find(name).is_some()
}

/// Whether docker shows the name of a column as it is where a row shows what this function makes of its value.
pub(super) fn keeps_headers(name: &str) -> bool {
    matches!(name, "json" | "title" | "lower" | "upper" | "truncate")
}

fn find(name: &str) -> Option<Function> {
    let found = FUNCTIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, function)| *function)
}

/// Calls a function; `and` and `or` are the evaluator's.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match find(name) {
        Some(function) => function(arguments),
        None => Err(format!("function \"{name}\" not defined")),
    }
}

/// Whether it has so many arguments.
fn count(arguments: &[Value], want: usize) -> Result<(), String> {
    match arguments.len() {
        got if got == want => Ok(()),
        got => Err(format!("wrong number of args: want {want} got {got}")),
    }
}

fn text<'v>(arguments: &'v [Value], i: usize, name: &str) -> Result<&'v str, String> {
    match arguments.get(i) {
        Some(Value::Text(text)) => Ok(text.as_str()),
        Some(other) => Err(format!(
            "wrong type for {name}; expected string; got {}",
            other.type_name()
        )),
        None => Err(format!("missing argument for {name}")),
    }
}

fn integer(arguments: &[Value], i: usize) -> Result<i128, String> {
    match arguments.get(i) {
        Some(Value::Int(n)) => Ok(*n),
        Some(other) => Err(format!("expected int; got {}", other.type_name())),
        None => Err("missing argument".to_owned()),
    }
}

fn changed(arguments: &[Value], change: impl Fn(&str) -> String) -> Result<Value, String> {
    count(arguments, 1)?;
    Ok(Value::Text(change(text(arguments, 0, "value")?)))
}

fn pair<T>(
    arguments: &[Value],
    compare: fn(&Value, &Value) -> Result<T, String>,
) -> Result<T, String> {
    match arguments {
        [one, two] => compare(one, two),
        _ => Err(count(arguments, 2).err().unwrap_or_default()),
    }
}

fn not(arguments: &[Value]) -> Result<Value, String> {
    count(arguments, 1)?;
    Ok(Value::Bool(!arguments.iter().any(Value::is_true)))
}

/// Whether the first is one of the others.
fn eq(arguments: &[Value]) -> Result<Value, String> {
    let Some((first, rest)) = arguments.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err("missing argument for comparison".to_owned());
    };
    for other in rest {
        if equal(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn len(arguments: &[Value]) -> Result<Value, String> {
    count(arguments, 1)?;
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

fn println(arguments: &[Value]) -> Result<Value, String> {
    let words: Vec<String> = arguments.iter().map(Value::to_string).collect();
    Ok(Value::Text(format!("{}\n", words.join(" "))))
}

fn formatted(arguments: &[Value]) -> Result<Value, String> {
    let (_, rest) = arguments.split_first().ok_or("missing format")?;
    let format = text(arguments, 0, "format")?;
    Ok(Value::Text(printf::printf(format, rest)))
}

fn json(arguments: &[Value]) -> Result<Value, String> {
    count(arguments, 1)?;
    let value = arguments.first().unwrap_or(&Value::Nil);
    let text = serde_json::to_string(value);
    text.map(Value::Text).map_err(|e| e.to_string())
}

fn split(arguments: &[Value]) -> Result<Value, String> {
    count(arguments, 2)?;
    let whole = text(arguments, 0, "value")?;
    let parts: Vec<String> = match text(arguments, 1, "separator")? {
        "" => whole.chars().map(String::from).collect(),
        separator => whole.split(separator).map(str::to_owned).collect(),
    };
    Ok(Value::List(parts.into_iter().map(Value::Text).collect()))
}

fn join(arguments: &[Value]) -> Result<Value, String> {
    count(arguments, 2)?;
    let Some(Value::List(list)) = arguments.first() else {
        return Err("wrong type for value; expected []string".to_owned());
    };
    let parts: Vec<String> = list.iter().map(Value::to_string).collect();
    Ok(Value::Text(parts.join(text(arguments, 1, "separator")?)))
}

fn pad(arguments: &[Value]) -> Result<Value, String> {
    count(arguments, 3)?;
    let blanks = |n: i128| " ".repeat(usize::try_from(n.clamp(0, MAX_PAD)).unwrap_or(0));
    let source = text(arguments, 0, "value")?;
    let (before, after) = (integer(arguments, 1)?, integer(arguments, 2)?);
    Ok(Value::Text(match source {
        "" => String::new(),
        source => format!("{}{source}{}", blanks(before), blanks(after)),
    }))
}

fn truncate(arguments: &[Value]) -> Result<Value, String> {
    count(arguments, 2)?;
    let length = usize::try_from(integer(arguments, 1)?).unwrap_or(0);
    let source = text(arguments, 0, "value")?;
    // docker cuts bytes; never within a character.
    let end = (0..=length.min(source.len()))
        .rev()
        .find(|end| source.is_char_boundary(*end));
    let shown = source.get(..end.unwrap_or(0)).unwrap_or(source);
    Ok(Value::Text(shown.to_owned()))
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
