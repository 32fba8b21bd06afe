//! The ingest loop's part in table operations: what is asked for is taken up between two flushes, and
//! written with the next.

mod takeover;

use std::collections::VecDeque;
use std::time::Duration;

use cdc_core::{Lsn, TableName};
use cdc_manifest::Manifest;
use tokio::time::Instant;

use super::Ingest;
use crate::control::{Reply, TableOrder};
use crate::cut::{grant, refuse};
use crate::table_ops::{
    Copied, Copies, CopyContext, Deferred, Handover, Planned, StateChange, Transition, to_copy,
};
use crate::{Error, quarantine};

/// Deferred changes: this part of the byte budget. What is more waits on the server.
const DEFERRED_PART: usize = 4;
/// The same once the copy is complete: room for the transaction that is open then.
const COPIED_PART: usize = 2;
/// How long it waits there for a copy to end; a stream that is not read for much longer is closed, and
/// the other tables wait with it.
const FULL_PATIENCE: Duration = Duration::from_secs(30);

/// Table operations of a session, by how far they are.
pub(crate) struct TableOps {
    /// Asked for, and not looked at yet.
    asked: VecDeque<(TableOrder, Reply)>,
    /// For the manifest, with the next flush.
    changes: Vec<StateChange>,
    /// Who is told then.
    replies: Vec<Reply>,
    /// Who is told of the flush that runs.
    flushing: Vec<Reply>,
    pub(super) copies: Copies,
    /// A copy that waits for its changes to be deferred.
    planned: Option<Planned>,
    deferred: Option<Deferred>,
    /// Since when there is no room for more of them.
    full_since: Option<Instant>,
    /// A copy that waits for the stream.
    copied: Option<Box<Copied>>,
    /// Taken over, for the manifest with the next flush.
    handovers: Vec<Handover>,
}

impl TableOps {
    /// The copies that the manifest names are to be made; without a context none is.
    pub(super) fn new(context: Option<CopyContext>, manifest: &Manifest) -> TableOps {
        let mut copies = Copies::new(context);
        for table in to_copy(manifest) {
            copies.want(table.clone());
        }
        TableOps {
            asked: VecDeque::new(),
            changes: Vec::new(),
            replies: Vec::new(),
            flushing: Vec::new(),
            copies,
            planned: None,
            deferred: None,
            full_since: None,
            copied: None,
            handovers: Vec::new(),
        }
    }

    /// Bytes of deferred changes.
    pub(super) fn deferred_bytes(&self) -> usize {
        self.deferred.as_ref().map_or(0, Deferred::memory_bytes)
    }

    /// Whether no more changes may be deferred within this byte budget.
    pub(super) fn is_full(&self, buffer_bytes_max: usize) -> bool {
        // a copy that is complete waits for the stream, not the stream for it
        let part = if self.copied.is_some() { COPIED_PART } else { DEFERRED_PART };
        self.deferred_bytes() > buffer_bytes_max / part
    }

    /// When the copy is given up because its table changes too much; none while there is room.
    pub(super) fn given_up_at(&self) -> Option<Instant> {
        self.full_since.map(|since| since + FULL_PATIENCE)
    }

    /// Whether changes of this relation are deferred.
    pub(super) fn defers(&self, oid: u32) -> bool {
        self.deferred.as_ref().is_some_and(|deferred| deferred.oid() == oid)
    }

    /// Ends the open transaction.
    pub(super) fn commit(&mut self, end_lsn: Lsn) {
        if let Some(deferred) = &mut self.deferred {
            deferred.commit(end_lsn);
        }
    }

    /// What becomes of tables with the flush that is being closed.
    pub(super) fn take_changes(&mut self) -> Vec<StateChange> {
        self.flushing.append(&mut self.replies);
        std::mem::take(&mut self.changes)
    }

    /// The tables that are followed from that flush on.
    pub(super) fn take_handovers(&mut self) -> Vec<Handover> {
        std::mem::take(&mut self.handovers)
    }

    fn let_go(&mut self) {
        (self.planned, self.deferred, self.copied) = (None, None, None);
        self.full_since = None;
    }
}

impl Ingest<'_> {
    /// Notes what is asked for; it is looked at when the committed state is at hand.
    pub(super) fn table_asked(&mut self, order: TableOrder, reply: Reply) {
        if self.draining {
            return refuse(reply, "the daemon stops");
        }
        self.ops.asked.push_back((order, reply));
    }

    /// Takes up what was asked for, and starts a copy if one waits; between two flushes.
    pub(super) async fn advance_tables(&mut self) -> Result<(), Error> {
        let is_full = self.ops.is_full(self.settings.buffer_bytes_max);
        self.ops.full_since = is_full.then(|| self.ops.full_since.unwrap_or_else(Instant::now));
        if self.draining {
            for (_, reply) in self.ops.asked.drain(..) {
                refuse(reply, "the daemon stops");
            }
            return Ok(());
        }
        while self.state.is_some() {
            let Some((order, reply)) = self.ops.asked.pop_front() else { break };
            self.admit(&order, reply).await;
        }
        match &self.state {
            Some(state) if self.ops.changes.is_empty() => {
                // a rewrite that began before takes names of files that the copy would take
                let compactor = &self.compactor;
                self.ops.copies.start_next(state, |table| compactor.is_at(table))
            }
            _ => Ok(()),
        }
    }

    async fn admit(&mut self, order: &TableOrder, reply: Reply) {
        let Some(state) = &self.state else { return };
        let Ok(table) = order.table.parse::<TableName>() else {
            return refuse(reply, &format!("`{}` is not the name of a table", order.table));
        };
        let is_busy = self.ops.changes.iter().any(|change| change.table == table)
            || self.ops.handovers.iter().any(|handover| handover.table == table);
        if is_busy {
            return refuse(reply, "its state is just being written");
        }
        match StateChange::of(&state.manifest.value, &table, order.action) {
            Err(error) => refuse(reply, &cdc_core::chain(&error)),
            Ok(None) => grant(reply, &()),
            Ok(Some(change)) => {
                self.stop_copy(&table).await;
                self.ops.changes.push(change);
                self.ops.replies.push(reply);
                self.batch.change_schema(Instant::now());
            }
        }
    }

    /// Ends the copy of a table, if one is at work.
    async fn stop_copy(&mut self, table: &TableName) {
        if self.ops.copies.at_work() == Some(table) {
            self.ops.let_go();
        }
        self.ops.copies.cancel(table).await;
    }

    /// The tables of a flush that change their state are written no more: their rows so far are in it.
    pub(super) fn leave_lanes(&mut self, changes: &[StateChange]) {
        for StateChange { table, transition } in changes {
            match transition {
                Transition::Remove => self.lanes.forget(table),
                _ => drop(self.lanes.drop_lane(table)),
            }
        }
        if !changes.is_empty() {
            self.tell_known();
        }
    }

    /// The manifest has these states now: tells whoever asked, and has tables copied.
    pub(super) async fn tables_changed(&mut self, changes: Vec<StateChange>, manifest: &Manifest) {
        if !changes.is_empty() {
            // a copy makes an index in the place of the one that a dropped encoder has
            self.lanes.settle_dropped().await;
        }
        for change in changes.into_iter().filter(StateChange::wants_copy) {
            self.ops.copies.want(change.table);
        }
        for reply in self.ops.flushing.drain(..) {
            grant(reply, &());
        }
        self.meters.table_states(manifest);
        self.live.send_modify(|live| live.last_error = quarantine::summary(manifest));
    }
}
