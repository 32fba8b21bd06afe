//! Row groups and commit LSNs to one delta file.
//!
//! Column chunks are copied, not encoded again; `__commit_lsn` alone is written here, since only now
//! are the ends of all transactions known (decision 0006).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use cdc_core::{Lsn, TableSchema, meta};
use cdc_iceberg::delta_arrow_schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::Int64Type;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};

use super::group::StagedGroup;
use crate::body::Body;
use crate::encoding::{FileCompression, properties};

/// What a delta file is made of besides its row groups.
pub(super) struct Plan<'a> {
    pub(super) schema: &'a TableSchema,
    pub(super) compression: FileCompression,
    /// Rows and end LSN of each transaction, in row order.
    pub(super) commit_lsns: &'a [(usize, Lsn)],
}

pub(super) enum Failure {
    Parquet(ParquetError),
    Io(io::Error, String),
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        Failure::Parquet(error)
    }
}

impl Plan<'_> {
    /// Writes the file into memory, or into a temporary file in `dir`. Each row group is dropped
    /// when it is copied.
    pub(super) fn assemble(
        &self,
        groups: Vec<StagedGroup>,
        dir: Option<&Path>,
    ) -> Result<(Body, ParquetMetaData), Failure> {
        let Some(dir) = dir else {
            let staged: u64 = groups.iter().map(|group| group.body.size()).sum();
            let capacity = usize::try_from(staged).unwrap_or(0);
            let mut bytes = Vec::with_capacity(capacity);
            let metadata = self.write(groups, &mut bytes)?;
            return Ok((Body::memory(Bytes::from(bytes)), metadata));
        };
        let failed = |error| Failure::Io(error, dir.display().to_string());
        let file = tempfile::tempfile_in(dir).map_err(failed)?;
        let mut writer = BufWriter::new(file);
        let metadata = self.write(groups, &mut writer)?;
        let file: File = writer.into_inner().map_err(|error| failed(error.into_error()))?;
        let size = file.metadata().map_err(failed)?.len();
        Ok((Body::disk(file, size), metadata))
    }

    fn write<W: Write + Send>(
        &self,
        groups: Vec<StagedGroup>,
        sink: W,
    ) -> ParquetResult<ParquetMetaData> {
        let arrow_schema = delta_arrow_schema(self.schema);
        let parquet_schema = ArrowSchemaConverter::new().convert(&arrow_schema)?;
        let properties = properties(&arrow_schema, self.compression).into();
        let root = parquet_schema.root_schema_ptr();
        let mut writer = SerializedFileWriter::new(sink, root, properties)?;
        let mut lsns = CommitLsns { runs: self.commit_lsns.iter(), left: 0, lsn: 0 };
        for group in groups {
            let values = lsns.next(group.rows as usize);
            write_group(writer.next_row_group()?, &group, &values)?;
        }
        writer.close()
    }
}

fn write_group<W: Write + Send>(
    mut target: SerializedRowGroupWriter<'_, W>,
    group: &StagedGroup,
    commit_lsns: &[i64],
) -> ParquetResult<()> {
    let mut closed = closed_columns(&group.metadata).into_iter().peekable();
    loop {
        // the staged file has all columns in the order of the delta file, but for this one
        let is_before_commit_lsn = closed
            .peek()
            .is_some_and(|next| next.metadata.column_path().string() == meta::COMMIT_TS.name);
        if is_before_commit_lsn {
            write_commit_lsn(&mut target, commit_lsns)?;
        }
        match closed.next() {
            Some(column) => target.append_column(&group.body, column)?,
            None => break,
        }
    }
    target.close()?;
    Ok(())
}

fn write_commit_lsn<W: Write + Send>(
    target: &mut SerializedRowGroupWriter<'_, W>,
    values: &[i64],
) -> ParquetResult<()> {
    let missing = || ParquetError::General("the file has no __commit_lsn".into());
    let mut column = target.next_column()?.ok_or_else(missing)?;
    column.typed::<Int64Type>().write_batch(values, Some(&vec![1; values.len()]), None)?;
    column.close()
}

/// The columns of a file with one row group, as a writer of them would have left them.
fn closed_columns(metadata: &ParquetMetaData) -> Vec<ColumnCloseResult> {
    let group = metadata.row_group(0);
    let column_index = metadata.column_index().and_then(|groups| groups.first());
    let offset_index = metadata.offset_index().and_then(|groups| groups.first());
    let rows_written = group.num_rows().cast_unsigned();
    let close = |(at, column): (usize, &parquet::file::metadata::ColumnChunkMetaData)| {
        let index = column_index.and_then(|columns| columns.get(at)).cloned();
        ColumnCloseResult {
            bytes_written: column.compressed_size().cast_unsigned(),
            rows_written,
            metadata: column.clone(),
            bloom_filter: None,
            column_index: index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
            offset_index: offset_index.and_then(|columns| columns.get(at)).cloned(),
        }
    };
    group.columns().iter().enumerate().map(close).collect()
}

/// Deals out the LSN of each row.
struct CommitLsns<'a> {
    runs: std::slice::Iter<'a, (usize, Lsn)>,
    left: usize,
    lsn: i64,
}

impl CommitLsns<'_> {
    fn next(&mut self, rows: usize) -> Vec<i64> {
        let mut values = Vec::with_capacity(rows);
        while values.len() < rows {
            if self.left == 0 {
                let Some((run, lsn)) = self.runs.next() else { break };
                (self.left, self.lsn) = (*run, lsn.as_i64());
            }
            let taken = self.left.min(rows - values.len());
            values.resize(values.len() + taken, self.lsn);
            self.left -= taken;
        }
        values
    }
}
