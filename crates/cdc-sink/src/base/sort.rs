//! Rows in identity order: the keys of a run of batches, compared without decoding them again.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};

/// Rows taken together out of the sorted order.
const SORTED_BATCH_ROWS: usize = 16_384;

/// Sorts runs of one table by the same columns.
pub(crate) struct Sorter {
    columns: Vec<usize>,
    keys: KeyKind,
}

enum KeyKind {
    /// One integer column, which almost all tables have as key.
    Integer,
    /// Anything else, in Arrow's comparable row format.
    Rows(RowConverter),
}

/// The key of one row, to compare runs with each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Integer(i64),
    Row(OwnedRow),
}

/// A run in identity order.
pub(crate) struct SortedRun {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) first: Key,
    pub(crate) last: Key,
}

/// The keys of a run, by batch and row.
pub(crate) enum Keys {
    Integers(Vec<Vec<i64>>),
    Rows(Vec<Rows>),
}

impl Sorter {
    /// A sorter by these columns; `None` without columns: such rows keep their order.
    pub(crate) fn new(columns: Vec<usize>, types: &[DataType]) -> Result<Option<Self>, ArrowError> {
        let keys = match types {
            [] => return Ok(None),
            [DataType::Int32 | DataType::Int64] => KeyKind::Integer,
            _ => {
                let fields = types.iter().cloned().map(SortField::new).collect();
                KeyKind::Rows(RowConverter::new(fields)?)
            }
        };
        Ok(Some(Self { columns, keys }))
    }

    /// Puts the rows of a run in order. A run that is in order already, as the rows of a table that
    /// only grows mostly are, is not copied. `None` for a run without rows.
    pub(crate) fn sort(&self, batches: Vec<RecordBatch>) -> Result<Option<SortedRun>, ArrowError> {
        let keys = self.keys(&batches)?;
        let mut places = places(&batches);
        if keys.are_sorted() {
            let Some(first) = places.next() else { return Ok(None) };
            let last = places.last().unwrap_or(first);
            let (first, last) = (keys.get(first), keys.get(last));
            return Ok(Some(SortedRun { batches, first, last }));
        }
        let mut order: Vec<Place> = places.collect();
        match &keys {
            Keys::Integers(keys) => order.sort_by_key(|(batch, row)| keys[*batch][*row]),
            Keys::Rows(keys) => order.sort_by_key(|(batch, row)| keys[*batch].row(*row)),
        }
        let (Some(first), Some(last)) = (order.first(), order.last()) else { return Ok(None) };
        let (first, last) = (keys.get(*first), keys.get(*last));
        let sources: Vec<&RecordBatch> = batches.iter().collect();
        let taken = order.chunks(SORTED_BATCH_ROWS);
        let sorted = taken.map(|places| interleave_record_batch(&sources, places));
        Ok(Some(SortedRun { batches: sorted.collect::<Result<_, _>>()?, first, last }))
    }

    /// The keys of the rows of these batches.
    pub(crate) fn keys(&self, batches: &[RecordBatch]) -> Result<Keys, ArrowError> {
        match &self.keys {
            KeyKind::Integer => {
                Ok(Keys::Integers(batches.iter().map(|batch| self.integers(batch)).collect()))
            }
            KeyKind::Rows(converter) => {
                let rows = |batch: &RecordBatch| {
                    let columns: Vec<ArrayRef> =
                        self.columns.iter().map(|at| Arc::clone(batch.column(*at))).collect();
                    converter.convert_columns(&columns)
                };
                Ok(Keys::Rows(batches.iter().map(rows).collect::<Result<_, _>>()?))
            }
        }
    }

    /// A key column has no NULL, so its values alone decide.
    fn integers(&self, batch: &RecordBatch) -> Vec<i64> {
        let column = batch.column(self.columns[0]);
        match column.data_type() {
            DataType::Int32 => {
                column.as_primitive::<Int32Type>().values().iter().map(|v| i64::from(*v)).collect()
            }
            _ => column.as_primitive::<Int64Type>().values().to_vec(),
        }
    }
}

impl Keys {
    /// The key of one row.
    pub(crate) fn get(&self, (batch, row): Place) -> Key {
        match self {
            Keys::Integers(keys) => Key::Integer(keys[batch][row]),
            Keys::Rows(keys) => Key::Row(keys[batch].row(row).owned()),
        }
    }

    fn are_sorted(&self) -> bool {
        match self {
            Keys::Integers(keys) => keys.iter().flatten().is_sorted(),
            Keys::Rows(keys) => keys.iter().flat_map(Rows::iter).is_sorted(),
        }
    }
}

/// A row: the position of its batch and its own within.
pub(crate) type Place = (usize, usize);

/// Every row where it stands.
fn places(batches: &[RecordBatch]) -> impl Iterator<Item = Place> {
    let batches = batches.iter().enumerate();
    batches.flat_map(|(batch, rows)| (0..rows.num_rows()).map(move |row| (batch, row)))
}
