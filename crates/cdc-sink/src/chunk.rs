//! A piece of a table's change stream on its way from the ingest loop to the encoder.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use cdc_core::{Epoch, Lsn, TableSchema, UnrepresentablePolicy, meta};
use cdc_iceberg::delta_arrow_schema;

use crate::{Error, Result};

/// Changes of one table under one schema version, in commit order.
///
/// `__commit_lsn` is not among the columns: it is known only at the end of a transaction, which may
/// lie in a later chunk.
#[derive(Debug)]
pub struct Chunk {
    /// The schema of all its rows.
    pub(crate) schema: Arc<TableSchema>,
    /// The rows with the schema of [`staged_schema`].
    pub(crate) batch: RecordBatch,
    /// `__op` of each row as a byte.
    pub(crate) ops: Vec<u8>,
    /// Values to be carried over from the row's last version, in row order.
    pub(crate) patches: Vec<Patch>,
    /// How the rows fall into transactions.
    pub(crate) runs: Vec<CommitRun>,
    /// The rows as they were before each `U`, for tables whose identity is the whole row: the `n`th
    /// row belongs to the `n`th `U`.
    pub(crate) old_rows: Option<RecordBatch>,
    /// What was done with values that a column cannot hold.
    pub(crate) policy: UnrepresentablePolicy,
    /// Replaced values by column name.
    pub(crate) lossy: Vec<(String, u64)>,
}

/// A run of rows of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitRun {
    /// Rows; 0 where only the end of a transaction is told whose rows came in earlier chunks.
    pub rows: usize,
    /// End LSN of the transaction; `None` if it goes on in the next chunk.
    pub end_lsn: Option<Lsn>,
}

/// A value that PostgreSQL did not send because unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Row that lacks it.
    pub(crate) row: u32,
    /// Position of the column.
    pub(crate) column: u16,
    /// Row whose last version has it: `row` itself for a `U`, the `D` before it for the `I` of an
    /// update that changed the key.
    pub(crate) source: u32,
}

impl Chunk {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether it tells nothing: no row, and no end of a transaction whose rows came before.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0 && self.runs.is_empty()
    }

    /// Bytes of memory that the chunk holds.
    pub fn memory_bytes(&self) -> usize {
        let old = self.old_rows.as_ref().map_or(0, RecordBatch::get_array_memory_size);
        self.batch.get_array_memory_size() + old
    }

    /// Values that were replaced as the policy declares, by column name.
    pub fn lossy(&self) -> &[(String, u64)] {
        &self.lossy
    }
}

/// The schema of a delta file without `__commit_lsn`.
pub(crate) fn staged_schema(table: &TableSchema) -> SchemaRef {
    let full = delta_arrow_schema(table);
    let is_staged = |field: &&FieldRef| field.name() != meta::COMMIT_LSN.name;
    let fields: Vec<FieldRef> = full.fields().iter().filter(is_staged).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// The chunks of one table without the transactions that ended at or below `lsn`, for a table whose
/// copy has those already, as of another epoch than the one in which they were gathered.
///
/// The chunks must follow each other, and the last of them must end with the end of a transaction.
///
/// # Errors
/// [`Error::Arrow`] if a column cannot be replaced.
pub fn chunks_after(chunks: Vec<Chunk>, lsn: Lsn, epoch: Epoch) -> Result<Vec<Chunk>> {
    let known = known_runs(&chunks, lsn);
    let cut = |(chunk, known): (Chunk, usize)| chunk.without_runs(known)?.with_epoch(epoch);
    chunks.into_iter().zip(known).map(cut).collect()
}

/// How many runs at the beginning of each chunk belong to transactions that ended at or below `lsn`.
/// The end of a transaction may be told in a later chunk.
fn known_runs(chunks: &[Chunk], lsn: Lsn) -> Vec<usize> {
    let mut end = None;
    let mut known: Vec<usize> = chunks
        .iter()
        .rev()
        .map(|chunk| {
            let mut known = 0;
            for run in chunk.runs.iter().rev() {
                end = run.end_lsn.or(end);
                known += usize::from(end.is_some_and(|end| end <= lsn));
            }
            known
        })
        .collect();
    known.reverse();
    known
}

impl Chunk {
    /// Without its first runs.
    fn without_runs(mut self, count: usize) -> Result<Chunk> {
        let left = self.runs.split_off(count.min(self.runs.len()));
        let gone: usize = std::mem::replace(&mut self.runs, left).iter().map(|run| run.rows).sum();
        if gone == 0 {
            return Ok(self);
        }
        let kept_ops = self.ops.split_off(gone);
        let gone_ops = std::mem::replace(&mut self.ops, kept_ops);
        self.batch = self.batch.slice(gone, self.batch.num_rows() - gone);
        if let Some(old) = &mut self.old_rows {
            let gone = gone_ops.iter().filter(|op| **op == b'U').count();
            *old = old.slice(gone, old.num_rows() - gone);
        }
        let gone = u32::try_from(gone).unwrap_or(u32::MAX);
        // a value comes from a row of the same transaction
        self.patches.retain(|patch| patch.row >= gone);
        for patch in &mut self.patches {
            patch.row -= gone;
            patch.source -= gone;
        }
        Ok(self)
    }

    /// With another epoch in all rows.
    fn with_epoch(mut self, epoch: Epoch) -> Result<Chunk> {
        let rows = self.batch.num_rows();
        let replaced: Vec<ArrayRef> = self
            .batch
            .schema()
            .fields()
            .iter()
            .zip(self.batch.columns())
            .map(|(field, column)| match field.name() == meta::EPOCH.name {
                true => Arc::new(Int64Array::from_value(epoch.0.cast_signed(), rows)),
                false => Arc::clone(column),
            })
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        self.batch = RecordBatch::try_new_with_options(self.batch.schema(), replaced, &options)
            .map_err(|source| Error::Arrow {
                table: self.schema.table.clone(),
                operation: "change the epoch of rows",
                source,
            })?;
        Ok(self)
    }
}
