//! One row group on its way into a delta file: encoded as rows come, all columns but
//! `__commit_lsn`, as a small Parquet file of its own.
//!
//! That file can be read at any time, which is how an unchanged value is carried over from a row of
//! the same epoch, and its column chunks are copied as they are into the delta file once the last
//! transaction in it has ended.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::Result;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;

use crate::body::Body;
use crate::encoding::write_batch;

/// A row group that still takes rows.
pub(super) struct OpenGroup {
    writer: ArrowWriter<Vec<u8>>,
    /// What was written, for as long as it cannot be read back: first row and batch.
    recent: Vec<(u32, RecordBatch)>,
    keeps_recent: bool,
    first_row: u32,
    rows: u32,
    raw_bytes: usize,
}

/// A row group that is complete but for `__commit_lsn`.
pub(super) struct StagedGroup {
    /// A Parquet file with one row group.
    pub(super) body: Body,
    pub(super) metadata: Arc<ParquetMetaData>,
    /// Position of its first row in the delta file.
    pub(super) first_row: u32,
    pub(super) rows: u32,
}

impl OpenGroup {
    /// `keeps_recent`: whether values of its rows may be asked for.
    pub(super) fn new(
        schema: &SchemaRef,
        properties: WriterProperties,
        first_row: u32,
        keeps_recent: bool,
    ) -> Result<Self> {
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(schema), options)?;
        Ok(Self { writer, recent: Vec::new(), keeps_recent, first_row, rows: 0, raw_bytes: 0 })
    }

    /// Adds rows. `raw_bytes` is what they take in memory.
    pub(super) fn write(&mut self, batch: RecordBatch, raw_bytes: usize) -> Result<()> {
        let rows = batch.num_rows();
        write_batch(&mut self.writer, &batch, raw_bytes)?;
        let at = self.first_row + self.rows;
        self.rows += u32::try_from(rows).unwrap_or(u32::MAX);
        self.raw_bytes += raw_bytes;
        if self.keeps_recent && rows > 0 {
            self.recent.push((at, batch));
        }
        Ok(())
    }

    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Uncompressed bytes so far.
    pub(super) fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.writer.memory_size() + if self.keeps_recent { self.raw_bytes } else { 0 }
    }

    /// The batch that holds this row of the delta file, and its place in it.
    pub(super) fn find(&self, row: u32) -> Option<(&RecordBatch, usize)> {
        let behind = self.recent.partition_point(|(first, _)| *first <= row);
        let (first, batch) = self.recent.get(behind.checked_sub(1)?)?;
        let at = usize::try_from(row - first).ok()?;
        (at < batch.num_rows()).then_some((batch, at))
    }

    pub(super) fn finish(mut self) -> Result<StagedGroup> {
        let metadata = Arc::new(self.writer.finish()?);
        // it grew by doubling, and it may stay for long
        let bytes = std::mem::take(self.writer.inner_mut()).into_boxed_slice();
        let body = Body::memory(Bytes::from(bytes));
        Ok(StagedGroup { body, metadata, first_row: self.first_row, rows: self.rows })
    }
}

impl StagedGroup {
    /// What a reader needs to know besides the bytes.
    pub(super) fn reader_metadata(&self) -> Result<ArrowReaderMetadata> {
        ArrowReaderMetadata::try_new(Arc::clone(&self.metadata), ArrowReaderOptions::new())
    }
}
