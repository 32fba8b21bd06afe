//! The changes of a table that is being copied: kept until the copy stands, then those that the copy
//! does not have go on through a lane.

use std::sync::Arc;

use cdc_core::{ChangePosition, Epoch, Lsn, RowChange, TableName, TableSchema, UnrepresentablePolicy};
use cdc_sink::{ChangeBuffer, Chunk, chunks_after};

use crate::Error;

/// What has gathered.
pub(crate) struct Deferred {
    pub(crate) table: TableName,
    buffer: ChangeBuffer,
    chunks: Vec<Chunk>,
    bytes: usize,
    /// Why the changes cannot be used, and so neither can the copy.
    failed: Option<Error>,
}

impl Deferred {
    pub(crate) fn new(
        table: TableName,
        schema: Arc<TableSchema>,
        policy: UnrepresentablePolicy,
    ) -> Deferred {
        let buffer = ChangeBuffer::new(schema, policy);
        Deferred { table, buffer, chunks: Vec::new(), bytes: 0, failed: None }
    }

    /// The schema that the changes must have.
    pub(crate) fn schema(&self) -> &Arc<TableSchema> {
        self.buffer.schema()
    }

    /// Adds a change and gives how many sequence numbers it used.
    pub(crate) fn push(
        &mut self,
        change: &RowChange<'_>,
        at: &ChangePosition,
        epoch: Epoch,
    ) -> Result<u64, Error> {
        if self.failed.is_none() {
            match self.buffer.push(change, at, epoch) {
                Ok(used) => {
                    if self.buffer.is_full() {
                        self.seal()?;
                    }
                    return Ok(used);
                }
                Err(error) => self.fail(error.into()),
            }
        }
        Ok(self.buffer.sequence_numbers(change))
    }

    /// Ends the open transaction.
    pub(crate) fn commit(&mut self, end_lsn: Lsn) {
        self.buffer.commit(end_lsn);
    }

    /// From now on nothing is kept: the copy will have to be made again.
    pub(crate) fn fail(&mut self, error: Error) {
        self.chunks.clear();
        self.bytes = 0;
        self.failed.get_or_insert(error);
    }

    /// Bytes that are kept.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes + self.buffer.byte_len()
    }

    fn seal(&mut self) -> Result<(), Error> {
        let chunk = self.buffer.take_chunk()?;
        self.bytes += chunk.memory_bytes();
        self.chunks.push(chunk);
        Ok(())
    }

    /// The changes of the transactions that end above `lsn`, as of another epoch. No transaction may
    /// be open.
    pub(crate) fn above(mut self, lsn: Lsn, epoch: Epoch) -> Result<Vec<Chunk>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !self.buffer.is_empty() {
            self.seal()?;
        }
        let chunks = chunks_after(self.chunks, lsn, epoch)?;
        Ok(chunks.into_iter().filter(|chunk| chunk.rows() > 0).collect())
    }
}
