//! The evidence that comes with every answer: which cut it is of, how fresh that is, what of it was
//! masked or cut.

use std::collections::BTreeMap;

use cdc_core::{TableName, rfc3339};
use cdc_manifest::{Cut, TableRef};
use cdc_query::Freshness;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::caller::Caller;

/// The envelope, as JSON shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// Cut served.
    pub epoch: u64,
    /// The ref really used.
    #[serde(rename = "ref")]
    pub cut: String,
    /// All transactions ending at or below it are included; null for a base, whose position is that
    /// of its epoch.
    pub commit_lsn: Option<String>,
    /// Commit time of the last of them on the source.
    pub as_of: Option<String>,
    /// Lag of the cut.
    pub staleness_seconds: f64,
    /// Of the table; over several tables the highest.
    pub schema_version: u32,
    /// Of the table; over several tables the highest.
    pub policy_version: u64,
    /// Returned columns whose values are masked.
    pub masked_columns: Vec<String>,
    /// Whether rows, bytes or a cell were cut by a limit.
    pub truncated: bool,
    /// Names the request.
    pub request_id: String,
    /// Whether a governance policy decided what is shown.
    pub governed: bool,
    /// Per table, where there are several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, TableEvidence>,
}

/// What is said of one of several tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableEvidence {
    /// Version of its schema.
    pub schema_version: u32,
    /// Version of its policy.
    pub policy_version: u64,
    /// The Iceberg snapshot read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
}

impl Evidence {
    /// Of an answer from these tables of a cut.
    pub(crate) fn of(
        cut: &Cut,
        freshness: Freshness,
        tables: &[TableName],
        caller: &Caller,
        now: DateTime<Utc>,
    ) -> Evidence {
        let known = |name: &TableName| Some((name.to_string(), table(cut.tables.get(name)?)));
        let tables: BTreeMap<String, TableEvidence> = tables.iter().filter_map(known).collect();
        Evidence {
            epoch: cut.epoch.0,
            cut: cut.name.clone(),
            commit_lsn: Some(cut.commit_lsn.to_string()),
            as_of: Some(rfc3339(cut.commit_ts)),
            staleness_seconds: freshness.lag_seconds(now),
            schema_version: tables.values().map(|table| table.schema_version).max().unwrap_or(0),
            policy_version: tables.values().map(|table| table.policy_version).max().unwrap_or(1),
            masked_columns: Vec::new(),
            truncated: false,
            request_id: caller.request_id.clone(),
            governed: false,
            tables: if tables.len() > 1 { tables } else { BTreeMap::new() },
        }
    }
}

fn table(entry: &TableRef) -> TableEvidence {
    TableEvidence {
        schema_version: entry.schema_version,
        policy_version: entry.policy_version.unwrap_or(1),
        snapshot_id: entry.snapshot_id.map(|id| id.to_string()),
    }
}
