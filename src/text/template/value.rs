//! Values: JSON that keeps the order of records.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A value of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Go's nil.
    Nil,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Fields; any other is an error.
    Record(Record),
    /// Any keys, sorted.
    Map(BTreeMap<String, Value>),
    /// Go's nil list or map: empty for everybody but `json`.
    Unset(Shape),
}

/// What would be there if it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A list.
    List,
    /// A map.
    Map,
}

/// Fields in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// As they are printed.
    pub fields: Vec<(String, Value)>,
    /// Fields that are left out where they are empty, with what they are then.
    pub empty: Vec<(&'static str, Value)>,
}

impl Record {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let given = self.fields.iter().find(|(field, _)| field == name);
        let empty = || self.empty.iter().find(|(field, _)| *field == name);
        given
            .map(|(_, value)| value)
            .or_else(|| empty().map(|(_, value)| value))
    }
}

impl From<Vec<(String, Value)>> for Record {
    fn from(fields: Vec<(String, Value)>) -> Record {
        let empty = Vec::new();
        Record { fields, empty }
    }
}

impl Value {
    /// The value that serde makes of something. Its objects are records but for those in fields of the names in `maps`.
    pub fn of<T: Serialize>(value: &T, maps: &[&str]) -> Result<Value, serde_json::Error> {
        let mut value: Value = serde_json::from_str(&serde_json::to_string(value)?)?;
        value.make_maps(maps);
        Ok(value)
    }

    /// A record of texts.
    pub fn record(fields: &[(&str, String)]) -> Value {
        let field = |(name, text): &(&str, String)| ((*name).to_owned(), Value::Text(text.clone()));
        Value::Record(fields.iter().map(field).collect::<Vec<_>>().into())
    }

    /// Says what fields of the record at `path` are when they are left out. Nothing happens if no record is there.
    pub fn with_empty(mut self, path: &[&str], empty: Vec<(&'static str, Value)>) -> Value {
        let mut here = &mut self;
        for name in path {
            let Value::Record(record) = here else {
                return self;
            };
            match record.fields.iter_mut().find(|(field, _)| field == name) {
                Some((_, value)) => here = value,
                None => return self,
            }
        }
        if let Value::Record(record) = here {
            record.empty = empty;
        }
        self
    }

    /// The same with what is unset as what it is empty.
    pub fn settled(self) -> Value {
        match self {
            Value::Unset(Shape::List) => Value::List(Vec::new()),
            Value::Unset(Shape::Map) => Value::Map(BTreeMap::new()),
            other => other,
        }
    }

    /// How much it is, more or less in bytes.
    pub(super) fn weight(&self) -> usize {
        let all = |values: &mut dyn Iterator<Item = (usize, &Value)>| -> usize {
            values.fold(0usize, |sum, (name, value)| {
                sum.saturating_add(name).saturating_add(value.weight())
            })
        };
        let own = match self {
            Value::Text(text) => text.len(),
            Value::List(list) => all(&mut list.iter().map(|value| (0, value))),
            Value::Record(record) => all(&mut record.fields.iter().map(|(n, v)| (n.len(), v))),
            Value::Map(map) => all(&mut map.iter().map(|(n, v)| (n.len(), v))),
            Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Unset(_) => 0,
        };
        own.saturating_add(16)
    }

    fn make_maps(&mut self, maps: &[&str]) {
        match self {
            Value::List(list) => list.iter_mut().for_each(|v| v.make_maps(maps)),
            Value::Record(record) => {
                for (name, value) in &mut record.fields {
                    value.make_maps(maps);
                    if maps.contains(&name.as_str())
                        && let Value::Record(inner) = value
                    {
                        *value =
                            Value::Map(std::mem::take(&mut inner.fields).into_iter().collect());
                    }
                }
            }
            _ => {}
        }
    }

    /// Go's truth: not zero and not empty; a record is always true.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil | Value::Unset(_) => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
            Value::Float(n) => *n != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.is_empty(),
            Value::Record(_) => true,
            Value::Map(map) => !map.is_empty(),
        }
    }

    /// What Go's error texts call the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(_) | Value::Unset(Shape::List) => "slice",
            Value::Record(_) => "struct",
            Value::Map(_) | Value::Unset(Shape::Map) => "map",
        }
    }
}

/// As Go's `%v` prints it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = |f: &mut fmt::Formatter<'_>, parts: &mut dyn Iterator<Item = String>| {
            for (i, part) in parts.enumerate() {
                write!(f, "{}{part}", if i == 0 { "" } else { " " })?;
            }
            Ok::<(), fmt::Error>(())
        };
        match self {
            Value::Nil => f.write_str("<nil>"),
            Value::Unset(Shape::List) => f.write_str("[]"),
            Value::Unset(Shape::Map) => f.write_str("map[]"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::Float(n) => write!(f, "{n}"),
            Value::Text(text) => f.write_str(text),
            Value::List(list) => {
                f.write_str("[")?;
                sequence(f, &mut list.iter().map(Value::to_string))?;
                f.write_str("]")
            }
            Value::Record(record) => {
                f.write_str("{")?;
                sequence(f, &mut record.fields.iter().map(|(_, v)| v.to_string()))?;
                f.write_str("}")
            }
            Value::Map(map) => {
                f.write_str("map[")?;
                sequence(f, &mut map.iter().map(|(k, v)| format!("{k}:{v}")))?;
                f.write_str("]")
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Nil | Value::Unset(_) => s.serialize_unit(),
            Value::Bool(b) => s.serialize_bool(*b),
            Value::Int(n) => match (i64::try_from(*n), u64::try_from(*n)) {
                (Ok(n), _) => s.serialize_i64(n),
                (_, Ok(n)) => s.serialize_u64(n),
                _ => s.serialize_str(&n.to_string()),
            },
            Value::Float(n) => s.serialize_f64(*n),
            Value::Text(text) => s.serialize_str(text),
            Value::List(list) => s.collect_seq(list),
            Value::Record(Record { fields, .. }) => {
                let mut map = s.serialize_map(Some(fields.len()))?;
                for (name, value) in fields {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Value::Map(map) => s.collect_map(map),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Value, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nil)
            }
            fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
                Ok(Value::Bool(b))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
                Ok(Value::Int(n.into()))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
                Ok(Value::Int(n.into()))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
                Ok(Value::Float(n))
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = seq.next_element()? {
                    list.push(value);
                }
                Ok(Value::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Value::Record(fields.into()))
            }
        }
        d.deserialize_any(Any)
    }
}
