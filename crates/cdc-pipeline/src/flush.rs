//! The flush job: waits for the encoders, uploads, commits. Runs beside the ingest loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_core::{Epoch, ErrorKind, Lsn, SchemaStep, TableName, TableSchema};
use cdc_sink::DeltaOutput;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::oneshot;

use crate::Error;
use crate::commit::{BatchName, CommitState, EpochContent, FlushReceipt};
use crate::compact::{Finish, Finished, Moved};
use crate::control::VerifiedRecord;
use crate::meters::level;
use crate::quarantine::Stop;
use crate::settings::OnError;
use crate::table_ops::{Handover, StateChange};

/// Delay before the second try; doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Longest delay between two tries.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// One table's part, on its way from the encoder.
pub(crate) struct Part {
    pub(crate) table: TableName,
    /// `None` if there was nothing to write after all.
    pub(crate) output: oneshot::Receiver<Result<Option<DeltaOutput>, Error>>,
}

/// A closed batch.
pub(crate) struct FlushJob {
    pub(crate) name: BatchName,
    pub(crate) parts: Vec<Part>,
    pub(crate) rows: u64,
    /// Schemas that tables have from the end of this epoch on.
    pub(crate) evolved: Vec<Arc<TableSchema>>,
    /// What the source's files are, where that is to be noted.
    pub(crate) filenodes: Vec<(TableName, Option<u64>)>,
    /// Tables that stopped before the batch was closed.
    pub(crate) stops: Vec<Stop>,
    /// Copied tables that are followed from this cut on; the committed state has them.
    pub(crate) handovers: Vec<Handover>,
    /// Tables that change their state behind this epoch.
    pub(crate) changes: Vec<StateChange>,
    pub(crate) on_error: OnError,
}

/// The committed state back from a flush, and how it ended.
pub(crate) struct Flushed {
    pub(crate) state: CommitState,
    pub(crate) outcome: Result<Done, Error>,
}

/// A flush that is in the manifest.
pub(crate) struct Done {
    pub(crate) receipt: FlushReceipt,
    /// Tables that changed.
    pub(crate) tables: Vec<TableName>,
    /// Tables that are quarantined now.
    pub(crate) stopped: Vec<TableName>,
    /// What else became of tables.
    pub(crate) changed: Vec<StateChange>,
    /// Whether any table has another state now.
    pub(crate) has_new_states: bool,
    /// The table that was compacted in the same job.
    pub(crate) finished: Option<Finished>,
    /// Where the rows of a table went.
    pub(crate) moved: Option<Moved>,
}

impl Done {
    /// Nothing but a receipt.
    pub(crate) fn with(receipt: FlushReceipt) -> Done {
        Done {
            receipt,
            tables: Vec::new(),
            stopped: Vec::new(),
            changed: Vec::new(),
            has_new_states: false,
            finished: None,
            moved: None,
        }
    }
}

impl FlushJob {
    pub(crate) async fn run(self, state: &mut CommitState) -> Result<Done, Error> {
        let began = Instant::now();
        let meters = state.lake.meters.clone();
        let (mut deltas, mut stops) = (Vec::with_capacity(self.parts.len()), self.stops);
        for Part { table, output } in self.parts {
            match output.await.map_err(|_| Error::NotEncoded { table: table.clone() })? {
                Ok(delta) => deltas.extend(delta),
                Err(error) => {
                    stops.push(Stop::of(&table, error, self.name.lsn_from, self.on_error)?);
                }
            }
        }
        meters.stage("encode", began.elapsed());
        let mut evolved = self.evolved;
        evolved.retain(|schema| stops.iter().all(|stop| stop.table != schema.table));
        let told = reconciled(state, &evolved);
        let content = EpochContent {
            deltas,
            evolved,
            filenodes: self.filenodes,
            stops,
            handovers: self.handovers,
            changes: self.changes,
        };
        let mut patience = Patience::new(self.name.epoch);
        let receipt = loop {
            match upload_and_commit(state, &self.name, &content).await {
                Ok(receipt) => break receipt,
                Err(error) => {
                    meters.flushed(false);
                    if let Error::ForeignCommit { table, .. } = &error {
                        meters.foreign_commit(table);
                    }
                    patience.bear(error).await?;
                }
            }
        };
        let EpochContent { deltas, stops, handovers, changes, .. } = content;
        count(state, &self.name, &deltas);
        tell_reconciled(state, &told);
        let bytes: u64 = deltas.iter().map(DeltaOutput::size).sum();
        tracing::info!(
            epoch = self.name.epoch.0,
            commit_lsn = %self.name.lsn_to,
            tables = deltas.len(),
            rows = self.rows,
            bytes,
            duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "epoch flushed"
        );
        for stop in &stops {
            tracing::info!(table = %stop.table, state = "quarantined", "table state changed");
        }
        for Handover { table, lsn, .. } in &handovers {
            tracing::info!(%table, %lsn, state = "streaming", "table state changed");
        }
        for change in &changes {
            tracing::info!(table = %change.table, state = change.word(), "table state changed");
        }
        Ok(Done {
            receipt,
            tables: deltas.into_iter().map(|delta| delta.table).collect(),
            has_new_states: !(stops.is_empty() && handovers.is_empty() && changes.is_empty()),
            stopped: stops.into_iter().map(|stop| stop.table).collect(),
            changed: changes,
            finished: None,
            moved: None,
        })
    }
}

async fn upload_and_commit(
    state: &mut CommitState,
    name: &BatchName,
    content: &EpochContent,
) -> Result<FlushReceipt, Error> {
    let began = Instant::now();
    let store = &state.lake.store;
    let uploads: Vec<_> = content.deltas.iter().map(|delta| delta.upload(store).boxed()).collect();
    stream::iter(uploads)
        .buffer_unordered(state.parallel_workers.max(1))
        .try_collect::<()>()
        .await?;
    state.lake.meters.stage("publish", began.elapsed());
    state.commit(name, content).await
}

/// A table's way from its committed schema to the next.
pub(crate) type Reconciled = (Arc<TableSchema>, Vec<SchemaStep>);

pub(crate) fn reconciled(state: &CommitState, evolved: &[Arc<TableSchema>]) -> Vec<Reconciled> {
    let steps = |schema: &Arc<TableSchema>| {
        let before = state.tables.get(&schema.table)?;
        Some((Arc::clone(schema), before.schema.steps_to(schema)))
    };
    evolved.iter().filter_map(steps).collect()
}

/// Says which tables have another schema since this epoch.
pub(crate) fn tell_reconciled(state: &CommitState, told: &[Reconciled]) {
    for (schema, steps) in told {
        let (table, version) = (&schema.table, schema.version);
        let changes: Vec<String> = steps.iter().map(ToString::to_string).collect();
        tracing::info!(%table, version, changes = changes.join(", "), "schema reconciled");
        for step in steps {
            if let Some(label) = state.lake.meters.of_kind(table, step.kind()) {
                state.lake.meters.schema_reconciles.get_or_create(&label).inc();
            }
        }
    }
}

/// Counts a flush that is in the manifest.
fn count(state: &CommitState, name: &BatchName, deltas: &[DeltaOutput]) {
    let meters = &state.lake.meters;
    meters.flushed(true);
    // every table has a place at once, up to the limit
    meters.flush_workers_used.set(level(deltas.len().min(state.parallel_workers.max(1))));
    if !deltas.is_empty() {
        let age_micros = state.lake.clock.now().timestamp_micros() - name.commit_micros;
        let age = Duration::from_micros(u64::try_from(age_micros).unwrap_or(0));
        meters.commit_to_visible.observe(age.as_secs_f64());
    }
    for delta in deltas {
        let Some(label) = meters.of(&delta.table) else { return };
        meters.events_flushed.get_or_create(&label).inc_by(delta.counts.rows());
        meters.truncates.get_or_create(&label).inc_by(delta.counts.truncates);
        meters.toast_carried.get_or_create(&label).inc_by(delta.carried);
        meters.table_latest_epoch.get_or_create(&label).set(level(name.epoch.0));
        if let Some(committed) = state.tables.get(&delta.table) {
            let snapshots = committed.pair.current.metadata.snapshots().len();
            meters.snapshots.get_or_create(&label).set(level(snapshots));
        }
        for (column, values) in &delta.lossy {
            if let Some(label) = meters.of_column(&delta.table, column) {
                meters.lossy_values.get_or_create(&label).inc_by(*values);
            }
        }
    }
}

/// Raises the covered position of an idle source.
pub(crate) async fn cover(state: &mut CommitState, lsn: Lsn) -> Result<Done, Error> {
    let mut patience = Patience::new(state.manifest.value.epoch);
    loop {
        match state.cover(lsn).await {
            Ok(receipt) => return Ok(Done::with(receipt)),
            Err(error) => patience.bear(error).await?,
        }
    }
}

/// How failed tries of one flush are borne. While a fault may pass, such as a store that is away,
/// the batch stays where it is and is tried again without end: giving up would only lose the work
/// done and replay it. Intake stops at half of the byte budget, and a drain has its own deadline.
struct Patience {
    epoch: Epoch,
    tries: u32,
}

impl Patience {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, tries: 0 }
    }

    /// Waits before the next try, or gives back an error that no wait mends.
    async fn bear(&mut self, error: Error) -> Result<(), Error> {
        self.tries = self.tries.saturating_add(1);
        let (epoch, tries) = (self.epoch.0, self.tries);
        tracing::error!(epoch, tries, error = cdc_core::chain(&error), "flush failed");
        // a table that moved is read anew by the next session only
        let is_passing = error.kind() == ErrorKind::Transient;
        if !is_passing || matches!(error, Error::TableMoved { .. }) {
            return Err(error);
        }
        let delay = RETRY_DELAY.saturating_mul(1 << tries.min(16));
        tokio::time::sleep(delay.min(RETRY_DELAY_MAX)).await;
        Ok(())
    }
}

/// Notes in the manifest which tables were found equal to their source.
pub(crate) async fn record(
    state: &mut CommitState,
    record: &VerifiedRecord,
) -> Result<Done, Error> {
    Ok(Done::with(state.record(record).await?))
}

/// Commits what compaction has prepared for a table.
pub(crate) async fn compact(state: &mut CommitState, finish: Finish) -> Result<Done, Error> {
    let Finish { table, prepared, retention_text } = finish;
    let mut finished = state.finish_table(&table, prepared, &retention_text).await?;
    let moved = finished.moved.take();
    Ok(Done { finished: Some(finished), moved, ..Done::with(state.receipt()) })
}
