//! `verify`: the proof that source and lake are equal, at one position and while both run.
//!
//! ```text
//! plan ─> position: snapshot at L, manifest at L ─┬─> source: COPY in the snapshot ──> digests ─┐
//!                                                 └─> lake: files minus deletes ─────> digests ─┴─> compare
//! ```
//! Both sides are hashed row by row in the text that PostgreSQL gives a value; nothing is kept but
//! 64 counts and sums per table. A difference names its buckets, never a value.

mod declared;
mod digest;
mod lake_side;
mod pg_float;
mod pg_text;
mod pg_time;
mod plan;
mod position;
mod report;
mod source_side;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_core::TableName;
use cdc_iceberg::LakeFiles;
use cdc_manifest::{Manifest, ManifestStore, Swap};
use cdc_wal::{CopyPlanOptions, CopyTable, Source};
use tokio_util::sync::CancellationToken;

pub(crate) use position::expect_nothing_pending;
pub use report::{BucketDifference, TableReport, Verdict, VerifyReport};

use crate::Error;
use crate::commit::note_verified;
use crate::control::{Command, VerifiedRecord};
use crate::lake::existing;
use crate::settings::{LakeSettings, ReplicationSettings};
use lake_side::{LakeContent, LakeSide};
use plan::VerifyPlan;
use position::{Position, Standing};
use source_side::SourceSide;

/// Heap bytes of one COPY job, when there are several workers.
const COPY_JOB_BYTES: u64 = 64 * 1024 * 1024;
/// How long the daemon may take to write the result into the manifest.
const RECORD_PATIENCE: Duration = Duration::from_secs(60);
/// Tries of writing it ourselves.
const RECORD_TRIES_MAX: u32 = 5;

/// What `verify` needs besides the source.
#[derive(Clone, Debug)]
pub struct VerifySettings {
    /// The lake.
    pub lake: LakeSettings,
    /// What is replicated.
    pub replication: ReplicationSettings,
    /// Concurrent COPY sessions, and files read at once.
    pub parallel_workers: usize,
    /// Only these tables; all if empty.
    pub tables: Vec<TableName>,
    /// Bound of the whole run: the snapshot holds back vacuum on the source as long as it lasts.
    pub timeout: Duration,
    /// How long the daemon's intake may be held while the snapshot is made.
    pub hold: Duration,
}

/// Follows a comparison for whoever watches.
pub trait VerifyProgress: Send + Sync {
    /// The tables to come, with the server's estimate of their rows (−1 for none).
    fn planned(&self, tables: &[(TableName, i64)]);
    /// Rows of a table were read from the source.
    fn rows(&self, table: &TableName, rows: u64);
    /// A table was compared.
    fn done(&self, table: &TableName, rows: u64);
}

pub(crate) type Progress = Arc<dyn VerifyProgress>;

/// Compares source and lake, table by table, at one position.
///
/// Tables that are equal are noted in the manifest (`verified_through`). The source's tables keep an
/// ACCESS SHARE lock until the end, as a dump of them would.
///
/// # Errors
/// Whatever kept it from comparing; a difference or a damaged file is not an error but a verdict.
pub async fn verify(
    settings: &VerifySettings,
    source: &Source,
    progress: Arc<dyn VerifyProgress>,
    stop: &CancellationToken,
) -> Result<VerifyReport, Error> {
    tokio::select! {
        report = run(settings, source, &progress) => report,
        () = tokio::time::sleep(settings.timeout) => {
            Err(Error::VerifyTimeout { seconds: settings.timeout.as_secs() })
        }
        () = stop.cancelled() => Err(Error::VerifyStopped),
    }
}

async fn run(
    settings: &VerifySettings,
    source: &Source,
    progress: &Progress,
) -> Result<VerifyReport, Error> {
    let began = Instant::now();
    let (store, manifest) = existing(&settings.lake.storage).await?;
    let control = source.connect().await?;
    let discovered = control.discover(&settings.replication.schemas).await?;
    let policy = settings.replication.types.policy.unrepresentable;
    let mut plan = VerifyPlan::new(&manifest, &discovered, &settings.tables, policy)?;
    let oids = plan.compared.values().map(|table| table.source.oid).collect();
    let position = position::reach(settings, source, oids).await?;
    leave_out_changed(&mut plan, &position);
    let jobs = control.plan_copy(&copies(&plan, &columns(&plan)), copy_options(settings)).await?;
    control.close().await;
    let estimates: Vec<(TableName, i64)> = plan
        .compared
        .iter()
        .map(|(name, table)| (name.clone(), table.source.estimated_rows))
        .collect();
    progress.planned(&estimates);
    let source_side = SourceSide {
        source,
        snapshot: &position.slot.snapshot_name,
        workers: settings.parallel_workers,
        tables: &plan.compared,
        progress,
    };
    let files = LakeFiles::new(Arc::clone(store.store()), store.location().clone());
    let lake_side = LakeSide {
        store: &store,
        files: &files,
        workers: settings.parallel_workers,
        tables: &plan.compared,
    };
    let (sources, lakes) = tokio::try_join!(async { source_side.digest(jobs).await }, async {
        lake_side.content(&position.tables).await
    },)?;
    let lsn = position.slot.consistent_point;
    let mut report = VerifyReport::new(lsn, position.epoch);
    for (table, reason) in &plan.skipped {
        report.tables.insert(table.clone(), TableReport::skipped(reason));
    }
    for (name, table) in &plan.compared {
        let (Some(digest), Some(content)) = (sources.get(name), lakes.get(name)) else {
            let reason = "the manifest names no Iceberg table for it";
            report.tables.insert(name.clone(), TableReport::skipped(reason));
            continue;
        };
        progress.done(name, digest.rows());
        report.tables.insert(name.clone(), compare(digest, content, table.lossy_columns()));
    }
    finish(settings, position, &report).await?;
    report.duration = began.elapsed();
    Ok(report)
}

/// The plan was made from an older manifest than the position's.
fn leave_out_changed(plan: &mut VerifyPlan, position: &Position) {
    let changed: Vec<TableName> = plan
        .compared
        .iter()
        .filter(|(name, table)| {
            let pinned = position.tables.get(name);
            pinned.is_none_or(|pin| pin.schema_version != Some(table.schema.version))
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in changed {
        plan.compared.remove(&name);
        plan.skipped.insert(name, "its schema or state changed meanwhile; verify again".into());
    }
}

fn columns(plan: &VerifyPlan) -> Vec<Vec<String>> {
    let names = |table: &plan::Compared| {
        table.schema.columns.iter().map(|column| column.name.clone()).collect()
    };
    plan.compared.values().map(names).collect()
}

fn copies<'a>(plan: &'a VerifyPlan, columns: &'a [Vec<String>]) -> Vec<CopyTable<'a>> {
    let pairs = plan.compared.values().zip(columns);
    pairs.map(|(table, columns)| CopyTable { table: &table.source, columns }).collect()
}

fn copy_options(settings: &VerifySettings) -> CopyPlanOptions {
    CopyPlanOptions { workers: settings.parallel_workers, target_bytes: COPY_JOB_BYTES }
}

fn compare(source: &digest::Digest, lake: &LakeContent, lossy: Vec<String>) -> TableReport {
    let mut report = TableReport {
        source_rows: Some(source.rows()),
        lake_rows: None,
        source_checksum: Some(source.checksum()),
        lake_checksum: None,
        lossy_columns: lossy,
        verdict: Verdict::Equal,
    };
    match lake {
        LakeContent::Damaged(damage) => {
            let (file, reason) = (damage.file.clone(), damage.reason.clone());
            report.verdict = Verdict::Damaged { file, reason };
        }
        LakeContent::Whole(lake) => {
            report.lake_rows = Some(lake.rows());
            report.lake_checksum = Some(lake.checksum());
            let buckets: Vec<BucketDifference> = source
                .differences(lake)
                .map(|(bucket, source, lake)| BucketDifference {
                    bucket,
                    source_rows: source.rows,
                    lake_rows: lake.rows,
                })
                .collect();
            if !buckets.is_empty() {
                report.verdict = Verdict::Different { buckets };
            }
        }
    }
    report
}

/// Notes what was equal, and gives the source its snapshot back.
async fn finish(
    settings: &VerifySettings,
    position: Position,
    report: &VerifyReport,
) -> Result<(), Error> {
    let Position { slot, standing, .. } = position;
    if let Err(error) = slot.lease.release().await {
        tracing::warn!(error = cdc_core::chain(&error), "snapshot session ended early");
    }
    let equal = report.tables.iter().filter(|(_, table)| table.verdict == Verdict::Equal);
    let tables: Vec<String> = equal.map(|(name, _)| name.to_string()).collect();
    if tables.is_empty() {
        return Ok(());
    }
    let record = VerifiedRecord { lsn: report.lsn, at: chrono::Utc::now(), tables };
    match standing {
        Standing::Daemon(client) => {
            let patience = settings.timeout.min(RECORD_PATIENCE);
            client.ask::<()>(Command::RecordVerified(record), patience).await.map(drop)
        }
        Standing::Alone { lake, .. } => record_alone(&lake.manifests, &record).await,
    }
}

async fn record_alone(manifests: &ManifestStore, record: &VerifiedRecord) -> Result<(), Error> {
    for _ in 0..RECORD_TRIES_MAX {
        let current = manifests.require().await?;
        let mut next: Manifest = current.value.clone();
        note_verified(&mut next, record);
        next.updated_at = record.at;
        match manifests.commit(&current, &next).await? {
            Swap::Stored(_) => return Ok(()),
            Swap::Conflict => {}
            Swap::Unknown(error) => return Err(error.into()),
        }
    }
    Err(Error::ManifestConflict)
}
