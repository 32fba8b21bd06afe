//! Compaction inside the daemon: which table is at which step. One table at a time; a run ends with
//! a sweep of what nothing refers to any more.
//!
//! ```text
//! due, or asked ─> Run ─> table: Preparing ─> Ready ──(the ingest loop commits it)──> next table
//!                          └ nothing to do ────────────────────────────────────────┘
//!                  after the last table: Sweeping ─> report
//! ```
//! The ingest loop owns it, hands it the committed state while no flush has it, and takes from it
//! what is ready. An error of a table is in the report and in the log, and ends nothing.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{Clock, TableName};
use cdc_manifest::{Manifest, TableEntry};
use cdc_sink::index::IdentityHasher;
use cdc_sink::{Constants, FileCompression};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::prepare::{Job, Prepared};
use super::replace::{Compacted, Finished};
use super::report::{CompactReport, TableOutcome, TableResult};
use super::select::{Thresholds, Wanted};
use super::settings::CompactionSettings;
use crate::Error;
use crate::commit::CommitState;
use crate::fill::Filling;
use crate::lake::Lake;
use crate::meters::Meters;
use crate::settings::LakeSettings;
use crate::upkeep::{Sweep, Swept};

/// Earliest begin of a run after the session began: the stream comes first.
const FIRST_RUN_DELAY: Duration = Duration::from_secs(10);
/// How often a table is tried whose files were replaced meanwhile.
const TRIES_MAX: u32 = 3;
/// Why a table is left alone that does not follow the stream.
const STANDSTILL: &str = "the table is not written at present";
/// Reports kept for whoever asked.
const REPORTS_MAX: usize = 16;

/// The part of the byte budget that a rewrite may use.
const MEMORY_PART: usize = 4;

/// What compaction works with, besides the committed state.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    pub(crate) settings: CompactionSettings,
    pub(crate) compression: FileCompression,
    pub(crate) memory_bytes_max: usize,
    pub(crate) state_dir: PathBuf,
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Only these tables; all if there are none.
    pub(crate) tables: Vec<TableName>,
    /// Whether complete bases are wanted.
    pub(crate) is_complete: bool,
    /// How long changes are kept; `None` keeps them for ever.
    pub(crate) retention: Option<Duration>,
}

/// The run under way, and those asked for.
pub(crate) struct Compactor {
    workshop: Workshop,
    clock: Arc<dyn Clock>,
    meters: Meters,
    stage: Stage,
    run: Option<Run>,
    asked: VecDeque<(i64, Order)>,
    /// Finished runs that were asked for, by request.
    reports: BTreeMap<i64, CompactReport>,
    due: Option<Instant>,
    last_success: DateTime<Utc>,
    stop: CancellationToken,
}

enum Stage {
    Idle,
    Preparing { table: TableName, job: JoinHandle<Result<Option<Prepared>, Error>> },
    Ready { table: TableName, prepared: Box<Prepared> },
    Committing { table: TableName },
    Sweeping { job: JoinHandle<Result<Swept, Error>> },
}

struct Run {
    request: Option<i64>,
    order: Order,
    /// Tables to come, each with its tries so far.
    tables: VecDeque<(TableName, u32)>,
    report: CompactReport,
    began: Instant,
    files_in: usize,
    files_out: usize,
}

/// Something that happened to compaction.
pub(crate) enum Step {
    /// A run is due.
    Due,
    /// A table was prepared.
    Prepared(Box<Result<Option<Prepared>, Error>>),
    /// The sweep is over.
    Swept(Result<Swept, Error>),
}

/// What the ingest loop commits for compaction.
pub(crate) struct Finish {
    pub(crate) table: TableName,
    pub(crate) prepared: Prepared,
    pub(crate) retention_text: String,
}

/// The answer to a question about a run.
pub(crate) enum RunState {
    Running,
    Finished(CompactReport),
    Unknown,
}

impl Compactor {
    /// Nothing under way. The first run is due when the last one is `interval` ago.
    pub(crate) fn new(workshop: Workshop, lake: &Lake, manifest: &Manifest) -> Compactor {
        let now = lake.clock.now();
        let last = manifest.compaction.last_compacted_at.max(manifest.source.init_timestamp);
        let ago = (now - last).to_std().unwrap_or(Duration::ZERO);
        let due = workshop.settings.interval.map(|interval| {
            let wait = interval.saturating_sub(ago).max(FIRST_RUN_DELAY.min(interval));
            Instant::now() + wait
        });
        Compactor {
            workshop,
            clock: Arc::clone(&lake.clock),
            meters: lake.meters.clone(),
            stage: Stage::Idle,
            run: None,
            asked: VecDeque::new(),
            reports: BTreeMap::new(),
            due,
            last_success: last,
            stop: CancellationToken::new(),
        }
    }

    /// Notes a run that somebody asks for.
    pub(crate) fn ask(&mut self, request: i64, order: Order) {
        self.asked.push_back((request, order));
    }

    /// How a run stands that somebody asked for.
    pub(crate) fn state_of(&self, request: i64) -> RunState {
        let is_under_way = self.run.as_ref().is_some_and(|run| run.request == Some(request));
        if is_under_way || self.asked.iter().any(|(asked, _)| *asked == request) {
            return RunState::Running;
        }
        match self.reports.get(&request) {
            Some(report) => RunState::Finished(report.clone()),
            None => RunState::Unknown,
        }
    }

    /// Waits for the next step; pending while there is none. Cancel safe: a job's end stays where
    /// it is.
    pub(crate) async fn next_step(&mut self) -> Step {
        match &mut self.stage {
            Stage::Preparing { job, .. } => {
                let joined = job.await;
                let failed = |source| Err(Error::Worker { task: "compaction", source });
                Step::Prepared(Box::new(joined.unwrap_or_else(failed)))
            }
            Stage::Sweeping { job } => {
                let joined = job.await;
                let failed = |source| Err(Error::Worker { task: "sweep", source });
                Step::Swept(joined.unwrap_or_else(failed))
            }
            Stage::Idle if self.run.is_none() => match self.due {
                Some(due) => {
                    tokio::time::sleep_until(due).await;
                    Step::Due
                }
                None => std::future::pending().await,
            },
            Stage::Idle | Stage::Ready { .. } | Stage::Committing { .. } => {
                std::future::pending().await
            }
        }
    }

    /// Takes note of a step.
    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Due => {
                self.due = None;
                let order = Order {
                    tables: Vec::new(),
                    is_complete: false,
                    retention: self.workshop.settings.retention,
                };
                self.begin(None, order);
            }
            Step::Prepared(prepared) => self.prepared(*prepared),
            Step::Swept(swept) => {
                self.stage = Stage::Idle;
                match swept {
                    Ok(Swept { removed, waiting }) => {
                        if let Some(run) = &mut self.run {
                            run.report.orphans_removed = removed;
                            run.report.orphans_waiting = waiting;
                        }
                    }
                    Err(error) => {
                        let error = cdc_core::chain(&error);
                        tracing::warn!(error, "objects without a reference not removed");
                    }
                }
                self.end_run();
            }
        }
    }

    fn begin(&mut self, request: Option<i64>, order: Order) {
        self.run = Some(Run {
            request,
            order,
            tables: VecDeque::new(),
            report: CompactReport::default(),
            began: Instant::now(),
            files_in: 0,
            files_out: 0,
        });
    }

    fn prepared(&mut self, prepared: Result<Option<Prepared>, Error>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        let Stage::Preparing { table, .. } = stage else { return };
        match prepared {
            // it was stopped; so is the session
            Ok(None) => {}
            Ok(Some(prepared)) => {
                self.stage = Stage::Ready { table, prepared: Box::new(prepared) };
            }
            Err(error) => {
                let reason = cdc_core::chain(&error);
                tracing::warn!(%table, error = reason, "compaction failed");
                self.outcome(&table, TableResult::Skipped { reason }, 0);
            }
        }
    }

    /// Starts what can be started, given the committed state between two flushes. `hasher` gives the
    /// hasher of a table's key index.
    pub(crate) fn advance(
        &mut self,
        state: &CommitState,
        hasher: impl Fn(&TableName) -> Option<IdentityHasher>,
    ) {
        if self.run.is_none()
            && let Some((request, order)) = self.asked.pop_front()
        {
            self.begin(Some(request), order);
        }
        self.skip_what_is_done(state);
        if !matches!(self.stage, Stage::Idle) {
            return;
        }
        let Some(run) = &mut self.run else { return };
        if run.tables.is_empty() && run.report.tables.is_empty() {
            run.list(&state.manifest.value);
        }
        while let Some((table, tries)) = run.tables.pop_front() {
            match self.workshop.job(state, &table, &run.order, hasher(&table), &self.stop) {
                Ok(job) => {
                    run.tables.push_front((table.clone(), tries));
                    self.stage = Stage::Preparing { table, job: tokio::spawn(job.run()) };
                    return;
                }
                Err(reason) => run.report.tables.push(TableOutcome {
                    table: table.to_string(),
                    result: TableResult::Skipped { reason },
                    purged: 0,
                }),
            }
        }
        let sweep = self.workshop.sweep(state, &self.stop);
        self.stage = Stage::Sweeping { job: tokio::spawn(sweep.run()) };
    }

    /// A table for which nothing is to be committed is done.
    fn skip_what_is_done(&mut self, state: &CommitState) {
        let Stage::Ready { table, prepared } = &self.stage else { return };
        let entry = state.manifest.value.tables.get(table);
        if !entry.is_some_and(TableEntry::is_written) {
            // its rows are no matter of ours meanwhile
            let (table, result) =
                (table.clone(), TableResult::Skipped { reason: STANDSTILL.into() });
            self.stage = Stage::Idle;
            self.outcome(&table, result, 0);
            return;
        }
        if prepared.rewrite.is_some() || prepared.purge.is_some() {
            return;
        }
        let (table, result) = (table.clone(), up_to_date(&state.manifest.value, table));
        self.stage = Stage::Idle;
        self.outcome(&table, result, 0);
    }

    /// Whether a table is being rewritten, or waits to be committed.
    pub(crate) fn is_at(&self, table: &TableName) -> bool {
        match &self.stage {
            Stage::Preparing { table: at, .. }
            | Stage::Ready { table: at, .. }
            | Stage::Committing { table: at } => at == table,
            Stage::Idle | Stage::Sweeping { .. } => false,
        }
    }

    /// Gives up what was begun with a table, whose rows are about to be written anew; it has its turn
    /// again afterwards. Whether files of it may still be on their way.
    pub(crate) async fn give_up(&mut self, table: &TableName) -> bool {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        match stage {
            Stage::Preparing { table: at, job } if at == *table => {
                job.abort();
                drop(job.await);
                true
            }
            Stage::Ready { table: at, .. } if at == *table => true,
            other => {
                self.stage = other;
                false
            }
        }
    }

    /// The table that waits to be committed.
    pub(crate) fn ready(&self) -> Option<&TableName> {
        match &self.stage {
            Stage::Ready { table, .. } => Some(table),
            _ => None,
        }
    }

    /// Takes what is to be committed; [`Compactor::finished`] must follow.
    pub(crate) fn take_ready(&mut self) -> Option<Finish> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Ready { table, prepared } => {
                self.stage = Stage::Committing { table: table.clone() };
                let retention_text = self.workshop.settings.retention_text.clone();
                Some(Finish { table, prepared: *prepared, retention_text })
            }
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// Notes how the commit ended.
    pub(crate) fn finished(&mut self, finished: &Finished, manifest: &Manifest) {
        if !matches!(&self.stage, Stage::Committing { table } if *table == finished.table) {
            return;
        }
        self.stage = Stage::Idle;
        let Finished { table, compacted, purged, dropped, .. } = finished;
        if let Some(reason) = dropped {
            tracing::warn!(%table, reason, "compaction dropped");
            if let Some((_, tries)) = self.run.as_mut().and_then(|run| run.tables.front_mut())
                && *tries + 1 < TRIES_MAX
            {
                *tries += 1;
                return;
            }
            self.outcome(table, TableResult::Skipped { reason: reason.clone() }, *purged);
            return;
        }
        if let (Some(run), Some(compacted)) = (&mut self.run, compacted) {
            run.files_in += compacted.files_in;
            run.files_out += compacted.files_out;
        }
        let result = match compacted {
            Some(compacted) => compacted.result(),
            None => up_to_date(manifest, table),
        };
        self.outcome(table, result, *purged);
    }

    /// Enters how a table ended, and leaves it.
    fn outcome(&mut self, table: &TableName, result: TableResult, purged: u64) {
        let Some(run) = &mut self.run else { return };
        run.tables.retain(|(waiting, _)| waiting != table);
        run.report.tables.push(TableOutcome { table: table.to_string(), result, purged });
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        let took = run.began.elapsed();
        self.meters.compact_duration.observe(took.as_secs_f64());
        let purged: u64 = run.report.tables.iter().map(|table| table.purged).sum();
        tracing::info!(
            tables = run.report.tables.len(),
            files_in = run.files_in,
            files_out = run.files_out,
            purged,
            orphans_removed = run.report.orphans_removed,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "compaction complete"
        );
        if !run.report.has_failure() {
            self.last_success = self.clock.now();
        }
        self.due = self.workshop.settings.interval.map(|interval| Instant::now() + interval);
        if let Some(request) = run.request {
            self.reports.insert(request, run.report);
            while self.reports.len() > REPORTS_MAX {
                self.reports.pop_first();
            }
        }
    }

    /// Shows how long the last success is ago.
    pub(crate) fn measure(&self) {
        let now = self.clock.now();
        let ago = (now - self.last_success).to_std().unwrap_or(Duration::ZERO);
        self.meters.compact_staleness.set(ago.as_secs_f64());
    }

    /// Ends what is at work and waits for it, so that a later run finds files as they stay.
    pub(crate) async fn settle(&mut self) {
        self.stop.cancel();
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Preparing { job, .. } => {
                job.abort();
                drop(job.await);
            }
            Stage::Sweeping { job } => {
                job.abort();
                drop(job.await);
            }
            Stage::Idle | Stage::Ready { .. } | Stage::Committing { .. } => {}
        }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Run {
    /// The tables of the order, or all that are written.
    fn list(&mut self, manifest: &Manifest) {
        let all = manifest.active_tables().map(|(table, _)| table);
        let wanted =
            all.filter(|table| self.order.tables.is_empty() || self.order.tables.contains(table));
        self.tables = wanted.map(|table| (table.clone(), 0)).collect();
    }
}

impl Workshop {
    /// What a process works with that has this byte budget.
    pub(crate) fn new(
        lake: &LakeSettings,
        settings: &CompactionSettings,
        buffer_bytes_max: usize,
    ) -> Workshop {
        Workshop {
            settings: settings.clone(),
            compression: lake.compression,
            memory_bytes_max: buffer_bytes_max / MEMORY_PART,
            state_dir: lake.state_dir.clone(),
        }
    }

    /// The job of a table, or why it is left alone.
    pub(crate) fn job(
        &self,
        state: &CommitState,
        table: &TableName,
        order: &Order,
        hasher: Option<IdentityHasher>,
        stop: &CancellationToken,
    ) -> Result<Job, String> {
        let entry = state.manifest.value.tables.get(table);
        let written = entry.filter(|entry| TableEntry::is_written(entry));
        let (Some(entry), Some(committed)) = (written, state.tables.get(table)) else {
            return Err(STANDSTILL.to_owned());
        };
        if committed.covered() > state.manifest.value.commit_lsn || committed.ahead.is_some() {
            return Err("a crash left the table ahead of the manifest; hint: start the daemon, it catches up".to_owned());
        }
        let thresholds = self.thresholds();
        let wanted = match order.is_complete {
            false => Some(Wanted::Worn(thresholds)),
            true => (entry.latest_delta_epoch > entry.base_epoch).then_some(Wanted::Complete),
        };
        let now = state.lake.clock.now();
        let cutoff = order
            .retention
            .and_then(|retention| now.checked_sub_signed(TimeDelta::from_std(retention).ok()?));
        Ok(Job {
            lake: state.lake.clone(),
            table: table.clone(),
            schema: Arc::clone(&committed.schema),
            constants: Constants::default(),
            committed: committed.clone(),
            latest_epoch: entry.latest_delta_epoch,
            wanted,
            thresholds,
            cutoff,
            compression: self.compression,
            memory_bytes_max: self.memory_bytes_max,
            state_dir: self.state_dir.clone(),
            hasher,
            attempts_skipped: 0,
            stop: stop.clone(),
        })
    }

    /// The job that writes all rows of a table anew for a schema whose new columns have values in
    /// them; nothing of the table may be on its way into the lake.
    pub(crate) fn filling(
        &self,
        state: &CommitState,
        filling: &Filling,
        stop: &CancellationToken,
    ) -> Option<Job> {
        let table = &filling.schema.table;
        let entry = state.manifest.value.tables.get(table)?;
        Some(Job {
            lake: state.lake.clone(),
            table: table.clone(),
            committed: state.tables.get(table)?.clone(),
            schema: Arc::clone(&filling.schema),
            constants: filling.constants.clone(),
            latest_epoch: entry.latest_delta_epoch,
            wanted: Some(Wanted::Complete),
            thresholds: self.thresholds(),
            cutoff: None,
            compression: self.compression,
            memory_bytes_max: self.memory_bytes_max,
            state_dir: self.state_dir.clone(),
            hasher: filling.hasher,
            attempts_skipped: filling.attempts_skipped,
            stop: stop.clone(),
        })
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds {
            target_file_bytes: self.settings.target_file_bytes,
            max_delete_ratio: self.settings.max_delete_ratio,
        }
    }

    /// A sweep of the tables as they are.
    pub(crate) fn sweep(&self, state: &CommitState, stop: &CancellationToken) -> Sweep {
        // one that is not written may be made anew meanwhile
        let is_written = |table: &TableName| {
            let entry = state.manifest.value.tables.get(table);
            entry.is_some_and(TableEntry::is_written)
        };
        let pairs = state.tables.iter().filter(|(table, _)| is_written(table));
        Sweep {
            lake: state.lake.clone(),
            manifest: state.manifest.value.clone(),
            pairs: pairs.map(|(table, at)| (table.clone(), at.pair.clone())).collect(),
            state_dir: self.state_dir.clone(),
            grace: self.settings.orphan_grace,
            began: state.lake.clock.now(),
            stop: stop.clone(),
        }
    }
}

impl Compacted {
    /// The same as a report has it.
    pub(crate) fn result(&self) -> TableResult {
        TableResult::Compacted {
            deltas: self.deltas,
            base_epoch: self.epoch,
            is_complete: self.is_complete,
            rows: self.rows,
            applied: self.applied,
        }
    }
}

/// Nothing was to be rewritten.
pub(crate) fn up_to_date(manifest: &Manifest, table: &TableName) -> TableResult {
    let entry = manifest.tables.get(table);
    TableResult::UpToDate {
        base_epoch: entry.map_or(0, |entry| entry.base_epoch.0),
        latest_epoch: entry.map_or(0, |entry| entry.latest_delta_epoch.0),
    }
}
