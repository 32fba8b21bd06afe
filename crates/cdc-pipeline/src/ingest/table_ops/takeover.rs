//! A copy and the stream: the changes of a table that is being copied are deferred, and the copied table
//! is taken over where everything below its copy has come.

use cdc_core::{ChangePosition, RowChange, TableName};
use tokio::time::Instant;

use super::super::{Ingest, Transaction};
use super::DEFERRED_PART;
use crate::Error;
use crate::lanes::Adopted;
use crate::settings::TruncateMode;
use crate::table_ops::{Copied, CopyEvent, CopyNews, Deferred, Planned, StateChange, Transition};

impl Ingest<'_> {
    /// Takes note of what a copy tells.
    pub(in crate::ingest) async fn copy_news(&mut self, news: CopyNews) -> Result<(), Error> {
        match news {
            CopyNews::Due => return Ok(()),
            CopyNews::Event(CopyEvent::Planned(planned)) => self.ops.planned = Some(planned),
            CopyNews::Event(CopyEvent::Begun(lsn)) => {
                let open = self.transaction.as_ref().map(|transaction| transaction.final_lsn);
                if let Some(deferred) = &mut self.ops.deferred {
                    deferred.begin_at(lsn, open);
                }
            }
            CopyNews::Copied(copied) => self.ops.copied = Some(copied),
            CopyNews::Failed(error) => self.copy_failed(error),
        }
        if self.transaction.is_none() { self.apply_copies().await } else { Ok(()) }
    }

    /// The changes of the table that is being copied have filled their room for too long.
    pub(in crate::ingest) async fn give_up_copy(&mut self) {
        let Some(table) = self.ops.copies.at_work().cloned() else { return };
        let bytes_max = self.settings.buffer_bytes_max / DEFERRED_PART;
        self.ops.let_go();
        let failed = self.ops.copies.give_up(Error::DeferredFull { table, bytes_max }).await;
        self.note_failed(failed);
    }

    /// The copy at work cannot be used. Unless it is tried again its table is told of.
    fn copy_failed(&mut self, error: Error) {
        self.ops.let_go();
        let failed = self.ops.copies.failed(error);
        self.note_failed(failed);
    }

    fn note_failed(&mut self, failed: Option<(TableName, String)>) {
        if let Some((table, reason)) = failed {
            let transition = Transition::Failed { reason };
            self.ops.changes.push(StateChange { table, transition });
            self.batch.change_schema(Instant::now());
        }
    }

    /// Begins to defer, or takes over what was copied, if the stream is there. No transaction is open.
    pub(in crate::ingest) async fn apply_copies(&mut self) -> Result<(), Error> {
        if let Some(Planned { oid, schema, go }) = self.ops.planned.take() {
            let policy = self.settings.replication.types.policy.unrepresentable;
            self.lanes.expect(oid);
            self.ops.deferred = Some(Deferred::new(oid, schema, policy));
            // a copy that has ended since does not want to know
            let _ = go.send(self.progress.borrow().received);
        }
        let reached = self.schemas.reached().max(self.batch.lsn_to);
        let is_reached = self.ops.copied.as_ref().is_some_and(|c| c.handover.lsn <= reached);
        if !is_reached || self.draining {
            return Ok(());
        }
        // the committed state gets the table, so it must be here
        self.await_flush().await?;
        match (self.ops.copied.take(), self.ops.deferred.take()) {
            (Some(copied), Some(deferred)) => self.adopt(*copied, deferred).await,
            _ => Ok(()),
        }
    }

    async fn adopt(&mut self, copied: Copied, deferred: Deferred) -> Result<(), Error> {
        let Copied { handover, writer } = copied;
        let chunks = match deferred.above(handover.lsn, self.epoch) {
            Ok(chunks) => chunks,
            Err(error) => {
                self.copy_failed(error);
                return Ok(());
            }
        };
        let Some(state) = &mut self.state else { return Err(Error::StreamEnded) };
        state.tables.insert(handover.table.clone(), handover.committed.clone());
        let (committed, oid, lsn) = (handover.committed.clone(), handover.oid, handover.lsn);
        let rows = self.lanes.adopt(Adopted { committed, oid, lsn, writer, chunks }).await?;
        tracing::info!(table = %handover.table, %lsn, rows, "table copy taken over");
        self.batch.adopt(lsn, rows, Instant::now());
        self.ops.copies.ended();
        self.ops.handovers.push(handover);
        self.tell_known();
        Ok(())
    }

    /// Keeps a change of the table that is being copied.
    pub(in crate::ingest) fn defer(
        &mut self,
        relation: u32,
        at: ChangePosition,
        change: &RowChange<'_>,
    ) -> Result<(), Error> {
        let (Some(deferred), Some(Transaction { final_lsn, seq, .. })) =
            (&mut self.ops.deferred, &mut self.transaction)
        else {
            return Ok(());
        };
        let fits = self.lanes.fits(relation, deferred.schema());
        if deferred.covers(*final_lsn) {
            *seq += match fits {
                true => deferred.sequence_numbers(change),
                false => self.lanes.unwritten_numbers(relation, change),
            };
            return Ok(());
        }
        if matches!(change, RowChange::Truncate) {
            match self.settings.replication.truncate {
                TruncateMode::Apply => {}
                TruncateMode::Ignore => {
                    *seq += 1;
                    return Ok(());
                }
                TruncateMode::Halt => {
                    let table = deferred.table().clone();
                    return Err(Error::Truncated { table, lsn: at.lsn });
                }
            }
        }
        if !fits {
            *seq += self.lanes.unwritten_numbers(relation, change);
            deferred.spoil(Error::SchemaChanged {
                table: deferred.table().clone(),
                detail: "it changed while it was copied".to_owned(),
            });
            return Ok(());
        }
        *seq += deferred.push(change, &at, self.epoch)?;
        Ok(())
    }
}
