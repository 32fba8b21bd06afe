//! Compaction in the ingest loop: it is handed the committed state between two flushes, and what it
//! has ready is committed as a flush is.
//!
//! A table's rows may move only while its encoder has no epoch open: deletes that it has found name
//! rows where they were. So the commit either follows the flush that closed the epoch, in the same
//! job, or stands alone when the table has no changes; the encoder then waits for it as it waits for
//! a flush.

use cdc_core::TableName;

use super::flushing::{RunningFlush, Then};
use super::{Flushed, Ingest};
use crate::compact::{Finish, Order, RunState};
use crate::control::{CompactOrder, CompactState, Reply};
use crate::cut::{grant, refuse};

impl Ingest<'_> {
    /// Starts what can be started, and commits what is ready if its table has no changes.
    pub(super) fn compact_if_ready(&mut self) {
        if self.draining || self.flush.is_some() {
            return;
        }
        self.advance_compaction();
        let Some(finish) = self.take_finish() else { return };
        let Some(mut state) = self.state.take() else { return };
        let job = tokio::spawn(async move {
            let outcome = crate::flush::compact(&mut state, finish).await;
            Flushed { state, outcome }
        });
        self.flush = Some(RunningFlush { job, token: None, then: Then::Nobody });
    }

    /// Starts what can be started while no flush has the committed state; called before each, so that
    /// flushes without a pause leave it its turn.
    pub(super) fn advance_compaction(&mut self) {
        let Some(state) = self.state.as_ref().filter(|_| !self.draining) else { return };
        let lanes = &self.lanes;
        self.compactor.advance(state, |table| lanes.hasher(table));
    }

    /// What is to be committed now: something is ready, and its table's encoder stands still until
    /// [`crate::lanes::Lanes::reopen`].
    pub(super) fn take_finish(&mut self) -> Option<Finish> {
        let table = self.compactor.ready()?;
        if self.draining || !self.lanes.hold(table) {
            return None;
        }
        self.compactor.take_ready()
    }

    /// Notes a run that is asked for.
    pub(super) fn compaction_asked(&mut self, request: i64, asked: CompactOrder, reply: Reply) {
        let mut tables = Vec::with_capacity(asked.tables.len());
        for name in &asked.tables {
            match name.parse::<TableName>() {
                Ok(table) => tables.push(table),
                Err(_) => return refuse(reply, &format!("`{name}` is not the name of a table")),
            }
        }
        if self.draining {
            return refuse(reply, "the daemon stops");
        }
        let retention = asked.retention_millis.map(std::time::Duration::from_millis);
        self.compactor.ask(request, Order { tables, is_complete: true, retention });
        grant(reply, &());
    }

    /// Tells how a run stands.
    pub(super) fn tell_compaction(&self, request: i64, reply: Reply) {
        match self.compactor.state_of(request) {
            RunState::Running => grant(reply, &CompactState { report: None }),
            RunState::Finished(report) => grant(reply, &CompactState { report: Some(report) }),
            RunState::Unknown => refuse(
                reply,
                "the session that compacted has ended; hint: run `pgcdc compact` again",
            ),
        }
    }
}
