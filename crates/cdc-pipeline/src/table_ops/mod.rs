//! Table operations on a running daemon: add, resync, pause, resume and remove, while all other tables
//! go on.
//!
//! ```text
//! pgcdc table add t ──control──> ingest loop ── start ──> copy task
//!                                     │                     │ schema ──────> changes of t are deferred
//!   stream ──────────────────────> deferred changes         │ slot, snapshot at L ─> COPY ─> base files
//!                                     │                     │ Iceberg commit, key index
//!                                     └<── copied at L ─────┘
//!   next flush: base at L + the deferred changes above L, in one cut ──> manifest: streaming
//! ```
//! A copy belongs to its session: an error of the source or of the daemon ends it, and a resync that the
//! manifest names begins anew with the next session.

mod client;
mod copy;
mod deferred;

pub use client::{TableAction, TableOutcome, change_table};
pub(crate) use copy::{Copied, CopyContext, CopyKind, CopyOrder};
pub(crate) use deferred::Deferred;

use std::sync::Arc;

use cdc_core::{Lsn, TableName, TableSchema};
use cdc_manifest::{Manifest, TableEntry, TableState};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::Error;
use crate::commit::{BatchName, CommitState, CommittedTable, point_at};

/// Events of copies that wait for the ingest loop.
const EVENTS_MAX: usize = 4;

/// What a copy tells the ingest loop.
pub(crate) enum CopyEvent {
    /// The schema is known: changes are to be deferred from now on, and `go` says that they are.
    Planned { table: TableName, oid: u32, schema: Arc<TableSchema>, go: oneshot::Sender<()> },
    /// The copy is in the Iceberg tables.
    Copied(Box<Copied>),
    /// It did not come to its end.
    Failed { table: TableName, error: Error },
}

/// The copies of one session.
pub(crate) struct Copies {
    context: Arc<CopyContext>,
    tasks: JoinSet<()>,
    events_in: mpsc::Sender<CopyEvent>,
    events: mpsc::Receiver<CopyEvent>,
    running: Vec<TableName>,
}

impl Copies {
    pub(crate) fn new(context: CopyContext) -> Copies {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let context = Arc::new(context);
        Copies { context, tasks: JoinSet::new(), events_in, events, running: Vec::new() }
    }

    /// Starts a copy; the loop hears of it.
    pub(crate) fn start(&mut self, order: CopyOrder) {
        let (context, events) = (Arc::clone(&self.context), self.events_in.clone());
        self.running.push(order.table.clone());
        self.tasks.spawn(async move {
            let table = order.table.clone();
            let event = match copy::run(&context, order, &events).await {
                Ok(copied) => CopyEvent::Copied(Box::new(copied)),
                Err(error) => CopyEvent::Failed { table, error },
            };
            // a session that is over does not want to know
            let _ = events.send(event).await;
        });
    }

    /// Whether a table is being copied.
    pub(crate) fn is_running(&self, table: &TableName) -> bool {
        self.running.contains(table)
    }

    /// The copy of a table has ended.
    pub(crate) fn ended(&mut self, table: &TableName) {
        self.running.retain(|running| running != table);
    }

    /// The next event. Cancel safe.
    pub(crate) async fn next_event(&mut self) -> CopyEvent {
        match self.events.recv().await {
            Some(event) => event,
            // a sender of ours lives as long as we do
            None => std::future::pending().await,
        }
    }
}

/// A copied table on its way into the manifest, with the flush that makes its cut.
#[derive(Clone)]
pub(crate) struct Handover {
    pub(crate) table: TableName,
    pub(crate) oid: u32,
    pub(crate) tags: Vec<String>,
    pub(crate) committed: CommittedTable,
    pub(crate) base_path: String,
    pub(crate) lsn: Lsn,
    pub(crate) lossy: Vec<String>,
}

impl Handover {
    /// Puts the table into the manifest of a batch: streaming, with its new base, and with the end
    /// of the range that its changelog lacks.
    pub(crate) fn record(&self, next: &mut Manifest, state: &CommitState, name: &BatchName) {
        let schema = &self.committed.schema;
        let fresh = TableEntry::active(schema, TableState::Streaming);
        let known = next.tables.remove(&self.table);
        let mut entry = known.map_or_else(
            || TableEntry {
                tags: (!self.tags.is_empty()).then(|| self.tags.clone()),
                ..fresh.clone()
            },
            |known| TableEntry {
                status: fresh.status,
                state: fresh.state,
                primary_key: fresh.primary_key.clone(),
                identity: fresh.identity.clone(),
                identity_columns: fresh.identity_columns.clone(),
                schema_version: fresh.schema_version,
                policy_version: known.policy_version.or(fresh.policy_version),
                format: fresh.format.clone(),
                reason: None,
                ..known
            },
        );
        if let Some(open) = entry.gaps.last_mut().filter(|gap| gap.lsn_from < self.lsn) {
            open.lsn_to = open.lsn_to.max(self.lsn);
            open.epoch_to = open.epoch_to.max(Some(name.epoch));
        }
        entry.source_oid = Some(self.oid);
        entry.base_epoch = name.epoch;
        entry.base_path = Some(self.base_path.clone());
        entry.latest_delta_epoch = name.epoch;
        entry.lsn_to = Some(self.committed.covered());
        entry.row_count = self.committed.pair.current.live_rows(self.committed.branch);
        if let Some(table) = state.tables.get(&self.table) {
            entry.lsn_to = Some(table.covered());
            entry.row_count = table.pair.current.live_rows(table.branch);
            point_at(&mut entry, &table.pair, table.branch);
        }
        next.tables.insert(self.table.clone(), entry);
        next.set_schema(schema);
        next.mark_lossy(&self.table, &self.lossy);
    }
}
