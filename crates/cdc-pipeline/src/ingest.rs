//! The ingest loop: one owner of everything that is not yet committed.
//!
//! ```text
//! next_action ──> Block ──> rows into lanes ──> chunks encoded on worker threads
//!      ▲           FlushDue / Drain ──> batch closed ──> flush job ──┐
//!      └────────── Flushed(receipt) ──> confirm ◀────────────────────┘
//! ```
//! The next batch fills while a flush runs; only one flush runs at a time. Requests from outside (an
//! exact cut, a record of what was verified) come in as actions too. An error ends the session
//! with nothing confirmed beyond the last receipt; the next session starts at the manifest.

mod compaction;
mod schema;
mod table_ops;

use std::time::Duration;

use cdc_core::{ChangePosition, Epoch, Lsn, RowChange, TableName, failpoint};
use cdc_wal::{AckToken, Acker, Block, Commit, Event, Progress, RelationCache, WalStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::batch::Batch;
use crate::commit::{BatchName, CommitState, FlushReceipt};
use crate::compact::{Compactor, Step, Workshop};
use crate::control::{Ask, Command, Reply, VerifiedRecord};
use crate::cut::{CutState, grant};
use crate::evolve::Found;
use crate::flush::{FlushJob, Flushed};
use crate::lanes::Lanes;
use crate::live::LiveFacts;
use crate::meters::{Meters, level};
use crate::recover::CatchUp;
use crate::settings::{DaemonSettings, TruncateMode};
use crate::table_ops::{CopyContext, CopyNews};
use crate::{Error, quarantine};

pub(crate) use self::schema::Schemas;
use self::table_ops::TableOps;

/// Shortest time between two manifest writes that only raise the covered position.
const COVER_INTERVAL: Duration = Duration::from_secs(30);

/// Rows gathered and row groups in the making, of all tables: this part of the byte budget.
const LANES_PART: usize = 4;

/// One session: from an open stream to a drain or an error.
pub(crate) struct Ingest<'s> {
    settings: &'s DaemonSettings,
    stream: WalStream,
    acker: Acker,
    progress: watch::Receiver<Progress>,
    relations: RelationCache,
    lanes: Lanes,
    batch: Batch,
    /// Leave to confirm the batch, from its last commit.
    token: Option<AckToken>,
    transaction: Option<Transaction>,
    idle: Option<Standstill>,
    /// The committed state; with the flush job while one runs.
    state: Option<CommitState>,
    flush: Option<RunningFlush>,
    began: Instant,
    last_flush_began: Option<Instant>,
    last_cover: Option<Instant>,
    /// The furthest position that some table reached beyond the manifest before a crash. The first
    /// cut is not below it.
    catch_up: Option<CatchUp>,
    /// A transaction that begins an epoch, by the LSN of its commit record.
    cut_before: Option<Lsn>,
    epoch: Epoch,
    stop: CancellationToken,
    draining: bool,
    live: watch::Sender<LiveFacts>,
    cut: CutState<'s>,
    /// What is to be noted in the manifest once no flush runs.
    verified: Option<(VerifiedRecord, Reply)>,
    compactor: Compactor,
    schemas: Schemas,
    ops: TableOps,
    meters: Meters,
    /// What of the reader's waits for room is counted already.
    counted_waits: (u64, Duration),
    /// Changes that their table had already, not counted yet.
    replayed: u64,
}

struct RunningFlush {
    job: JoinHandle<Flushed>,
    token: Option<AckToken>,
    then: Then,
}

/// Who is told when a flush is in the manifest.
enum Then {
    Nobody,
    /// The one who asked for a cut.
    Cut,
    /// The one who asked for a record.
    Recorded(Reply),
}

/// The transaction being received.
struct Transaction {
    final_lsn: Lsn,
    commit_micros: i64,
    xid: u32,
    seq: u64,
}

/// A position at which nothing of ours is open.
#[derive(Clone, Copy)]
struct Standstill {
    lsn: Lsn,
    token: AckToken,
}

enum Action {
    Block(Option<Block>),
    Flushed(Box<Flushed>),
    FlushDue,
    CoverDue,
    Progress,
    Drain,
    Asked(Ask),
    HoldOver,
    Compaction(Step),
    Found(Box<Found>),
    Copy(CopyNews),
    GiveUpCopy,
}

/// What a session starts from.
pub(crate) struct Start {
    pub(crate) stream: WalStream,
    pub(crate) state: CommitState,
    pub(crate) lanes: Lanes,
    pub(crate) catch_up: Option<CatchUp>,
    pub(crate) schemas: Schemas,
    /// What copies of tables need; without it none is made.
    pub(crate) copies: Option<CopyContext>,
}

impl<'s> Ingest<'s> {
    pub(crate) fn new(
        settings: &'s DaemonSettings,
        start: Start,
        stop: CancellationToken,
        live: watch::Sender<LiveFacts>,
    ) -> Ingest<'s> {
        let Start { stream, state, lanes, catch_up, schemas, copies } = start;
        let meters = state.lake.meters.clone();
        let manifest = &state.manifest.value;
        live.send_modify(|live| live.last_error = quarantine::summary(manifest));
        meters.table_states(manifest);
        let mut batch = Batch::after(manifest.covered_lsn);
        if catch_up.is_none() && !state.ahead_in_schema().is_empty() {
            batch.change_schema(Instant::now());
        }
        Ingest {
            settings,
            acker: stream.acker(),
            progress: stream.progress(),
            stream,
            relations: RelationCache::new(),
            lanes,
            batch,
            token: None,
            transaction: None,
            idle: None,
            epoch: manifest.epoch.next(),
            compactor: Compactor::new(workshop(settings), &state.lake, manifest),
            ops: TableOps::new(copies, manifest),
            state: Some(state),
            flush: None,
            began: Instant::now(),
            last_flush_began: None,
            last_cover: None,
            catch_up,
            cut_before: None,
            stop,
            draining: false,
            live,
            cut: CutState::new(None),
            verified: None,
            schemas,
            meters,
            counted_waits: (0, Duration::ZERO),
            replayed: 0,
        }
    }

    /// Answers these requests as well.
    pub(crate) fn answering(mut self, asks: &'s mut mpsc::Receiver<Ask>) -> Self {
        self.cut = CutState::new(Some(asks));
        self
    }

    /// Ends an epoch before the transaction whose commit record is at this position.
    pub(crate) fn cutting_before(mut self, final_lsn: Option<Lsn>) -> Self {
        self.cut_before = final_lsn;
        self
    }

    /// Runs until a drain is complete. After an error nothing of the session is at work any more,
    /// so that the next one finds files, tables and indexes as they stay.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let result = self.follow().await;
        self.compactor.settle().await;
        self.ops.copies.settle().await;
        if result.is_err() {
            // a flush whose failure ended the session has been waited for
            if let Some(flush) = self.flush.take().filter(|flush| !flush.job.is_finished()) {
                // how it ended is in the manifest, where the next session looks
                let _ = flush.job.await;
            }
            self.lanes.settle().await;
            return result;
        }
        Ok(self.stream.close().await?)
    }

    async fn follow(&mut self) -> Result<(), Error> {
        // copies that the manifest names begin with the session
        self.advance_tables().await?;
        while !self.is_drained() {
            let action = self.next_action().await?;
            self.apply(action).await?;
            self.advance_tables().await?;
            self.flush_if_due().await?;
            self.record_if_asked();
            self.compact_if_ready();
            self.cover_if_idle();
            self.report();
        }
        self.lanes.failure().await
    }

    fn is_drained(&self) -> bool {
        self.draining && self.flush.is_none() && self.transaction.is_none() && self.batch.is_empty()
    }

    /// Waits for the next thing to do. Cancel safe in each branch: a block, a job's end and a
    /// signal stay where they are until they are taken.
    async fn next_action(&mut self) -> Result<Action, Error> {
        let takes_blocks = self.takes_blocks();
        let (due, cover_due) = (self.flush_due_at(), self.cover_due_at());
        tokio::select! {
            biased;
            flushed = joined(&mut self.flush) => Ok(Action::Flushed(Box::new(flushed?))),
            () = self.stop.cancelled(), if !self.draining => Ok(Action::Drain),
            () = until(due) => Ok(Action::FlushDue),
            () = until(cover_due) => Ok(Action::CoverDue),
            () = until(self.cut.held_until()) => Ok(Action::HoldOver),
            () = until(self.ops.given_up_at()) => Ok(Action::GiveUpCopy),
            ask = self.cut.next_ask() => Ok(Action::Asked(ask)),
            step = self.compactor.next_step(), if !self.draining => {
                Ok(Action::Compaction(step))
            }
            news = self.ops.copies.next_news(), if !self.draining => Ok(Action::Copy(news)),
            found = self.schemas.next_found() => Ok(Action::Found(Box::new(found))),
            changed = self.progress.changed() => match changed {
                Ok(()) => Ok(Action::Progress),
                // the reader has ended; the stream tells why
                Err(_) => Ok(Action::Block(self.stream.next_block().await?)),
            },
            block = self.stream.next_block(), if takes_blocks => Ok(Action::Block(block?)),
        }
    }

    /// Intake stops while a flush runs and half of the byte budget has gathered behind it, while
    /// the changes of a table that is being copied fill their part of it, while somebody holds it, and
    /// in a drain once no transaction is open and the batch can be cut.
    fn takes_blocks(&self) -> bool {
        let is_full =
            self.flush.is_some() && self.batch.bytes >= self.settings.buffer_bytes_max / 2;
        let is_cuttable = self.transaction.is_none() && !self.must_catch_up();
        let is_drained = self.draining && is_cuttable;
        let has_deferred = self.ops.is_full(self.settings.buffer_bytes_max);
        !is_full && !has_deferred && !is_drained && !self.cut.is_held()
    }

    /// When the batch is to be flushed; `None` while it cannot be.
    fn flush_due_at(&self) -> Option<Instant> {
        if self.flush.is_some() || self.transaction.is_some() || self.must_catch_up() {
            return None;
        }
        let urgent = self.draining || self.progress.borrow().drain_requested;
        if urgent && !self.batch.is_empty() {
            return Some(Instant::now());
        }
        self.batch.due(&self.settings.flush, self.last_flush_began)
    }

    fn must_catch_up(&self) -> bool {
        self.catch_up.is_some_and(|furthest| self.batch.lsn_to < furthest.lsn)
    }

    async fn apply(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Block(Some(block)) => self.consume(block).await,
            Action::Block(None) => Err(Error::StreamEnded),
            Action::Flushed(flushed) => self.flushed(*flushed).await,
            Action::Drain => {
                tracing::info!(rows = self.batch.rows, "drain started");
                self.draining = true;
                self.cut.abandon("the daemon stops");
                Ok(())
            }
            Action::Asked(ask) => {
                self.asked(ask);
                Ok(())
            }
            Action::HoldOver => {
                self.cut.expire();
                Ok(())
            }
            Action::Compaction(step) => {
                self.compactor.apply(step);
                Ok(())
            }
            Action::Found(found) => {
                self.schemas.keep(*found);
                if self.transaction.is_none() { self.apply_found().await } else { Ok(()) }
            }
            Action::Copy(news) => self.copy_news(news).await,
            Action::GiveUpCopy => {
                self.give_up_copy().await;
                Ok(())
            }
            Action::FlushDue | Action::CoverDue | Action::Progress => Ok(()),
        }
    }

    fn asked(&mut self, ask: Ask) {
        let Ask { id, command, reply } = ask;
        match command {
            Command::Hold { max_millis } => {
                let received = self.progress.borrow().received;
                self.cut.hold(id, Duration::from_millis(max_millis), received, reply);
            }
            Command::Cut { hold, lsn } => self.cut.seek(hold, lsn, reply),
            Command::Release { hold } => self.cut.release(hold, reply),
            Command::RecordVerified(record) => self.verified = Some((record, reply)),
            Command::Compact(order) => self.compaction_asked(id, order, reply),
            Command::Table(order) => self.table_asked(order, reply),
            Command::CompactState { request } => self.tell_compaction(request, reply),
            Command::Reconcile => {
                self.schemas.look();
                grant(reply, &());
            }
        }
    }

    /// Takes all events of a block, flushing at the commit boundaries that are due.
    async fn consume(&mut self, mut block: Block) -> Result<(), Error> {
        self.batch.bytes += block.byte_len();
        let mut relations = std::mem::take(&mut self.relations);
        let mut events = block.events(&mut relations);
        let mut now = Instant::now();
        while let Some(event) = events.next()? {
            match event {
                Event::Begin { final_lsn, commit_micros, xid } => {
                    lose_stream_at("s1")?;
                    self.idle = None;
                    self.caught_up_by(final_lsn);
                    self.schemas.reach(final_lsn);
                    self.apply_found().await?;
                    self.close_at_cut(final_lsn).await?;
                    // behind an exact cut: it makes a cut at the copy
                    self.apply_copies().await?;
                    self.end_epoch_before(final_lsn).await?;
                    now = Instant::now();
                    self.transaction = Some(Transaction { final_lsn, commit_micros, xid, seq: 0 });
                }
                Event::Relation(relation) => {
                    self.lanes.describe(relation);
                }
                Event::Change { relation, lsn, change } => {
                    self.change(relation, lsn, &change, now).await?;
                    lose_stream_at("s2")?;
                }
                Event::Commit(commit) => {
                    lose_stream_at("s3")?;
                    self.committed(commit);
                    lose_stream_at("s4")?;
                    self.flush_if_due().await?;
                }
                Event::Idle(mark) => {
                    self.caught_up_by(mark.wal_end);
                    self.schemas.reach(mark.wal_end);
                    self.apply_found().await?;
                    self.idle = Some(Standstill { lsn: mark.wal_end, token: mark.token() });
                    self.close_at_cut(mark.wal_end).await?;
                    self.apply_copies().await?;
                    self.flush_if_due().await?;
                }
                _ => {}
            }
        }
        drop(events);
        self.relations = relations;
        drop(block);
        self.lanes.shrink_to(self.settings.buffer_bytes_max / LANES_PART).await
    }

    async fn change(
        &mut self,
        relation: u32,
        lsn: Lsn,
        change: &RowChange<'_>,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(transaction) = &mut self.transaction else {
            return Err(Error::OutsideTransaction { lsn });
        };
        if self.lanes.is_unsettled(relation, transaction.final_lsn) {
            let xid = transaction.xid;
            self.settle(relation, xid, now).await?;
        }
        let Some(transaction) = &mut self.transaction else {
            return Err(Error::OutsideTransaction { lsn });
        };
        let at = ChangePosition {
            lsn,
            commit_micros: transaction.commit_micros,
            xid: transaction.xid,
            seq: transaction.seq,
        };
        if self.ops.defers(relation) {
            return self.defer(relation, at, change);
        }
        let Some(lane) = self.lanes.of(relation) else {
            transaction.seq += self.lanes.unwritten_numbers(relation, change);
            return Ok(());
        };
        if matches!(change, RowChange::Truncate) {
            match self.settings.replication.truncate {
                TruncateMode::Apply => {}
                TruncateMode::Ignore => {
                    transaction.seq += 1;
                    return Ok(());
                }
                TruncateMode::Halt => {
                    return Err(Error::Truncated { table: lane.table().clone(), lsn });
                }
            }
        }
        if lane.covers(transaction.final_lsn) {
            transaction.seq += lane.sequence_numbers(change);
            self.replayed += 1;
            return Ok(());
        }
        let taken = match lane.push(change, &at, self.epoch) {
            Ok(used) => {
                transaction.seq += used;
                self.batch.add(now);
                if matches!(change, RowChange::Truncate) {
                    // the rows of before are gone, and the source has other files
                    let table = lane.table().clone();
                    self.lanes.set_filenode(&table, None);
                    return Ok(());
                }
                if lane.is_full() { lane.seal(self.epoch).await } else { Ok(()) }
            }
            Err(error) => {
                transaction.seq += lane.sequence_numbers(change);
                Err(error)
            }
        };
        let Err(error) = taken else { return Ok(()) };
        let table = lane.table().clone();
        let lost = self.lanes.stop(&table, error, self.batch.lsn_from)?;
        self.batch.stop_table(lost, now);
        Ok(())
    }

    fn committed(&mut self, commit: Commit) {
        self.transaction = None;
        self.lanes.commit(commit.end_lsn);
        self.ops.commit(commit.end_lsn);
        self.batch.commit(commit.end_lsn, commit.commit_micros);
        self.token = Some(commit.token());
        if self.batch.is_empty() {
            // nothing of the transaction is ours, and it may be the last for long
            self.idle = Some(Standstill { lsn: commit.end_lsn, token: commit.token() });
        }
    }

    /// Nothing of ours below `reached` is to come any more: where the tables stand is a cut, even
    /// if the transaction that brought them there is not sent again.
    fn caught_up_by(&mut self, reached: Lsn) {
        if let Some(furthest) = self.catch_up
            && self.transaction.is_none()
            && self.batch.lsn_to < furthest.lsn
            && reached >= furthest.lsn
        {
            self.batch.commit(furthest.lsn, furthest.commit_micros);
        }
    }

    async fn flush_if_due(&mut self) -> Result<(), Error> {
        let caught_up = self.catch_up.is_some_and(|furthest| self.batch.lsn_to >= furthest.lsn);
        let is_free = self.flush.is_none() && self.transaction.is_none();
        let is_due = self.flush_due_at().is_some_and(|due| due <= Instant::now());
        if !(is_free && (is_due || caught_up)) {
            return Ok(());
        }
        self.start_flush(None).await
    }

    /// Ends the batch at the cut that is asked for, once nothing below `reached` is to come, and
    /// waits for the flush before it.
    async fn close_at_cut(&mut self, reached: Lsn) -> Result<(), Error> {
        let Some(cut) = self.cut.reached(reached) else { return Ok(()) };
        if self.flush.is_some() {
            let flushed = joined(&mut self.flush).await?;
            self.flushed(flushed).await?;
        }
        if self.batch.is_empty() && self.catch_up.is_none() {
            self.start_cover(cut, None, Then::Cut);
            return Ok(());
        }
        self.start_flush(Some(cut)).await
    }

    /// Flushes the batch; with a `cut` behind its last commit the manifest covers that as well.
    async fn start_flush(&mut self, cut: Option<Lsn>) -> Result<(), Error> {
        self.advance_compaction();
        let Some(mut state) = self.state.take() else { return Ok(()) };
        lose_stream_at("s5")?;
        self.catch_up = None;
        // a batch without a transaction, of a table that changed alone, stands where the last one did
        let last = state.manifest.value.commit_ts.timestamp_micros();
        let is_bare = self.batch.commit_micros == 0;
        let name = BatchName {
            id: Uuid::now_v7(),
            epoch: self.epoch,
            lsn_from: self.batch.lsn_from,
            lsn_to: self.batch.lsn_to,
            commit_micros: if is_bare { last } else { self.batch.commit_micros },
        };
        let parts = self.lanes.close_epoch(self.epoch.next(), name.lsn_from).await?;
        let (handovers, changes) = (self.ops.take_handovers(), self.ops.take_changes());
        // an exact cut is waited for, a compaction is not; rows of a table that leaves do not move
        let may_compact = cut.is_none() && changes.is_empty();
        let finish = if may_compact { self.take_finish() } else { None };
        let job = FlushJob {
            name,
            parts,
            rows: self.batch.rows,
            evolved: self.lanes.evolved(),
            filenodes: self.lanes.filenodes(),
            stops: self.lanes.take_stops(),
            handovers,
            changes,
            on_error: self.settings.replication.types.on_error,
        };
        self.leave_lanes(&job.changes);
        let job = tokio::spawn(async move {
            let mut outcome = job.run(&mut state).await;
            if let (Ok(done), Some(cut)) = (&mut outcome, cut) {
                match crate::flush::cover(&mut state, cut).await {
                    Ok(covered) => done.receipt = covered.receipt,
                    Err(error) => outcome = Err(error),
                }
            }
            if let (Ok(done), Some(finish)) = (&mut outcome, finish) {
                if failpoint("c7") {
                    let outcome = Err(Error::StreamEnded);
                    return Flushed { state, outcome };
                }
                match crate::flush::compact(&mut state, finish).await {
                    Ok(compacted) => {
                        (done.finished, done.moved) = (compacted.finished, compacted.moved);
                    }
                    Err(error) => outcome = Err(error),
                }
            }
            Flushed { state, outcome }
        });
        let then = if cut.is_some() { Then::Cut } else { Then::Nobody };
        self.flush = Some(RunningFlush { job, token: self.token.take(), then });
        let window = self.last_flush_began.unwrap_or(self.began).elapsed().as_secs_f64();
        self.meters.events_per_sec.set(self.batch.rows as f64 / window.max(0.001));
        self.batch = Batch::after(name.lsn_to);
        self.epoch = self.epoch.next();
        self.last_flush_began = Some(Instant::now());
        Ok(())
    }

    async fn flushed(&mut self, flushed: Flushed) -> Result<(), Error> {
        let Flushed { state, outcome } = flushed;
        // whatever its outcome, the job has ended and must not be waited for again
        let (token, then) = match self.flush.take() {
            Some(flush) => (flush.token, flush.then),
            None => (None, Then::Nobody),
        };
        let mut done = match outcome {
            Ok(done) => done,
            Err(error) => {
                // the lane whose encoding failed knows more than the job that missed its part
                self.lanes.failure().await?;
                return Err(error);
            }
        };
        lose_stream_at("s18")?;
        self.confirm(&done.receipt, token);
        if !done.stopped.is_empty() {
            self.stopped(&done.stopped);
        }
        if done.has_new_states {
            self.tables_changed(std::mem::take(&mut done.changed), &state.manifest.value).await;
        }
        self.lanes.reopen(&state, &done.tables, done.moved.take()).await?;
        if let Some(finished) = &done.finished {
            self.compactor.finished(finished, &state.manifest.value);
        }
        match then {
            Then::Nobody => {}
            Then::Cut => self.cut.committed(&state.manifest.value),
            Then::Recorded(reply) => grant(reply, &()),
        }
        self.state = Some(state);
        Ok(())
    }

    /// Tables are quarantined now, some of them by their encoder: those still have their lanes.
    fn stopped(&mut self, tables: &[TableName]) {
        for table in tables {
            let lost = self.lanes.drop_lane(table);
            if lost > 0 {
                self.batch.stop_table(lost, Instant::now());
            }
        }
    }

    /// Whether the server says that nothing of ours is to come, and nothing of ours is in flight.
    fn is_idle(&self) -> bool {
        let is_busy = self.flush.is_some() || self.transaction.is_some() || !self.batch.is_empty();
        self.idle.is_some() && !is_busy && self.catch_up.is_none()
    }

    /// When the covered position may follow the server's again. A server that was told of all that
    /// it sent says nothing more, so it is not waited for.
    fn cover_due_at(&self) -> Option<Instant> {
        self.last_cover.filter(|_| self.is_idle()).map(|last| last + COVER_INTERVAL)
    }

    /// With nothing of ours in flight the covered position follows the server's: at most every
    /// [`COVER_INTERVAL`], at once when the server waits to shut down.
    fn cover_if_idle(&mut self) {
        let Some(idle) = self.idle.filter(|_| self.is_idle()) else { return };
        let urgent = self.progress.borrow().drain_requested;
        let is_early = self.last_cover.is_some_and(|last| last.elapsed() < COVER_INTERVAL);
        if is_early && !urgent {
            return;
        }
        self.idle = None;
        self.last_cover = Some(Instant::now());
        self.start_cover(idle.lsn, Some(idle.token), Then::Nobody);
    }

    /// Raises the covered position without an epoch.
    fn start_cover(&mut self, lsn: Lsn, token: Option<AckToken>, then: Then) {
        let Some(mut state) = self.state.take() else { return };
        self.meters.events_per_sec.set(0.0);
        let job = tokio::spawn(async move {
            let outcome = crate::flush::cover(&mut state, lsn).await;
            Flushed { state, outcome }
        });
        self.flush = Some(RunningFlush { job, token, then });
    }

    /// Notes in the manifest what was verified, once no flush runs.
    fn record_if_asked(&mut self) {
        if self.flush.is_some() || self.state.is_none() {
            return;
        }
        let Some((record, reply)) = self.verified.take() else { return };
        let Some(mut state) = self.state.take() else { return };
        let job = tokio::spawn(async move {
            let outcome = crate::flush::record(&mut state, &record).await;
            Flushed { state, outcome }
        });
        self.flush = Some(RunningFlush { job, token: None, then: Then::Recorded(reply) });
    }

    /// The only place that confirms: what the receipt covers, never more.
    fn confirm(&mut self, receipt: &FlushReceipt, token: Option<AckToken>) {
        if let Some(token) = token.filter(|token| token.lsn() <= receipt.covered_lsn()) {
            self.acker.durable(token);
        }
        self.batch.lsn_from = self.batch.lsn_from.max(receipt.covered_lsn());
        self.batch.lsn_to = self.batch.lsn_to.max(receipt.covered_lsn());
        self.live.send_modify(|live| {
            live.epoch = receipt.epoch();
            live.confirmed_lsn = live.confirmed_lsn.max(receipt.covered_lsn());
        });
    }

    fn report(&mut self) {
        let progress = *self.progress.borrow();
        self.measure(&progress);
        let is_covered = self.batch.is_empty() && self.flush.is_none() && self.catch_up.is_none();
        let covered = self.idle.filter(|_| is_covered).map(|idle| idle.lsn);
        let now = self.state.as_ref().map(|state| state.lake.clock.now());
        self.live.send_modify(|live| {
            live.received_lsn = progress.received;
            live.server_wal_end = progress.server_wal_end;
            let covered = covered.unwrap_or(live.confirmed_lsn);
            if let Some(now) = now.filter(|_| covered >= live.covered_lsn) {
                (live.covered_lsn, live.covered_at) = (covered, now);
            }
            (live.buffer_events, live.buffer_bytes) = (self.batch.rows, self.batch.bytes);
            if self.draining {
                live.state = cdc_manifest::LiveState::Draining;
            }
        });
    }
}

impl Ingest<'_> {
    fn measure(&mut self, progress: &Progress) {
        let meters = &self.meters;
        meters.buffer_depth.set(level(self.batch.rows));
        meters.buffer_bytes.set(level(self.batch.bytes));
        meters.deferred_bytes.set(level(self.ops.deferred_bytes()));
        meters.spool_bytes.set(level(progress.spooled_bytes));
        self.compactor.measure();
        meters.replayed_events.inc_by(std::mem::take(&mut self.replayed));
        let (count, blocked) = self.counted_waits;
        meters.channel_full.inc_by(progress.full_count - count);
        meters.channel_blocked_seconds.inc_by((progress.blocked - blocked).as_secs_f64());
        self.counted_waits = (progress.full_count, progress.blocked);
    }
}

/// What rewrites of this daemon work with.
fn workshop(settings: &DaemonSettings) -> Workshop {
    Workshop::new(&settings.lake, &settings.compaction, settings.buffer_bytes_max)
}

/// The end of the running flush; pending while there is none.
async fn joined(flush: &mut Option<RunningFlush>) -> Result<Flushed, Error> {
    match flush {
        Some(running) => {
            let joined = (&mut running.job).await;
            joined.map_err(|source| Error::Worker { task: "flush", source })
        }
        None => std::future::pending().await,
    }
}

/// A failpoint of the loop: what fails there is the stream.
fn lose_stream_at(point: &str) -> Result<(), Error> {
    if failpoint(point) { Err(Error::StreamEnded) } else { Ok(()) }
}

/// Waits until an instant; for ever without one.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
