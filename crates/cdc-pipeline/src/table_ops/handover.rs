//! The end of a copy: the table in the manifest, with the flush that makes the first cut behind it.

use cdc_core::{Epoch, Lsn, TableName};
use cdc_manifest::{Manifest, TableEntry, TableState};

use crate::commit::{BatchName, CommittedTable, point_at};

/// A copied table on its way into the manifest.
#[derive(Clone, Debug)]
pub(crate) struct Handover {
    pub(crate) table: TableName,
    /// `pg_class.oid`.
    pub(crate) oid: u32,
    /// Tags of the configuration.
    pub(crate) tags: Vec<String>,
    /// As the copy left it.
    pub(crate) committed: CommittedTable,
    /// The epoch that the base directory is named after.
    pub(crate) base_epoch: Epoch,
    /// That directory, with a trailing slash.
    pub(crate) base_path: String,
    /// The position of the copy.
    pub(crate) lsn: Lsn,
    /// Columns in which values were replaced as declared.
    pub(crate) lossy: Vec<String>,
}

impl Handover {
    /// Puts the table into the manifest of a batch whose cut is not below the copy: streaming, with
    /// its new base, and with the end of the range that its changelog lacks. `now` is the table as
    /// the batch left it.
    pub(crate) fn record(&self, next: &mut Manifest, now: &CommittedTable, name: &BatchName) {
        let (table, schema) = (&self.table, &now.schema);
        let fresh = TableEntry::active(schema, TableState::Streaming);
        let known = next.tables.remove(table).unwrap_or_else(|| fresh.clone());
        let has_delta = now.head_id() != self.committed.head_id();
        let mut entry = TableEntry {
            status: fresh.status,
            state: fresh.state,
            tags: (!self.tags.is_empty()).then(|| self.tags.clone()),
            primary_key: fresh.primary_key,
            identity: fresh.identity,
            identity_columns: fresh.identity_columns,
            schema_version: fresh.schema_version,
            policy_version: known.policy_version.or(fresh.policy_version),
            format: fresh.format,
            reason: None,
            source_oid: Some(self.oid),
            // the next look at the catalog tells
            source_filenode: None,
            base_epoch: self.base_epoch,
            base_path: Some(self.base_path.clone()),
            latest_delta_epoch: if has_delta { name.epoch } else { self.base_epoch },
            lsn_to: Some(now.covered()),
            row_count: now.pair.current.live_rows(now.branch),
            ..known
        };
        // a table that was followed before has the gap that opened when it was not any more
        match entry.gaps.is_empty() {
            true => entry.begin_changes(next.source.init_lsn, self.lsn, name.epoch),
            false => entry.close_gap(self.lsn, name.epoch),
        }
        point_at(&mut entry, &now.pair, now.branch);
        // an entry under a name that the table had before stands for nothing on the source any more
        for older in next.tables.values_mut().filter(|older| older.source_oid == Some(self.oid)) {
            (older.source_oid, older.source_filenode) = (None, None);
        }
        next.tables.insert(table.clone(), entry);
        next.set_schema(schema);
        for column in next.mark_lossy(table, &self.lossy) {
            tracing::warn!(%table, column, "values replaced as declared");
        }
    }
}
