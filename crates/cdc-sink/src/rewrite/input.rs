//! The live rows of one lake file, in the columns that the table has now.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use cdc_core::{FieldId, TableSchema};
use cdc_iceberg::RowSet;
use cdc_manifest::LakeStore;
use futures::TryStreamExt;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use crate::fetch::{LakeFile, project};
use crate::{Error, Result};

/// Most rows decoded at a time.
const BATCH_ROWS_MAX: usize = 8192;
/// Bytes of values that a batch should hold at most, by the file's own sizes.
const BATCH_BYTES: usize = 2 << 20;

/// A file whose rows are rewritten.
#[derive(Clone, Debug)]
pub struct RewriteInput {
    /// Absolute location.
    pub location: String,
    /// Rows that are not live.
    pub deleted: RowSet,
}

/// Live rows of an input, and their numbers in its file.
pub(super) struct LiveBatch {
    pub(super) batch: RecordBatch,
    pub(super) rows: Vec<u32>,
}

/// Reads one input from its beginning to its end. Called from blocking threads.
pub(super) struct InputReader<'a> {
    schema: &'a Arc<TableSchema>,
    arrow_schema: &'a SchemaRef,
    runtime: &'a tokio::runtime::Handle,
    key: String,
    deleted: &'a RowSet,
    batches: ParquetRecordBatchStream<LakeFile>,
    next_row: u64,
}

impl<'a> InputReader<'a> {
    pub(super) fn open(
        lake: &LakeStore,
        runtime: &'a tokio::runtime::Handle,
        schema: &'a Arc<TableSchema>,
        arrow_schema: &'a SchemaRef,
        input: &'a RewriteInput,
    ) -> Result<Self> {
        let unknown = || Error::Unlocated { location: input.location.clone() };
        let key = lake.location().key(&input.location).ok_or_else(unknown)?.to_owned();
        let failed = |source| parquet_error(schema, &key, source);
        let (file, metadata) = runtime.block_on(LakeFile::open(lake, &key)).map_err(failed)?;
        let present: Vec<FieldId> = schema
            .columns
            .iter()
            .map(|column| column.field_id)
            .filter(|id| project(metadata.metadata(), &[*id]).is_some())
            .collect();
        let mask = project(metadata.metadata(), &present).ok_or_else(unknown)?;
        let rows = batch_rows(metadata.metadata());
        let batches = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_batch_size(rows)
            .build()
            .map_err(failed)?;
        let deleted = &input.deleted;
        Ok(Self { schema, arrow_schema, runtime, key, deleted, batches, next_row: 0 })
    }

    /// The next rows, which may be none although more follow; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<LiveBatch>> {
        let next = self.runtime.block_on(self.batches.try_next());
        let next = next.map_err(|source| parquet_error(self.schema, &self.key, source))?;
        let Some(read) = next else { return Ok(None) };
        let first = self.next_row;
        self.next_row += read.num_rows() as u64;
        let numbers = first..self.next_row;
        let rows = numbers.clone().filter(|row| !self.deleted.contains(*row));
        let rows: Vec<u32> = rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
        let arranged = self.arrange(&read).and_then(|batch| {
            if rows.len() == batch.num_rows() {
                return Ok(batch);
            }
            let live: BooleanArray =
                numbers.map(|row| Some(!self.deleted.contains(row))).collect();
            filter_record_batch(&batch, &live)
        });
        let batch = arranged.map_err(|source| Error::Arrow {
            table: self.schema.table.clone(),
            operation: "arrange the columns of a file",
            source,
        })?;
        Ok(Some(LiveBatch { batch, rows }))
    }

    /// The table's columns by field id: one that the file does not have was NULL when it was
    /// written, one that was widened since is widened here.
    fn arrange(&self, read: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
        let found = read.schema();
        let column = |(column, field): (&cdc_core::Column, &arrow::datatypes::FieldRef)| {
            let at = found.fields().iter().position(|field| {
                let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY);
                id.is_some_and(|id| *id == column.field_id.0.to_string())
            });
            let array: ArrayRef = match at {
                Some(at) => Arc::clone(read.column(at)),
                None => new_null_array(field.data_type(), read.num_rows()),
            };
            if array.data_type() == field.data_type() {
                return Ok(array);
            }
            cast(&array, field.data_type())
        };
        let columns = self.schema.columns.iter().zip(self.arrow_schema.fields()).map(column);
        let columns = columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(self.arrow_schema), columns, &options)
    }
}

/// Rows of a batch, fewer where rows are large.
fn batch_rows(metadata: &ParquetMetaData) -> usize {
    let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    let bytes: usize = chunks.map(value_bytes).sum();
    let row_bytes = bytes / rows.max(1);
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS_MAX)
}

/// The bytes of a column's values in memory: a dictionary may hold few that many rows share.
fn value_bytes(chunk: &ColumnChunkMetaData) -> usize {
    let values = chunk.unencoded_byte_array_data_bytes().unwrap_or(0);
    usize::try_from(values.max(chunk.uncompressed_size())).unwrap_or(0)
}

fn parquet_error(schema: &TableSchema, key: &str, source: ParquetError) -> Error {
    let (table, key) = (schema.table.clone(), key.to_owned());
    Error::Parquet { table, operation: "read the rows of", key, source }
}
