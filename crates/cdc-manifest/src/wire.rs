//! How our value types are written in JSON: as text, as numbers, as RFC 3339 times.

use std::fmt::Display;
use std::str::FromStr;

use cdc_core::{Epoch, FieldId};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::Serializer;

/// A value as its `Display` text.
pub(crate) mod text {
    use super::*;

    pub(crate) fn serialize<T: Display, S: Serializer>(v: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(v)
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// An optional value as its `Display` text; null is none.
pub(crate) mod text_option {
    use super::*;

    pub(crate) fn serialize<T, S>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error>
    where
        T: Display,
        S: Serializer,
    {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// RFC 3339 in UTC with as many fractional digits as needed, as Go writes it: `…21.1Z`.
fn time_text(time: &DateTime<Utc>) -> String {
    let text = time.to_rfc3339_opts(SecondsFormat::Nanos, true);
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

fn parse_time<E: serde::de::Error>(text: &str) -> Result<DateTime<Utc>, E> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|error| E::custom(format_args!("`{text}` is not an RFC 3339 time: {error}")))?;
    Ok(time.to_utc())
}

/// A time.
pub(crate) mod time {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time_text(v))
    }

    pub(crate) fn deserialize<'de, D>(from: D) -> Result<DateTime<Utc>, D::Error>
    where
        D: Deserializer<'de>,
    {
        parse_time(&String::deserialize(from)?)
    }
}

/// An optional time.
pub(crate) mod time_option {
    use super::*;

    pub(crate) fn serialize<S>(value: &Option<DateTime<Utc>>, to: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
    {
        match value {
            Some(value) => to.serialize_str(&time_text(value)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D>(from: D) -> Result<Option<DateTime<Utc>>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Option::<String>::deserialize(from)?.map(|text| parse_time(&text)).transpose()
    }
}

/// An epoch as a number.
pub(crate) mod epoch {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Epoch, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Epoch, D::Error> {
        u64::deserialize(from).map(Epoch)
    }
}

/// An optional epoch as a number.
pub(crate) mod epoch_option {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Option<Epoch>, to: S) -> Result<S::Ok, S::Error> {
        match v {
            Some(epoch) => to.serialize_u64(epoch.0),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D>(from: D) -> Result<Option<Epoch>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<u64>::deserialize(from)?.map(Epoch))
    }
}

/// A field id as a number.
pub(crate) mod field_id {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &FieldId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(value.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FieldId, D::Error> {
        i32::deserialize(from).map(FieldId)
    }
}

/// An optional field id as a number.
pub(crate) mod field_id_option {
    use super::*;

    pub(crate) fn serialize<S>(value: &Option<FieldId>, to: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
    {
        match value {
            Some(id) => to.serialize_i32(id.0),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D>(from: D) -> Result<Option<FieldId>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<i32>::deserialize(from)?.map(FieldId))
    }
}

/// A list or map for which Go may have written null.
pub(crate) fn null_is_default<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A map by table, keyed by the table's text form and sorted by it; null is empty.
pub(crate) mod by_table {
    use std::collections::BTreeMap;

    use cdc_core::TableName;
    use serde::ser::{Serialize, SerializeMap};

    use super::*;

    pub(crate) fn serialize<T, S>(map: &BTreeMap<TableName, T>, to: S) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
        S: Serializer,
    {
        let sorted: BTreeMap<String, &T> =
            map.iter().map(|(table, value)| (table.to_string(), value)).collect();
        let mut out = to.serialize_map(Some(sorted.len()))?;
        for (table, value) in sorted {
            out.serialize_entry(&table, value)?;
        }
        out.end()
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<BTreeMap<TableName, T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        let by_text = Option::<BTreeMap<String, T>>::deserialize(from)?.unwrap_or_default();
        let mut map = BTreeMap::new();
        for (text, value) in by_text {
            let table: TableName = text.parse().map_err(D::Error::custom)?;
            if map.insert(table, value).is_some() {
                return Err(D::Error::custom(format_args!("table {text} is named twice")));
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        let cases = [
            "0001-01-01T00:00:00Z",
            "2026-05-04T12:00:20Z",
            "2026-05-04T12:00:22.1Z",
            "2026-05-04T12:00:22.000000001Z",
        ];
        for text in cases {
            assert_eq!(time_text(&text.parse().unwrap()), text);
        }
    }
}
