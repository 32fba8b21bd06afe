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
mod flushing;
mod schema;
mod table_ops;

use std::time::Duration;

use cdc_core::{ChangePosition, Epoch, Lsn, RowChange, failpoint};
use cdc_wal::{AckToken, Acker, Block, Commit, Event, Progress, RelationCache, WalStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::Batch;
use crate::commit::CommitState;
use crate::compact::{Compactor, Step, Workshop};
use crate::control::{Ask, Command, Reply, VerifiedRecord};
use crate::cut::{CutState, grant};
use crate::evolve::Found;
use crate::flush::Flushed;
use crate::lanes::Lanes;
use crate::live::LiveFacts;
use crate::meters::{Meters, level};
use crate::recover::CatchUp;
use crate::settings::{DaemonSettings, TruncateMode};
use crate::table_ops::{CopyContext, CopyNews};
use crate::{Error, quarantine};

use self::flushing::{RunningFlush, joined};
pub(crate) use self::schema::Schemas;
use self::table_ops::TableOps;

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
