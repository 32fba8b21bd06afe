//! All user columns of a table in the making: rows of cells to a record batch.
//!
//! [`RowBuilder`] is what the snapshot fills directly and what the change buffer fills with new and
//! old images. A row enters whole or not at all.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use cdc_core::text::TextError;
use cdc_core::{Cell, OldTuple, TableSchema, UnrepresentablePolicy};
use cdc_iceberg::base_arrow_schema;

use crate::columns::{AppendError, Appended, ColumnBuilder};
use crate::{Error, Result};

/// Rows after which a chunk is full.
pub const CHUNK_ROWS_MAX: usize = 16_384;
/// Bytes after which a chunk is full.
pub const CHUNK_BYTES_MAX: usize = 8 << 20;

/// Builds batches of user columns (the schema of base files) from rows of cells.
///
/// ```
/// use std::sync::Arc;
/// use cdc_core::*;
/// use cdc_sink::RowBuilder;
///
/// # let column = Column { name: "id".into(), field_id: FieldId(100), element_id: None, attnum: 1,
/// #     pg_type: PgType::base(oid::INT8, "bigint"), stored: StoredType::Int64, nullable: false,
/// #     lossy: false };
/// # let schema = TableSchema { table: TableName::new("public", "t"), version: 1,
/// #     columns: vec![column], identity: Identity::PrimaryKey(vec!["id".into()]),
/// #     next_field_id: FieldId(101), omitted: vec![] };
/// let mut rows = RowBuilder::new(Arc::new(schema), UnrepresentablePolicy::Error);
/// rows.push(&[Cell::Text(b"7")]).unwrap();
/// assert_eq!(rows.finish().unwrap().num_rows(), 1);
/// ```
pub struct RowBuilder {
    schema: Arc<TableSchema>,
    arrow_schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    is_variable: Vec<bool>,
    is_key: Vec<bool>,
    lossy: Vec<u64>,
    row_bytes: usize,
    rows: usize,
    bytes: usize,
}

/// A cell that PostgreSQL did not send because unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnchangedCell {
    /// Position of the column.
    pub(crate) column: u16,
    /// Whether the old tuple had the value; otherwise NULL stands in its place for now.
    pub(crate) is_filled: bool,
}

impl RowBuilder {
    /// An empty builder.
    pub fn new(schema: Arc<TableSchema>, policy: UnrepresentablePolicy) -> Self {
        let arrow_schema = base_arrow_schema(&schema);
        let columns: Vec<ColumnBuilder> = schema
            .columns
            .iter()
            .zip(arrow_schema.fields())
            .map(|(column, field)| ColumnBuilder::new(column, field.data_type(), policy))
            .collect();
        let keys = schema.identity_positions();
        Self {
            is_variable: columns.iter().map(ColumnBuilder::is_variable).collect(),
            is_key: (0..columns.len()).map(|at| keys.contains(&at)).collect(),
            lossy: vec![0; columns.len()],
            row_bytes: columns.iter().map(ColumnBuilder::fixed_bytes).sum(),
            rows: 0,
            bytes: 0,
            schema,
            arrow_schema,
            columns,
        }
    }

    /// The table's schema.
    pub fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes so far, estimated.
    pub fn byte_len(&self) -> usize {
        self.bytes
    }

    /// Whether it is time for [`RowBuilder::finish`].
    pub fn is_full(&self) -> bool {
        self.rows >= CHUNK_ROWS_MAX || self.bytes >= CHUNK_BYTES_MAX
    }

    /// Adds a row of a snapshot.
    ///
    /// # Errors
    /// A cell that its column cannot take; the row is then left out whole.
    pub fn push(&mut self, cells: &[Cell<'_>]) -> Result<()> {
        self.push_image(cells, OldTuple::None, &mut Vec::new()).and_then(|unchanged| {
            if unchanged == 0 {
                return Ok(());
            }
            self.truncate(self.rows - 1);
            Err(self.bad_change("a new row lacks the value of a column"))
        })
    }

    /// Adds a row image, takes cells that were not sent from `old`, and notes each of them in
    /// `unchanged`. Gives the number noted.
    pub(crate) fn push_image(
        &mut self,
        cells: &[Cell<'_>],
        old: OldTuple<'_>,
        unchanged: &mut Vec<UnchangedCell>,
    ) -> Result<usize> {
        if cells.len() != self.columns.len() {
            let (expected, found) = (self.columns.len(), cells.len());
            return Err(Error::RowShape { table: self.schema.table.clone(), expected, found });
        }
        let noted = unchanged.len();
        let mut bytes = self.row_bytes;
        for (at, cell) in cells.iter().enumerate() {
            let text = match cell {
                Cell::Text(text) => Some(*text),
                Cell::Null => None,
                Cell::Unchanged => {
                    let known = self.old_value(old, at);
                    let column = u16::try_from(at).unwrap_or(u16::MAX);
                    unchanged.push(UnchangedCell { column, is_filled: known.is_some() });
                    known
                }
            };
            let Some(text) = text else {
                self.columns[at].append_null();
                continue;
            };
            match self.columns[at].append_text(text) {
                Ok(Appended::Exact) => {}
                Ok(Appended::Lossy) => self.lossy[at] += 1,
                Err(error) => {
                    self.truncate(self.rows);
                    unchanged.truncate(noted);
                    return Err(self.cell_error(at, error));
                }
            }
            if self.is_variable[at] {
                bytes += text.len();
            }
        }
        self.rows += 1;
        self.bytes += bytes;
        Ok(unchanged.len() - noted)
    }

    /// The text of a column in the old tuple, if it is known there. An unchanged value that was not
    /// sent is never NULL, so NULL means not known.
    fn old_value<'a>(&self, old: OldTuple<'a>, at: usize) -> Option<&'a [u8]> {
        let cells = match old {
            OldTuple::None => return None,
            OldTuple::Key(_) if !self.is_key[at] => return None,
            OldTuple::Key(cells) | OldTuple::Full(cells) => cells,
        };
        match cells.get(at) {
            Some(Cell::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether both images have the same identity; a cell of `new` that was not sent is unchanged.
    pub(crate) fn same_identity(&self, old: &[Cell<'_>], new: &[Cell<'_>]) -> bool {
        let same = |(old, new): (&Cell<'_>, &Cell<'_>)| *new == Cell::Unchanged || old == new;
        let pairs = old.iter().zip(new).zip(&self.is_key);
        pairs.filter(|(_, is_key)| **is_key).all(|(pair, _)| same(pair))
    }

    /// Whether an old image has the identity's columns; they are never NULL on the source.
    pub(crate) fn has_identity(&self, old: &[Cell<'_>]) -> bool {
        let keys = old.iter().zip(&self.is_key).filter(|(_, is_key)| **is_key);
        keys.into_iter().all(|(cell, _)| matches!(cell, Cell::Text(_)))
    }

    /// Drops the rows from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.rows = rows;
    }

    /// The columns so far as arrays; the builder is empty afterwards.
    pub(crate) fn finish_arrays(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.bytes = 0;
        let table = &self.schema.table;
        let finish = |column: &mut ColumnBuilder| {
            column.finish().map_err(|source| Error::Arrow {
                table: table.clone(),
                operation: "finish a column",
                source,
            })
        };
        self.columns.iter_mut().map(finish).collect()
    }

    /// The rows so far as a batch with the schema of base files; the builder is empty afterwards.
    ///
    /// # Errors
    /// [`Error::Arrow`] if the columns do not fit together.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let rows = self.rows;
        let arrays = self.finish_arrays()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.arrow_schema), arrays, &options).map_err(
            |source| Error::Arrow {
                table: self.schema.table.clone(),
                operation: "put columns together",
                source,
            },
        )
    }

    /// Values that were replaced as the policy declares, by column name, since the last call.
    pub fn take_lossy(&mut self) -> Vec<(String, u64)> {
        let counts = self.schema.columns.iter().zip(&mut self.lossy);
        counts
            .filter(|(_, count)| **count > 0)
            .map(|(column, count)| (column.name.clone(), std::mem::take(count)))
            .collect()
    }

    pub(crate) fn bad_change(&self, missing: &'static str) -> Error {
        Error::BadChange { table: self.schema.table.clone(), missing }
    }

    fn cell_error(&self, at: usize, error: AppendError) -> Error {
        let table = self.schema.table.clone();
        let column = self.schema.columns[at].name.clone();
        match error {
            AppendError::Text(TextError::Unrepresentable(value)) => {
                Error::Unrepresentable { table, column, value }
            }
            AppendError::Text(source) => Error::Malformed { table, column, source },
            AppendError::TooLarge => Error::ChunkTooLarge { table, column },
        }
    }
}
