//! A piece of a table's change stream on its way from the ingest loop to the encoder.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use cdc_core::{Lsn, TableSchema, UnrepresentablePolicy, meta};
use cdc_iceberg::delta_arrow_schema;

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
