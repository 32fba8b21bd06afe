//! `refs.json` and the raw tags: named cuts of the lake.
//!
//! A raw tag is an immutable object of its own, written if absent and removed whole once it is no
//! longer kept; `refs.json` repeats the newest ones for readers of pg-cdc (Go) and keeps the branches
//! `main` and `staging`.

mod pins;
mod resolve;
mod retention;
mod store;

use std::collections::BTreeMap;

use cdc_core::{Epoch, Lsn, TableName};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use pins::Pins;
pub use resolve::{Cut, CutResolver, CutSpec};
pub use retention::RawRetention;
pub use store::{AdvanceOptions, Advanced, PromotionMode, RefsStore};

use crate::json::Extra;
use crate::layout::RAW_TAG_PREFIX;
use crate::manifest::{ColumnEntry, Manifest, SchemaEntry, TableEntry};
use crate::wire;

/// The version this build reads and writes.
pub const REFS_VERSION: u32 = 1;
/// The branch that readers see unless they ask for another cut.
pub const MAIN: &str = "main";
/// The branch that follows every flush.
pub const STAGING: &str = "staging";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refs {
    /// [`REFS_VERSION`].
    pub version: u32,
    /// Branches, and the newest raw tags.
    #[serde(default, deserialize_with = "wire::null_is_default")]
    pub refs: BTreeMap<String, Ref>,
    /// Index of all raw tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<RawIndex>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for Refs {
    fn default() -> Self {
        Self { version: REFS_VERSION, refs: BTreeMap::new(), raw: None, extra: Extra::new() }
    }
}

/// Whether a ref moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefKind {
    /// It moves.
    Branch,
    /// It never moves.
    Tag,
}

/// One cut across all active tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ref {
    /// Whether it moves.
    pub kind: RefKind,
    /// When it was set to this cut.
    #[serde(with = "wire::time")]
    pub created_at: DateTime<Utc>,
    /// Epoch of the cut.
    #[serde(with = "wire::epoch")]
    pub epoch: Epoch,
    /// Commit LSN of the cut.
    #[serde(with = "wire::text")]
    pub commit_lsn: Lsn,
    /// Commit time of the last transaction in it.
    #[serde(with = "wire::time")]
    pub commit_ts: DateTime<Utc>,
    /// The active tables.
    #[serde(with = "wire::by_table")]
    pub tables: BTreeMap<TableName, TableRef>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One table of a cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableRef {
    /// Snapshot of the current state, none while the table has none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub snapshot_id: Option<i64>,
    /// Newest epoch with a complete base directory.
    #[serde(with = "wire::epoch")]
    pub base_epoch: Epoch,
    /// Newest epoch with a delta of the table.
    #[serde(with = "wire::epoch")]
    pub latest_delta_epoch: Epoch,
    /// Version of its schema.
    pub schema_version: u32,
    /// Version of its policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
    /// `updated_at` of the manifest it was taken from.
    #[serde(with = "wire::time")]
    pub manifest_updated_at: DateTime<Utc>,
    /// Commit LSN of the cut.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub confirmed_lsn: Option<Lsn>,
    /// Key columns in key order, where the identity is the primary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<Vec<String>>,
    /// `primary_key`, `index:<name>` or `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Its columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<RefColumn>>,
    /// Metadata file of the current state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_location: Option<String>,
    /// Snapshot of the changelog, none while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub changes_snapshot_id: Option<i64>,
    /// Metadata file of the changelog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes_metadata_location: Option<String>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One column of a table in a cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefColumn {
    /// Name.
    pub name: String,
    /// `information_schema.columns.data_type`.
    pub pg_type: String,
    /// Of a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<u8>,
    /// Of a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u8>,
    /// Whether the source allows NULL.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Index of the raw tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawIndex {
    /// Where their objects are.
    pub prefix: String,
    /// How many there are.
    pub count: u64,
    /// Name of the oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// Name of the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

impl RawIndex {
    fn empty() -> RawIndex {
        let prefix = RAW_TAG_PREFIX.to_owned();
        RawIndex { prefix, count: 0, oldest: None, newest: None, extra: Extra::new() }
    }
}

/// A raw tag's object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RawTag {
    /// [`REFS_VERSION`].
    pub version: u32,
    /// `raw@<time>`.
    pub name: String,
    /// The cut.
    #[serde(rename = "ref")]
    pub cut: Ref,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Ref {
    /// The cut that a manifest stands for.
    pub fn of(manifest: &Manifest, kind: RefKind) -> Ref {
        let table = |(name, entry): (&TableName, &TableEntry)| {
            let columns = manifest.schemas.get(name).map(columns_of);
            (name.clone(), TableRef::of(manifest, entry, columns))
        };
        Ref {
            kind,
            created_at: manifest.updated_at,
            epoch: manifest.epoch,
            commit_lsn: manifest.commit_lsn,
            commit_ts: manifest.commit_ts,
            tables: manifest.active_tables().map(table).collect(),
            extra: Extra::new(),
        }
    }
}

impl TableRef {
    fn of(manifest: &Manifest, entry: &TableEntry, columns: Option<Vec<RefColumn>>) -> TableRef {
        TableRef {
            snapshot_id: entry.snapshot_id,
            base_epoch: entry.base_epoch,
            latest_delta_epoch: entry.latest_delta_epoch,
            schema_version: entry.schema_version.unwrap_or_default(),
            policy_version: entry.policy_version,
            manifest_updated_at: manifest.updated_at,
            confirmed_lsn: Some(manifest.commit_lsn),
            primary_key: entry.primary_key.clone(),
            identity: entry.identity.clone(),
            columns,
            metadata_location: entry.metadata_location.clone(),
            changes_snapshot_id: entry.changes_snapshot_id,
            changes_metadata_location: entry.changes_metadata_location.clone(),
            extra: Extra::new(),
        }
    }
}

fn columns_of(schema: &SchemaEntry) -> Vec<RefColumn> {
    let column = |entry: &ColumnEntry| RefColumn {
        name: entry.name.clone(),
        pg_type: entry.pg_type.clone(),
        precision: entry.precision,
        scale: entry.scale,
        nullable: entry.nullable,
        extra: Extra::new(),
    };
    schema.columns.iter().map(column).collect()
}
