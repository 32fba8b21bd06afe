//! Text of a condition to a value of the column's type, so that comparisons are typed before they
//! reach a row and statistics can be used.

use cdc_core::StoredType;
use cdc_core::text;
use chrono::{DateTime, NaiveDateTime};
use datafusion::scalar::ScalarValue;

/// The value of `text` for a column of type `stored`, or what would have been right.
///
/// A number beyond the column's range is kept at its own width: `int4 > 5000000000` is a question
/// with an answer.
pub(crate) fn parse(text: &str, stored: &StoredType) -> Result<ScalarValue, &'static str> {
    let bytes = text.as_bytes();
    let value = match stored {
        StoredType::Boolean => boolean(text).map(|v| ScalarValue::Boolean(Some(v))),
        StoredType::Int32 | StoredType::Int64 => integer(text, stored),
        StoredType::Float32 => text::float32(bytes).ok().map(|v| ScalarValue::Float32(Some(v))),
        StoredType::Float64 => text::float64(bytes).ok().map(|v| ScalarValue::Float64(Some(v))),
        StoredType::Decimal { precision, scale } => decimal(text, *precision, *scale),
        StoredType::String => Some(ScalarValue::Utf8View(Some(text.to_owned()))),
        StoredType::Binary => {
            let mut out = Vec::new();
            text::bytea(bytes, &mut out).ok().map(|()| ScalarValue::BinaryView(Some(out)))
        }
        StoredType::Date => text::date_days(bytes).ok().map(|v| ScalarValue::Date32(Some(v))),
        StoredType::Time => {
            text::time_micros(bytes).ok().map(|v| ScalarValue::Time64Microsecond(Some(v)))
        }
        StoredType::Timestamp => {
            timestamp(text).map(|v| ScalarValue::TimestampMicrosecond(Some(v), None))
        }
        StoredType::TimestampTz => timestamp_tz(text)
            .map(|v| ScalarValue::TimestampMicrosecond(Some(v), Some("UTC".into()))),
        StoredType::Uuid => {
            text::uuid(bytes).ok().map(|v| ScalarValue::FixedSizeBinary(16, Some(v.to_vec())))
        }
        StoredType::List(_) => None,
    };
    value.ok_or_else(|| form(stored))
}

/// How a value of the type is written.
fn form(stored: &StoredType) -> &'static str {
    match stored {
        StoredType::Boolean => "the value is not true or false",
        StoredType::Int32 | StoredType::Int64 => "the value is not a whole number",
        StoredType::Float32 | StoredType::Float64 => "the value is not a number",
        StoredType::Decimal { .. } => "the value is not a decimal number",
        StoredType::String => "the value is not text",
        StoredType::Binary => "the value is not of the form \\x0123abcd",
        StoredType::Date => "the value is not of the form 2026-05-04",
        StoredType::Time => "the value is not of the form 12:00:00.000001",
        StoredType::Timestamp => "the value is not of the form 2026-05-04T12:00:00.000001",
        StoredType::TimestampTz => "the value is not of the form 2026-05-04T12:00:00.000001Z",
        StoredType::Uuid => "the value is not a UUID",
        StoredType::List(_) => "a list column can only be tested with isnull and notnull",
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "t" => Some(true),
        "false" | "f" => Some(false),
        _ => None,
    }
}

fn integer(text: &str, stored: &StoredType) -> Option<ScalarValue> {
    let value = text::int64(text.as_bytes()).ok()?;
    Some(match i32::try_from(value) {
        Ok(narrow) if *stored == StoredType::Int32 => ScalarValue::Int32(Some(narrow)),
        _ => ScalarValue::Int64(Some(value)),
    })
}

/// In the column's own type where that is exact, else as wide as the text needs.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<ScalarValue> {
    const DIGITS_MAX: u8 = 38;
    let fraction = text.split_once('.').map_or(0, |(_, digits)| digits.len());
    let forms =
        [(precision, scale), (DIGITS_MAX, scale), (DIGITS_MAX, u8::try_from(fraction).ok()?)];
    forms.into_iter().find_map(|(precision, scale)| {
        let value = text::decimal(text.as_bytes(), precision, scale).ok()?;
        Some(ScalarValue::Decimal128(Some(value), precision, scale.cast_signed()))
    })
}

/// PostgreSQL's form, the same with a `T`, or a date alone.
fn timestamp(text: &str) -> Option<i64> {
    if let Ok(micros) = text::timestamp_micros(text.as_bytes()) {
        return Some(micros);
    }
    if let Ok(days) = text::date_days(text.as_bytes()) {
        return i64::from(days).checked_mul(86_400_000_000);
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    Some(naive.and_utc().timestamp_micros())
}

/// RFC 3339 with any offset, or a form of [`timestamp`], which is then UTC.
fn timestamp_tz(text: &str) -> Option<i64> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Some(time.timestamp_micros()),
        Err(_) => timestamp(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_the_column_type_or_refused() {
        let decimal = StoredType::Decimal { precision: 10, scale: 2 };
        let cases = [
            (StoredType::Int32, "5", Some("5")),
            (StoredType::Int32, "5000000000", Some("5000000000")),
            (StoredType::Int64, "1.5", None),
            (decimal.clone(), "100", Some("Some(10000),10,2")),
            (decimal.clone(), "0.125", Some("Some(125),38,3")),
            (decimal, "1e3", None),
            (StoredType::Boolean, "true", Some("true")),
            (StoredType::Boolean, "yes", None),
            (StoredType::Date, "2026-05-04", Some("2026-05-04")),
            (StoredType::Date, "2026-13-04", None),
            (StoredType::TimestampTz, "2026-05-04T14:00:00+02:00", Some("1777896000000000")),
            (StoredType::TimestampTz, "2026-05-04 12:00:00", Some("1777896000000000")),
            (StoredType::Timestamp, "2026-05-04T12:00:00.5", Some("1777896000500000")),
            (StoredType::Timestamp, "2026-05-04", Some("1777852800000000")),
            (StoredType::Timestamp, "noon", None),
            (StoredType::Uuid, "xyz", None),
            (StoredType::Binary, "abc", None),
            (StoredType::List(Box::new(StoredType::Int32)), "{1}", None),
        ];
        for (stored, text, expected) in cases {
            let value = parse(text, &stored).ok().map(|value| value.to_string());
            assert_eq!(value.as_deref(), expected, "{text} as {stored}");
        }
    }
}
