//! Sorted rows on disk. A run that follows on the one before extends its chain, so that rows which
//! come in order, as those of base files do, make one chain however many they are.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use cdc_core::TableName;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;

use crate::base::sort::{Key, SortedRun};
use crate::body::Body;
use crate::encoding::{FileCompression, properties, write_batch};
use crate::{Error, Result};

/// Bytes of an encoded row group, which are in memory until it ends.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Where chains are made, and of what.
#[derive(Clone)]
pub(super) struct ChainPlace {
    pub(super) table: TableName,
    pub(super) schema: SchemaRef,
    pub(super) dir: PathBuf,
}

/// A complete chain: an unnamed temporary file.
pub(super) struct Chain {
    body: Body,
    rows: usize,
    bytes: usize,
}

/// A chain that takes rows.
pub(super) struct ChainWriter {
    place: ChainPlace,
    writer: ArrowWriter<File>,
    file: File,
    last: Option<Key>,
    rows: usize,
    bytes: usize,
}

impl ChainPlace {
    pub(super) fn begin(&self) -> Result<ChainWriter> {
        let file = tempfile::tempfile_in(&self.dir).map_err(|source| self.io(&self.dir, source))?;
        let own = file.try_clone().map_err(|source| self.io(&self.dir, source))?;
        let properties = properties(&self.schema, FileCompression::Snappy)
            .into_builder()
            .set_max_row_group_bytes(Some(GROUP_BYTES_MAX))
            .build();
        let options = ArrowWriterOptions::new().with_properties(properties);
        let writer = ArrowWriter::try_new_with_options(own, Arc::clone(&self.schema), options)
            .map_err(|source| self.parquet("write", source))?;
        Ok(ChainWriter { place: self.clone(), writer, file, last: None, rows: 0, bytes: 0 })
    }

    fn io(&self, dir: &Path, source: std::io::Error) -> Error {
        let path = dir.display().to_string();
        Error::Io { operation: "write a temporary file in", path, source }
    }

    pub(super) fn parquet(&self, operation: &'static str, source: ParquetError) -> Error {
        let (table, key) = (self.table.clone(), "rows on their way to a base file".to_owned());
        Error::Parquet { table, operation, key, source }
    }
}

impl ChainWriter {
    /// Whether a run that begins with `first` may follow.
    pub(super) fn takes(&self, first: &Key) -> bool {
        self.last.as_ref().is_none_or(|last| last <= first)
    }

    /// Adds a run that the chain takes.
    pub(super) fn run(&mut self, run: SortedRun) -> Result<()> {
        for batch in &run.batches {
            self.batch(batch)?;
        }
        self.last = Some(run.last);
        Ok(())
    }

    /// Adds rows that are not below those before.
    pub(super) fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let bytes = batch.get_array_memory_size();
        let written = write_batch(&mut self.writer, batch, bytes);
        written.map_err(|source| self.place.parquet("write", source))?;
        self.rows += batch.num_rows();
        self.bytes += bytes;
        Ok(())
    }

    /// Ends the chain.
    pub(super) fn finish(self) -> Result<Chain> {
        let ChainWriter { place, writer, file, rows, bytes, .. } = self;
        writer.close().map_err(|source| place.parquet("write", source))?;
        let len = file.metadata().map_err(|source| place.io(&place.dir, source))?.len();
        Ok(Chain { body: Body::disk(file, len), rows, bytes })
    }
}

impl Chain {
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the rows in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reads the chain from its beginning, so many rows at a time.
    pub(super) fn read(
        &self,
        place: &ChainPlace,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader> {
        ParquetRecordBatchReaderBuilder::try_new(self.body.clone())
            .and_then(|builder| builder.with_batch_size(batch_rows).build())
            .map_err(|source| place.parquet("read", source))
    }
}
