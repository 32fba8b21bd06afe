//! The source's half: COPY inside the exported snapshot, several block ranges at once, each hashed on
//! a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Cell, TableName};
use cdc_wal::{CopyBatch, CopyJob, SnapshotReader, Source};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::digest::{Digest, RowHasher};
use super::plan::Compared;
use super::{Progress, VerifyProgress};
use crate::Error;
use crate::copy::deal;

/// Batches of rows between a COPY session and its hasher.
const BATCHES_WAITING_MAX: usize = 2;

/// What the source's half needs besides its jobs.
pub(crate) struct SourceSide<'a> {
    pub(crate) source: &'a Source,
    pub(crate) snapshot: &'a str,
    pub(crate) workers: usize,
    pub(crate) tables: &'a BTreeMap<TableName, Compared>,
    pub(crate) progress: &'a Progress,
}

impl SourceSide<'_> {
    /// The digest of each table. Dropping the future ends all sessions.
    pub(crate) async fn digest(
        &self,
        jobs: Vec<CopyJob>,
    ) -> Result<BTreeMap<TableName, Digest>, Error> {
        let mut workers = JoinSet::new();
        for hand in deal(jobs, self.workers.max(1)) {
            let worker = Worker {
                source: self.source.clone(),
                snapshot: self.snapshot.to_owned(),
                tables: self.tables.clone(),
                progress: Arc::clone(self.progress),
            };
            workers.spawn(worker.run(hand));
        }
        let mut digests: BTreeMap<TableName, Digest> =
            self.tables.keys().map(|table| (table.clone(), Digest::new())).collect();
        while let Some(ended) = workers.join_next().await {
            let parts = ended.map_err(|source| Error::Worker { task: "source copy", source })??;
            for (table, part) in parts {
                digests.entry(table).or_insert_with(Digest::new).merge(&part);
            }
        }
        Ok(digests)
    }
}

struct Worker {
    source: Source,
    snapshot: String,
    tables: BTreeMap<TableName, Compared>,
    progress: Progress,
}

impl Worker {
    async fn run(self, jobs: Vec<CopyJob>) -> Result<Vec<(TableName, Digest)>, Error> {
        let mut reader = self.source.open_snapshot(&self.snapshot).await?;
        let mut parts = Vec::with_capacity(jobs.len());
        for job in jobs {
            let Some(table) = self.tables.get(&job.table) else { continue };
            let digest = copy(&mut reader, &job, table, self.progress.as_ref()).await?;
            parts.push((job.table, digest));
        }
        reader.close().await;
        Ok(parts)
    }
}

async fn copy(
    reader: &mut SnapshotReader,
    job: &CopyJob,
    table: &Compared,
    progress: &dyn VerifyProgress,
) -> Result<Digest, Error> {
    let (batches_in, batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let forms = Arc::clone(&table.forms);
    let hasher = RowHasher::new(table.schema.identity_positions());
    let hashing = tokio::task::spawn_blocking(move || hash(batches, &forms, hasher));
    let received = async {
        // dropped at the end, also of a failure: without a sender the hasher comes to its end
        let batches_in = batches_in;
        let mut rows = reader.copy(job).await?;
        while let Some(batch) = rows.next_batch().await? {
            progress.rows(&job.table, batch.row_count());
            if batches_in.send(batch).await.is_err() {
                // the hasher has failed and says why
                break;
            }
        }
        Ok::<(), Error>(())
    };
    let received = received.await;
    let digest =
        hashing.await.map_err(|source| Error::Worker { task: "source hashing", source })?;
    received?;
    digest
}

fn hash(
    mut batches: mpsc::Receiver<CopyBatch>,
    forms: &[super::declared::Form],
    mut hasher: RowHasher,
) -> Result<Digest, Error> {
    while let Some(mut batch) = batches.blocking_recv() {
        batch.rows(|cells| {
            for (cell, form) in cells.iter().zip(forms) {
                hasher.value(|out| match cell {
                    Cell::Text(text) => form.write(text, out),
                    Cell::Null | Cell::Unchanged => false,
                });
            }
            hasher.end_row();
            Ok::<(), Error>(())
        })?;
    }
    Ok(hasher.finish())
}
