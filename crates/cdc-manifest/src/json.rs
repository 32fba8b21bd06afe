//! Reading and writing the lake's JSON files: two-space indent, no key twice, known versions only.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What the operator can do about a file that does not parse.
const RESTORE_HINT: &str = "restore it from a backup or a version of the store";
/// What the operator can do about a newer file.
const UPGRADE_HINT: &str = "a newer pgcdc wrote it, use that one";
/// What the operator can do about a file with no version or a lower one.
const OLDER_HINT: &str = "pgcdc never writes this version, restore the file";

/// Fields of a file that this build does not know, kept in their order when it is written again.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// Parses a file of version `supported`.
pub(crate) fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8], supported: u32) -> Result<T> {
    refuse_torn(key, bytes)?;
    let malformed = |source| malformed(key, source);
    if let Some(path) = duplicate_key(bytes).map_err(malformed)? {
        return Err(Error::DuplicateKey { key: key.to_owned(), path });
    }
    let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
    let found = head.version.unwrap_or(0);
    if found != i64::from(supported) {
        let newer = found > i64::from(supported);
        let hint = if newer { UPGRADE_HINT } else { OLDER_HINT };
        return Err(Error::Version { key: key.to_owned(), found, supported, hint });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

/// The file's text: two-space indent, no newline at the end.
pub(crate) fn to_bytes<T: Serialize>(key: &str, value: &T) -> Result<Bytes> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| malformed(key, source))?;
    Ok(text.into())
}

fn malformed(key: &str, source: serde_json::Error) -> Error {
    Error::Malformed { key: key.to_owned(), hint: RESTORE_HINT, source }
}

#[derive(Deserialize)]
struct Head {
    version: Option<i64>,
}

fn refuse_torn(key: &str, bytes: &[u8]) -> Result<()> {
    let state = if bytes.iter().all(u8::is_ascii_whitespace) {
        "empty"
    } else if bytes.contains(&0) {
        "filled with NUL bytes"
    } else {
        return Ok(());
    };
    Err(Error::Torn { key: key.to_owned(), state })
}

/// The path of the first key that stands twice in one object. serde takes the last one silently
/// wherever a map or an unknown field holds it.
fn duplicate_key(bytes: &[u8]) -> serde_json::Result<Option<String>> {
    let mut found = None;
    let mut json = serde_json::Deserializer::from_slice(bytes);
    KeyCheck { path: String::new(), found: &mut found }.deserialize(&mut json)?;
    json.end()?;
    Ok(found)
}

struct KeyCheck<'f> {
    path: String,
    found: &'f mut Option<String>,
}

impl KeyCheck<'_> {
    fn below(&mut self, step: &str) -> KeyCheck<'_> {
        let path = match self.path.as_str() {
            "" => step.to_owned(),
            parent => format!("{parent}.{step}"),
        };
        KeyCheck { path, found: &mut *self.found }
    }
}

impl<'de> DeserializeSeed<'de> for KeyCheck<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeyCheck<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let below = self.below(&key);
            let path = below.path.clone();
            map.next_value_seed(below)?;
            if !seen.insert(key) && self.found.is_none() {
                *self.found = Some(path);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while seq.next_element_seed(self.below(&index.to_string()))?.is_some() {
            index += 1;
        }
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

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_are_found_at_every_level() {
        let cases = [
            (r#"{"a":1,"b":{"a":1}}"#, None),
            (r#"{"a":1,"a":1}"#, Some("a")),
            (r#"{"x":{"y":[1,{"k":1,"k":null}]}}"#, Some("x.y.1.k")),
            (r#"{"a":1,"\u0061":2}"#, Some("a")),
        ];
        for (text, expected) in cases {
            assert_eq!(duplicate_key(text.as_bytes()).unwrap().as_deref(), expected, "{text}");
        }
    }
}
