//! The ingest loop's part in flushes: when a batch is due, where it is cut, and what follows from its
//! receipt. With nothing to flush, the covered position alone is raised.

use std::time::Duration;

use cdc_core::{Lsn, TableName, failpoint};
use cdc_wal::AckToken;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Ingest, lose_stream_at};
use crate::Error;
use crate::batch::Batch;
use crate::commit::{BatchName, FlushReceipt};
use crate::control::Reply;
use crate::cut::grant;
use crate::flush::{FlushJob, Flushed};

/// Shortest time between two manifest writes that only raise the covered position.
const COVER_INTERVAL: Duration = Duration::from_secs(30);

/// A flush, or another job that has the committed state meanwhile.
pub(super) struct RunningFlush {
    pub(super) job: JoinHandle<Flushed>,
    pub(super) token: Option<AckToken>,
    pub(super) then: Then,
}

/// Who is told when a flush is in the manifest.
pub(super) enum Then {
    Nobody,
    /// The one who asked for a cut.
    Cut,
    /// The one who asked for a record.
    Recorded(Reply),
}

impl Ingest<'_> {
    /// When the batch is to be flushed; `None` while it cannot be.
    pub(super) fn flush_due_at(&self) -> Option<Instant> {
        if self.flush.is_some() || self.transaction.is_some() || self.must_catch_up() {
            return None;
        }
        let urgent = self.draining || self.progress.borrow().drain_requested;
        if urgent && !self.batch.is_empty() {
            return Some(Instant::now());
        }
        self.batch.due(&self.settings.flush, self.last_flush_began)
    }

    pub(super) fn must_catch_up(&self) -> bool {
        self.catch_up.is_some_and(|furthest| self.batch.lsn_to < furthest.lsn)
    }

    /// Nothing of ours below `reached` is to come any more: where the tables stand is a cut, even
    /// if the transaction that brought them there is not sent again.
    pub(super) fn caught_up_by(&mut self, reached: Lsn) {
        if let Some(furthest) = self.catch_up
            && self.transaction.is_none()
            && self.batch.lsn_to < furthest.lsn
            && reached >= furthest.lsn
        {
            self.batch.commit(furthest.lsn, furthest.commit_micros);
        }
    }

    pub(super) async fn flush_if_due(&mut self) -> Result<(), Error> {
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
    pub(super) async fn close_at_cut(&mut self, reached: Lsn) -> Result<(), Error> {
        let Some(cut) = self.cut.reached(reached) else { return Ok(()) };
        self.await_flush().await?;
        if self.batch.is_empty() && self.catch_up.is_none() {
            self.start_cover(cut, None, Then::Cut);
            return Ok(());
        }
        self.start_flush(Some(cut)).await
    }

    /// Flushes the batch; with a `cut` behind its last commit the manifest covers that as well.
    pub(super) async fn start_flush(&mut self, cut: Option<Lsn>) -> Result<(), Error> {
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

    /// Waits for the flush that runs, if one does.
    pub(super) async fn await_flush(&mut self) -> Result<(), Error> {
        if self.flush.is_some() {
            let flushed = joined(&mut self.flush).await?;
            self.flushed(flushed).await?;
        }
        Ok(())
    }

    pub(super) async fn flushed(&mut self, flushed: Flushed) -> Result<(), Error> {
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
    pub(super) fn cover_due_at(&self) -> Option<Instant> {
        self.last_cover.filter(|_| self.is_idle()).map(|last| last + COVER_INTERVAL)
    }

    /// With nothing of ours in flight the covered position follows the server's: at most every
    /// [`COVER_INTERVAL`], at once when the server waits to shut down.
    pub(super) fn cover_if_idle(&mut self) {
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
    pub(super) fn record_if_asked(&mut self) {
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
}

/// The end of the running flush; pending while there is none.
pub(super) async fn joined(flush: &mut Option<RunningFlush>) -> Result<Flushed, Error> {
    match flush {
        Some(running) => {
            let joined = (&mut running.job).await;
            joined.map_err(|source| Error::Worker { task: "flush", source })
        }
        None => std::future::pending().await,
    }
}
