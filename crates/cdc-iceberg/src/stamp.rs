//! What pgcdc writes into each snapshot's summary: which batch it is and how far it reaches. The
//! replay rule and the search for a lost commit read it back.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use cdc_core::{Epoch, Lsn, rfc3339};
use chrono::{DateTime, Utc};
use iceberg::spec::{Snapshot, SnapshotRef, TableMetadata};
use uuid::Uuid;

const EPOCH: &str = "pgcdc.epoch";
const LSN_FROM: &str = "pgcdc.lsn-from";
const LSN_TO: &str = "pgcdc.lsn-to";
const COMMIT_TS: &str = "pgcdc.commit-ts";
const BATCH_ID: &str = "pgcdc.batch-id";
const GENERATION: &str = "pgcdc.generation";
const KIND: &str = "pgcdc.kind";

/// Why a snapshot was committed (`pgcdc.kind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitKind {
    /// A batch of the stream.
    Flush,
    /// The first copy of all tables.
    Init,
    /// The first copy of a table that was added later.
    Add,
    /// A new copy of a table, swapped in.
    Resync,
    /// A rewrite that keeps the rows.
    Compact,
    /// A batch that emptied the table.
    Truncate,
    /// Removal of changelog rows past retention.
    Expire,
    /// A change of the schema.
    Schema,
    /// A rewrite in which older rows get the constant of a new column.
    Fill,
}

impl CommitKind {
    const ALL: [CommitKind; 9] = [
        CommitKind::Flush,
        CommitKind::Init,
        CommitKind::Add,
        CommitKind::Resync,
        CommitKind::Compact,
        CommitKind::Truncate,
        CommitKind::Expire,
        CommitKind::Schema,
        CommitKind::Fill,
    ];

    /// The text in the summary.
    pub fn as_str(self) -> &'static str {
        match self {
            CommitKind::Flush => "flush",
            CommitKind::Init => "init",
            CommitKind::Add => "add",
            CommitKind::Resync => "resync",
            CommitKind::Compact => "compact",
            CommitKind::Truncate => "truncate",
            CommitKind::Expire => "expire",
            CommitKind::Schema => "schema",
            CommitKind::Fill => "fill",
        }
    }
}

impl fmt::Display for CommitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity and reach of one batch. The same values go into both tables of a source table, and
/// a retry of the batch has the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Why.
    pub kind: CommitKind,
    /// The epoch the batch belongs to.
    pub epoch: Epoch,
    /// Exclusive lower end of the batch.
    pub lsn_from: Lsn,
    /// Inclusive upper end: the end LSN of its last transaction.
    pub lsn_to: Lsn,
    /// Commit time of the last transaction on the source.
    pub commit_ts: Option<DateTime<Utc>>,
    /// Stable over retries of the batch.
    pub batch_id: Uuid,
    /// The daemon's generation.
    pub generation: u64,
}

impl Stamp {
    /// The stamp of a snapshot, or `None` if another program committed it.
    pub fn of(snapshot: &Snapshot) -> Option<Stamp> {
        let properties = &snapshot.summary().additional_properties;
        let kind = properties.get(KIND)?;
        let commit_ts = properties.get(COMMIT_TS);
        Some(Stamp {
            kind: CommitKind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            epoch: Epoch(parse(properties, EPOCH)?),
            lsn_from: parse(properties, LSN_FROM)?,
            lsn_to: parse(properties, LSN_TO)?,
            commit_ts: commit_ts.and_then(|text| text.parse::<DateTime<Utc>>().ok()),
            batch_id: parse(properties, BATCH_ID)?,
            generation: parse(properties, GENERATION)?,
        })
    }

    /// Writes the stamp's summary keys. `covered` is the table's newest `lsn-to` before; a commit
    /// never states less.
    pub(crate) fn write(&self, covered: Option<Lsn>, summary: &mut HashMap<String, String>) {
        let lsn_to = covered.map_or(self.lsn_to, |covered| covered.max(self.lsn_to));
        let mut put = |key: &str, value: String| summary.insert(key.to_owned(), value);
        put(KIND, self.kind.to_string());
        put(EPOCH, self.epoch.to_string());
        put(LSN_FROM, self.lsn_from.to_string());
        put(LSN_TO, lsn_to.to_string());
        put(BATCH_ID, self.batch_id.to_string());
        put(GENERATION, self.generation.to_string());
        if let Some(commit_ts) = self.commit_ts {
            put(COMMIT_TS, rfc3339(commit_ts));
        }
    }
}

/// The snapshots from `head` back to the oldest that the metadata still has, newest first.
pub fn ancestry(
    metadata: &TableMetadata,
    head: Option<i64>,
) -> impl Iterator<Item = &SnapshotRef> + '_ {
    let first = head.and_then(|id| metadata.snapshot_by_id(id));
    std::iter::successors(first, |snapshot| metadata.snapshot_by_id(snapshot.parent_snapshot_id()?))
}

/// The newest `pgcdc.lsn-to` along the ancestry: everything up to it is in the table.
pub fn newest_lsn_to(metadata: &TableMetadata, head: Option<i64>) -> Option<Lsn> {
    ancestry(metadata, head)
        .find_map(|snapshot| parse::<Lsn>(&snapshot.summary().additional_properties, LSN_TO))
}

/// The snapshot of a batch along the ancestry, if it was committed.
pub fn find_batch(
    metadata: &TableMetadata,
    head: Option<i64>,
    batch_id: Uuid,
) -> Option<&SnapshotRef> {
    ancestry(metadata, head).find(|snapshot| {
        parse::<Uuid>(&snapshot.summary().additional_properties, BATCH_ID) == Some(batch_id)
    })
}

fn parse<T: FromStr>(properties: &HashMap<String, String>, key: &str) -> Option<T> {
    properties.get(key)?.parse().ok()
}
