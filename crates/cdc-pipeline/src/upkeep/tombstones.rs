//! Changes past `changelog.retention`, the tombstones of deleted rows among them: whole delta files
//! leave the changelog, oldest first, and the manifest says from where on it is complete.

use std::collections::BTreeSet;

use cdc_core::{Epoch, Lsn, TableName, meta};
use cdc_iceberg::{
    BoundValue, CommitKind, EntryRef, Remove, TableChange, TablePair, column_bounds, live_files,
};
use chrono::{DateTime, Utc};

use crate::Error;
use crate::commit::CommitState;
use crate::lake::Lake;

/// Delta files whose changes are all past retention. The changelog only grows but by this, so a
/// plan stays right however much is appended meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PurgePlan {
    files: BTreeSet<EntryRef>,
    /// Rows in them.
    pub(crate) rows: u64,
    epoch_to: Epoch,
    lsn_to: Lsn,
}

/// Finds what is past retention: the oldest files up to the first that has a change at or behind
/// `cutoff`. `None` if there is nothing.
pub(crate) async fn plan_purge(
    lake: &Lake,
    table: &TableName,
    pair: &TablePair,
    cutoff: DateTime<Utc>,
) -> Result<Option<PurgePlan>, Error> {
    let Some(head) = pair.changes.head_id(lake.branch) else { return Ok(None) };
    let live = live_files(lake.tables.files(), &pair.changes.metadata, head).await;
    let live = live.map_err(Error::iceberg(table))?;
    let mut past = Vec::new();
    // files are in the order of their commits, which is that of their epochs
    for file in &live.data_files {
        let upper =
            |column: meta::MetaColumn| match column_bounds(&file.file, column.field_id).upper {
                Some(BoundValue::Int64(value)) => Some(value),
                _ => None,
            };
        let (Some(newest), Some(epoch), Some(lsn)) =
            (upper(meta::COMMIT_TS), upper(meta::EPOCH), upper(meta::COMMIT_LSN))
        else {
            break;
        };
        if newest >= cutoff.timestamp_micros() {
            break;
        }
        past.push((Epoch(epoch.cast_unsigned()), Lsn(lsn.cast_unsigned()), file));
    }
    // an epoch goes as a whole, for a transaction may be in several of its files
    let first_kept = live.data_files.get(past.len());
    if let Some(first_kept) = first_kept {
        let kept = column_bounds(&first_kept.file, meta::EPOCH.field_id).lower;
        let Some(BoundValue::Int64(kept)) = kept else { return Ok(None) };
        past.retain(|(epoch, ..)| *epoch < Epoch(kept.cast_unsigned()));
    }
    let mut plan =
        PurgePlan { files: BTreeSet::new(), rows: 0, epoch_to: Epoch(0), lsn_to: Lsn::ZERO };
    for (epoch, lsn, file) in past {
        plan.rows += file.record_count;
        plan.epoch_to = plan.epoch_to.max(epoch);
        plan.lsn_to = plan.lsn_to.max(lsn);
        plan.files.insert(file.location.clone().into());
    }
    Ok((!plan.files.is_empty()).then_some(plan))
}

impl CommitState {
    /// Takes the files of a plan out of the changelog, after the manifest says from where on it is
    /// complete: a reader may be told too early that changes are gone, never too late. The objects
    /// stay: the current state may have rows in them, and older cuts may need them.
    pub(crate) async fn purge(&mut self, table: &TableName, plan: &PurgePlan) -> Result<(), Error> {
        let mut next = self.manifest.value.clone();
        let init_lsn = next.source.init_lsn;
        if let Some(entry) = next.tables.get_mut(table) {
            entry.expire_changes(init_lsn, plan.lsn_to.max(init_lsn), plan.epoch_to);
        }
        next.updated_at = self.lake.clock.now();
        self.swap_manifest(next).await?;
        let Some(committed) = self.tables.get(table) else { return Ok(()) };
        let changes = committed.pair.changes.clone();
        let stamp = self.standing_stamp(&changes, CommitKind::Expire);
        let change = TableChange {
            remove: Remove::Files(plan.files.clone()),
            retention: self.kept.of_changes(table, &self.manifest.value),
            ..TableChange::append(stamp, self.lake.branch, Vec::new())
        };
        let outcome = self.lake.tables.commit(&changes, &change).await;
        let changes = self.settle(table, outcome).await?;
        if let Some(committed) = self.tables.get_mut(table) {
            committed.pair.changes = changes;
        }
        Ok(())
    }
}
