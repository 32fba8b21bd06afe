//! One value of an answer as text, without loss. JSON, CSV and the terminal show the same text and
//! differ only in what they put around it.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::calendar;

/// Whole numbers above this are strings in JSON: a double cannot hold them all.
const EXACT_IN_DOUBLE_MAX: u64 = (1 << 53) - 1;

/// A value with what JSON needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A number or boolean that JSON can write as it is.
    Bare(String),
    /// Text; a string in JSON.
    Text(String),
    /// A list, as its JSON array.
    Json(String),
}

impl Value {
    /// The value at a row of a column.
    pub fn at(column: &dyn Array, row: usize) -> Value {
        if column.is_null(row) || *column.data_type() == DataType::Null {
            return Value::Null;
        }
        known(column, row).unwrap_or_else(|| other(column, row))
    }

    /// Appends the value as JSON.
    pub fn push_json(&self, out: &mut String) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bare(text) | Value::Json(text) => out.push_str(text),
            Value::Text(text) => push_json_string(text, out),
        }
    }

    /// The text alone; `None` for NULL.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Null => None,
            Value::Bare(text) | Value::Text(text) | Value::Json(text) => Some(text),
        }
    }
}

/// Appends a JSON string.
pub(super) fn push_json_string(text: &str, out: &mut String) {
    // a string always has a JSON form
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn known(column: &dyn Array, row: usize) -> Option<Value> {
    Some(match column.data_type() {
        DataType::Boolean => Value::Bare(column.as_boolean().value(row).to_string()),
        DataType::Int8 => bare(column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => bare(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => bare(column.as_primitive::<Int32Type>().value(row)),
        DataType::UInt8 => bare(column.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => bare(column.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => bare(column.as_primitive::<UInt32Type>().value(row)),
        DataType::Int64 => {
            let value = column.as_primitive::<Int64Type>().value(row);
            whole(value.unsigned_abs(), value.to_string())
        }
        DataType::UInt64 => {
            let value = column.as_primitive::<UInt64Type>().value(row);
            whole(value, value.to_string())
        }
        DataType::Float16 => float(column.as_primitive::<Float16Type>().value(row).to_f32()),
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Binary => Value::Text(base64(column.as_binary::<i32>().value(row))),
        DataType::LargeBinary => Value::Text(base64(column.as_binary::<i64>().value(row))),
        DataType::BinaryView => Value::Text(base64(column.as_binary_view().value(row))),
        DataType::FixedSizeBinary(16) => {
            Value::Text(uuid(column.as_fixed_size_binary().value(row))?)
        }
        DataType::FixedSizeBinary(_) => {
            Value::Text(base64(column.as_fixed_size_binary().value(row)))
        }
        DataType::List(_) => list(column.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row).as_ref()),
        _ => return decimal(column, row).or_else(|| moment(column, row)),
    })
}

fn decimal(column: &dyn Array, row: usize) -> Option<Value> {
    let shown = match column.data_type() {
        DataType::Decimal32(p, s) => {
            Decimal32Type::format_decimal(column.as_primitive::<Decimal32Type>().value(row), *p, *s)
        }
        DataType::Decimal64(p, s) => {
            Decimal64Type::format_decimal(column.as_primitive::<Decimal64Type>().value(row), *p, *s)
        }
        DataType::Decimal128(p, s) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            Decimal128Type::format_decimal(value, *p, *s)
        }
        DataType::Decimal256(p, s) => {
            let value = column.as_primitive::<Decimal256Type>().value(row);
            Decimal256Type::format_decimal(value, *p, *s)
        }
        _ => return None,
    };
    Some(Value::Text(shown))
}

fn moment(column: &dyn Array, row: usize) -> Option<Value> {
    let shown = match column.data_type() {
        DataType::Date32 => calendar::date(column.as_primitive::<Date32Type>().value(row).into()),
        DataType::Date64 => {
            calendar::date(column.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            calendar::time(column.as_primitive::<Time64MicrosecondType>().value(row) * 1_000)
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            calendar::time(column.as_primitive::<Time64NanosecondType>().value(row))
        }
        DataType::Timestamp(unit, zone) => {
            let nanos = |value: i64, factor: i64| i128::from(value) * i128::from(factor);
            let nanos = match unit {
                TimeUnit::Second => {
                    nanos(column.as_primitive::<TimestampSecondType>().value(row), 1_000_000_000)
                }
                TimeUnit::Millisecond => {
                    nanos(column.as_primitive::<TimestampMillisecondType>().value(row), 1_000_000)
                }
                TimeUnit::Microsecond => {
                    nanos(column.as_primitive::<TimestampMicrosecondType>().value(row), 1_000)
                }
                TimeUnit::Nanosecond => {
                    nanos(column.as_primitive::<TimestampNanosecondType>().value(row), 1)
                }
            };
            let zone = if zone.is_some() { "Z" } else { "" };
            format!("{}{zone}", calendar::timestamp(nanos))
        }
        _ => return None,
    };
    Some(Value::Text(shown))
}

/// Types that only expressions have (intervals, dictionaries, structs), as the engine shows them.
fn other(column: &dyn Array, row: usize) -> Value {
    let options = FormatOptions::default();
    let shown = ArrayFormatter::try_new(column, &options)
        .and_then(|formatter| formatter.value(row).try_to_string());
    Value::Text(shown.unwrap_or_default())
}

fn bare(value: impl ToString) -> Value {
    Value::Bare(value.to_string())
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn whole(magnitude: u64, shown: String) -> Value {
    if magnitude <= EXACT_IN_DOUBLE_MAX { Value::Bare(shown) } else { Value::Text(shown) }
}

/// The shortest text that reads back as the same value of the same width.
fn float<F: Into<f64> + serde::Serialize + Copy>(value: F) -> Value {
    let wide: f64 = value.into();
    if wide.is_finite() {
        // a finite number always has a JSON form
        return Value::Bare(serde_json::to_string(&value).unwrap_or_default());
    }
    let name = if wide.is_nan() {
        "NaN"
    } else if wide > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    Value::Text(name.to_owned())
}

fn list(items: &dyn Array) -> Value {
    let mut out = String::from("[");
    for row in 0..items.len() {
        if row > 0 {
            out.push(',');
        }
        Value::at(items, row).push_json(&mut out);
    }
    out.push(']');
    Value::Json(out)
}

fn uuid(bytes: &[u8]) -> Option<String> {
    Some(uuid::Uuid::from_slice(bytes).ok()?.to_string())
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = group >> (18 - 6 * digit) & 63;
                out.push(char::from(DIGITS[index as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}
