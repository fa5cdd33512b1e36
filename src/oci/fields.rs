//! The names of fields in documents, where readers differ: to Go's decoder `Layers` is `layers`, to others it is nothing.

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::document::DocumentError;

/// What a kind of document has.
pub(super) struct Fields {
    /// Names that are read, at any level.
    pub(super) known: &'static [&'static str],
    /// Those whose values have such names again; in other values any name is somebody's own.
    pub(super) nested: &'static [&'static str],
}

/// Of manifests and indexes.
pub(super) const MANIFEST: Fields = Fields {
    known: &[
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "fsLayers",
        "digest",
        "size",
        "annotations",
        "platform",
        "os",
        "architecture",
        "variant",
    ],
    nested: &["config", "layers", "manifests", "platform"],
};

/// Of image configs.
pub(super) const CONFIG: Fields = Fields {
    known: &[
        "architecture",
        "os",
        "os.version",
        "variant",
        "created",
        "author",
        "comment",
        "config",
        "rootfs",
        "history",
        "type",
        "diff_ids",
        "created_by",
        "empty_layer",
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "ArgsEscaped",
        "Healthcheck",
        "OnBuild",
        "Shell",
        "Test",
        "Interval",
        "Timeout",
        "StartPeriod",
        "StartInterval",
        "Retries",
    ],
    nested: &["config", "rootfs", "history", "Healthcheck"],
};

/// Refuses a document in which a name is that of a field but for its case.
pub(super) fn check(bytes: &[u8], fields: &Fields) -> Result<(), DocumentError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let checked = Level(fields).deserialize(&mut reader);
    checked.map_err(|error| DocumentError::Json(error.to_string()))
}

/// As Go compares them: the long s and the Kelvin sign are letters, too.
fn folded(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

struct Level<'a>(&'a Fields);

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Level(self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Fields { known, nested } = self.0;
        while let Some(name) = map.next_key::<String>()? {
            if !known.contains(&name.as_str()) {
                let meant = folded(&name);
                if let Some(field) = known.iter().find(|field| folded(field) == meant) {
                    return Err(A::Error::custom(format!(
                        "field {name:?}: some readers take it for {field:?}"
                    )));
                }
            }
            match nested.contains(&name.as_str()) {
                true => map.next_value_seed(Level(self.0))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}
