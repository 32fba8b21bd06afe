//! The scalar types of the configuration that YAML does not have: durations, secrets, globs,
//! addresses and stored forms. Each parses from text and prints back what it parsed.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use cdc_core::{SecretString, StoredAs};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What stands in output where a secret is.
pub(crate) const REDACTED: &str = "***";

/// The `format` keywords of the JSON Schema, with the check behind each.
pub(crate) mod format {
    pub(crate) const DURATION: &str = "duration-text";
    pub(crate) const SECRET: &str = "secret";
    pub(crate) const GLOB: &str = "table-glob";
    pub(crate) const STORED_FORM: &str = "stored-form";
    pub(crate) const SLOT: &str = "slot-name";
    pub(crate) const ADDRESS: &str = "address";
    pub(crate) const LISTEN: &str = "listen-address";
    pub(crate) const TIME: &str = "date-time";

    /// What is wrong with a string of this format, or `None`.
    pub(crate) fn complaint(format: &str, text: &str) -> Option<String> {
        match format {
            DURATION => super::HumanDuration::parse(text).err(),
            GLOB => super::Glob::parse(text).err(),
            STORED_FORM => super::StoredForm::parse(text).err(),
            SLOT => super::slot_complaint(text),
            ADDRESS => super::address_complaint(text),
            LISTEN => match text.strip_prefix("unix:") {
                Some(path) if !path.is_empty() => None,
                _ => super::address_complaint(text),
            },
            TIME => chrono::DateTime::parse_from_rfc3339(text)
                .err()
                .map(|_| "expected an RFC 3339 time such as 2026-05-04T12:00:00Z".into()),
            _ => None,
        }
    }
}

/// A length of time written as `500ms`, `10s`, `5m`, `1h` or `30d`; `0` is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

impl HumanDuration {
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "expected a duration such as 500ms, 10s, 5m, 1h or 30d".to_owned();
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let (digits, millis) = UNITS
            .iter()
            .find_map(|(unit, millis)| Some((text.strip_suffix(unit)?, *millis)))
            .ok_or_else(wrong)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let count: Option<u64> = digits.parse().ok();
        let total = count.and_then(|count| count.checked_mul(millis));
        total.map(|millis| Self(Duration::from_millis(millis))).ok_or_else(wrong)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0");
        }
        let by_size = [UNITS[1], UNITS[2], UNITS[3], UNITS[4], UNITS[0]];
        let fits = by_size.iter().find(|(_, size)| millis.is_multiple_of(u128::from(*size)));
        let (unit, size) = fits.unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", millis / u128::from(*size))
    }
}

/// A string that is never printed.
#[derive(Clone, Debug)]
pub struct Secret(pub SecretString);

/// A glob over `schema.table`: `*` any text, `?` one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Checks and keeps a pattern.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern matches nothing; hint: write schema.table".into());
        }
        match globset::GlobBuilder::new(text).backslash_escape(true).build() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("`{text}` is not a pattern: {}", error.kind())),
        }
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How values are stored where the configuration chooses: `string`, `double`, `decimal(p,s)` or
/// `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredForm(pub StoredAs);

impl StoredForm {
    /// Parses the text form.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = match text {
            "string" => StoredAs::String,
            "double" => StoredAs::Double,
            "list" => StoredAs::List,
            _ => parse_decimal(text)?,
        };
        Ok(Self(form))
    }
}

fn parse_decimal(text: &str) -> Result<StoredAs, String> {
    let inner = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')'));
    let numbers = inner.and_then(|inner| inner.split_once(',')).and_then(|(precision, scale)| {
        Some((precision.trim().parse::<u8>().ok()?, scale.trim().parse::<u8>().ok()?))
    });
    match numbers {
        Some((precision, scale)) if (1..=38).contains(&precision) && scale <= precision => {
            Ok(StoredAs::Decimal(precision, scale))
        }
        Some(_) => Err("decimal(p,s) needs p from 1 to 38 and s from 0 to p".into()),
        None => Err("expected string, double, decimal(p,s) or list".into()),
    }
}

impl fmt::Display for StoredForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            StoredAs::String => f.write_str("string"),
            StoredAs::Double => f.write_str("double"),
            StoredAs::List => f.write_str("list"),
            StoredAs::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
        }
    }
}

fn slot_complaint(text: &str) -> Option<String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let good = (1..=63).contains(&text.len()) && text.bytes().all(legal);
    (!good).then(|| "expected 1 to 63 of the characters a-z, 0-9 and _".into())
}

fn address_complaint(text: &str) -> Option<String> {
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !host.starts_with('[');
        !host.is_empty() && !bare_ipv6 && port.parse::<u16>().is_ok()
    });
    (!good).then(|| "expected host:port such as 127.0.0.1:8080".into())
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for StoredForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoredForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for HumanDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": format::DURATION, "pattern": "^(0|[0-9]+(ms|s|m|h|d))$" })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": format::SECRET, "writeOnly": true })
    }
}

impl JsonSchema for Glob {
    fn schema_name() -> Cow<'static, str> {
        "Glob".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": format::GLOB, "minLength": 1 })
    }
}

impl JsonSchema for StoredForm {
    fn schema_name() -> Cow<'static, str> {
        "StoredForm".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": format::STORED_FORM })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_what_they_parsed() {
        for text in ["500ms", "10s", "5m", "1h", "30d", "0", "90s", "1500ms"] {
            assert_eq!(HumanDuration::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(HumanDuration::parse("24h").unwrap().to_string(), "1d");
    }

    #[test]
    fn wrong_durations_are_refused() {
        for text in ["", "s", "10", "1.5s", "-1s", "1w", "10 s", "99999999999999999999d"] {
            assert!(HumanDuration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for text in ["127.0.0.1:0", "localhost:8080", "[::1]:9090"] {
            assert_eq!(address_complaint(text), None, "{text}");
        }
        for text in ["", ":8080", "localhost", "localhost:http", "::1:80", "h:70000"] {
            assert!(address_complaint(text).is_some(), "{text}");
        }
    }

    #[test]
    fn stored_forms_print_what_they_parsed() {
        for text in ["string", "double", "list", "decimal(38,10)"] {
            assert_eq!(StoredForm::parse(text).unwrap().to_string(), text);
        }
        for text in ["decimal(39,0)", "decimal(5,6)", "decimal(5)", "float"] {
            assert!(StoredForm::parse(text).is_err(), "{text}");
        }
    }
}
