//! A finished Parquet file as a manifest entry: counts, sizes and bounds per column, by field id.
//!
//! A bound is stated only where it certainly holds. Missing bounds cost a reader some pruning, wrong
//! ones cost rows.

use std::collections::HashMap;

use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, NestedField, PrimitiveType,
    Schema, Type,
};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use crate::{Error, Result};

/// Strings in bounds have at most this many characters (Iceberg's default metrics mode,
/// `truncate(16)`).
const BOUND_CHARS_MAX: usize = 16;

/// The manifest entry of a data file. Columns are found by field id; those that `schema` does not
/// have (the metadata columns in `t`) are left out.
pub fn data_file_from_parquet(
    location: &str,
    size: u64,
    metadata: &ParquetMetaData,
    schema: &Schema,
) -> Result<DataFile> {
    let mut columns = Columns::default();
    let mut rows = 0;
    for row_group in metadata.row_groups() {
        rows += row_group.num_rows().cast_unsigned();
        for chunk in row_group.columns() {
            columns.add(chunk, schema);
        }
    }
    let bounds = columns.bounds.into_iter().filter_map(|(id, bound)| match bound {
        Bound::Known { lower, upper } => Some((id, lower, upper)),
        Bound::Empty | Bound::Unknown => None,
    });
    let (mut lower, mut upper) = (HashMap::new(), HashMap::new());
    for (id, least, greatest) in bounds {
        lower.insert(id, least);
        upper.extend(greatest.map(|greatest| (id, greatest)));
    }
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(location.to_owned())
        .file_format(DataFileFormat::Parquet)
        .record_count(rows)
        .file_size_in_bytes(size)
        .column_sizes(columns.sizes)
        .value_counts(columns.values)
        .null_value_counts(columns.nulls)
        .lower_bounds(lower)
        .upper_bounds(upper)
        .split_offsets(split_offsets(metadata.row_groups()))
        .partition_spec_id(0)
        .build()
        .map_err(Error::format(location, "data file"))
}

/// The start of each row group, or `None` if there is none.
fn split_offsets(row_groups: &[RowGroupMetaData]) -> Option<Vec<i64>> {
    let start = |group: &RowGroupMetaData| group.columns().first().map(|c| c.byte_range().0);
    let mut offsets: Vec<i64> = row_groups.iter().filter_map(start).map(u64::cast_signed).collect();
    offsets.sort_unstable();
    (!offsets.is_empty()).then_some(offsets)
}

#[derive(Default)]
struct Columns {
    sizes: HashMap<i32, u64>,
    values: HashMap<i32, u64>,
    nulls: HashMap<i32, u64>,
    bounds: HashMap<i32, Bound>,
}

/// The bounds of a column over the row groups seen so far.
enum Bound {
    /// No value yet.
    Empty,
    /// Bounds of all values; without the upper one if it could not be stated.
    Known { lower: Datum, upper: Option<Datum> },
    /// Some row group has values without statistics.
    Unknown,
}

impl Columns {
    fn add(&mut self, chunk: &ColumnChunkMetaData, schema: &Schema) {
        let descriptor = chunk.column_descr();
        let info = descriptor.self_type().get_basic_info();
        if !info.has_id() {
            return;
        }
        let Some(field) = schema.field_by_id(info.id()) else { return };
        *self.sizes.entry(field.id).or_default() += chunk.compressed_size().max(0).cast_unsigned();
        // the values of a list say nothing about its rows
        if descriptor.max_rep_level() > 0 {
            return;
        }
        let values = chunk.num_values().max(0).cast_unsigned();
        *self.values.entry(field.id).or_default() += values;
        let nulls = chunk.statistics().and_then(Statistics::null_count_opt);
        match nulls {
            Some(nulls) => {
                let first = self.values[&field.id] == values;
                if first || self.nulls.contains_key(&field.id) {
                    *self.nulls.entry(field.id).or_default() += nulls;
                }
            }
            None => {
                self.nulls.remove(&field.id);
            }
        }
        let bound = if nulls == Some(values) {
            Bound::Empty
        } else {
            chunk.statistics().and_then(|found| bounds(field, found)).unwrap_or(Bound::Unknown)
        };
        let before = self.bounds.remove(&field.id).unwrap_or(Bound::Empty);
        self.bounds.insert(field.id, before.and(bound));
    }
}

impl Bound {
    fn and(self, other: Bound) -> Bound {
        match (self, other) {
            (Bound::Empty, bound) | (bound, Bound::Empty) => bound,
            (
                Bound::Known { lower: low_a, upper: up_a },
                Bound::Known { lower: low_b, upper: up_b },
            ) => Bound::Known {
                lower: if low_b < low_a { low_b } else { low_a },
                upper: up_a.zip(up_b).map(|(a, b)| if b > a { b } else { a }),
            },
            _ => Bound::Unknown,
        }
    }
}

/// The bounds that a column chunk's statistics give, where the physical type is the one that the
/// Iceberg type is written as. UUID and binary are left out: their order differs between readers.
fn bounds(field: &NestedField, statistics: &Statistics) -> Option<Bound> {
    let Type::Primitive(primitive) = field.field_type.as_ref() else { return None };
    let pair = |lower: Option<Datum>, upper: Option<Datum>| {
        Some(Bound::Known { lower: lower?, upper: Some(upper?) })
    };
    match (primitive, statistics) {
        (PrimitiveType::Boolean, Statistics::Boolean(found)) => {
            pair(found.min_opt().map(|b| Datum::bool(*b)), found.max_opt().map(|b| Datum::bool(*b)))
        }
        (_, Statistics::Int32(found)) => {
            let datum = |value: Option<&i32>| int_datum(primitive, i64::from(*value?));
            pair(datum(found.min_opt()), datum(found.max_opt()))
        }
        (_, Statistics::Int64(found)) => {
            let datum = |value: Option<&i64>| int_datum(primitive, *value?);
            pair(datum(found.min_opt()), datum(found.max_opt()))
        }
        (PrimitiveType::Float, Statistics::Float(found)) => {
            let datum =
                |value: Option<&f32>| value.filter(|v| !v.is_nan()).map(|v| Datum::float(*v));
            pair(datum(found.min_opt()), datum(found.max_opt()))
        }
        (PrimitiveType::Double, Statistics::Double(found)) => {
            let datum =
                |value: Option<&f64>| value.filter(|v| !v.is_nan()).map(|v| Datum::double(*v));
            pair(datum(found.min_opt()), datum(found.max_opt()))
        }
        (PrimitiveType::Decimal { .. }, Statistics::FixedLenByteArray(found)) => {
            let datum =
                |bytes: Option<&[u8]>| Datum::try_from_bytes(bytes?, primitive.clone()).ok();
            pair(datum(found.min_bytes_opt()), datum(found.max_bytes_opt()))
        }
        (PrimitiveType::String, Statistics::ByteArray(found)) => {
            let lower = std::str::from_utf8(found.min_bytes_opt()?).ok()?;
            let upper = std::str::from_utf8(found.max_bytes_opt()?).ok()?;
            let lower: String = lower.chars().take(BOUND_CHARS_MAX).collect();
            Some(Bound::Known { lower: Datum::string(lower), upper: string_upper(upper) })
        }
        _ => None,
    }
}

/// An integer-backed value in the column's type.
fn int_datum(primitive: &PrimitiveType, value: i64) -> Option<Datum> {
    Some(match primitive {
        PrimitiveType::Int => Datum::int(i32::try_from(value).ok()?),
        PrimitiveType::Long => Datum::long(value),
        PrimitiveType::Date => Datum::date(i32::try_from(value).ok()?),
        PrimitiveType::Time => Datum::time_micros(value).ok()?,
        PrimitiveType::Timestamp => Datum::timestamp_micros(value),
        PrimitiveType::Timestamptz => Datum::timestamptz_micros(value),
        PrimitiveType::Decimal { .. } => {
            Datum::try_from_bytes(&value.to_be_bytes(), primitive.clone()).ok()?
        }
        _ => return None,
    })
}

/// An upper bound of at most 16 characters: the string itself, or its prefix with the last
/// character that can be raised raised by one.
fn string_upper(upper: &str) -> Option<Datum> {
    if upper.chars().nth(BOUND_CHARS_MAX).is_none() {
        return Some(Datum::string(upper));
    }
    let mut prefix: Vec<char> = upper.chars().take(BOUND_CHARS_MAX).collect();
    while let Some(last) = prefix.pop() {
        // the code points before the surrogates are followed by those behind them
        let next =
            if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            prefix.push(next);
            return Some(Datum::string(prefix.into_iter().collect::<String>()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_get_a_raised_upper_bound() {
        let cases = [
            ("short", Some("short")),
            ("exactly 16 chars", Some("exactly 16 chars")),
            ("aaaaaaaaaaaaaaaazz", Some("aaaaaaaaaaaaaaab")),
            ("aaaaaaaaaaaaaaa\u{10FFFF}z", Some("aaaaaaaaaaaaaab")),
        ];
        for (text, expected) in cases {
            assert_eq!(string_upper(text), expected.map(Datum::string), "{text}");
        }
        let greatest = "\u{10FFFF}".repeat(17);
        assert_eq!(string_upper(&greatest), None);
    }
}
