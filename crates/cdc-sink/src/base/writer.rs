//! The writer of one share of a table's snapshot.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use cdc_core::{Epoch, Identity, TableSchema};
use cdc_iceberg::base_arrow_schema;
use cdc_manifest::layout;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;

use super::sort::{Key, Sorter};
use crate::body::Body;
use crate::delta::identity_columns;
use crate::encoded::EncodedFile;
use crate::encoding::{FileCompression, properties, write_batch};
use crate::index::{FileRef, IdentityHasher, IndexBuilder};
use crate::{Error, Result};

/// How base files are written.
#[derive(Clone, Debug)]
pub struct BaseOptions {
    /// Compression.
    pub compression: FileCompression,
    /// Compressed bytes after which a part ends, at the end of a run.
    pub file_bytes_max: u64,
    /// Uncompressed bytes that are sorted at once.
    pub run_bytes_max: usize,
    /// Rows after which a row group ends.
    pub group_rows_max: usize,
    /// Encoded bytes after which a row group ends.
    pub group_bytes_max: usize,
    /// Where a part waits for its end; without it, it waits in memory.
    pub spill_dir: Option<PathBuf>,
}

impl Default for BaseOptions {
    fn default() -> Self {
        Self {
            compression: FileCompression::default(),
            file_bytes_max: 256 << 20,
            run_bytes_max: 32 << 20,
            group_rows_max: 262_144,
            group_bytes_max: 64 << 20,
            spill_dir: None,
        }
    }
}

/// Part numbers of one base directory, shared by its writers.
#[derive(Clone, Debug, Default)]
pub struct PartNumbers(Arc<AtomicU32>);

impl PartNumbers {
    /// Starts at 0.
    pub fn new() -> Self {
        Self::default()
    }

    fn take(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Where a base goes and what it is of.
#[derive(Clone, Debug)]
pub struct BaseTarget {
    /// Schema of the rows.
    pub schema: Arc<TableSchema>,
    /// Epoch that the directory is named for.
    pub epoch: Epoch,
    /// Which directory of the epoch, from 0.
    pub attempt: u32,
    /// The directory's part numbers.
    pub parts: PartNumbers,
    /// Hasher of the index that is being built; without it no records are given.
    pub hasher: Option<IdentityHasher>,
}

/// Identities of rows that were written, in row order.
#[derive(Clone, Debug)]
pub struct IndexedRows {
    /// File.
    pub file: FileRef,
    /// Row of the first one.
    pub first_row: u32,
    /// Their hashes.
    pub hashes: Vec<u128>,
}

/// What came out of a call.
#[derive(Debug, Default)]
pub struct BaseStep {
    /// Complete files, to be uploaded.
    pub files: Vec<EncodedFile>,
    /// Rows for the index.
    pub indexed: Vec<IndexedRows>,
}

impl BaseStep {
    /// Hands the rows to an index.
    ///
    /// # Errors
    /// Errors of the builder.
    pub fn index_into(&self, builder: &mut IndexBuilder) -> Result<()> {
        for rows in &self.indexed {
            let numbers = rows.first_row..;
            for (row, hash) in numbers.zip(&rows.hashes) {
                builder.push(*hash, rows.file, row)?;
            }
        }
        Ok(())
    }
}

/// Writes rows to base files. `Send`, synchronous; several of one table may run at once.
///
/// Promise: each file is sorted by the identity. Rows are sorted in runs of
/// [`BaseOptions::run_bytes_max`]; a run that follows on the one before extends its file, so a table
/// read in key order has few large files, and one in random order has a file for each run. A table
/// without a key keeps its order.
///
/// Memory: two runs, the row group in progress, and the file without a spill directory.
pub struct BaseWriter {
    target: BaseTarget,
    options: BaseOptions,
    arrow_schema: SchemaRef,
    identity: Vec<usize>,
    sorter: Option<Sorter>,
    run: Vec<RecordBatch>,
    run_bytes: usize,
    open: Option<OpenPart>,
    step: BaseStep,
}

struct OpenPart {
    writer: ArrowWriter<Sink>,
    key: String,
    file: FileRef,
    rows: u32,
    last: Option<Key>,
}

impl BaseWriter {
    /// A writer without rows.
    ///
    /// # Errors
    /// [`Error::Arrow`] if the identity's columns cannot be sorted by.
    pub fn new(target: BaseTarget, options: BaseOptions) -> Result<Self> {
        let arrow_schema = base_arrow_schema(&target.schema);
        let identity = identity_columns(&target.schema);
        let sorted_by = match target.schema.identity {
            Identity::Full => Vec::new(),
            _ => identity.clone(),
        };
        let types: Vec<DataType> =
            sorted_by.iter().map(|at| arrow_schema.field(*at).data_type().clone()).collect();
        let sorter = Sorter::new(sorted_by, &types).map_err(|source| Error::Arrow {
            table: target.schema.table.clone(),
            operation: "sort by the identity",
            source,
        })?;
        Ok(Self {
            target,
            options,
            arrow_schema,
            identity,
            sorter,
            run: Vec::new(),
            run_bytes: 0,
            open: None,
            step: BaseStep::default(),
        })
    }

    /// Bytes of memory held, estimated.
    pub fn memory_bytes(&self) -> usize {
        self.run_bytes + self.open.as_ref().map_or(0, |open| open.writer.memory_size())
    }

    /// Adds rows, as [`RowBuilder::finish`](crate::RowBuilder::finish) gives them.
    ///
    /// # Errors
    /// Errors of the encoder and of the temporary file.
    pub fn append(&mut self, batch: RecordBatch) -> Result<BaseStep> {
        self.run_bytes += batch.get_array_memory_size();
        self.run.push(batch);
        if self.run_bytes >= self.options.run_bytes_max {
            self.write_run()?;
        }
        Ok(std::mem::take(&mut self.step))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`BaseWriter::append`].
    pub fn finish(mut self) -> Result<BaseStep> {
        self.write_run()?;
        self.end_part()?;
        Ok(self.step)
    }

    fn write_run(&mut self) -> Result<()> {
        let run = std::mem::take(&mut self.run);
        let bytes = std::mem::take(&mut self.run_bytes);
        let rows: usize = run.iter().map(RecordBatch::num_rows).sum();
        let row_bytes = bytes / rows.max(1);
        let Some(sorter) = &self.sorter else {
            self.write_batches(run, row_bytes)?;
            return self.end_part_if_full();
        };
        let sorted = sorter.sort(run).map_err(|source| Error::Arrow {
            table: self.target.schema.table.clone(),
            operation: "sort by the identity",
            source,
        })?;
        let Some(sorted) = sorted else { return Ok(()) };
        let goes_on = self
            .open
            .as_ref()
            .is_none_or(|open| open.last.as_ref().is_none_or(|last| *last <= sorted.first));
        if !goes_on {
            self.end_part()?;
        }
        self.write_batches(sorted.batches, row_bytes)?;
        if let Some(open) = &mut self.open {
            open.last = Some(sorted.last);
        }
        self.end_part_if_full()
    }

    fn write_batches(&mut self, batches: Vec<RecordBatch>, row_bytes: usize) -> Result<()> {
        for batch in batches {
            if batch.num_rows() == 0 {
                continue;
            }
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.begin_part()?,
            };
            self.note_identities(&batch, &open)?;
            let bytes = batch.num_rows() * row_bytes;
            let written = write_batch(&mut open.writer, &batch, bytes);
            written.map_err(|source| self.parquet_error("encode", &open.key, source))?;
            open.rows += u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
            self.open = Some(open);
        }
        Ok(())
    }

    fn note_identities(&mut self, batch: &RecordBatch, open: &OpenPart) -> Result<()> {
        let Some(hasher) = &self.target.hasher else { return Ok(()) };
        let columns: Vec<ArrayRef> =
            self.identity.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let hashes = if columns.is_empty() {
            vec![0; batch.num_rows()]
        } else {
            hasher.hash_rows(&columns)?
        };
        let (file, first_row) = (open.file, open.rows);
        self.step.indexed.push(IndexedRows { file, first_row, hashes });
        Ok(())
    }

    fn begin_part(&self) -> Result<OpenPart> {
        let BaseTarget { schema, epoch, attempt, parts, .. } = &self.target;
        let part = parts.take();
        let file =
            FileRef::base(*epoch, *attempt, part).ok_or(Error::TooManyFiles { epoch: *epoch })?;
        let key = layout::base_key(&schema.table, *epoch, *attempt, part);
        let properties = properties(&self.arrow_schema, self.options.compression)
            .into_builder()
            .set_max_row_group_row_count(Some(self.options.group_rows_max))
            .set_max_row_group_bytes(Some(self.options.group_bytes_max))
            .build();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let sink = Sink::new(self.options.spill_dir.as_deref())?;
        let schema = Arc::clone(&self.arrow_schema);
        let writer = ArrowWriter::try_new_with_options(sink, schema, options)
            .map_err(|source| self.parquet_error("start", &key, source))?;
        Ok(OpenPart { writer, key, file, rows: 0, last: None })
    }

    fn end_part_if_full(&mut self) -> Result<()> {
        let bytes = self
            .open
            .as_ref()
            .map_or(0, |open| open.writer.bytes_written() + open.writer.in_progress_size());
        if bytes as u64 >= self.options.file_bytes_max { self.end_part() } else { Ok(()) }
    }

    fn end_part(&mut self) -> Result<()> {
        let Some(OpenPart { mut writer, key, file, rows, .. }) = self.open.take() else {
            return Ok(());
        };
        let metadata = writer.finish().map_err(|source| self.parquet_error("end", &key, source))?;
        let body = std::mem::replace(writer.inner_mut(), Sink::Memory(Vec::new())).into_body()?;
        self.step.files.push(EncodedFile {
            key,
            file,
            body,
            metadata: Arc::new(metadata),
            rows: u64::from(rows),
            schema: Arc::clone(&self.target.schema),
        });
        Ok(())
    }

    fn parquet_error(
        &self,
        operation: &'static str,
        key: &str,
        source: parquet::errors::ParquetError,
    ) -> Error {
        let table = self.target.schema.table.clone();
        Error::Parquet { table, operation, key: key.to_owned(), source }
    }
}

/// Where a part's bytes go while it is written.
enum Sink {
    Memory(Vec<u8>),
    Disk { file: File, len: u64, dir: PathBuf },
}

impl Sink {
    fn new(dir: Option<&Path>) -> Result<Self> {
        let Some(dir) = dir else { return Ok(Sink::Memory(Vec::new())) };
        let file = tempfile::tempfile_in(dir).map_err(|source| Error::Io {
            operation: "make a temporary file in",
            path: dir.display().to_string(),
            source,
        })?;
        Ok(Sink::Disk { file, len: 0, dir: dir.to_owned() })
    }

    fn into_body(mut self) -> Result<Body> {
        let flushed = self.flush();
        match self {
            Sink::Memory(bytes) => Ok(Body::memory(Bytes::from(bytes))),
            Sink::Disk { file, len, dir } => {
                flushed.map_err(|source| Error::Io {
                    operation: "write a temporary file in",
                    path: dir.display().to_string(),
                    source,
                })?;
                Ok(Body::disk(file, len))
            }
        }
    }
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Memory(bytes) => bytes.write(buffer),
            Sink::Disk { file, len, .. } => {
                let written = file.write(buffer)?;
                *len += written as u64;
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Memory(_) => Ok(()),
            Sink::Disk { file, .. } => file.flush(),
        }
    }
}
