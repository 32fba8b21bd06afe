//! What a comparison found.

use std::collections::BTreeMap;
use std::time::Duration;

use cdc_core::{Lsn, TableName};

/// The result of `verify`.
#[derive(Clone, Debug)]
pub struct VerifyReport {
    /// The position at which both sides were compared.
    pub lsn: Lsn,
    /// The lake's epoch there.
    pub epoch: u64,
    /// How long it took.
    pub duration: Duration,
    /// Each table that was asked for.
    pub tables: BTreeMap<TableName, TableReport>,
}

/// The result for one table.
#[derive(Clone, Debug)]
pub struct TableReport {
    /// Rows on the source; `None` if it was not compared.
    pub source_rows: Option<u64>,
    /// Rows in the lake; `None` if it was not compared or cannot be read.
    pub lake_rows: Option<u64>,
    /// Hash of the source's rows, whatever their order.
    pub source_checksum: Option<u128>,
    /// The same of the lake's.
    pub lake_checksum: Option<u128>,
    /// Columns that were compared in a declared form that may lose something.
    pub lossy_columns: Vec<String>,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same rows.
    Equal,
    /// Other rows, in these of the 64 buckets.
    Different {
        /// Where.
        buckets: Vec<BucketDifference>,
    },
    /// A file of the lake is missing, or is not what it should be.
    Damaged {
        /// Its location.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not compared.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// A bucket whose rows are not the same on both sides; the counts may still be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketDifference {
    /// Number of the bucket, 0 to 63: a hash of the row's identity.
    pub bucket: usize,
    /// Its rows on the source.
    pub source_rows: u64,
    /// Its rows in the lake.
    pub lake_rows: u64,
}

impl VerifyReport {
    pub(crate) fn new(lsn: Lsn, epoch: u64) -> VerifyReport {
        VerifyReport { lsn, epoch, duration: Duration::ZERO, tables: BTreeMap::new() }
    }

    /// Whether some table differs or is damaged.
    pub fn has_difference(&self) -> bool {
        let is_other = |table: &TableReport| {
            matches!(table.verdict, Verdict::Different { .. } | Verdict::Damaged { .. })
        };
        self.tables.values().any(is_other)
    }

    /// Whether no table was compared.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(|table| matches!(table.verdict, Verdict::Skipped { .. }))
    }
}

impl TableReport {
    pub(crate) fn skipped(reason: &str) -> TableReport {
        TableReport {
            source_rows: None,
            lake_rows: None,
            source_checksum: None,
            lake_checksum: None,
            lossy_columns: Vec::new(),
            verdict: Verdict::Skipped { reason: reason.to_owned() },
        }
    }
}
