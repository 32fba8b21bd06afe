//! A delta file in the making: row groups in order, and the transactions its rows belong to.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use cdc_core::{Epoch, Lsn, StoredType, TableSchema};
use parquet::errors::ParquetError;

use super::assemble;
use super::group::{OpenGroup, StagedGroup};
use crate::body::Body;
use crate::chunk::{CommitRun, staged_schema};
use crate::encoded::EncodedFile;
use crate::encoding::{FileCompression, properties};
use crate::index::FileRef;
use crate::{Error, Result};

/// How delta files are written.
#[derive(Clone, Debug)]
pub struct DeltaOptions {
    /// Compression.
    pub compression: FileCompression,
    /// Compressed bytes after which a file ends and the next part of the epoch begins, at the end
    /// of a chunk.
    pub file_bytes_max: u64,
    /// Rows after which a row group ends.
    pub group_rows_max: u32,
    /// Uncompressed bytes after which a row group ends.
    pub group_bytes_max: usize,
    /// Compressed bytes that one table keeps in memory before it moves them to `spill_dir`.
    pub staged_bytes_max: usize,
    /// Rows of an epoch whose identities are remembered in memory before they move to the key index
    /// on disk; about 100 bytes each at worst.
    pub tracked_rows_max: usize,
    /// Where large epochs wait for their end; without it they wait in memory.
    pub spill_dir: Option<PathBuf>,
}

impl Default for DeltaOptions {
    fn default() -> Self {
        Self {
            compression: FileCompression::default(),
            file_bytes_max: 128 << 20,
            group_rows_max: 131_072,
            group_bytes_max: 64 << 20,
            staged_bytes_max: 64 << 20,
            tracked_rows_max: 512 << 10,
            spill_dir: None,
        }
    }
}

/// A file that takes rows, or waits for the end of its last transaction.
pub(super) struct DeltaFile {
    pub(super) part: u32,
    pub(super) file: FileRef,
    pub(super) schema: Arc<TableSchema>,
    staged_schema: SchemaRef,
    options: Arc<DeltaOptions>,
    pub(super) groups: Vec<StagedGroup>,
    pub(super) open: Option<OpenGroup>,
    keeps_recent: bool,
    rows: u32,
    /// Rows of each transaction in order; only the last may have no LSN yet.
    runs: Vec<CommitRun>,
}

impl DeltaFile {
    pub(super) fn new(
        part: u32,
        file: FileRef,
        schema: Arc<TableSchema>,
        options: Arc<DeltaOptions>,
    ) -> Self {
        Self {
            part,
            file,
            staged_schema: staged_schema(&schema),
            keeps_recent: schema.columns.iter().any(|column| may_be_toasted(&column.stored)),
            schema,
            options,
            groups: Vec::new(),
            open: None,
            rows: 0,
            runs: Vec::new(),
        }
    }

    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Compressed bytes of the complete row groups.
    pub(super) fn staged_bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.body.size()).sum()
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.staged_memory() + self.open.as_ref().map_or(0, OpenGroup::memory_bytes)
    }

    /// Adds rows; ends the row group when it is large enough.
    pub(super) fn write(&mut self, batch: RecordBatch, raw_bytes: usize) -> Result<()> {
        let rows = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let properties = properties(&self.staged_schema, self.options.compression);
                OpenGroup::new(&self.staged_schema, properties, self.rows, self.keeps_recent)
                    .map_err(|source| self.parquet_error("start a row group of", source))?
            }
        };
        open.write(batch, raw_bytes).map_err(|source| self.parquet_error("encode", source))?;
        self.rows += rows;
        let is_full = open.rows() >= self.options.group_rows_max
            || open.raw_bytes() >= self.options.group_bytes_max;
        self.open = Some(open);
        if is_full { self.end_group() } else { Ok(()) }
    }

    /// Completes the row group in progress, if there is one.
    pub(super) fn end_group(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            let staged =
                open.finish().map_err(|source| self.parquet_error("end a row group of", source))?;
            self.groups.push(staged);
        }
        Ok(())
    }

    /// Moves complete row groups to disk.
    pub(super) fn spill(&mut self, dir: &Path) -> Result<()> {
        for group in &mut self.groups {
            let bytes = group.body.memory_bytes();
            if bytes > 0 {
                group.body = Body::spill(&group.body.range(0, bytes)?, dir)?;
            }
        }
        Ok(())
    }

    /// Bytes of complete row groups in memory.
    pub(super) fn staged_memory(&self) -> usize {
        self.groups.iter().map(|group| group.body.memory_bytes()).sum()
    }

    /// The row group that holds a row: its place among the complete ones, or `None` for the one in
    /// progress.
    pub(super) fn group_of(&self, row: u32) -> Option<usize> {
        let behind = self.groups.partition_point(|group| group.first_row <= row);
        let at = behind.checked_sub(1)?;
        let group = &self.groups[at];
        (row - group.first_row < group.rows).then_some(at)
    }

    /// Notes to which transaction the next rows belong.
    pub(super) fn add_run(&mut self, run: CommitRun) {
        match self.runs.last_mut() {
            Some(last) if last.end_lsn.is_none() => {
                last.rows += run.rows;
                last.end_lsn = run.end_lsn;
            }
            _ if run.rows > 0 => self.runs.push(run),
            _ => {}
        }
    }

    /// Ends the transaction of the last rows, if it is open.
    pub(super) fn end_transaction(&mut self, end_lsn: Lsn) {
        if let Some(last) = self.runs.last_mut() {
            last.end_lsn.get_or_insert(end_lsn);
        }
    }

    /// Whether the end of a transaction is still to come.
    pub(super) fn is_transaction_open(&self) -> bool {
        self.runs.last().is_some_and(|run| run.end_lsn.is_none())
    }

    /// Puts the file together. All its transactions have ended.
    pub(super) fn finish(mut self, epoch: Epoch) -> Result<EncodedFile> {
        self.end_group()?;
        let key = cdc_manifest::layout::delta_key(&self.schema.table, epoch, self.part);
        let commit_lsns = commit_lsns(&self.runs);
        // a file whose row groups had to leave memory does not come back into it
        let is_spilled = self.staged_bytes() > self.staged_memory() as u64;
        let on_disk = self.options.spill_dir.clone().filter(|_| is_spilled);
        let plan = assemble::Plan {
            schema: &self.schema,
            compression: self.options.compression,
            commit_lsns: &commit_lsns,
        };
        let groups = std::mem::take(&mut self.groups);
        let (body, metadata) =
            plan.assemble(groups, on_disk.as_deref()).map_err(|failure| match failure {
                assemble::Failure::Parquet(source) => self.parquet_error("put together", source),
                assemble::Failure::Io(source, path) => {
                    Error::Io { operation: "write a temporary file in", path, source }
                }
            })?;
        Ok(EncodedFile {
            key,
            file: self.file,
            body,
            metadata: Arc::new(metadata),
            rows: u64::from(self.rows),
            schema: self.schema,
        })
    }

    fn parquet_error(&self, operation: &'static str, source: ParquetError) -> Error {
        let table = self.schema.table.clone();
        Error::Parquet { table, operation, key: format!("delta file {}", self.part), source }
    }
}

/// Rows and end LSN of each transaction.
fn commit_lsns(runs: &[CommitRun]) -> Vec<(usize, Lsn)> {
    runs.iter().map(|run| (run.rows, run.end_lsn.unwrap_or(Lsn::ZERO))).collect()
}

/// Whether PostgreSQL may store values of the type out of line and so leave them out of an update.
fn may_be_toasted(stored: &StoredType) -> bool {
    matches!(
        stored,
        StoredType::String | StoredType::Binary | StoredType::List(_) | StoredType::Decimal { .. }
    )
}
