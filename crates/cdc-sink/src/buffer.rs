//! The ingest side of a table's lane: changes to columns, in commit order.
//!
//! ```text
//! push(change) … push(change)   commit(end LSN)      rows of one transaction, then its end
//!         └────────── take_chunk() ──────────┘       anywhere between two calls
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::array::{RecordBatchOptions, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use cdc_core::{
    Cell, ChangePosition, Epoch, Identity, Lsn, OldTuple, RowChange, TableSchema,
    UnrepresentablePolicy,
};

use crate::chunk::{Chunk, CommitRun, Patch, staged_schema};
use crate::rows::{CHUNK_BYTES_MAX, CHUNK_ROWS_MAX, RowBuilder, UnchangedCell};
use crate::{Error, Result};

/// What an old row lacks when the replica identity of its table was changed on the source.
const NO_IDENTITY: &str = "an old row came without the columns that identify it; was the replica \
                           identity of the table changed?";
/// Bytes of the metadata columns of one row.
const META_ROW_BYTES: usize = 1 + 5 * 8 + 4;

/// Gathers the changes of one table under one schema version. One owner, no I/O.
///
/// A change that cannot be stored leaves the buffer as it was, so that what came before can still
/// be flushed.
pub struct ChangeBuffer {
    rows: RowBuilder,
    policy: UnrepresentablePolicy,
    staged_schema: SchemaRef,
    ops: Vec<u8>,
    epochs: Vec<i64>,
    lsns: Vec<i64>,
    commit_micros: Vec<i64>,
    seqs: Vec<i64>,
    xids: Vec<i64>,
    toast: ToastNames,
    patches: Vec<Patch>,
    runs: Vec<CommitRun>,
    open_run_rows: usize,
    is_transaction_open: bool,
    old_rows: Option<RowBuilder>,
    scratch: Vec<UnchangedCell>,
}

/// `__toast_unchanged` in the making: a list of column names for each row.
struct ToastNames {
    list_offsets: Vec<i32>,
    name_offsets: Vec<i32>,
    name_bytes: Vec<u8>,
    field: FieldRef,
}

impl ChangeBuffer {
    /// An empty buffer.
    pub fn new(schema: Arc<TableSchema>, policy: UnrepresentablePolicy) -> Self {
        let staged_schema = staged_schema(&schema);
        let field = match staged_schema.fields().last().map(|field| field.data_type()) {
            Some(DataType::List(field)) => Arc::clone(field),
            _ => Arc::new(arrow::datatypes::Field::new("element", DataType::Utf8, true)),
        };
        let is_full = schema.identity == Identity::Full;
        Self {
            old_rows: is_full.then(|| RowBuilder::new(Arc::clone(&schema), policy)),
            rows: RowBuilder::new(schema, policy),
            policy,
            staged_schema,
            ops: Vec::new(),
            epochs: Vec::new(),
            lsns: Vec::new(),
            commit_micros: Vec::new(),
            seqs: Vec::new(),
            xids: Vec::new(),
            toast: ToastNames::new(field),
            patches: Vec::new(),
            runs: Vec::new(),
            open_run_rows: 0,
            is_transaction_open: false,
            scratch: Vec::new(),
        }
    }

    /// The schema that the changes have.
    pub fn schema(&self) -> &Arc<TableSchema> {
        self.rows.schema()
    }

    /// Rows since the last chunk.
    pub fn rows(&self) -> usize {
        self.ops.len()
    }

    /// Bytes since the last chunk, estimated.
    pub fn byte_len(&self) -> usize {
        let old = self.old_rows.as_ref().map_or(0, RowBuilder::byte_len);
        self.rows.byte_len() + old + self.ops.len() * META_ROW_BYTES
    }

    /// Whether it is time for [`ChangeBuffer::take_chunk`], in the middle of a transaction if need
    /// be: at [`CHUNK_ROWS_MAX`] rows or [`CHUNK_BYTES_MAX`] bytes.
    pub fn is_full(&self) -> bool {
        self.rows() >= CHUNK_ROWS_MAX || self.byte_len() >= CHUNK_BYTES_MAX
    }

    /// Whether [`ChangeBuffer::take_chunk`] would give nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.runs.is_empty()
    }

    /// Whether rows of a transaction came that has not been committed yet.
    pub fn is_transaction_open(&self) -> bool {
        self.is_transaction_open
    }

    /// Adds a change and gives how many sequence numbers it used: 1, or 2 for an update that
    /// changed the key, which is a `D` at `at.seq` and an `I` at `at.seq + 1`.
    ///
    /// # Errors
    /// A cell that its column cannot take, or a change without what its kind always has. The buffer
    /// is then as before the call.
    pub fn push(
        &mut self,
        change: &RowChange<'_>,
        at: &ChangePosition,
        epoch: Epoch,
    ) -> Result<u64> {
        let used = match *change {
            RowChange::Insert { new } => self.insert(new, at, epoch),
            RowChange::Update { old, new } => self.update(old, new, at, epoch),
            RowChange::Delete { old } => self.delete(old, at, epoch),
            RowChange::Truncate => self.truncate_table(at, epoch),
        }?;
        self.is_transaction_open = true;
        Ok(used)
    }

    /// How many sequence numbers [`ChangeBuffer::push`] would use for a change, for one that is left
    /// out because the table has it already.
    pub fn sequence_numbers(&self, change: &RowChange<'_>) -> u64 {
        match change {
            RowChange::Update { old: OldTuple::Key(cells) | OldTuple::Full(cells), new }
                if self.old_rows.is_none() && !self.rows.same_identity(cells, new) =>
            {
                2
            }
            _ => 1,
        }
    }

    /// Ends the transaction of all rows since the last commit. Nothing happens if there are none.
    pub fn commit(&mut self, end_lsn: Lsn) {
        if std::mem::take(&mut self.is_transaction_open) {
            let rows = std::mem::take(&mut self.open_run_rows);
            self.runs.push(CommitRun { rows, end_lsn: Some(end_lsn) });
        }
    }

    /// Takes what has gathered. May be called in the middle of a transaction: the rest of its rows
    /// and its end come with later chunks.
    ///
    /// # Errors
    /// [`Error::Arrow`] if the columns do not fit together.
    pub fn take_chunk(&mut self) -> Result<Chunk> {
        if self.open_run_rows > 0 {
            let rows = std::mem::take(&mut self.open_run_rows);
            self.runs.push(CommitRun { rows, end_lsn: None });
        }
        let mut arrays = self.rows.finish_arrays()?;
        let meta = self.finish_meta().map_err(|source| self.arrow_error(source))?;
        arrays.extend(meta);
        let ops = std::mem::take(&mut self.ops);
        let options = RecordBatchOptions::new().with_row_count(Some(ops.len()));
        let schema = Arc::clone(&self.staged_schema);
        let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|source| self.arrow_error(source))?;
        let lossy = self.rows.take_lossy();
        let old_rows = match &mut self.old_rows {
            Some(old) => {
                // the new images have counted already; the old ones are never stored
                old.take_lossy();
                Some(old.finish()?)
            }
            None => None,
        };
        Ok(Chunk {
            schema: Arc::clone(self.rows.schema()),
            batch,
            ops,
            patches: std::mem::take(&mut self.patches),
            runs: std::mem::take(&mut self.runs),
            old_rows,
            policy: self.policy,
            lossy,
        })
    }

    /// Ends this buffer because the table's schema has changed: what has gathered, and the buffer for
    /// what follows, in the same transaction if one is open.
    ///
    /// # Errors
    /// As [`ChangeBuffer::take_chunk`].
    pub fn evolve(mut self, schema: Arc<TableSchema>) -> Result<(Chunk, ChangeBuffer)> {
        let chunk = self.take_chunk()?;
        let mut next = ChangeBuffer::new(schema, self.policy);
        next.is_transaction_open = self.is_transaction_open;
        Ok((chunk, next))
    }

    fn insert(&mut self, new: &[Cell<'_>], at: &ChangePosition, epoch: Epoch) -> Result<u64> {
        self.image(b'I', new, OldTuple::None, at, epoch)?;
        if self.scratch.is_empty() {
            return Ok(1);
        }
        self.undo_last_row();
        Err(self.rows.bad_change("an insert lacks the value of a column"))
    }

    fn update(
        &mut self,
        old: OldTuple<'_>,
        new: &[Cell<'_>],
        at: &ChangePosition,
        epoch: Epoch,
    ) -> Result<u64> {
        let old_cells = match old {
            OldTuple::None => None,
            OldTuple::Key(cells) | OldTuple::Full(cells) => Some(cells),
        };
        if let Some(old_rows) = &mut self.old_rows {
            let OldTuple::Full(cells) = old else {
                return Err(self.rows.bad_change("an update lacks the whole old row"));
            };
            let before = old_rows.rows();
            old_rows.push(cells)?;
            return self.image(b'U', new, old, at, epoch).map(|()| 1).inspect_err(|_| {
                if let Some(old_rows) = &mut self.old_rows {
                    old_rows.truncate(before);
                }
            });
        }
        match old_cells {
            Some(cells) if !self.rows.has_identity(cells) => Err(self.rows.bad_change(NO_IDENTITY)),
            Some(cells) if !self.rows.same_identity(cells, new) => {
                self.move_row(cells, old, new, at, epoch)
            }
            _ => self.image(b'U', new, old, at, epoch).map(|()| 1),
        }
    }

    /// An update that changed the key: `D` of the old one, `I` of the new one.
    fn move_row(
        &mut self,
        old_cells: &[Cell<'_>],
        old: OldTuple<'_>,
        new: &[Cell<'_>],
        at: &ChangePosition,
        epoch: Epoch,
    ) -> Result<u64> {
        self.image(b'D', old_cells, OldTuple::None, at, epoch)?;
        let insert_at = ChangePosition { seq: at.seq + 1, ..*at };
        if let Err(error) = self.image(b'I', new, old, &insert_at, epoch) {
            self.undo_last_row();
            return Err(error);
        }
        Ok(2)
    }

    fn delete(&mut self, old: OldTuple<'_>, at: &ChangePosition, epoch: Epoch) -> Result<u64> {
        let cells = match old {
            OldTuple::None => return Err(self.rows.bad_change("a delete lacks the old row")),
            OldTuple::Key(_) if self.old_rows.is_some() => {
                return Err(self.rows.bad_change("a delete lacks the whole old row"));
            }
            OldTuple::Key(cells) | OldTuple::Full(cells) if !self.rows.has_identity(cells) => {
                return Err(self.rows.bad_change(NO_IDENTITY));
            }
            OldTuple::Key(cells) | OldTuple::Full(cells) => cells,
        };
        self.image(b'D', cells, OldTuple::None, at, epoch).map(|()| 1)
    }

    fn truncate_table(&mut self, at: &ChangePosition, epoch: Epoch) -> Result<u64> {
        let nulls = vec![Cell::Null; self.schema().columns.len()];
        self.image(b'T', &nulls, OldTuple::None, at, epoch).map(|()| 1)
    }

    /// Adds one row with its metadata, or nothing.
    fn image(
        &mut self,
        op: u8,
        cells: &[Cell<'_>],
        old: OldTuple<'_>,
        at: &ChangePosition,
        epoch: Epoch,
    ) -> Result<()> {
        self.scratch.clear();
        self.rows.push_image(cells, old, &mut self.scratch)?;
        self.note_unchanged(op);
        self.ops.push(op);
        self.epochs.push(epoch.0.cast_signed());
        self.lsns.push(at.lsn.as_i64());
        self.commit_micros.push(at.commit_micros);
        self.seqs.push(at.seq.cast_signed());
        self.xids.push(i64::from(at.xid));
        self.open_run_rows += 1;
        Ok(())
    }

    /// Names the columns that were not sent, and notes those whose value must be carried over.
    fn note_unchanged(&mut self, op: u8) {
        let row = u32::try_from(self.ops.len()).unwrap_or(u32::MAX);
        // the `I` of a key change stands behind its `D`, and that one names the last version
        let source = if op == b'I' { row.saturating_sub(1) } else { row };
        for cell in &self.scratch {
            self.toast.push(&self.rows.schema().columns[usize::from(cell.column)].name);
            if !cell.is_filled {
                self.patches.push(Patch { row, column: cell.column, source });
            }
        }
        self.toast.close_row();
    }

    fn undo_last_row(&mut self) {
        let Some(rows) = self.ops.len().checked_sub(1) else { return };
        self.rows.truncate(rows);
        self.ops.truncate(rows);
        for column in [
            &mut self.epochs,
            &mut self.lsns,
            &mut self.commit_micros,
            &mut self.seqs,
            &mut self.xids,
        ] {
            column.truncate(rows);
        }
        self.patches.retain(|patch| usize::try_from(patch.row).is_ok_and(|row| row < rows));
        self.toast.truncate(rows);
        self.open_run_rows -= 1;
    }

    /// The metadata columns in file order, `__commit_lsn` left out.
    fn finish_meta(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows = i32::try_from(self.ops.len()).unwrap_or(i32::MAX);
        let op_offsets = OffsetBuffer::new(ScalarBuffer::from((0..=rows).collect::<Vec<i32>>()));
        let ops = StringArray::try_new(op_offsets, Buffer::from_slice_ref(&self.ops), None)?;
        let commit_ts = TimestampMicrosecondArray::from(take(&mut self.commit_micros));
        Ok(vec![
            Arc::new(ops),
            Arc::new(Int64Array::from(take(&mut self.epochs))),
            Arc::new(Int64Array::from(take(&mut self.lsns))),
            Arc::new(commit_ts.with_timezone("UTC")),
            Arc::new(Int64Array::from(take(&mut self.seqs))),
            Arc::new(Int64Array::from(take(&mut self.xids))),
            Arc::new(self.toast.finish()?),
        ])
    }

    fn arrow_error(&self, source: ArrowError) -> Error {
        Error::Arrow {
            table: self.schema().table.clone(),
            operation: "put the columns of a chunk together",
            source,
        }
    }
}

impl ToastNames {
    fn new(field: FieldRef) -> Self {
        Self { list_offsets: vec![0], name_offsets: vec![0], name_bytes: Vec::new(), field }
    }

    fn push(&mut self, name: &str) {
        self.name_bytes.extend_from_slice(name.as_bytes());
        self.name_offsets.push(offset(self.name_bytes.len()));
    }

    fn close_row(&mut self) {
        self.list_offsets.push(offset(self.name_offsets.len() - 1));
    }

    fn truncate(&mut self, rows: usize) {
        self.list_offsets.truncate(rows + 1);
        let names = usize::try_from(self.list_offsets[rows]).unwrap_or(0);
        self.name_offsets.truncate(names + 1);
        self.name_bytes.truncate(usize::try_from(self.name_offsets[names]).unwrap_or(0));
    }

    fn finish(&mut self) -> Result<ListArray, ArrowError> {
        let offsets = |offsets: &mut Vec<i32>| {
            OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])))
        };
        let bytes = Buffer::from_vec(std::mem::take(&mut self.name_bytes));
        let names = StringArray::try_new(offsets(&mut self.name_offsets), bytes, None)?;
        let field = Arc::clone(&self.field);
        ListArray::try_new(field, offsets(&mut self.list_offsets), Arc::new(names), None)
    }
}

/// A chunk's names are far below 2 GiB: a row has at most 1600 of at most 63 bytes, and a chunk
/// [`CHUNK_ROWS_MAX`] rows.
fn offset(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}

fn take(values: &mut Vec<i64>) -> Vec<i64> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}
