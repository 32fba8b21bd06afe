//! One column's values in the making: cells in PostgreSQL's text form to an Arrow array.
//!
//! Snapshot and stream both build through this type, so that the same value gives the same bytes.
//! Every append either adds exactly one value or changes nothing.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    NullBufferBuilder, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use cdc_core::text::{self, ArrayItem, TextError, Unrepresentable};
use cdc_core::{Column, PgType, PgTypeKind, StoredType, UnrepresentablePolicy, oid};

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// The value, exactly.
    Exact,
    /// NULL or the nearest value instead, as the policy declares.
    Lossy,
}

/// Why an append did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendError {
    /// The cell has no value of the column's type.
    Text(TextError),
    /// The column's variable-length values would exceed 31-bit offsets.
    TooLarge,
}

impl From<TextError> for AppendError {
    fn from(error: TextError) -> Self {
        AppendError::Text(error)
    }
}

/// The values of one column so far.
pub(crate) struct ColumnBuilder {
    values: Values,
    nulls: NullBufferBuilder,
    policy: UnrepresentablePolicy,
    len: usize,
}

enum Values {
    Boolean(BooleanBufferBuilder),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64 { values: Vec<f64>, is_money: bool },
    Decimal { values: Vec<i128>, precision: u8, scale: u8, is_money: bool },
    Text(VarBytes),
    Binary(VarBytes),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp { values: Vec<i64>, zoned: bool },
    Uuid(Vec<u8>),
    List { offsets: Vec<i32>, items: Box<ColumnBuilder>, field: FieldRef, delimiter: u8 },
}

/// Variable-length values: Arrow's 32-bit offsets over one run of bytes.
struct VarBytes {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

const ROWS_FIRST_CAPACITY: usize = 1024;

/// Days of 0001-01-01 and 9999-12-31 since 1970.
const CLAMP_DAYS: (i32, i32) = (-719_162, 2_932_896);
const MICROS_PER_DAY: i64 = 86_400_000_000;

impl ColumnBuilder {
    /// An empty builder for a column whose Arrow type, as the file schema has it, is `data_type`.
    pub(crate) fn new(
        column: &Column,
        data_type: &DataType,
        policy: UnrepresentablePolicy,
    ) -> Self {
        Self::for_type(&column.stored, &column.pg_type, data_type, policy)
    }

    fn for_type(
        stored: &StoredType,
        pg_type: &PgType,
        data_type: &DataType,
        policy: UnrepresentablePolicy,
    ) -> Self {
        let base = pg_type.undomained();
        let is_money = base.oid == oid::MONEY;
        let values = match stored {
            StoredType::Boolean => Values::Boolean(BooleanBufferBuilder::new(ROWS_FIRST_CAPACITY)),
            StoredType::Int32 => Values::Int32(Vec::new()),
            StoredType::Int64 => Values::Int64(Vec::new()),
            StoredType::Float32 => Values::Float32(Vec::new()),
            StoredType::Float64 => Values::Float64 { values: Vec::new(), is_money },
            StoredType::Decimal { precision, scale } => Values::Decimal {
                values: Vec::new(),
                precision: *precision,
                scale: *scale,
                is_money,
            },
            StoredType::String => Values::Text(VarBytes::new()),
            StoredType::Binary => Values::Binary(VarBytes::new()),
            StoredType::Date => Values::Date(Vec::new()),
            StoredType::Time => Values::Time(Vec::new()),
            StoredType::Timestamp => Values::Timestamp { values: Vec::new(), zoned: false },
            StoredType::TimestampTz => Values::Timestamp { values: Vec::new(), zoned: true },
            StoredType::Uuid => Values::Uuid(Vec::new()),
            StoredType::List(element) => Self::list_values(element, base, data_type, policy),
        };
        Self { values, nulls: NullBufferBuilder::new(ROWS_FIRST_CAPACITY), policy, len: 0 }
    }

    fn list_values(
        element: &StoredType,
        pg_array: &PgType,
        data_type: &DataType,
        policy: UnrepresentablePolicy,
    ) -> Values {
        let pg_element = match &pg_array.kind {
            PgTypeKind::Array(element) => element.as_ref(),
            _ => pg_array,
        };
        let field = match data_type {
            DataType::List(field) => Arc::clone(field),
            other => Arc::new(arrow::datatypes::Field::new("element", other.clone(), true)),
        };
        // box is the only type of the catalog with another array delimiter (pg_type.typdelim)
        let delimiter = if pg_element.undomained().oid == oid::BOX { b';' } else { b',' };
        let items = Self::for_type(element, pg_element, field.data_type(), policy);
        Values::List { offsets: vec![0], items: Box::new(items), field, delimiter }
    }

    /// Values so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes one value takes besides what grows with its text.
    pub(crate) fn fixed_bytes(&self) -> usize {
        match &self.values {
            Values::Boolean(_) => 1,
            Values::Int32(_) | Values::Float32(_) | Values::Date(_) => 4,
            Values::Int64(_)
            | Values::Float64 { .. }
            | Values::Time(_)
            | Values::Timestamp { .. } => 8,
            Values::Decimal { .. } | Values::Uuid(_) => 16,
            Values::Text(_) | Values::Binary(_) | Values::List { .. } => 4,
        }
    }

    /// Whether the bytes of a value grow with its text.
    pub(crate) fn is_variable(&self) -> bool {
        matches!(self.values, Values::Text(_) | Values::Binary(_) | Values::List { .. })
    }

    /// Adds NULL.
    pub(crate) fn append_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp { values, .. } => {
                values.push(0)
            }
            Values::Float32(values) => values.push(0.0),
            Values::Float64 { values, .. } => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Text(values) | Values::Binary(values) => values.close_value_at_end(),
            Values::Uuid(values) => values.extend_from_slice(&[0; 16]),
            Values::List { offsets, .. } => offsets.push(offsets[offsets.len() - 1]),
        }
        self.nulls.append_null();
        self.len += 1;
    }

    /// Adds the value of a cell's text, or what the policy puts in its place. On an error the
    /// column is as before.
    pub(crate) fn append_text(&mut self, text: &[u8]) -> Result<Appended, AppendError> {
        match self.append_exact(text) {
            Ok(appended) => {
                self.nulls.append_non_null();
                self.len += 1;
                Ok(appended)
            }
            Err(AppendError::Text(TextError::Unrepresentable(what))) => self.substitute(what),
            Err(error) => Err(error),
        }
    }

    /// Adds the value alone; the caller adds its validity.
    fn append_exact(&mut self, bytes: &[u8]) -> Result<Appended, AppendError> {
        match &mut self.values {
            Values::Boolean(values) => values.append(text::boolean(bytes)?),
            Values::Int32(values) => values.push(text::int32(bytes)?),
            Values::Int64(values) => values.push(text::int64(bytes)?),
            Values::Float32(values) => values.push(text::float32(bytes)?),
            Values::Float64 { values, is_money: false } => values.push(text::float64(bytes)?),
            Values::Float64 { values, is_money: true } => {
                values.push(text::float64(&plain_money(bytes))?);
            }
            Values::Decimal { values, precision, scale, is_money: false } => {
                values.push(text::decimal(bytes, *precision, *scale)?);
            }
            Values::Decimal { values, precision, scale, is_money: true } => {
                values.push(text::decimal(&plain_money(bytes), *precision, *scale)?);
            }
            Values::Text(values) => values.push(text::utf8(bytes)?.as_bytes())?,
            Values::Binary(values) => values.push_hex(bytes)?,
            Values::Date(values) => values.push(text::date_days(bytes)?),
            Values::Time(values) => values.push(text::time_micros(bytes)?),
            Values::Timestamp { values, .. } => values.push(text::timestamp_micros(bytes)?),
            Values::Uuid(values) => values.extend_from_slice(&text::uuid(bytes)?),
            Values::List { offsets, items, delimiter, .. } => {
                return append_list(bytes, *delimiter, offsets, items);
            }
        }
        Ok(Appended::Exact)
    }

    /// Applies the policy to a value that the type cannot hold (contract: types, table of values).
    fn substitute(&mut self, what: Unrepresentable) -> Result<Appended, AppendError> {
        let refused = AppendError::Text(TextError::Unrepresentable(what));
        match self.policy {
            UnrepresentablePolicy::Error => return Err(refused),
            UnrepresentablePolicy::Null => self.append_null(),
            UnrepresentablePolicy::Clamp => {
                if !self.append_nearest(what) {
                    return Err(refused);
                }
                self.nulls.append_non_null();
                self.len += 1;
            }
        }
        Ok(Appended::Lossy)
    }

    /// Adds the nearest value and says whether there is one.
    fn append_nearest(&mut self, what: Unrepresentable) -> bool {
        match (&mut self.values, what) {
            (Values::Date(values), Unrepresentable::BelowRange) => values.push(CLAMP_DAYS.0),
            (Values::Date(values), Unrepresentable::AboveRange) => values.push(CLAMP_DAYS.1),
            (Values::Timestamp { values, .. }, Unrepresentable::BelowRange) => {
                values.push(i64::from(CLAMP_DAYS.0) * MICROS_PER_DAY);
            }
            (Values::Timestamp { values, .. }, Unrepresentable::AboveRange) => {
                values.push((i64::from(CLAMP_DAYS.1) + 1) * MICROS_PER_DAY - 1);
            }
            (Values::Time(values), Unrepresentable::EndOfDay) => values.push(MICROS_PER_DAY - 1),
            _ => return false,
        }
        true
    }

    /// Drops the values from `len` on, to undo a row that failed in a later column.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::Int32(values) | Values::Date(values) => values.truncate(len),
            Values::Int64(values) | Values::Time(values) | Values::Timestamp { values, .. } => {
                values.truncate(len)
            }
            Values::Float32(values) => values.truncate(len),
            Values::Float64 { values, .. } => values.truncate(len),
            Values::Decimal { values, .. } => values.truncate(len),
            Values::Text(values) | Values::Binary(values) => values.truncate(len),
            Values::Uuid(values) => values.truncate(len * 16),
            Values::List { offsets, items, .. } => {
                offsets.truncate(len + 1);
                items.truncate(usize::try_from(offsets[len]).unwrap_or(0));
            }
        }
        self.nulls.truncate(len);
        self.len = len;
    }

    /// The values as an array; the builder is empty afterwards and keeps its capacity in mind.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        self.len = 0;
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int32(values) => Arc::new(Int32Array::new(take(values), nulls)),
            Values::Int64(values) => Arc::new(Int64Array::new(take(values), nulls)),
            Values::Float32(values) => Arc::new(Float32Array::new(take(values), nulls)),
            Values::Float64 { values, .. } => Arc::new(Float64Array::new(take(values), nulls)),
            Values::Decimal { values, precision, scale, .. } => Arc::new(
                Decimal128Array::new(take(values), nulls)
                    .with_precision_and_scale(*precision, scale.cast_signed())?,
            ),
            Values::Text(values) => {
                let (offsets, bytes) = values.take();
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Binary(values) => {
                let (offsets, bytes) = values.take();
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            Values::Date(values) => Arc::new(Date32Array::new(take(values), nulls)),
            Values::Time(values) => Arc::new(Time64MicrosecondArray::new(take(values), nulls)),
            Values::Timestamp { values, zoned } => {
                let array = TimestampMicrosecondArray::new(take(values), nulls);
                Arc::new(if *zoned { array.with_timezone("UTC") } else { array })
            }
            Values::Uuid(values) => {
                let bytes = Buffer::from_vec(replace(values));
                Arc::new(FixedSizeBinaryArray::try_new(16, bytes, nulls)?)
            }
            Values::List { offsets, items, field, .. } => {
                finish_list(offsets, items, field, nulls)?
            }
        })
    }
}

fn append_list(
    bytes: &[u8],
    delimiter: u8,
    offsets: &mut Vec<i32>,
    items: &mut ColumnBuilder,
) -> Result<Appended, AppendError> {
    let start = items.len();
    let mut outcome = Appended::Exact;
    let visited = text::elements(bytes, delimiter, |item| {
        match item {
            ArrayItem::Null => items.append_null(),
            ArrayItem::Text(element) => {
                if items.append_text(&element)? == Appended::Lossy {
                    outcome = Appended::Lossy;
                }
            }
        }
        Ok::<(), AppendError>(())
    });
    let end = visited.and_then(|()| i32::try_from(items.len()).map_err(|_| AppendError::TooLarge));
    match end {
        Ok(end) => {
            offsets.push(end);
            Ok(outcome)
        }
        Err(error) => {
            items.truncate(start);
            Err(error)
        }
    }
}

fn finish_list(
    offsets: &mut Vec<i32>,
    items: &mut ColumnBuilder,
    field: &FieldRef,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    let taken = OffsetBuffer::new(ScalarBuffer::from(replace(offsets)));
    offsets.push(0);
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), taken, items.finish()?, nulls)?))
}

/// `-$1,234.50` as `-1234.50` (`lc_monetary=C`).
fn plain_money(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| !matches!(byte, b'$' | b',')).collect()
}

/// Takes the values and leaves an empty vector of the same size, for the next chunk.
fn replace<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}

fn take<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(replace(values))
}

impl VarBytes {
    fn new() -> Self {
        Self { offsets: vec![0], bytes: Vec::new() }
    }

    fn push(&mut self, value: &[u8]) -> Result<(), AppendError> {
        let end =
            i32::try_from(self.bytes.len() + value.len()).map_err(|_| AppendError::TooLarge)?;
        self.bytes.extend_from_slice(value);
        self.offsets.push(end);
        Ok(())
    }

    fn push_hex(&mut self, text: &[u8]) -> Result<(), AppendError> {
        let start = self.bytes.len();
        let decoded = text::bytea(text, &mut self.bytes).map_err(AppendError::from);
        let end = decoded
            .and_then(|()| i32::try_from(self.bytes.len()).map_err(|_| AppendError::TooLarge));
        match end {
            Ok(end) => {
                self.offsets.push(end);
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Closes an empty value.
    fn close_value_at_end(&mut self) {
        self.offsets.push(self.offsets[self.offsets.len() - 1]);
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.bytes.truncate(usize::try_from(self.offsets[len]).unwrap_or(0));
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let offsets = replace(&mut self.offsets);
        self.offsets.push(0);
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), Buffer::from_vec(replace(&mut self.bytes)))
    }
}
