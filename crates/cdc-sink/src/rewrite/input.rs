//! The live rows of one lake file, in the columns that the table has now.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use cdc_core::{FieldId, TableName, TableSchema};
use cdc_iceberg::RowSet;
use cdc_manifest::LakeStore;
use futures::TryStreamExt;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use crate::fetch::{LakeFile, project};
use crate::{Constants, Error, Result};

/// Most rows decoded at a time.
const BATCH_ROWS_MAX: usize = 8192;
/// Bytes of values that a batch should hold at most, by the file's own sizes.
const BATCH_BYTES: usize = 2 << 20;

/// A value that the table's type cannot hold is an error, never NULL.
const EXACT: CastOptions<'static> =
    CastOptions { safe: false, format_options: FormatOptions::new() };

/// A file whose rows are rewritten.
#[derive(Clone, Debug)]
pub struct RewriteInput {
    /// Absolute location.
    pub location: String,
    /// Rows that are not live.
    pub deleted: RowSet,
}

/// The columns that rows get.
pub(super) struct Target {
    pub(super) schema: Arc<TableSchema>,
    /// The same for Arrow.
    pub(super) arrow_schema: SchemaRef,
    /// What a row has in a column that its file lacks.
    pub(super) constants: Constants,
}

/// Rows of an input as its file has them, and where they begin in it.
pub(super) struct RawBatch {
    pub(super) batch: RecordBatch,
    pub(super) first_row: u64,
}

/// Live rows in the table's columns, and their numbers in the file.
pub(super) struct LiveBatch {
    pub(super) batch: RecordBatch,
    pub(super) rows: Vec<u32>,
}

/// Reads one input from its beginning to its end.
pub(super) struct InputReader {
    table: TableName,
    key: String,
    batches: ParquetRecordBatchStream<LakeFile>,
    next_row: u64,
}

impl InputReader {
    pub(super) async fn open(lake: &LakeStore, target: &Target, location: &str) -> Result<Self> {
        let schema = &target.schema;
        let unknown = || Error::Unlocated { location: location.to_owned() };
        let key = lake.location().key(location).ok_or_else(unknown)?.to_owned();
        let failed = |source| parquet_error(&schema.table, &key, source);
        let (file, metadata) = LakeFile::open(lake, &key).await.map_err(failed)?;
        let present: Vec<FieldId> = schema
            .columns
            .iter()
            .map(|column| column.field_id)
            .filter(|id| project(metadata.metadata(), &[*id]).is_some())
            .collect();
        let mask = project(metadata.metadata(), &present).ok_or_else(unknown)?;
        let rows = batch_rows(metadata.metadata(), target.constants.row_bytes());
        let batches = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_batch_size(rows)
            .build()
            .map_err(failed)?;
        Ok(Self { table: schema.table.clone(), key, batches, next_row: 0 })
    }

    /// The key of the file.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The next rows; `None` at the end of the file.
    pub(super) async fn next(&mut self) -> Result<Option<RawBatch>> {
        let next = self.batches.try_next().await;
        let next = next.map_err(|source| parquet_error(&self.table, &self.key, source))?;
        Ok(next.map(|batch| {
            let first_row = self.next_row;
            self.next_row += batch.num_rows() as u64;
            RawBatch { batch, first_row }
        }))
    }
}

impl RawBatch {
    /// The rows that are not deleted, in the columns that the table has now.
    pub(super) fn live(&self, target: &Target, deleted: &RowSet) -> Result<LiveBatch> {
        let numbers = self.first_row..self.first_row + self.batch.num_rows() as u64;
        let rows = numbers.clone().filter(|row| !deleted.contains(*row));
        let rows: Vec<u32> = rows.map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
        let arranged = self.arrange(target).and_then(|batch| {
            if rows.len() == batch.num_rows() {
                return Ok(batch);
            }
            let live: BooleanArray = numbers.map(|row| Some(!deleted.contains(row))).collect();
            filter_record_batch(&batch, &live)
        });
        let batch = arranged.map_err(|source| Error::Arrow {
            table: target.schema.table.clone(),
            operation: "arrange the columns of a file",
            source,
        })?;
        Ok(LiveBatch { batch, rows })
    }

    /// The table's columns by field id: one that the file does not have is its constant or NULL, one
    /// that was widened since is widened here.
    fn arrange(&self, target: &Target) -> std::result::Result<RecordBatch, ArrowError> {
        let Target { schema, arrow_schema, constants } = target;
        let read = &self.batch;
        let found = read.schema();
        let column = |(column, field): (&cdc_core::Column, &arrow::datatypes::FieldRef)| {
            let at = found.fields().iter().position(|field| {
                let id = field.metadata().get(PARQUET_FIELD_ID_META_KEY);
                id.is_some_and(|id| *id == column.field_id.0.to_string())
            });
            let array: ArrayRef = match at {
                Some(at) => Arc::clone(read.column(at)),
                None => match constants.column(column.field_id, read.num_rows()) {
                    Some(constant) => constant?,
                    None => new_null_array(field.data_type(), read.num_rows()),
                },
            };
            if array.data_type() == field.data_type() {
                return Ok(array);
            }
            cast_with_options(&array, field.data_type(), &EXACT)
        };
        let columns = schema.columns.iter().zip(arrow_schema.fields()).map(column);
        let columns = columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(read.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(arrow_schema), columns, &options)
    }
}

/// Rows of a batch, fewer where rows are large. Each has `more` bytes that are not in the file.
fn batch_rows(metadata: &ParquetMetaData, more: usize) -> usize {
    let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    let bytes: usize = chunks.map(value_bytes).sum();
    let row_bytes = (bytes / rows.max(1)).saturating_add(more);
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS_MAX)
}

/// The bytes of a column's values in memory: a dictionary may hold few that many rows share.
fn value_bytes(chunk: &ColumnChunkMetaData) -> usize {
    let values = chunk.unencoded_byte_array_data_bytes().unwrap_or(0);
    usize::try_from(values.max(chunk.uncompressed_size())).unwrap_or(0)
}

fn parquet_error(table: &TableName, key: &str, source: ParquetError) -> Error {
    let (table, key) = (table.clone(), key.to_owned());
    Error::Parquet { table, operation: "read the rows of", key, source }
}
