//! Unchanged values that PostgreSQL did not send: taken over from the last version of the row.
//!
//! Where that version is decides how: in the same chunk, in the row group being written, in a row
//! group of the same epoch that is already encoded, or in a file of the lake. A chunk is written in
//! slices so small that the values carried into one of them fit [`CARRIED_BYTES_MAX`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{cast, interleave};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use cdc_core::{Column, UnrepresentablePolicy};

use super::file::DeltaFile;
use crate::chunk::{Chunk, Patch};
use crate::fetch::{Fetcher, read_local, value_bytes};
use crate::index::{FileRef, KeyIndex, Position};
use crate::{Error, Result};

/// Bytes of carried values written at once.
pub(super) const CARRIED_BYTES_MAX: usize = 16 << 20;

/// Where a carried value comes from, all chains followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A row of the same chunk that has the value itself.
    Chunk(u32),
    /// A row written before the chunk.
    Stored(Position),
}

/// A patch and where its value is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) row: u32,
    pub(super) column: u16,
    pub(super) source: Source,
}

/// What values are looked up in.
pub(super) struct Places<'a> {
    pub(super) files: &'a [DeltaFile],
    pub(super) fetcher: &'a mut Fetcher,
    pub(super) index: &'a KeyIndex,
}

/// Finds the source of each patch. `previous` tells the last version of a row of the chunk,
/// `start` is where the chunk's first row will be.
pub(super) fn sources(
    chunk: &Chunk,
    previous: &[Option<Position>],
    start: Position,
) -> Result<Vec<Carried>> {
    let mut known: HashMap<(u32, u16), Source> = HashMap::with_capacity(chunk.patches.len());
    let mut carried = Vec::with_capacity(chunk.patches.len());
    for Patch { row, column, source } in chunk.patches.iter().copied() {
        let position = usize::try_from(source).ok().and_then(|at| *previous.get(at)?);
        let Some(position) = position else {
            return Err(Error::MissingRow { table: chunk.schema.table.clone() });
        };
        let found = match position.row.checked_sub(start.row) {
            Some(at) if position.file == start.file => {
                known.get(&(at, column)).copied().unwrap_or(Source::Chunk(at))
            }
            _ => Source::Stored(position),
        };
        known.insert((row, column), found);
        carried.push(Carried { row, column, source: found });
    }
    Ok(carried)
}

impl Places<'_> {
    /// Cuts the chunk's rows so that no slice carries more than [`CARRIED_BYTES_MAX`].
    pub(super) fn slices(&mut self, chunk: &Chunk, carried: &[Carried]) -> Result<Vec<Slice>> {
        let rows = chunk.rows();
        let mut slices = Vec::new();
        let (mut slice, mut bytes) = (Slice { rows: 0..0, carried: 0..0, bytes: 0 }, 0);
        for (at, next) in carried.iter().enumerate() {
            let row = next.row as usize;
            let size = self.size(chunk, next)?;
            let is_new_row = at == slice.carried.start || carried[at - 1].row != next.row;
            if bytes + size > CARRIED_BYTES_MAX && is_new_row && row > slice.rows.start {
                let start = slice.rows.start;
                slices.push(Slice { rows: start..row, carried: slice.carried.start..at, bytes });
                slice = Slice { rows: row..row, carried: at..at, bytes: 0 };
                bytes = 0;
            }
            bytes += size;
        }
        let (row, at) = (slice.rows.start, slice.carried.start);
        slices.push(Slice { rows: row..rows, carried: at..carried.len(), bytes });
        Ok(slices)
    }

    /// The rows of a slice with their carried values.
    pub(super) fn fill(
        &mut self,
        chunk: &Chunk,
        rows: Range<usize>,
        carried: &[Carried],
    ) -> Result<RecordBatch> {
        let slice = chunk.batch.slice(rows.start, rows.len());
        let mut columns = slice.columns().to_vec();
        let touched: BTreeSet<u16> = carried.iter().map(|carried| carried.column).collect();
        for column in touched {
            let of_column: Vec<&Carried> =
                carried.iter().filter(|carried| carried.column == column).collect();
            columns[usize::from(column)] = self.fill_column(chunk, &rows, column, &of_column)?;
        }
        RecordBatch::try_new(slice.schema(), columns).map_err(|source| arrow_error(chunk, source))
    }

    fn fill_column(
        &mut self,
        chunk: &Chunk,
        rows: &Range<usize>,
        column: u16,
        carried: &[&Carried],
    ) -> Result<ArrayRef> {
        let own = chunk.batch.column(usize::from(column));
        let mut values = Values { arrays: vec![Arc::clone(own)], places: HashMap::new() };
        let stored: BTreeSet<Position> = carried
            .iter()
            .filter_map(|carried| match carried.source {
                Source::Stored(position) => Some(position),
                Source::Chunk(_) => None,
            })
            .collect();
        self.read_stored(chunk, column, stored, &mut values)?;
        let mut picks: Vec<(usize, usize)> = rows.clone().map(|row| (0, row)).collect();
        for Carried { row, source, .. } in carried {
            let at = *row as usize - rows.start;
            picks[at] = match source {
                Source::Chunk(row) => (0, *row as usize),
                Source::Stored(position) => values
                    .place(position)
                    .ok_or_else(|| self.missing(chunk, column, &position.file))?,
            };
            let (array, row) = picks[at];
            let is_null = values.arrays[array].is_null(row);
            // an unchanged value is never NULL, unless the policy once put NULL in its place
            if is_null && chunk.policy == UnrepresentablePolicy::Error {
                let file = match source {
                    Source::Stored(position) => position.file,
                    Source::Chunk(_) => {
                        return Err(Error::BadChange {
                            table: chunk.schema.table.clone(),
                            missing: "an unchanged value was NULL before",
                        });
                    }
                };
                return Err(self.missing(chunk, column, &file));
            }
        }
        let arrays: Vec<&dyn Array> = values.arrays.iter().map(AsRef::as_ref).collect();
        interleave(&arrays, &picks).map_err(|source| arrow_error(chunk, source))
    }

    /// Reads the values of one column at these positions.
    fn read_stored(
        &mut self,
        chunk: &Chunk,
        column: u16,
        positions: BTreeSet<Position>,
        values: &mut Values,
    ) -> Result<()> {
        let target = chunk.batch.column(usize::from(column)).data_type();
        let mut by_file: BTreeMap<(FileRef, Option<usize>), Vec<u32>> = BTreeMap::new();
        for position in positions {
            let group = match self.open_file(position.file) {
                Some(file) => file.group_of(position.row),
                None => None,
            };
            by_file.entry((position.file, group)).or_default().push(position.row);
        }
        for ((file, group), rows) in by_file {
            let wanted = &chunk.schema.columns[usize::from(column)];
            match (self.open_file(file), group) {
                (Some(open), None) => read_open(open, usize::from(column), &rows, values),
                (Some(open), Some(group)) => {
                    let array = read_staged(open, group, wanted, &rows)?;
                    values.add(file, &rows, converted(chunk, array, target)?);
                }
                (None, _) => {
                    let key = self.key(chunk, file)?;
                    let array = self.fetcher.read(&key, wanted.field_id, &rows)?;
                    let array = array.ok_or_else(|| self.missing(chunk, column, &file))?;
                    values.add(file, &rows, converted(chunk, array, target)?);
                }
            }
        }
        Ok(())
    }

    fn size(&mut self, chunk: &Chunk, carried: &Carried) -> Result<usize> {
        let column = usize::from(carried.column);
        let position = match carried.source {
            Source::Chunk(row) => {
                return Ok(cell_bytes(chunk.batch.column(column), row as usize));
            }
            Source::Stored(position) => position,
        };
        let field_id = chunk.schema.columns[column].field_id;
        if let Some(open) = self.open_file(position.file) {
            return Ok(match open.group_of(position.row) {
                Some(group) => {
                    let staged = &open.groups[group];
                    let row = u64::from(position.row - staged.first_row);
                    value_bytes(&staged.metadata, field_id, row)
                }
                None => {
                    let found = open.open.as_ref().and_then(|group| group.find(position.row));
                    found.map_or(0, |(batch, at)| cell_bytes(batch.column(column), at))
                }
            });
        }
        let key = self.key(chunk, position.file)?;
        let footer = self.fetcher.footer(&key)?;
        Ok(value_bytes(footer.metadata(), field_id, u64::from(position.row)))
    }

    fn open_file(&self, file: FileRef) -> Option<&DeltaFile> {
        self.files.iter().find(|open| open.file == file)
    }

    /// The key of a file, also of one that somebody else wrote.
    fn key(&self, chunk: &Chunk, file: FileRef) -> Result<String> {
        let table = &chunk.schema.table;
        let foreign = || {
            let location = self.index.foreign_location(file)?;
            Some(self.fetcher.lake().location().key(location)?.to_owned())
        };
        file.key(table).or_else(foreign).ok_or_else(|| Error::MissingRow { table: table.clone() })
    }

    fn missing(&self, chunk: &Chunk, column: u16, file: &FileRef) -> Error {
        Error::MissingValue {
            table: chunk.schema.table.clone(),
            column: chunk.schema.columns[usize::from(column)].name.clone(),
            file: self.key(chunk, *file).unwrap_or_else(|_| "an unknown file".to_owned()),
        }
    }
}

/// Rows of a chunk that are written together.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    pub(super) rows: Range<usize>,
    pub(super) carried: Range<usize>,
    /// Bytes of carried values, estimated.
    pub(super) bytes: usize,
}

/// Arrays of one column and where in them the value of a position is.
struct Values {
    arrays: Vec<ArrayRef>,
    places: HashMap<Position, (usize, usize)>,
}

impl Values {
    fn add(&mut self, file: FileRef, rows: &[u32], array: ArrayRef) {
        let number = self.arrays.len();
        self.arrays.push(array);
        for (at, row) in rows.iter().enumerate() {
            self.places.insert(Position { file, row: *row }, (number, at));
        }
    }

    fn place(&self, position: &Position) -> Option<(usize, usize)> {
        let (array, at) = *self.places.get(position)?;
        (at < self.arrays[array].len()).then_some((array, at))
    }
}

/// Values of the row group that is being written.
fn read_open(file: &DeltaFile, column: usize, rows: &[u32], values: &mut Values) {
    let Some(open) = &file.open else { return };
    for row in rows {
        if let Some((batch, at)) = open.find(*row) {
            let array = batch.column(column);
            // rows ascend, so rows of one batch follow each other
            let is_last = values.arrays.last().is_some_and(|last| Arc::ptr_eq(last, array));
            if !is_last {
                values.arrays.push(Arc::clone(array));
            }
            let position = Position { file: file.file, row: *row };
            values.places.insert(position, (values.arrays.len() - 1, at));
        }
    }
}

/// Values of a row group that is encoded already.
fn read_staged(file: &DeltaFile, group: usize, column: &Column, rows: &[u32]) -> Result<ArrayRef> {
    let staged = &file.groups[group];
    let table = &file.schema.table;
    let local: Vec<u32> = rows.iter().map(|row| row - staged.first_row).collect();
    let read = staged
        .reader_metadata()
        .and_then(|metadata| read_local(&staged.body, metadata, column.field_id, &local));
    let key = || format!("delta file {}", file.part);
    let array = read.map_err(|source| Error::Parquet {
        table: table.clone(),
        operation: "read back from",
        key: key(),
        source,
    })?;
    array.ok_or_else(|| Error::MissingValue {
        table: table.clone(),
        column: column.name.clone(),
        file: key(),
    })
}

/// The values in the column's type: a file from before a widening has the narrower one.
fn converted(chunk: &Chunk, array: ArrayRef, target: &DataType) -> Result<ArrayRef> {
    if array.data_type() == target {
        return Ok(array);
    }
    cast(&array, target).map_err(|source| arrow_error(chunk, source))
}

fn arrow_error(chunk: &Chunk, source: ArrowError) -> Error {
    let table = chunk.schema.table.clone();
    Error::Arrow { table, operation: "carry unchanged values over", source }
}

/// Bytes of one value.
fn cell_bytes(array: &ArrayRef, row: usize) -> usize {
    let length = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value_length(row),
        DataType::Binary => array.as_binary::<i32>().value_length(row),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let items = list.values();
            let average = items.get_array_memory_size() / items.len().max(1);
            let length = usize::try_from(list.value_length(row)).unwrap_or(0);
            return length * average;
        }
        _ => 16,
    };
    usize::try_from(length).unwrap_or(0)
}
