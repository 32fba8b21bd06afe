//! The key index anew from the live rows of the lake, reading the identity columns only.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::DataType;
use cdc_core::{FieldId, Identity, TableSchema};
use cdc_iceberg::arrow_type;
use cdc_manifest::LakeStore;
use futures::TryStreamExt;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::delta::identity_columns;
use crate::fetch::{LakeFile, project, select};
use crate::index::{FileRef, IdentityHasher, IndexBuilder, IndexStamp, KeyIndex};
use crate::{Error, Result};

/// Files read at a time.
const FILES_AT_ONCE: usize = 2;
/// Rows decoded at a time.
const BATCH_ROWS: usize = 16_384;
/// Batches of hashes waiting for the index.
const BATCHES_WAITING_MAX: usize = 4;

/// A live file and its rows that are not live.
#[derive(Clone, Debug)]
pub struct RebuildFile {
    /// Absolute location.
    pub location: String,
    /// Deleted rows, ascending.
    pub deleted: Vec<u64>,
}

/// Hashes of rows of one file.
struct Hashed {
    file: FileRef,
    first_row: u32,
    hashes: Vec<u128>,
    /// Places in `hashes` that are live, if not all are.
    live: Option<Vec<u32>>,
}

/// What the readers tell the index.
enum Step {
    Batch(Hashed),
    /// All files are read to their end. Only then is the index whole.
    End,
}

/// A file on its way through the reader.
struct Job {
    key: String,
    file: FileRef,
    deleted: Vec<u64>,
}

/// Fills `builder` from the live rows of these files and makes the index of it. All files must have
/// the key columns of `schema`, under their field ids.
///
/// Reads two files at a time, a batch of 16,384 rows of each; blocking work runs on the runtime's
/// blocking threads. Dropping the future stops it and leaves no index.
///
/// # Errors
/// [`Error::Parquet`], [`Error::MissingValue`] if a file lacks an identity column, errors of the
/// index.
pub async fn rebuild_index(
    lake: &LakeStore,
    schema: &Arc<TableSchema>,
    files: Vec<RebuildFile>,
    mut builder: IndexBuilder,
    stamp: IndexStamp,
) -> Result<KeyIndex> {
    let stopped = || stopped(schema);
    let mut jobs = Vec::with_capacity(files.len());
    for file in files {
        jobs.push(job(lake, schema, file, &mut builder)?);
    }
    let hasher = builder.hasher();
    let (send, receive) = mpsc::channel::<Step>(BATCHES_WAITING_MAX);
    let index = tokio::spawn(fill(builder, receive, stamp));
    let mut readers: JoinSet<Result<()>> = JoinSet::new();
    let mut failure = None;
    let mut jobs = jobs.into_iter();
    loop {
        while failure.is_none() && readers.len() < FILES_AT_ONCE {
            let Some(job) = jobs.next() else { break };
            let reader = Reader { lake: lake.clone(), schema: Arc::clone(schema), hasher };
            readers.spawn(reader.read(job, send.clone()));
        }
        match readers.join_next().await {
            None => break,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => failure = Some(error),
            Some(Err(_)) => failure = Some(stopped()),
        }
    }
    if failure.is_none() {
        // without it the index stays unfinished; a receiver that is gone says why below
        let _ = send.send(Step::End).await;
    }
    drop(send);
    let filled = index.await.map_err(|_| stopped())?;
    match failure {
        Some(error) => Err(error),
        None => filled?.ok_or_else(stopped),
    }
}

/// Takes batches and, once it is told that they are all there, makes the index. Each has a blocking
/// thread only while it is worked on, none is held while the readers wait for the store. `None`,
/// with no index made, if the end never came or a thread stopped.
async fn fill(
    mut builder: IndexBuilder,
    mut steps: mpsc::Receiver<Step>,
    stamp: IndexStamp,
) -> Result<Option<KeyIndex>> {
    loop {
        let hashed = match steps.recv().await {
            Some(Step::Batch(hashed)) => hashed,
            Some(Step::End) => break,
            None => return Ok(None),
        };
        let pushed = tokio::task::spawn_blocking(move || {
            push(&mut builder, &hashed)?;
            Ok::<_, Error>(builder)
        });
        let Ok(pushed) = pushed.await else { return Ok(None) };
        builder = pushed?;
    }
    match tokio::task::spawn_blocking(move || builder.finish(stamp)).await {
        Ok(index) => index.map(Some),
        Err(_) => Ok(None),
    }
}

fn stopped(schema: &TableSchema) -> Error {
    Error::State {
        table: schema.table.clone(),
        operation: "rebuilding the key index",
        state: "its thread stopped",
    }
}

fn job(
    lake: &LakeStore,
    schema: &TableSchema,
    file: RebuildFile,
    builder: &mut IndexBuilder,
) -> Result<Job> {
    let RebuildFile { location, deleted } = file;
    let unknown = || Error::Unlocated { location: location.clone() };
    let key = lake.location().key(&location).ok_or_else(unknown)?.to_owned();
    let file = FileRef::of_key(&schema.table, &key).or_else(|| builder.foreign_file(&location));
    Ok(Job { key, file: file.ok_or_else(unknown)?, deleted })
}

fn push(builder: &mut IndexBuilder, hashed: &Hashed) -> Result<()> {
    match &hashed.live {
        None => (hashed.first_row..)
            .zip(&hashed.hashes)
            .try_for_each(|(row, hash)| builder.push(*hash, hashed.file, row)),
        Some(live) => live.iter().try_for_each(|at| {
            builder.push(hashed.hashes[*at as usize], hashed.file, hashed.first_row + at)
        }),
    }
}

struct IdentityColumn {
    id: FieldId,
    data_type: DataType,
    is_present: bool,
}

/// Hashes the identities in files.
pub(crate) struct Reader {
    pub(crate) lake: LakeStore,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) hasher: IdentityHasher,
}

impl Reader {
    async fn read(self, job: Job, send: mpsc::Sender<Step>) -> Result<()> {
        let failed = |source: ParquetError| Error::Parquet {
            table: self.schema.table.clone(),
            operation: "read the identities of",
            key: job.key.clone(),
            source,
        };
        let (file, metadata) = LakeFile::open(&self.lake, &job.key).await.map_err(failed)?;
        let rows = metadata.metadata().file_metadata().num_rows();
        if usize::try_from(rows).is_ok_and(|rows| job.deleted.len() >= rows) {
            // it may be older than a column of the key
            return Ok(());
        }
        let identity = self.identity(metadata.metadata(), &job.key)?;
        let present: Vec<FieldId> =
            identity.iter().filter(|column| column.is_present).map(|column| column.id).collect();
        let mask = project(metadata.metadata(), &present).ok_or_else(|| self.lacking(&job.key))?;
        let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(failed)?;
        let mut first_row = 0u32;
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            let rows = u32::try_from(batch.num_rows()).unwrap_or(u32::MAX);
            let hashes = self.hash(&batch, &identity)?;
            let live = live_rows(&job.deleted, first_row, rows);
            let hashed = Hashed { file: job.file, first_row, hashes, live };
            if send.send(Step::Batch(hashed)).await.is_err() {
                // the index failed and says so itself
                return Ok(());
            }
            first_row += rows;
        }
        Ok(())
    }

    /// The hashes of these rows of one file, ascending.
    pub(crate) async fn hashes_at(&self, location: &str, rows: &[u32]) -> Result<Vec<u128>> {
        let unknown = || Error::Unlocated { location: location.to_owned() };
        let key = self.lake.location().key(location).ok_or_else(unknown)?;
        let failed = |source: ParquetError| Error::Parquet {
            table: self.schema.table.clone(),
            operation: "read the identities of",
            key: key.to_owned(),
            source,
        };
        let (file, metadata) = LakeFile::open(&self.lake, key).await.map_err(failed)?;
        let identity = self.identity(metadata.metadata(), key)?;
        let present: Vec<FieldId> =
            identity.iter().filter(|column| column.is_present).map(|column| column.id).collect();
        let mask = project(metadata.metadata(), &present).ok_or_else(|| self.lacking(key))?;
        let selection = select(rows, metadata.metadata());
        let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(file, metadata)
            .with_projection(mask)
            .with_row_selection(selection)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(failed)?;
        let mut hashes = Vec::with_capacity(rows.len());
        while let Some(batch) = batches.try_next().await.map_err(failed)? {
            hashes.extend(self.hash(&batch, &identity)?);
        }
        Ok(hashes)
    }

    /// The identity's columns. Where the whole row is the identity, a column that is younger than
    /// the file was NULL in all its rows; a key column never is.
    fn identity(&self, metadata: &ParquetMetaData, key: &str) -> Result<Vec<IdentityColumn>> {
        let column = |at: usize| {
            let column = &self.schema.columns[at];
            let is_present = project(metadata, &[column.field_id]).is_some();
            if !is_present && self.schema.identity != Identity::Full {
                return Err(self.lacking(key));
            }
            let data_type = arrow_type(&column.stored, column.element_id);
            Ok(IdentityColumn { id: column.field_id, data_type, is_present })
        };
        identity_columns(&self.schema).into_iter().map(column).collect()
    }

    /// The columns come in file order; identities are hashed in identity order.
    fn hash(&self, batch: &RecordBatch, identity: &[IdentityColumn]) -> Result<Vec<u128>> {
        let schema = batch.schema();
        let array = |column: &IdentityColumn| {
            let at = schema.fields().iter().position(|field| {
                let found = field.metadata().get(PARQUET_FIELD_ID_META_KEY);
                found.is_some_and(|found| *found == column.id.0.to_string())
            });
            match at {
                Some(at) => Arc::clone(batch.column(at)),
                None => new_null_array(&column.data_type, batch.num_rows()),
            }
        };
        let columns: Vec<ArrayRef> = identity.iter().map(array).collect();
        if columns.is_empty() {
            return Ok(vec![0; batch.num_rows()]);
        }
        self.hasher.hash_rows(&columns)
    }

    fn lacking(&self, key: &str) -> Error {
        Error::MissingValue {
            table: self.schema.table.clone(),
            column: self.schema.identity.columns().join(", "),
            file: key.to_owned(),
        }
    }
}

/// The rows of a batch that are not deleted, if any is.
fn live_rows(deleted: &[u64], first_row: u32, rows: u32) -> Option<Vec<u32>> {
    let from = deleted.partition_point(|row| *row < u64::from(first_row));
    let to = deleted.partition_point(|row| *row < u64::from(first_row) + u64::from(rows));
    let dead = &deleted[from..to];
    if dead.is_empty() {
        return None;
    }
    let is_live = |at: &u32| dead.binary_search(&u64::from(first_row + at)).is_err();
    Some((0..rows).filter(is_live).collect())
}
