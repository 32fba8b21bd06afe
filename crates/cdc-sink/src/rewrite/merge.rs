//! Several chains as one sequence in identity order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::chain::{Chain, ChainPlace};
use crate::base::sort::{Key, Keys, Place, Sorter};
use crate::{Error, Result};

/// Bytes of the batch of each chain, and of a batch that comes out.
const BATCH_BYTES: usize = 2 << 20;
/// Most rows of a batch.
const BATCH_ROWS_MAX: usize = 8192;

/// Gives batches of the merged rows. Memory: two batches of each chain.
pub(super) struct Merge {
    place: ChainPlace,
    sorter: Sorter,
    cursors: Vec<Cursor>,
    heads: BinaryHeap<Reverse<(Key, usize)>>,
    batch_rows: usize,
}

/// Where a chain is read.
struct Cursor {
    reader: ParquetRecordBatchReader,
    batch: RecordBatch,
    keys: Keys,
    row: usize,
    /// The place of its batch among those of the output in the making.
    source: Option<usize>,
}

impl Merge {
    /// Begins at the beginning of each chain.
    pub(super) fn new(place: ChainPlace, sorter: Sorter, chains: &[Chain]) -> Result<Self> {
        let (rows, bytes) = chains
            .iter()
            .fold((0, 0), |(rows, bytes), chain| (rows + chain.rows(), bytes + chain.bytes()));
        let row_bytes = bytes / rows.max(1);
        let batch_rows = (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS_MAX);
        let mut merge = Self {
            place,
            sorter,
            cursors: Vec::with_capacity(chains.len()),
            heads: BinaryHeap::with_capacity(chains.len()),
            batch_rows,
        };
        for chain in chains {
            let mut reader = chain.read(&merge.place, batch_rows)?;
            let next = read(&merge.sorter, &mut reader).map_err(|source| merge.arrow(source))?;
            let Some((batch, keys)) = next else { continue };
            let head = (keys.get((0, 0)), merge.cursors.len());
            merge.heads.push(Reverse(head));
            merge.cursors.push(Cursor { reader, batch, keys, row: 0, source: None });
        }
        Ok(merge)
    }

    /// The next rows; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut sources: Vec<RecordBatch> = Vec::new();
        let mut picked: Vec<Place> = Vec::with_capacity(self.batch_rows);
        self.cursors.iter_mut().for_each(|cursor| cursor.source = None);
        while picked.len() < self.batch_rows {
            let Some(Reverse((_, at))) = self.heads.pop() else { break };
            let cursor = &mut self.cursors[at];
            let source = *cursor.source.get_or_insert_with(|| {
                sources.push(cursor.batch.clone());
                sources.len() - 1
            });
            picked.push((source, cursor.row));
            self.advance(at)?;
        }
        if picked.is_empty() {
            return Ok(None);
        }
        let sources: Vec<&RecordBatch> = sources.iter().collect();
        let batch = interleave_record_batch(&sources, &picked);
        batch.map(Some).map_err(|source| self.arrow(source))
    }

    /// Gives the sorter back, for the next merge.
    pub(super) fn into_sorter(self) -> Sorter {
        self.sorter
    }

    fn advance(&mut self, at: usize) -> Result<()> {
        let cursor = &mut self.cursors[at];
        cursor.row += 1;
        if cursor.row == cursor.batch.num_rows() {
            let next = read(&self.sorter, &mut cursor.reader);
            let Some((batch, keys)) = next.map_err(|source| self.arrow(source))? else {
                return Ok(());
            };
            let cursor = &mut self.cursors[at];
            (cursor.batch, cursor.keys, cursor.row, cursor.source) = (batch, keys, 0, None);
        }
        let cursor = &self.cursors[at];
        self.heads.push(Reverse((cursor.keys.get((0, cursor.row)), at)));
        Ok(())
    }

    fn arrow(&self, source: ArrowError) -> Error {
        let table = self.place.table.clone();
        Error::Arrow { table, operation: "merge sorted rows", source }
    }
}

/// The next batch that has rows, with its keys.
fn read(
    sorter: &Sorter,
    reader: &mut ParquetRecordBatchReader,
) -> std::result::Result<Option<(RecordBatch, Keys)>, ArrowError> {
    for batch in reader {
        let batch = batch?;
        if batch.num_rows() > 0 {
            let keys = sorter.keys(std::slice::from_ref(&batch))?;
            return Ok(Some((batch, keys)));
        }
    }
    Ok(None)
}
