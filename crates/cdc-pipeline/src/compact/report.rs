//! What a run did, as the command prints it and the control channel carries it.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompactReport {
    /// The tables, in the order of their names.
    pub tables: Vec<TableOutcome>,
    /// Objects without a reference that were removed.
    pub orphans_removed: u64,
    /// Objects without a reference whose grace time is not over.
    pub orphans_waiting: u64,
}

/// One table of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableOutcome {
    /// `schema.table`, as the manifest spells it.
    pub table: String,
    /// What became of it.
    #[serde(flatten)]
    pub result: TableResult,
    /// Rows of the changelog that were past retention.
    pub purged: u64,
}

/// What became of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum TableResult {
    /// There was nothing to rewrite.
    UpToDate {
        /// Epoch of its complete base.
        base_epoch: u64,
        /// Newest epoch with changes of it.
        latest_epoch: u64,
    },
    /// It has changes beyond its complete base.
    WouldCompact {
        /// Epoch of its complete base.
        base_epoch: u64,
        /// Newest epoch with changes of it.
        latest_epoch: u64,
    },
    /// Files were rewritten.
    Compacted {
        /// Delta files rewritten.
        deltas: u64,
        /// Epoch of the new base, or of the directory that the new files are in.
        base_epoch: u64,
        /// Whether all rows of the table are in that directory.
        is_complete: bool,
        /// Rows in the new files.
        rows: u64,
        /// Changes in the delta files that were rewritten.
        applied: u64,
    },
    /// It was not looked at, or could not be rewritten.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl CompactReport {
    /// Whether a table could not be done.
    pub fn has_failure(&self) -> bool {
        self.tables.iter().any(|table| matches!(table.result, TableResult::Skipped { .. }))
    }
}
