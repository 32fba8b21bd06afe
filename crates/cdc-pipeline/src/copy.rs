//! The copy of tables: COPY sessions inside one exported snapshot, each feeding base files.
//!
//! ```text
//! worker: SnapshotReader ─ batches ─> bounded channel ─> encoding thread: BaseWriter ─> parts
//! ```
//! Jobs (tables, or block ranges of large ones) are dealt out to the workers by size beforehand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use cdc_core::{Epoch, TableName, TableSchema, UnrepresentablePolicy, failpoint};
use cdc_manifest::LakeStore;
use cdc_sink::{
    BaseOptions, BaseTarget, BaseWriter, EncodedFile, FileCompression, PartNumbers, RowBuilder,
};
use cdc_wal::{CopyBatch, CopyJob, SnapshotReader, Source};
use futures::future::join_all;
use parquet::file::metadata::ParquetMetaData;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Batches of rows between a COPY session and its encoder.
const BATCHES_MAX: usize = 2;
/// Complete files between an encoder and the upload.
const FILES_MAX: usize = 1;
/// Uncompressed bytes that one encoder sorts at once, where nothing else needs memory.
pub(crate) const RUN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Follows the copy of tables for whoever watches.
pub trait InitProgress: Send + Sync {
    /// The tables to come, with the server's estimate of their rows (−1 for none).
    fn planned(&self, tables: &[(TableName, i64)]);
    /// Rows of a table were copied.
    fn rows(&self, table: &TableName, rows: u64);
    /// All rows of a table are in files.
    fn done(&self, table: &TableName, rows: u64);
}

/// What the copy needs besides its jobs.
pub(crate) struct CopySettings<'a> {
    pub(crate) source: &'a Source,
    pub(crate) snapshot: &'a str,
    pub(crate) store: &'a LakeStore,
    pub(crate) workers: usize,
    /// Uncompressed bytes that one encoder sorts at once.
    pub(crate) run_bytes_max: usize,
    /// The directory of the files.
    pub(crate) base: Base,
    /// Where files in the making wait.
    pub(crate) spill_dir: &'a Path,
    pub(crate) policy: UnrepresentablePolicy,
    pub(crate) compression: FileCompression,
    pub(crate) progress: &'a dyn InitProgress,
    /// Cancelled to end the copy early.
    pub(crate) stop: CancellationToken,
}

/// What base files are named after.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base {
    pub(crate) epoch: Epoch,
    /// Above 0 where an earlier copy left files of the epoch.
    pub(crate) attempt: u32,
}

/// One table's side of the copy.
pub(crate) struct CopyTarget {
    schema: Arc<TableSchema>,
    parts: PartNumbers,
}

impl CopyTarget {
    pub(crate) fn new(schema: Arc<TableSchema>) -> Self {
        Self { schema, parts: PartNumbers::new() }
    }
}

/// A base file that is complete and durable.
pub(crate) struct BaseFile {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) rows: u64,
    pub(crate) metadata: Arc<ParquetMetaData>,
}

/// What came of one table.
#[derive(Default)]
pub(crate) struct Copied {
    pub(crate) files: Vec<BaseFile>,
    /// Columns in which values were replaced as declared.
    pub(crate) lossy: BTreeSet<String>,
}

impl Copied {
    pub(crate) fn rows(&self) -> u64 {
        self.files.iter().map(|part| part.rows).sum()
    }
}

/// Copies all jobs and gives the base files of each table. When this returns, also with an error,
/// nothing writes to the lake any more, so that what was written can be removed.
pub(crate) async fn copy_tables(
    settings: &CopySettings<'_>,
    targets: &BTreeMap<TableName, CopyTarget>,
    jobs: Vec<CopyJob>,
) -> Result<BTreeMap<TableName, Copied>, Error> {
    let hands = deal(jobs, settings.workers.max(1));
    let work = hands.iter().map(|hand| async move {
        let copied = worker(settings, targets, hand).await;
        if copied.is_err() {
            settings.stop.cancel();
        }
        copied
    });
    let ended = join_all(work).await;
    let copied = first_cause(ended)?;
    let mut tables: BTreeMap<TableName, Copied> =
        targets.keys().map(|table| (table.clone(), Copied::default())).collect();
    for (table, part) in copied.into_iter().flatten() {
        let whole = tables.entry(table).or_default();
        whole.files.extend(part.files);
        whole.lossy.extend(part.lossy);
    }
    for (table, copied) in &mut tables {
        copied.files.sort_by(|one, other| one.key.cmp(&other.key));
        settings.progress.done(table, copied.rows());
    }
    Ok(tables)
}

/// All results, or the error that ended the others: not the interruption that followed from it.
fn first_cause<T>(ended: Vec<Result<T, Error>>) -> Result<Vec<T>, Error> {
    let (mut done, mut cause) = (Vec::with_capacity(ended.len()), None);
    for result in ended {
        match result {
            Ok(value) => done.push(value),
            Err(Error::Interrupted) if cause.is_some() => {}
            Err(error) if matches!(cause, None | Some(Error::Interrupted)) => cause = Some(error),
            Err(_) => {}
        }
    }
    cause.map_or(Ok(done), Err)
}

/// Deals jobs, biggest first, each to the worker with least to do.
pub(crate) fn deal(mut jobs: Vec<CopyJob>, workers: usize) -> Vec<Vec<CopyJob>> {
    jobs.sort_by_key(|job| std::cmp::Reverse(job.heap_bytes));
    let mut hands: Vec<(u64, Vec<CopyJob>)> = vec![(0, Vec::new()); workers];
    for job in jobs {
        if let Some((bytes, hand)) = hands.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            // a job costs a round trip even where the table is empty
            *bytes += job.heap_bytes + 8192;
            hand.push(job);
        }
    }
    hands.into_iter().map(|(_, hand)| hand).filter(|hand| !hand.is_empty()).collect()
}

async fn worker(
    settings: &CopySettings<'_>,
    targets: &BTreeMap<TableName, CopyTarget>,
    jobs: &[CopyJob],
) -> Result<Vec<(TableName, Copied)>, Error> {
    let mut reader = settings.source.open_snapshot(settings.snapshot).await?;
    let mut copied = Vec::new();
    for job in jobs {
        let Some(target) = targets.get(&job.table) else { continue };
        copied.push((job.table.clone(), copy_job(settings, target, &mut reader, job).await?));
    }
    reader.close().await;
    Ok(copied)
}

/// Receives rows, encodes them on a thread of its own and uploads complete files, all at once.
async fn copy_job(
    settings: &CopySettings<'_>,
    target: &CopyTarget,
    reader: &mut SnapshotReader,
    job: &CopyJob,
) -> Result<Copied, Error> {
    let (batches_in, batches) = mpsc::channel(BATCHES_MAX);
    let (files_in, files) = mpsc::channel(FILES_MAX);
    let rows = RowBuilder::new(Arc::clone(&target.schema), settings.policy);
    let writer = base_writer(settings, target)?;
    let encoder = tokio::task::spawn_blocking(move || encode(rows, writer, batches, &files_in));
    let receive = async move {
        // dropped at the end, also of a failure: without a sender the encoder comes to its end
        let batches_in = batches_in;
        let mut copy = reader.copy(job).await?;
        while let Some(batch) = copy.next_batch().await? {
            if settings.stop.is_cancelled() || failpoint("i4") {
                return Err(Error::Interrupted);
            }
            settings.progress.rows(&job.table, batch.row_count());
            if batches_in.send(batch).await.is_err() {
                // the encoder has failed and says why
                break;
            }
        }
        Ok(())
    };
    let encode =
        async { encoder.await.map_err(|source| Error::Worker { task: "copy encoding", source })? };
    let upload = async {
        let uploaded = upload(settings.store, files).await;
        if uploaded.is_err() {
            settings.stop.cancel();
        }
        uploaded
    };
    // all three to their end, so that nothing goes on in the background
    let (received, uploaded, encoded) = tokio::join!(receive, upload, encode);
    let lossy = encoded?;
    let files = uploaded?;
    received?;
    Ok(Copied { files, lossy })
}

async fn upload(
    store: &LakeStore,
    mut files: mpsc::Receiver<EncodedFile>,
) -> Result<Vec<BaseFile>, Error> {
    let mut uploaded = Vec::new();
    while let Some(file) = files.recv().await {
        if failpoint("i5") {
            return Err(Error::Interrupted);
        }
        file.upload(store).await?;
        let EncodedFile { key, body, rows, metadata, .. } = file;
        uploaded.push(BaseFile { key, size: body.size(), rows, metadata });
    }
    Ok(uploaded)
}

fn base_writer(settings: &CopySettings<'_>, target: &CopyTarget) -> Result<BaseWriter, Error> {
    let target = BaseTarget {
        schema: Arc::clone(&target.schema),
        epoch: settings.base.epoch,
        attempt: settings.base.attempt,
        parts: target.parts.clone(),
        // the index is built when the table is first followed, from the files
        hasher: None,
    };
    let options = BaseOptions {
        compression: settings.compression,
        run_bytes_max: settings.run_bytes_max,
        spill_dir: Some(settings.spill_dir.to_owned()),
        ..BaseOptions::default()
    };
    Ok(BaseWriter::new(target, options)?)
}

fn encode(
    mut rows: RowBuilder,
    mut writer: BaseWriter,
    mut batches: mpsc::Receiver<CopyBatch>,
    files: &mpsc::Sender<EncodedFile>,
) -> Result<BTreeSet<String>, Error> {
    while let Some(mut batch) = batches.blocking_recv() {
        let mut full = Vec::new();
        batch.rows(|cells| {
            rows.push(cells)?;
            if rows.is_full() {
                full.push(rows.finish()?);
            }
            Ok::<(), Error>(())
        })?;
        for batch in full {
            hand_over(writer.append(batch)?.files, files);
        }
    }
    if rows.rows() > 0 {
        hand_over(writer.append(rows.finish()?)?.files, files);
    }
    hand_over(writer.finish()?.files, files);
    Ok(rows.take_lossy().into_iter().map(|(column, _)| column).collect())
}

fn hand_over(complete: Vec<EncodedFile>, files: &mpsc::Sender<EncodedFile>) {
    for file in complete {
        // an upload that is gone has failed and says why
        let _ = files.blocking_send(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_dealt_evenly() {
        let job = |bytes| CopyJob {
            table: TableName::new("a", "b"),
            relation: TableName::new("a", "b"),
            columns: Vec::new(),
            range: None,
            heap_bytes: bytes,
        };
        let hands = deal([10, 70, 30, 40, 50].map(|mib| job(mib << 20)).into(), 2);
        let mut sums: Vec<u64> =
            hands.iter().map(|hand| hand.iter().map(|job| job.heap_bytes >> 20).sum()).collect();
        sums.sort_unstable();
        assert_eq!(sums, [100, 100]);
    }
}
