//! Single values of one column out of Parquet files, by row number.
//!
//! Only the pages that hold the rows are read, found through the page index.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat;
use bytes::Bytes;
use cdc_core::{FieldId, TableName};
use cdc_manifest::LakeStore;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use crate::body::Body;
use crate::{Error, Result};

/// Footers kept of files that values were fetched from.
const FOOTERS_MAX: usize = 32;
/// Rows decoded at once; values may be large.
const FETCH_BATCH_ROWS: usize = 256;

/// The columns to read, as roots of the file's schema; `None` if the file lacks one of them.
pub(crate) fn project(metadata: &ParquetMetaData, columns: &[FieldId]) -> Option<ProjectionMask> {
    let schema = metadata.file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();
    let root = |id: &FieldId| {
        fields.iter().position(|field| {
            let info = field.get_basic_info();
            info.has_id() && info.id() == id.0
        })
    };
    let roots: Option<Vec<usize>> = columns.iter().map(root).collect();
    Some(ProjectionMask::roots(schema, roots?))
}

/// The bytes that a value of this column at this row takes, guessed from its page.
pub(crate) fn value_bytes(metadata: &ParquetMetaData, column: FieldId, row: u64) -> usize {
    const SMALL: usize = 32;
    page_average(metadata, column, row).unwrap_or(SMALL).max(SMALL)
}

fn page_average(metadata: &ParquetMetaData, column: FieldId, row: u64) -> Option<usize> {
    let mut at = i64::try_from(row).ok()?;
    let mut group = 0;
    while at >= metadata.row_groups().get(group)?.num_rows() {
        at -= metadata.row_group(group).num_rows();
        group += 1;
    }
    let mask = project(metadata, &[column])?;
    let leaf =
        (0..metadata.row_group(group).num_columns()).find(|leaf| mask.leaf_included(*leaf))?;
    let index = metadata.offset_index()?.get(group)?.get(leaf)?;
    let pages = index.page_locations();
    let page = pages.partition_point(|page| page.first_row_index <= at).checked_sub(1)?;
    let end = pages
        .get(page + 1)
        .map_or(metadata.row_group(group).num_rows(), |next| next.first_row_index);
    let rows = usize::try_from(end - pages[page].first_row_index).ok()?.max(1);
    let bytes = *index.unencoded_byte_array_data_bytes()?.get(page)?;
    Some(usize::try_from(bytes).ok()? / rows)
}

/// One column of a file in memory or in a temporary file, at these rows (ascending, no repetition).
/// `None` if the file lacks the column.
pub(crate) fn read_local(
    body: &Body,
    metadata: ArrowReaderMetadata,
    column: FieldId,
    rows: &[u32],
) -> ParquetResult<Option<ArrayRef>> {
    let Some(mask) = project(metadata.metadata(), &[column]) else { return Ok(None) };
    let selection = select(rows, metadata.metadata());
    let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(body.clone(), metadata)
        .with_projection(mask)
        .with_row_selection(selection)
        .with_batch_size(FETCH_BATCH_ROWS)
        .build()?
        .collect::<Result<Vec<_>, _>>()?;
    join(&batches).map(Some)
}

/// These rows (ascending, no repetition) of a file.
pub(crate) fn select(rows: &[u32], metadata: &ParquetMetaData) -> RowSelection {
    let total = metadata.file_metadata().num_rows();
    let total = usize::try_from(total).unwrap_or(0);
    let ranges = rows.iter().map(|row| *row as usize..*row as usize + 1);
    RowSelection::from_consecutive_ranges(ranges, total)
}

fn join(batches: &[RecordBatch]) -> ParquetResult<ArrayRef> {
    let arrays: Vec<&dyn arrow::array::Array> =
        batches.iter().map(|batch| batch.column(0).as_ref()).collect();
    if arrays.is_empty() {
        return Err(ParquetError::General("the rows asked for are not in the file".into()));
    }
    concat(&arrays).map_err(ParquetError::from)
}

/// Reads values from files of the lake. Called from blocking threads.
pub(crate) struct Fetcher {
    lake: LakeStore,
    runtime: tokio::runtime::Handle,
    table: TableName,
    footers: HashMap<String, ArrowReaderMetadata>,
}

impl Fetcher {
    pub(crate) fn new(lake: LakeStore, runtime: tokio::runtime::Handle, table: TableName) -> Self {
        Self { lake, runtime, table, footers: HashMap::new() }
    }

    pub(crate) fn lake(&self) -> &LakeStore {
        &self.lake
    }

    /// The footer of a file, page indexes included.
    pub(crate) fn footer(&mut self, key: &str) -> Result<ArrowReaderMetadata> {
        if let Some(known) = self.footers.get(key) {
            return Ok(known.clone());
        }
        let loaded = self.runtime.block_on(LakeFile::open(&self.lake, key));
        let (_, metadata) = loaded.map_err(|source| self.parquet_error(key, source))?;
        if self.footers.len() >= FOOTERS_MAX {
            self.footers.clear();
        }
        self.footers.insert(key.to_owned(), metadata.clone());
        Ok(metadata)
    }

    /// One column at these rows (ascending, no repetition); `None` if the file lacks the column.
    pub(crate) fn read(
        &mut self,
        key: &str,
        column: FieldId,
        rows: &[u32],
    ) -> Result<Option<ArrayRef>> {
        let metadata = self.footer(key)?;
        let Some(mask) = project(metadata.metadata(), &[column]) else { return Ok(None) };
        let selection = select(rows, metadata.metadata());
        let file = LakeFile {
            store: Arc::clone(self.lake.store()),
            path: path(key).map_err(|source| self.parquet_error(key, source))?,
            metadata: Some(Arc::clone(metadata.metadata())),
        };
        let read = async {
            ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
                .with_projection(mask)
                .with_row_selection(selection)
                .with_batch_size(FETCH_BATCH_ROWS)
                .build()?
                .try_collect::<Vec<_>>()
                .await
        };
        let batches = self.runtime.block_on(read);
        let joined = batches.and_then(|batches| join(&batches));
        joined.map(Some).map_err(|source| self.parquet_error(key, source))
    }

    fn parquet_error(&self, key: &str, source: ParquetError) -> Error {
        let table = self.table.clone();
        Error::Parquet { table, operation: "read from", key: key.to_owned(), source }
    }
}

/// A Parquet file of the lake, read by range.
#[derive(Debug)]
pub struct LakeFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    metadata: Option<Arc<ParquetMetaData>>,
}

impl LakeFile {
    /// Opens a file and reads its footer with the page indexes.
    ///
    /// # Errors
    /// The store's error as [`ParquetError::External`], or what is wrong with the footer.
    pub async fn open(
        lake: &LakeStore,
        key: &str,
    ) -> ParquetResult<(LakeFile, ArrowReaderMetadata)> {
        let store = Arc::clone(lake.store());
        let mut file = LakeFile { store, path: path(key)?, metadata: None };
        let metadata = file.get_metadata(None).await?;
        file.metadata = Some(Arc::clone(&metadata));
        Ok((file, ArrowReaderMetadata::try_new(metadata, ArrowReaderOptions::new())?))
    }
}

fn path(key: &str) -> ParquetResult<Path> {
    Path::parse(key).map_err(|error| ParquetError::External(error.into()))
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(error.into())
}

impl AsyncFileReader for LakeFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            if let Some(known) = &self.metadata {
                return Ok(Arc::clone(known));
            }
            let size = self.store.head(&self.path).await.map_err(external)?.size;
            let metadata = ParquetMetaDataReader::new()
                .with_page_index_policy(PageIndexPolicy::Optional)
                .load_and_finish(&mut *self, size)
                .await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}
