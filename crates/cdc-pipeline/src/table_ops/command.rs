//! The commands `table …`. A running daemon is asked; without one the state is written into the manifest
//! by the command, and the next start does what there is to do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{Epoch, TableName};
use cdc_manifest::{Manifest, TableState};
use tokio_util::sync::CancellationToken;

use super::transition::{REMOVED, StateChange, TableAction};
use crate::Error;
use crate::control::{Command, ControlClient, TableOrder};
use crate::fence::{Breaker, BreakerSettings, raise_generation};
use crate::lake::Lake;
use crate::lease::Lease;
use crate::recover::committed_state;
use crate::settings::{LakeSettings, RefSettings};

/// How long the daemon may take to write the state.
const ASK_PATIENCE: Duration = Duration::from_secs(120);
/// How often the manifest is looked at while a table is copied.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What the commands are told.
#[derive(Clone, Debug)]
pub struct TableOpSettings {
    /// The lake.
    pub lake: LakeSettings,
    /// Refs.
    pub refs: RefSettings,
    /// When conflicts over the manifest are too many.
    pub breaker: BreakerSettings,
}

/// What a command achieved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableChanged {
    /// The manifest says so; there is nothing to wait for, or nobody wanted to.
    Noted,
    /// The same without a daemon: what there is to copy is copied at its next start.
    NotedForTheNextStart,
    /// The copy is followed.
    Active {
        /// The first epoch with it.
        epoch: Epoch,
        /// Rows of the table.
        rows: Option<u64>,
    },
}

/// Changes the state of a table, and with `wait` waits for the copy that it takes.
///
/// # Errors
/// [`Error::NotInitialised`]; [`Error::UnknownTable`] and [`Error::NotNow`] with nothing changed;
/// [`Error::Refused`] and [`Error::NoAnswer`] of the daemon; [`Error::CopyFailed`],
/// [`Error::CopyPending`] and [`Error::WaitStopped`] of the waiting.
pub async fn change_table(
    settings: &TableOpSettings,
    table: &TableName,
    action: TableAction,
    wait: Option<&CancellationToken>,
) -> Result<TableChanged, Error> {
    let lake = Lake::open(&settings.lake)?;
    let manifest =
        lake.manifests.load().await?.ok_or_else(|| Error::NotInitialised {
            root: lake.store.location().root().to_owned(),
        })?;
    // before anybody is asked: the errors of this are the command's own
    StateChange::of(&manifest.value, table, action)?;
    match Lease::take_briefly(&settings.lake.state_dir) {
        Ok(lease) => {
            alone(settings, &lake, table, action).await?;
            drop(lease);
            Ok(TableChanged::NotedForTheNextStart)
        }
        Err(Error::Leased { .. }) => {
            let client = ControlClient::open(&settings.lake.state_dir)?;
            let order = TableOrder { table: table.to_string(), action };
            client.ask::<()>(Command::Table(order), ASK_PATIENCE).await?;
            match wait.filter(|_| action.copies()) {
                None => Ok(TableChanged::Noted),
                Some(stop) => copied(&lake, &settings.lake.state_dir, table, stop).await,
            }
        }
        Err(error) => Err(error),
    }
}

/// Without a daemon: the lease is ours, so the lake is.
async fn alone(
    settings: &TableOpSettings,
    lake: &Lake,
    table: &TableName,
    action: TableAction,
) -> Result<(), Error> {
    let manifest = lake.manifests.require().await?;
    let breaker = Arc::new(Breaker::new(settings.breaker));
    let (manifest, fence) = raise_generation(lake, manifest, &breaker).await?;
    let Some(change) = StateChange::of(&manifest.value, table, action)? else { return Ok(()) };
    let mut next = manifest.value.clone();
    change.record(&mut next, manifest.value.covered_lsn, manifest.value.epoch);
    next.updated_at = lake.clock.now();
    let mut state = committed_state(lake.clone(), fence, manifest, settings.refs, 1).await?;
    state.swap_manifest(next).await
}

/// Waits until the manifest says how the copy of a table ended, whichever session or daemon makes it.
async fn copied(
    lake: &Lake,
    state_dir: &Path,
    table: &TableName,
    stop: &CancellationToken,
) -> Result<TableChanged, Error> {
    loop {
        let manifest = lake.manifests.require().await?.value;
        if let Some(ended) = end_of(&manifest, table) {
            return ended;
        }
        if !Lease::is_held(state_dir) {
            return Err(Error::CopyPending { table: table.clone() });
        }
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = stop.cancelled() => return Err(Error::WaitStopped { table: table.clone() }),
        }
    }
}

/// How a copy ended, as the manifest has it; `None` while it is under way.
fn end_of(manifest: &Manifest, table: &TableName) -> Option<Result<TableChanged, Error>> {
    let failed = |reason: &str| {
        Some(Err(Error::CopyFailed { table: table.clone(), reason: reason.to_owned() }))
    };
    let Some(entry) = manifest.tables.get(table) else { return failed(REMOVED) };
    match entry.state {
        Some(TableState::Resyncing | TableState::Snapshotting) => None,
        Some(TableState::Streaming) if entry.is_active() => {
            let (epoch, rows) = (manifest.epoch, entry.row_count);
            Some(Ok(TableChanged::Active { epoch, rows }))
        }
        _ => failed(entry.reason.as_deref().unwrap_or("no reason kept")),
    }
}
