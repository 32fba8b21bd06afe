//! A value of a Parquet file as the text that PostgreSQL prints for it under the pinned settings.
//!
//! Written from the types of the file alone and apart from the decoder of the write path, so that a
//! mistake there does not hide itself here.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};

use super::{pg_float, pg_time};

/// One column of a batch, ready to be written as text.
pub(crate) enum TextColumn<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Uuid(&'a FixedSizeBinaryArray),
    Date(&'a Date32Array),
    Time(&'a Time64MicrosecondArray),
    Timestamp(&'a TimestampMicrosecondArray, bool),
    List {
        array: &'a ListArray,
        items: Box<TextColumn<'a>>,
        delimiter: u8,
    },
    /// A column that the file does not have: NULL in every row.
    Absent,
}

impl<'a> TextColumn<'a> {
    /// The column over an array; `None` for a type that no file of ours has. `delimiter` stands
    /// between the elements of a list.
    pub(crate) fn of(array: &'a dyn Array, delimiter: u8) -> Option<TextColumn<'a>> {
        Some(match array.data_type() {
            DataType::Boolean => TextColumn::Boolean(array.as_boolean_opt()?),
            DataType::Int32 => TextColumn::Int32(array.as_primitive_opt::<Int32Type>()?),
            DataType::Int64 => TextColumn::Int64(array.as_primitive_opt::<Int64Type>()?),
            DataType::Float32 => TextColumn::Float32(array.as_primitive_opt::<Float32Type>()?),
            DataType::Float64 => TextColumn::Float64(array.as_primitive_opt::<Float64Type>()?),
            DataType::Decimal128(_, scale) => TextColumn::Decimal(
                array.as_primitive_opt::<Decimal128Type>()?,
                u8::try_from(*scale).ok()?,
            ),
            DataType::Utf8 => TextColumn::Text(array.as_string_opt()?),
            DataType::Binary => TextColumn::Binary(array.as_binary_opt()?),
            DataType::FixedSizeBinary(16) => TextColumn::Uuid(array.as_fixed_size_binary_opt()?),
            DataType::Date32 => TextColumn::Date(array.as_primitive_opt::<Date32Type>()?),
            DataType::Time64(TimeUnit::Microsecond) => {
                TextColumn::Time(array.as_primitive_opt::<Time64MicrosecondType>()?)
            }
            DataType::Timestamp(TimeUnit::Microsecond, zone) => TextColumn::Timestamp(
                array.as_primitive_opt::<TimestampMicrosecondType>()?,
                zone.is_some(),
            ),
            DataType::List(_) => {
                let array: &ListArray = array.as_list_opt()?;
                let items = TextColumn::of(array.values().as_ref(), delimiter)?;
                TextColumn::List { array, items: Box::new(items), delimiter }
            }
            _ => return None,
        })
    }

    /// Appends the text of a row's value, or nothing and `false` for NULL.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.is_null(row) {
            return false;
        }
        match self {
            TextColumn::Boolean(array) => out.push(if array.value(row) { b't' } else { b'f' }),
            TextColumn::Int32(array) => write_integer(i128::from(array.value(row)), out),
            TextColumn::Int64(array) => write_integer(i128::from(array.value(row)), out),
            TextColumn::Float32(array) => pg_float::write_float4(array.value(row), out),
            TextColumn::Float64(array) => pg_float::write_float8(array.value(row), out),
            TextColumn::Decimal(array, scale) => write_decimal(array.value(row), *scale, out),
            TextColumn::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            TextColumn::Binary(array) => write_bytea(array.value(row), out),
            TextColumn::Uuid(array) => write_uuid(array.value(row), out),
            TextColumn::Date(array) => pg_time::write_date(i64::from(array.value(row)), out),
            TextColumn::Time(array) => pg_time::write_time(array.value(row), out),
            TextColumn::Timestamp(array, zoned) => {
                pg_time::write_timestamp(array.value(row), *zoned, out);
            }
            TextColumn::List { array, items, delimiter } => {
                let offsets = array.value_offsets();
                let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
                write_array(*delimiter, from..to, |item, out| items.write(item, out), out);
            }
            TextColumn::Absent => return false,
        }
        true
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            TextColumn::Boolean(array) => array.is_null(row),
            TextColumn::Int32(array) => array.is_null(row),
            TextColumn::Int64(array) => array.is_null(row),
            TextColumn::Float32(array) => array.is_null(row),
            TextColumn::Float64(array) => array.is_null(row),
            TextColumn::Decimal(array, _) => array.is_null(row),
            TextColumn::Text(array) => array.is_null(row),
            TextColumn::Binary(array) => array.is_null(row),
            TextColumn::Uuid(array) => array.is_null(row),
            TextColumn::Date(array) => array.is_null(row),
            TextColumn::Time(array) => array.is_null(row),
            TextColumn::Timestamp(array, _) => array.is_null(row),
            TextColumn::List { array, .. } => array.is_null(row),
            TextColumn::Absent => true,
        }
    }
}

/// Writes a one-dimensional array with PostgreSQL's quoting (`array_out` in
/// `src/backend/utils/adt/arrayfuncs.c`): `element` appends an element's text, or is `false` for NULL.
pub(crate) fn write_array<T>(
    delimiter: u8,
    elements: impl Iterator<Item = T>,
    mut element: impl FnMut(T, &mut Vec<u8>) -> bool,
    out: &mut Vec<u8>,
) {
    let mut text = Vec::new();
    out.push(b'{');
    for (number, item) in elements.enumerate() {
        if number > 0 {
            out.push(delimiter);
        }
        text.clear();
        if !element(item, &mut text) {
            out.extend_from_slice(b"NULL");
        } else if needs_quotes(&text, delimiter) {
            out.push(b'"');
            for byte in &text {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        } else {
            out.extend_from_slice(&text);
        }
    }
    out.push(b'}');
}

fn needs_quotes(text: &[u8], delimiter: u8) -> bool {
    let is_special = |byte: &u8| {
        *byte == delimiter
            || matches!(
                byte,
                b'"' | b'\\' | b'{' | b'}' | b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C
            )
    };
    text.is_empty() || text.eq_ignore_ascii_case(b"NULL") || text.iter().any(is_special)
}

fn write_integer(value: i128, out: &mut Vec<u8>) {
    write_decimal(value, 0, out);
}

/// The value / 10^`scale`, with exactly `scale` digits behind the point.
fn write_decimal(value: i128, scale: u8, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 40];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    let least = digits.len() - usize::from(scale) - 1;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // the digits before `at` are zeros: at least one stands before the point
    let (whole, fraction) = digits[at.min(least)..].split_at(least + 1 - at.min(least));
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(whole);
    if scale > 0 {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn write_hex(byte: u8, out: &mut Vec<u8>) {
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 0x0F)]);
}

fn write_bytea(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        write_hex(*byte, out);
    }
}

fn write_uuid(bytes: &[u8], out: &mut Vec<u8>) {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        write_hex(*byte, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_have_their_scale() {
        let cases = [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (-1, 2, "-0.01"),
            (1234, 2, "12.34"),
            (-100, 0, "-100"),
            (99, 5, "0.00099"),
            (1, 38, "0.00000000000000000000000000000000000001"),
            (
                -99_999_999_999_999_999_999_999_999_999_999_999_999,
                10,
                "-9999999999999999999999999999.9999999999",
            ),
            (i128::from(i64::MIN), 0, "-9223372036854775808"),
        ];
        for (value, scale, expected) in cases {
            assert_eq!(text(|out| write_decimal(value, scale, out)), expected);
        }
    }

    #[test]
    fn arrays_are_quoted_as_the_server_quotes_them() {
        let items = [
            Some("a"),
            None,
            Some(""),
            Some("null"),
            Some("NULLs"),
            Some("a,b"),
            Some("q\"\\"),
            Some("{"),
            Some("a b"),
            Some("a;b"),
        ];
        let write = |item: Option<&str>, out: &mut Vec<u8>| {
            item.map(|text| out.extend_from_slice(text.as_bytes())).is_some()
        };
        assert_eq!(
            text(|out| write_array(b',', items.into_iter(), write, out)),
            r#"{a,NULL,"","null",NULLs,"a,b","q\"\\","{","a b",a;b}"#
        );
        assert_eq!(
            text(|out| write_array(b';', ["(1,1),(0,0)"; 2].map(Some).into_iter(), write, out)),
            "{(1,1),(0,0);(1,1),(0,0)}"
        );
        assert_eq!(text(|out| write_array(b',', [None; 0].into_iter(), write, out)), "{}");
    }

    #[test]
    fn bytes_are_lower_case_hex() {
        assert_eq!(text(|out| write_bytea(&[0, 255, 0x5c], out)), "\\x00ff5c");
        assert_eq!(text(|out| write_bytea(&[], out)), "\\x");
        let uuid: Vec<u8> = (0xa0..0xb0).collect();
        assert_eq!(text(|out| write_uuid(&uuid, out)), "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf");
    }
}
