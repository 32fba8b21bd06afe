//! `manifest.json`: the commit point of the lake. It names one Iceberg snapshot per table for one
//! commit LSN.
//!
//! The fields stand in the order in which they are written. Fields of ours that pg-cdc (Go) does
//! not know are listed beside it in the contract; those which this build does not know are kept.

mod gap;
mod invariants;
mod merge;
mod reload;
mod schema_entry;
mod schema_record;
mod store;

use std::collections::BTreeMap;

use bytes::Bytes;
use cdc_core::{Epoch, Identity, Lsn, TableName, TableSchema};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use gap::Gap;
pub use schema_entry::{ColumnEntry, NestedType, OmittedEntry, SchemaEntry, TypeKind};
pub use schema_record::{parse_schema_record, schema_record};
pub use store::{ManifestStore, Versioned};

use crate::json::{self, Extra};
use crate::layout::{self, MANIFEST_KEY};
use crate::{Result, wire};

/// The version this build reads and writes.
pub const MANIFEST_VERSION: u32 = 1;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// UUID made at init.
    pub lake_id: String,
    /// Where the data comes from.
    pub source: SourceInfo,
    /// Newest epoch committed.
    #[serde(with = "wire::epoch")]
    pub epoch: Epoch,
    /// All transactions with commit end LSN at or below are in the cut, none above.
    #[serde(with = "wire::text")]
    pub commit_lsn: Lsn,
    /// Commit time of the last of them; at epoch 0 the time of init.
    #[serde(with = "wire::time")]
    pub commit_ts: DateTime<Utc>,
    /// At or above `commit_lsn`; nothing of ours was committed between the two.
    #[serde(with = "wire::text")]
    pub covered_lsn: Lsn,
    /// When that was known.
    #[serde(with = "wire::time")]
    pub covered_at: DateTime<Utc>,
    /// The last batch. After a commit of unknown outcome this tells whether it happened.
    pub batch_id: String,
    /// Fencing number, raised by each daemon start; a lower one may not commit.
    pub generation: u64,
    /// The catalog of the Iceberg tables.
    pub catalog: CatalogInfo,
    /// Every table of the configured schemas, followed or excluded.
    #[serde(with = "wire::by_table")]
    pub tables: BTreeMap<TableName, TableEntry>,
    /// The schema of each active table.
    #[serde(with = "wire::by_table")]
    pub schemas: BTreeMap<TableName, SchemaEntry>,
    /// Column grants copied from the source.
    #[serde(default, deserialize_with = "wire::null_is_default")]
    pub roles: BTreeMap<String, RoleEntry>,
    /// What compaction did.
    #[serde(default)]
    pub compaction: CompactionInfo,
    /// Time of this write.
    #[serde(with = "wire::time")]
    pub updated_at: DateTime<Utc>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The source and the point at which the lake was initialised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Slot name.
    pub name: String,
    /// `version()` up to the first `(`.
    pub postgres_version: String,
    /// Consistent point of init.
    #[serde(with = "wire::text")]
    pub init_lsn: Lsn,
    /// Time of init.
    #[serde(with = "wire::time")]
    pub init_timestamp: DateTime<Utc>,
    /// Database name.
    pub database: String,
    /// `IDENTIFY_SYSTEM`'s system identifier.
    #[serde(with = "wire::text")]
    pub system_identifier: u64,
    /// Timeline.
    pub timeline: u32,
    /// Replication slot.
    pub slot: String,
    /// Publication.
    pub publication: String,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The catalog, in the words of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogInfo {
    /// `catalog.type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `catalog.backend`.
    pub backend: String,
    /// Iceberg namespace.
    pub database: String,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Whether a table is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableStatus {
    /// Followed.
    #[default]
    Active,
    /// Not followed; the entry says why.
    Excluded,
}

/// What happens to an active table at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableState {
    /// Follows the stream.
    Streaming,
    /// Its first snapshot is being taken.
    Snapshotting,
    /// A new snapshot is being taken.
    Resyncing,
    /// Stopped by the operator.
    Paused,
    /// Stopped by an error; `table resync` heals it.
    Quarantined,
}

/// One table. An excluded one has status, epochs, path and reason only; one that was removed keeps what
/// names its files and columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Whether it is followed.
    pub status: TableStatus,
    /// Absent when excluded, but where the first copy is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TableState>,
    /// Tags of the configuration, sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Never set; pg-cdc (Go) has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Key columns in key order, where the identity is the primary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<Vec<String>>,
    /// `primary_key`, `index:<name>` or `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Columns of the identity in index order, where it is an index other than the primary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_columns: Option<Vec<String>>,
    /// The version in `schemas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<u32>,
    /// Policy counter at the last change that touched the table; 1 without a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
    /// Newest epoch with a complete base directory.
    #[serde(with = "wire::epoch")]
    pub base_epoch: Epoch,
    /// That directory, with a trailing slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_path: Option<String>,
    /// Newest epoch with a delta of this table.
    #[serde(with = "wire::epoch")]
    pub latest_delta_epoch: Epoch,
    /// Rows of the current state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_count: Option<u64>,
    /// Directory of the table.
    pub path: String,
    /// `pg_class.oid` of the table, of its root where it is partitioned: a table that was dropped
    /// and created again has another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_oid: Option<u32>,
    /// Changes whenever the source writes the table's rows anew (`pg_class.relfilenode`, of a
    /// partition root that of its leaves together); as it was when the schema was last compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_filenode: Option<u64>,
    /// Why it is excluded, or does not follow the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `iceberg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Current state: name in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iceberg_table: Option<String>,
    /// Current state: metadata file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_location: Option<String>,
    /// Current state: snapshot, none while the table has none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub snapshot_id: Option<i64>,
    /// Changelog: name in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes_iceberg_table: Option<String>,
    /// Changelog: metadata file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes_metadata_location: Option<String>,
    /// Changelog: snapshot, none while the table has none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub changes_snapshot_id: Option<i64>,
    /// Newest `pgcdc.lsn-to` of the table.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub lsn_to: Option<Lsn>,
    /// `position`, `vector` or `copy_on_write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_mode: Option<String>,
    /// Whether deleted rows stay until the tombstone TTL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_delete: Option<bool>,
    /// Ranges missing from the changelog.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "wire::null_is_default"
    )]
    pub gaps: Vec<Gap>,
    /// Position of the last successful `verify`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::text_option")]
    pub verified_through: Option<Lsn>,
    /// Time of the last successful `verify`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::time_option")]
    pub verified_at: Option<DateTime<Utc>>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What one role of the source may read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoleEntry {
    /// By table.
    #[serde(default, with = "wire::by_table")]
    pub tables: BTreeMap<TableName, RoleTable>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What one role may read of one table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoleTable {
    /// Missing or null is no column at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<RoleColumns>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

impl RoleTable {
    /// Whether the column may be read.
    pub fn allows(&self, column: &str) -> bool {
        match &self.columns {
            Some(RoleColumns::All) => true,
            Some(RoleColumns::Listed(names)) => names.iter().any(|name| name == column),
            None => false,
        }
    }
}

/// `"*"` or a list of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RoleColumnsWire", into = "RoleColumnsWire")]
pub enum RoleColumns {
    /// Every column.
    All,
    /// These columns.
    Listed(Vec<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RoleColumnsWire {
    Word(String),
    Listed(Vec<String>),
}

impl TryFrom<RoleColumnsWire> for RoleColumns {
    type Error = String;

    fn try_from(wire: RoleColumnsWire) -> Result<Self, String> {
        match wire {
            RoleColumnsWire::Word(word) if word == "*" => Ok(RoleColumns::All),
            RoleColumnsWire::Word(word) => Err(format!("`{word}` is neither \"*\" nor a list")),
            RoleColumnsWire::Listed(names) => Ok(RoleColumns::Listed(names)),
        }
    }
}

impl From<RoleColumns> for RoleColumnsWire {
    fn from(columns: RoleColumns) -> Self {
        match columns {
            RoleColumns::All => RoleColumnsWire::Word("*".into()),
            RoleColumns::Listed(names) => RoleColumnsWire::Listed(names),
        }
    }
}

/// What compaction did and keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompactionInfo {
    /// Year 1 before the first.
    #[serde(with = "wire::time")]
    pub last_compacted_at: DateTime<Utc>,
    /// `changelog.retention`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tombstone_retention: Option<String>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for CompactionInfo {
    fn default() -> Self {
        let year_one = DateTime::from_timestamp(YEAR_ONE_SECONDS, 0).unwrap_or_default();
        Self { last_compacted_at: year_one, tombstone_retention: None, extra: Extra::new() }
    }
}

/// `0001-01-01T00:00:00Z`, Go's zero time.
const YEAR_ONE_SECONDS: i64 = -62_135_596_800;

impl TableEntry {
    /// The entry of a table that is followed, before its Iceberg tables exist.
    pub fn active(schema: &TableSchema, state: TableState) -> TableEntry {
        let (primary_key, identity_columns) = match &schema.identity {
            Identity::PrimaryKey(columns) => (Some(columns.clone()), None),
            Identity::Index { columns, .. } => (None, Some(columns.clone())),
            Identity::Full => (None, None),
        };
        TableEntry {
            status: TableStatus::Active,
            state: Some(state),
            primary_key,
            identity: Some(schema.identity.label()),
            identity_columns,
            schema_version: Some(schema.version),
            policy_version: Some(1),
            path: layout::table_dir(&schema.table),
            format: Some("iceberg".into()),
            ..TableEntry::default()
        }
    }

    /// The entry of a table that is not followed.
    pub fn excluded(table: &TableName, reason: impl Into<String>) -> TableEntry {
        TableEntry {
            status: TableStatus::Excluded,
            path: layout::table_dir(table),
            reason: Some(reason.into()),
            ..TableEntry::default()
        }
    }

    /// Whether the table is followed.
    pub fn is_active(&self) -> bool {
        self.status == TableStatus::Active
    }
}

impl Manifest {
    /// Parses the file.
    ///
    /// # Errors
    /// [`Error::Torn`](crate::Error::Torn), [`Error::Malformed`](crate::Error::Malformed),
    /// [`Error::DuplicateKey`](crate::Error::DuplicateKey), [`Error::Version`](crate::Error::Version).
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        json::parse(MANIFEST_KEY, bytes, MANIFEST_VERSION)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn to_bytes(&self) -> Result<Bytes> {
        json::to_bytes(MANIFEST_KEY, self)
    }

    /// The followed tables.
    pub fn active_tables(&self) -> impl Iterator<Item = (&TableName, &TableEntry)> {
        self.tables.iter().filter(|(_, entry)| entry.is_active())
    }
}
