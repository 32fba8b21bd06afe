//! The lake's half: the data files of one snapshot minus its position deletes, several files at once.
//!
//! What is stored may be damaged, so each file is read in a task of its own: whatever the reader does
//! with it, also a panic, becomes a report that names the file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use cdc_core::{ErrorKind, FieldId, TableName};
use cdc_iceberg::{LakeFiles, LiveFile, live_files, load_position_deletes};
use cdc_manifest::LakeStore;
use cdc_sink::LakeFile;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::arrow::{PARQUET_FIELD_ID_META_KEY, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tokio::task::JoinSet;

use super::declared::array_delimiter;
use super::digest::{Digest, RowHasher};
use super::pg_text::TextColumn;
use super::plan::Compared;
use super::position::PinnedTable;
use crate::Error;

/// Most rows decoded at a time.
const BATCH_ROWS_MAX: usize = 4096;
/// Bytes of values that a batch should hold at most, by the file's own sizes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The content of a table in the lake, or what is wrong with its files.
#[derive(Clone, Debug)]
pub(crate) enum LakeContent {
    Whole(Digest),
    Damaged(Damage),
}

/// A file that cannot be read as what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Its location, or the object that names it.
    pub(crate) file: String,
    /// What is wrong.
    pub(crate) reason: String,
}

/// Why a file gave no digest.
enum Failure {
    Damage(Damage),
    /// The store did not answer: nothing is known about the file.
    Store(Error),
}

/// What the lake's half needs.
pub(crate) struct LakeSide<'a> {
    pub(crate) store: &'a LakeStore,
    pub(crate) files: &'a LakeFiles,
    pub(crate) workers: usize,
    pub(crate) tables: &'a BTreeMap<TableName, Compared>,
}

/// A file on its way.
struct FileJob {
    location: String,
    /// Rows that are not live, ascending.
    deleted: Vec<u64>,
}

impl LakeSide<'_> {
    /// The content of each table as pinned. Dropping the future ends all reading.
    pub(crate) async fn content(
        &self,
        pinned: &BTreeMap<TableName, PinnedTable>,
    ) -> Result<BTreeMap<TableName, LakeContent>, Error> {
        let mut contents = BTreeMap::new();
        for (table, compared) in self.tables {
            let Some(pin) = pinned.get(table) else { continue };
            let content = match self.file_jobs(table, pin).await {
                Ok(jobs) => self.table(table, compared, jobs).await?,
                Err(Failure::Damage(damage)) => LakeContent::Damaged(damage),
                Err(Failure::Store(error)) => return Err(error),
            };
            contents.insert(table.clone(), content);
        }
        Ok(contents)
    }

    async fn file_jobs(
        &self,
        table: &TableName,
        pin: &PinnedTable,
    ) -> Result<Vec<FileJob>, Failure> {
        let failed = |source| iceberg_failure(table, &pin.metadata_location, source);
        let metadata = self.files.load_metadata(&pin.metadata_location).await.map_err(failed)?;
        let Some(snapshot) = pin.snapshot_id else { return Ok(Vec::new()) };
        let live = live_files(self.files, &metadata, snapshot).await.map_err(failed)?;
        let mut deleted: HashMap<String, Vec<u64>> =
            load_position_deletes(self.files, &live).await.map_err(failed)?;
        let job = |file: LiveFile| FileJob {
            deleted: deleted.remove(&file.location).unwrap_or_default(),
            location: file.location,
        };
        Ok(live.data_files.into_iter().map(job).collect())
    }

    async fn table(
        &self,
        table: &TableName,
        compared: &Compared,
        jobs: Vec<FileJob>,
    ) -> Result<LakeContent, Error> {
        let mut digest = Digest::new();
        let mut reading = JoinSet::new();
        let mut names = HashMap::new();
        let mut jobs = jobs.into_iter();
        loop {
            while reading.len() < self.workers.max(1) {
                let Some(job) = jobs.next() else { break };
                let location = job.location.clone();
                let task = reading.spawn(read_file(self.store.clone(), compared.clone(), job));
                names.insert(task.id(), location);
            }
            let Some(ended) = reading.join_next_with_id().await else { break };
            match ended {
                Ok((_, Ok(part))) => digest.merge(&part),
                Ok((_, Err(Failure::Damage(damage)))) => return Ok(LakeContent::Damaged(damage)),
                Ok((_, Err(Failure::Store(error)))) => return Err(error),
                Err(panicked) => {
                    let file = names.remove(&panicked.id()).unwrap_or_else(|| table.to_string());
                    let reason = "the Parquet reader gave up on it".to_owned();
                    return Ok(LakeContent::Damaged(Damage { file, reason }));
                }
            }
        }
        Ok(LakeContent::Whole(digest))
    }
}

fn iceberg_failure(table: &TableName, object: &str, source: cdc_iceberg::Error) -> Failure {
    match source.kind() {
        ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Invalid => {
            // the message names the object itself where it knows it
            let reason = cdc_core::chain(&source);
            Failure::Damage(Damage { file: object.to_owned(), reason })
        }
        _ => Failure::Store(Error::iceberg(table)(source)),
    }
}

async fn read_file(store: LakeStore, table: Compared, job: FileJob) -> Result<Digest, Failure> {
    match hash_file(&store, &table, &job).await {
        Ok(digest) => Ok(digest),
        Err(Unreadable::Parquet(source)) => Err(parquet_failure(&store, &job, source).await),
        Err(Unreadable::Content(reason)) => {
            Err(Failure::Damage(Damage { file: job.location.clone(), reason }))
        }
    }
}

/// Why a file could not be hashed.
enum Unreadable {
    Parquet(ParquetError),
    Content(String),
}

impl From<ParquetError> for Unreadable {
    fn from(source: ParquetError) -> Self {
        Unreadable::Parquet(source)
    }
}

async fn hash_file(
    store: &LakeStore,
    table: &Compared,
    job: &FileJob,
) -> Result<Digest, Unreadable> {
    let content = |reason: &str| Unreadable::Content(reason.to_owned());
    let key = store.location().key(&job.location);
    let key = key.ok_or_else(|| content("it lies outside of the lake"))?;
    let (file, opened) = LakeFile::open(store, key).await?;
    // types from the Parquet schema alone, not from what its writer says about Arrow
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(opened.metadata()), options)?;
    let (mask, batch_rows) = projection(metadata.metadata(), table);
    let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
        .with_projection(mask)
        .with_batch_size(batch_rows)
        .build()?;
    let mut hasher = RowHasher::new(table.schema.identity_positions());
    let (mut first_row, mut deleted) = (0, job.deleted.as_slice());
    while let Some(batch) = batches.try_next().await? {
        let rows = batch.num_rows() as u64;
        let dead = deleted.partition_point(|row| *row < first_row + rows);
        let work = BatchWork { batch, first_row, deleted: deleted[..dead].to_vec() };
        deleted = &deleted[dead..];
        first_row += rows;
        let table = table.clone();
        let hashed = tokio::task::spawn_blocking(move || work.hash(&table, hasher)).await;
        let hashed = hashed.map_err(|_| content("its values cannot be read"))?;
        hasher = hashed.map_err(Unreadable::Content)?;
    }
    Ok(hasher.finish())
}

/// Whether the store failed or the file did. A file whose own offsets lead beyond its end looks like
/// a failure of the store, so the store is asked for the first byte: if it has it, it works.
async fn parquet_failure(store: &LakeStore, job: &FileJob, source: ParquetError) -> Failure {
    let is_store = match &source {
        ParquetError::External(cause) => match cause.downcast_ref::<object_store::Error>() {
            Some(object_store::Error::NotFound { .. }) | None => false,
            Some(_) => !has_first_byte(store, &job.location).await,
        },
        _ => false,
    };
    if is_store {
        return Failure::Store(Error::LakeFile { location: job.location.clone(), source });
    }
    let reason = cdc_core::chain(&source);
    Failure::Damage(Damage { file: job.location.clone(), reason })
}

async fn has_first_byte(store: &LakeStore, location: &str) -> bool {
    let path = store.location().key(location).and_then(|key| Path::parse(key).ok());
    match path {
        Some(path) => store.store().get_range(&path, 0..1).await.is_ok(),
        None => false,
    }
}

/// The columns of the schema that the file has, and how many rows to decode at a time.
fn projection(metadata: &ParquetMetaData, table: &Compared) -> (ProjectionMask, usize) {
    let descriptor = metadata.file_metadata().schema_descr();
    let is_wanted =
        |id: i32| table.schema.columns.iter().any(|column| column.field_id == FieldId(id));
    let fields = descriptor.root_schema().get_fields().iter().enumerate();
    let roots = fields.filter_map(|(at, field)| {
        let info = field.get_basic_info();
        (info.has_id() && is_wanted(info.id())).then_some(at)
    });
    let mask = ProjectionMask::roots(descriptor, roots);
    let rows = metadata.file_metadata().num_rows().max(1);
    let bytes: i64 = metadata
        .row_groups()
        .iter()
        .flat_map(|group| group.columns().iter().enumerate())
        .filter(|(leaf, _)| mask.leaf_included(*leaf))
        .map(|(_, column)| column.uncompressed_size().max(0))
        .fold(0, i64::saturating_add);
    let row_bytes = usize::try_from(bytes / rows).unwrap_or(usize::MAX).max(1);
    (mask, (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS_MAX))
}

/// A decoded batch and its rows that are not live.
struct BatchWork {
    batch: RecordBatch,
    first_row: u64,
    deleted: Vec<u64>,
}

impl BatchWork {
    fn hash(self, table: &Compared, mut hasher: RowHasher) -> Result<RowHasher, String> {
        let columns = self.text_columns(table)?;
        let mut deleted = self.deleted.iter().peekable();
        for row in 0..self.batch.num_rows() {
            if deleted.next_if(|dead| **dead == self.first_row + row as u64).is_some() {
                continue;
            }
            for column in &columns {
                hasher.value(|out| column.write(row, out));
            }
            hasher.end_row();
        }
        Ok(hasher)
    }

    /// The columns in the order of the schema, found by their field ids.
    fn text_columns(&self, table: &Compared) -> Result<Vec<TextColumn<'_>>, String> {
        let schema = self.batch.schema();
        let place = |id: FieldId| {
            schema.fields().iter().position(|field| {
                let found = field.metadata().get(PARQUET_FIELD_ID_META_KEY);
                found.is_some_and(|found| *found == id.0.to_string())
            })
        };
        let column = |column: &cdc_core::Column| {
            let Some(at) = place(column.field_id) else { return Ok(TextColumn::Absent) };
            let array = self.batch.column(at).as_ref();
            TextColumn::of(array, array_delimiter(&column.pg_type))
                .ok_or_else(|| format!("column {} has the type {}", column.name, array.data_type()))
        };
        table.schema.columns.iter().map(column).collect()
    }
}
