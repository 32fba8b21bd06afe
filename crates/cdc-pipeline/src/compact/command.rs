//! `compact`: one run from outside. Beside a running daemon the daemon does it, for only one process
//! commits; without one, this process takes the lease and is that process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdc_core::TableName;
use cdc_manifest::{Manifest, Versioned};
use cdc_sink::index::KeyIndex;
use tokio_util::sync::CancellationToken;

use super::compactor::{Order, Workshop, up_to_date};
use super::prepare::PATCH_PREFIX;
use super::report::{CompactReport, TableOutcome, TableResult};
use super::settings::CompactSettings;
use crate::Error;
use crate::commit::CommitState;
use crate::control::{Command, CompactOrder, CompactState, ControlClient};
use crate::fence::{Breaker, Fence, raise_generation};
use crate::lake::Lake;
use crate::lanes::index_stamp;
use crate::lease::Lease;
use crate::open_lane::index_directory;
use crate::promotion::adopt_staging;
use crate::recover::{committed_state, complete_changelogs, complete_fills};

/// How long the daemon may take to note the request.
const ASK_PATIENCE: Duration = Duration::from_secs(60);
/// How often the daemon is asked how far it is.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct CompactRequest {
    /// Only these tables; all if there are none.
    pub tables: Vec<TableName>,
    /// How long changes are kept, instead of what the settings say; zero is not for ever here.
    pub tombstone_ttl: Option<Duration>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Writes a complete base of each table that has changes beyond its base, lets go of changes past
/// retention, and removes what nothing has referred to for the grace time.
///
/// # Errors
/// [`Error::UnknownTable`] for a table that is not followed, before anything is done;
/// [`Error::Refused`] with the daemon's reason. A table that could not be done is in the report.
pub async fn compact(
    settings: &CompactSettings,
    request: &CompactRequest,
    stop: &CancellationToken,
) -> Result<CompactReport, Error> {
    let lake = Lake::open(&settings.lake)?;
    let manifest =
        lake.manifests.load().await?.ok_or_else(|| Error::NotInitialised {
            root: lake.store.location().root().to_owned(),
        })?;
    check_tables(&manifest.value, &request.tables)?;
    let order = Order {
        tables: request.tables.clone(),
        is_complete: true,
        retention: request.tombstone_ttl.or(settings.compaction.retention),
    };
    if request.dry_run {
        return Ok(dry_run(&manifest.value, &order));
    }
    match Lease::take(&settings.lake.state_dir) {
        Ok(lease) => {
            let report = alone(settings, lake, order, stop).await;
            drop(lease);
            report
        }
        Err(Error::Leased { .. }) => with_daemon(settings, &order, stop).await,
        Err(error) => Err(error),
    }
}

fn check_tables(manifest: &Manifest, tables: &[TableName]) -> Result<(), Error> {
    let is_known = |table: &&TableName| {
        manifest.tables.get(*table).is_some_and(cdc_manifest::TableEntry::is_active)
    };
    match tables.iter().find(|table| !is_known(table)) {
        Some(table) => Err(Error::UnknownTable { table: table.clone() }),
        None => Ok(()),
    }
}

fn is_wanted(order: &Order, table: &TableName) -> bool {
    order.tables.is_empty() || order.tables.contains(table)
}

/// What would be rewritten, as the manifest tells.
fn dry_run(manifest: &Manifest, order: &Order) -> CompactReport {
    let tables = manifest.active_tables().filter(|(table, _)| is_wanted(order, table));
    let outcome = |(table, entry): (&TableName, &cdc_manifest::TableEntry)| {
        let (base, latest) = (entry.base_epoch.0, entry.latest_delta_epoch.0);
        let result = if !entry.is_written() {
            TableResult::Skipped { reason: "the table is not written at present".to_owned() }
        } else if latest > base {
            TableResult::WouldCompact { base_epoch: base, latest_epoch: latest }
        } else {
            up_to_date(manifest, table)
        };
        TableOutcome { table: table.to_string(), result, purged: 0 }
    };
    CompactReport { tables: tables.map(outcome).collect(), ..CompactReport::default() }
}

async fn with_daemon(
    settings: &CompactSettings,
    order: &Order,
    stop: &CancellationToken,
) -> Result<CompactReport, Error> {
    let client = ControlClient::open(&settings.lake.state_dir)?;
    let asked = CompactOrder {
        tables: order.tables.iter().map(TableName::to_string).collect(),
        retention_millis: order
            .retention
            .map(|retention| u64::try_from(retention.as_millis()).unwrap_or(u64::MAX)),
    };
    let begun = client.ask::<()>(Command::Compact(asked), ASK_PATIENCE).await?;
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = stop.cancelled() => return Err(Error::CompactStopped),
        }
        let question = Command::CompactState { request: begun.id };
        let state = client.ask::<CompactState>(question, ASK_PATIENCE).await?.value;
        if let Some(report) = state.report {
            return Ok(report);
        }
    }
}

async fn alone(
    settings: &CompactSettings,
    lake: Lake,
    order: Order,
    stop: &CancellationToken,
) -> Result<CompactReport, Error> {
    crate::spool::clear(&settings.lake.state_dir)?;
    clear_patches(&settings.lake.state_dir)?;
    let mut state = take_over(settings, &lake).await?;
    adopt_staging(&mut state).await?;
    complete_changelogs(&mut state).await?;
    complete_fills(&mut state).await?;
    let workshop = Workshop::new(&settings.lake, &settings.compaction, settings.buffer_bytes_max);
    let mut report = CompactReport::default();
    let tables: Vec<TableName> =
        state.manifest.value.active_tables().map(|(table, _)| table.clone()).collect();
    for table in tables.into_iter().filter(|table| is_wanted(&order, table)) {
        if stop.is_cancelled() {
            return Err(Error::CompactStopped);
        }
        let outcome = one_table(&workshop, &mut state, &table, &order, stop).await?;
        report.tables.push(outcome);
    }
    let swept = workshop.sweep(&state, stop).run().await?;
    (report.orphans_removed, report.orphans_waiting) = (swept.removed, swept.waiting);
    Ok(report)
}

/// The lease is ours, so the lake is: an older daemon cannot commit any more.
async fn take_over(settings: &CompactSettings, lake: &Lake) -> Result<CommitState, Error> {
    let manifest: Versioned<Manifest> = lake.manifests.require().await?;
    let breaker = Arc::new(Breaker::new(settings.breaker));
    let (manifest, fence): (Versioned<Manifest>, Fence) =
        raise_generation(lake, manifest, &breaker).await?;
    committed_state(lake.clone(), fence, manifest, settings.refs, 1).await
}

async fn one_table(
    workshop: &Workshop,
    state: &mut CommitState,
    table: &TableName,
    order: &Order,
    stop: &CancellationToken,
) -> Result<TableOutcome, Error> {
    let skipped = |reason: String| TableOutcome {
        table: table.to_string(),
        result: TableResult::Skipped { reason },
        purged: 0,
    };
    let directory = index_directory(&workshop.state_dir, table);
    let hasher = KeyIndex::hasher_in(&directory);
    let job = match workshop.job(state, table, order, hasher, stop) {
        Ok(job) => job,
        Err(reason) => return Ok(skipped(reason)),
    };
    let lake_id = state.manifest.value.lake_id.clone();
    let before = state.tables.get(table).map(|table| index_stamp(&lake_id, table, &table.schema));
    let prepared = match job.run().await {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Err(Error::CompactStopped),
        Err(error) => return Ok(skipped(cdc_core::chain(&error))),
    };
    if prepared.rewrite.is_none() && prepared.purge.is_none() {
        let result = up_to_date(&state.manifest.value, table);
        return Ok(TableOutcome { table: table.to_string(), result, purged: 0 });
    }
    let text = workshop.settings.retention_text.clone();
    let finished = state.finish_table(table, prepared, &text).await?;
    if let (Some(moved), Some(before), Some(after)) =
        (finished.moved, before, state.tables.get(table))
    {
        let after = index_stamp(&lake_id, after, &after.schema);
        crate::open_lane::repoint_on_disk(directory, before, after, moved).await?;
    }
    if let Some(reason) = finished.dropped {
        return Ok(skipped(reason));
    }
    let result = match finished.compacted {
        Some(compacted) => compacted.result(),
        None => up_to_date(&state.manifest.value, table),
    };
    Ok(TableOutcome { table: table.to_string(), result, purged: finished.purged })
}

/// Removes changes of key indexes that a process which died had prepared. The caller has the lease.
pub(crate) fn clear_patches(state_dir: &Path) -> Result<(), Error> {
    let directory = state_dir.join("tmp");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::state(&directory, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|source| Error::state(&directory, source))?;
        if entry.file_name().to_string_lossy().starts_with(PATCH_PREFIX) {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(|source| Error::state(&path, source))?;
        }
    }
    Ok(())
}
