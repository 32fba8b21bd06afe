//! The hash of a row's identity, from the typed values of its columns.
//!
//! Snapshot, stream and rebuild hash the arrays that are, or were, written to files, so the same
//! value has the same hash however it arrived. A cell is a byte 0 for NULL, else a byte 1 and the
//! value: integers, dates, times and timestamps as 64-bit and floats as doubles, so that a column
//! widened in place keeps its hashes; decimals as 128-bit unscaled values; text and bytes with their
//! length in front; lists with their count in front and each element as a cell.
//!
//! Floats count by their bits, -0.0 and 0.0 apart: PostgreSQL sends the old key whenever a byte of
//! it changes, and without a key it means the row with exactly these bytes.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, LargeBinaryArray, LargeStringArray,
    ListArray, StringArray, StringViewArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimeUnit, TimestampMicrosecondType,
};
use siphasher::sip128::SipHasher13;

use crate::{Error, Result};

/// Computes identity hashes with the key of one index (SipHash-1-3, 128 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityHasher {
    key: [u8; 16],
}

impl IdentityHasher {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// A hasher with a key of its own.
    pub fn random() -> Self {
        Self::new(uuid::Uuid::new_v4().into_bytes())
    }

    /// One hash per row of the identity columns, in identity order; all columns in table order for
    /// an identity that is the whole row. The arrays have equal length.
    ///
    /// # Errors
    /// [`Error::IdentityType`] for an array whose type no stored type has.
    pub fn hash_rows(&self, columns: &[ArrayRef]) -> Result<Vec<u128>> {
        let rows = columns.first().map_or(0, |column| column.len());
        let cells = columns.iter().map(Cells::of).collect::<Result<Vec<_>>>()?;
        let hasher = SipHasher13::new_with_key(&self.key);
        let mut hashes = Vec::with_capacity(rows);
        let mut encoded = Vec::new();
        for row in 0..rows {
            encoded.clear();
            cells.iter().for_each(|cells| cells.encode(row, &mut encoded));
            hashes.push(hasher.hash(&encoded).as_u128());
        }
        Ok(hashes)
    }
}

/// The cells of one column, ready to be encoded row by row.
struct Cells<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array),
    Fixed(&'a FixedSizeBinaryArray),
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Bytes(&'a BinaryArray),
    LargeBytes(&'a LargeBinaryArray),
    BytesView(&'a BinaryViewArray),
    List(&'a ListArray, Box<Cells<'a>>),
}

impl<'a> Cells<'a> {
    fn of(array: &'a ArrayRef) -> Result<Cells<'a>> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Boolean(array.as_boolean()),
            DataType::Int32 => Values::Int32(slice::<Int32Type>(array)),
            DataType::Date32 => Values::Int32(slice::<Date32Type>(array)),
            DataType::Int64 => Values::Int64(slice::<Int64Type>(array)),
            DataType::Time64(TimeUnit::Microsecond) => {
                Values::Int64(slice::<Time64MicrosecondType>(array))
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Values::Int64(slice::<TimestampMicrosecondType>(array))
            }
            DataType::Float32 => Values::Float32(array.as_primitive()),
            DataType::Float64 => Values::Float64(array.as_primitive()),
            DataType::Decimal128(_, _) => Values::Decimal(array.as_primitive()),
            DataType::FixedSizeBinary(_) => Values::Fixed(array.as_fixed_size_binary()),
            DataType::Utf8 => Values::Text(array.as_string()),
            DataType::LargeUtf8 => Values::LargeText(array.as_string()),
            DataType::Utf8View => Values::TextView(array.as_string_view()),
            DataType::Binary => Values::Bytes(array.as_binary()),
            DataType::LargeBinary => Values::LargeBytes(array.as_binary()),
            DataType::BinaryView => Values::BytesView(array.as_binary_view()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Values::List(list, Box::new(Cells::of(list.values())?))
            }
            other => return Err(Error::IdentityType { data_type: other.to_string() }),
        };
        Ok(Cells { nulls: array.nulls(), values })
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            out.push(0);
            return;
        }
        out.push(1);
        match &self.values {
            Values::Boolean(array) => out.push(u8::from(array.value(row))),
            Values::Int32(values) => integer(values[row].into(), out),
            Values::Int64(values) => integer(values[row], out),
            Values::Float32(array) => double(array.value(row).into(), out),
            Values::Float64(array) => double(array.value(row), out),
            Values::Decimal(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::Fixed(array) => bytes(array.value(row), out),
            Values::Text(array) => bytes(array.value(row).as_bytes(), out),
            Values::LargeText(array) => bytes(array.value(row).as_bytes(), out),
            Values::TextView(array) => bytes(array.value(row).as_bytes(), out),
            Values::Bytes(array) => bytes(array.value(row), out),
            Values::LargeBytes(array) => bytes(array.value(row), out),
            Values::BytesView(array) => bytes(array.value(row), out),
            Values::List(array, elements) => {
                let offsets = array.value_offsets();
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                length(range.len(), out);
                range.for_each(|element| elements.encode(element, out));
            }
        }
    }
}

fn slice<T: ArrowPrimitiveType>(array: &ArrayRef) -> &[T::Native] {
    array.as_primitive::<T>().values()
}

fn integer(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn double(value: f64, out: &mut Vec<u8>) {
    let canonical = if value.is_nan() { f64::NAN } else { value };
    out.extend_from_slice(&canonical.to_bits().to_le_bytes());
}

fn length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    length(value.len(), out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array};

    use super::*;

    fn hash(columns: Vec<ArrayRef>) -> Vec<u128> {
        IdentityHasher::new([7; 16]).hash_rows(&columns).unwrap()
    }

    #[test]
    fn widened_columns_keep_their_hashes() {
        let narrow = hash(vec![Arc::new(Int32Array::from(vec![Some(-5), None, Some(0)]))]);
        let wide = hash(vec![Arc::new(Int64Array::from(vec![Some(-5), None, Some(0)]))]);
        assert_eq!(narrow, wide);
        let single = hash(vec![Arc::new(Float32Array::from(vec![1.5, f32::NAN]))]);
        let double = hash(vec![Arc::new(Float64Array::from(vec![1.5, f64::NAN]))]);
        assert_eq!(single, double);
        let decimal = |precision| {
            let values = Decimal128Array::from(vec![12345]);
            hash(vec![Arc::new(values.with_precision_and_scale(precision, 2).unwrap())])
        };
        assert_eq!(decimal(6), decimal(30));
    }

    #[test]
    fn different_rows_differ() {
        let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let rows = hash(vec![
            text(vec![Some("a"), Some("ab"), Some(""), None, None, Some("")]),
            text(vec![Some("bc"), Some("c"), None, Some(""), None, Some("")]),
        ]);
        assert_eq!(rows.iter().collect::<HashSet<_>>().len(), 6);
        let zeros = hash(vec![Arc::new(Float64Array::from(vec![0.0, -0.0]))]);
        assert_ne!(zeros[0], zeros[1]);
    }

    #[test]
    fn text_hashes_alike_in_every_arrow_layout_and_slice() {
        let values = ["x", "a value longer than twelve bytes"];
        let plain: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let view: ArrayRef = Arc::new(StringViewArray::from(values.to_vec()));
        let large: ArrayRef = Arc::new(LargeStringArray::from(values.to_vec()));
        let expected = hash(vec![plain.clone()]);
        assert_eq!(hash(vec![view]), expected);
        assert_eq!(hash(vec![large]), expected);
        assert_eq!(hash(vec![plain.slice(1, 1)]), expected[1..]);
    }

    #[test]
    fn lists_hash_by_their_elements() {
        use arrow::datatypes::Int32Type;
        let lists = |rows: Vec<Option<Vec<Option<i32>>>>| {
            let array = ListArray::from_iter_primitive::<Int32Type, _, _>(rows);
            Arc::new(array) as ArrayRef
        };
        let one = lists(vec![Some(vec![Some(1), None]), Some(vec![]), None]);
        let other = lists(vec![Some(vec![]), None, Some(vec![Some(1), None])]);
        let (one, other) = (hash(vec![one]), hash(vec![other]));
        assert_eq!(one, [other[2], other[0], other[1]]);
        assert_eq!(one.iter().collect::<HashSet<_>>().len(), 3);
    }
}
