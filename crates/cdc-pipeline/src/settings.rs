//! What the write plane is told: plain data, built by a binary from the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use cdc_core::{StoredAs, TableName, TypePolicy};
use cdc_governance::TableRules;
use cdc_iceberg::{DeleteEncoding, TableNaming};
use cdc_manifest::{PromotionMode, RawRetention, StorageSpec};
use cdc_sink::FileCompression;
use globset::GlobMatcher;

use crate::compact::CompactionSettings;
use crate::fence::BreakerSettings;

/// Where the lake and its local state live.
#[derive(Clone, Debug)]
pub struct LakeSettings {
    /// The object store and root.
    pub storage: StorageSpec,
    /// The state directory (`<state>`), mode 0700.
    pub state_dir: PathBuf,
    /// Iceberg namespace; the source database in lower case when unset.
    pub database: Option<String>,
    /// Whether Iceberg tables are named `orders` or `public_orders`.
    pub naming: TableNaming,
    /// Parquet compression of data files.
    pub compression: FileCompression,
    /// How deleted rows are recorded.
    pub deletes: DeleteEncoding,
    /// Whether commits go to `main`, or wait on `staging` for a promotion.
    pub promotion: PromotionMode,
}

/// What is replicated, and through which objects of the source.
#[derive(Clone, Debug)]
pub struct ReplicationSettings {
    /// Schemas to look for tables in.
    pub schemas: Vec<String>,
    /// Publication name.
    pub publication: String,
    /// Slot name.
    pub slot: String,
    /// Whether the slot is made with FAILOVER on servers that know it.
    pub failover: Failover,
    /// Which tables are in.
    pub rules: TableRules,
    /// How types are stored.
    pub types: TypeSettings,
    /// What a TRUNCATE on the source does.
    pub truncate: TruncateMode,
    /// Whether large transactions are received while they are open.
    pub streaming: Streaming,
}

/// `replication.streaming`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streaming {
    /// Where the server can, which every supported one does.
    #[default]
    Auto,
    /// Never: the server keeps them until they commit.
    Off,
}

/// `replication.failover`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failover {
    /// On for PostgreSQL 17 and newer.
    #[default]
    Auto,
    /// Required; older servers are refused.
    On,
    /// Never.
    Off,
}

/// `replication.truncate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TruncateMode {
    /// Empty the table in the lake as well.
    #[default]
    Apply,
    /// Keep the rows.
    Ignore,
    /// Stop with an error.
    Halt,
}

/// `types.on_error`: what an error does that is about one table only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The table is quarantined, the others go on.
    #[default]
    Pause,
    /// The daemon stops with nothing confirmed past the error.
    Halt,
}

/// The `types` section.
#[derive(Clone, Debug, Default)]
pub struct TypeSettings {
    /// Policies for all columns.
    pub policy: TypePolicy,
    /// What a value, or a change of the table, does that cannot be followed.
    pub on_error: OnError,
    /// Declared forms: glob on `schema.table.column`, first match wins.
    pub columns: Vec<(GlobMatcher, StoredAs)>,
}

impl TypeSettings {
    /// The declared form of a column, if any.
    pub fn declared(&self, table: &TableName, column: &str) -> Option<StoredAs> {
        let path = format!("{}.{}.{column}", table.schema, table.name);
        self.columns.iter().find(|(glob, _)| glob.is_match(&path)).map(|(_, stored)| *stored)
    }
}

/// When a batch becomes an epoch.
#[derive(Clone, Debug)]
pub struct FlushSettings {
    /// Longest time from the first change of a batch to its flush.
    pub interval: Duration,
    /// Shortest time between the beginnings of two flushes.
    pub min_interval: Duration,
    /// Rows that close a batch at the next commit.
    pub max_rows: u64,
    /// Bytes that close a batch at the next commit.
    pub max_bytes: usize,
    /// Tables encoded and published at once.
    pub parallel_workers: usize,
    /// Time that a drain may take.
    pub drain_timeout: Duration,
    /// How often tables are compared with the source's catalog; `None` is never.
    pub schema_reconcile_interval: Option<Duration>,
}

/// Refs after each flush, and snapshots besides those that refs name.
#[derive(Clone, Copy, Debug)]
pub struct RefSettings {
    /// Newest snapshots of each table that stay (`catalog.snapshot_retain_count`).
    pub snapshots_kept: usize,
    /// Newest raw tags repeated in `refs.json`.
    pub inline_raw: usize,
    /// Raw tags that stay.
    pub retention: RawRetention,
}

/// Everything `init` needs besides the source.
#[derive(Clone, Debug)]
pub struct InitSettings {
    /// The lake.
    pub lake: LakeSettings,
    /// What is replicated.
    pub replication: ReplicationSettings,
    /// Concurrent COPY.
    pub parallel_workers: usize,
    /// Refs.
    pub refs: RefSettings,
    /// How long changes are kept, as the configuration spells it.
    pub changes_kept: String,
}

/// Everything `start` needs besides the source.
#[derive(Clone, Debug)]
pub struct DaemonSettings {
    /// The lake.
    pub lake: LakeSettings,
    /// What is replicated.
    pub replication: ReplicationSettings,
    /// When to flush.
    pub flush: FlushSettings,
    /// Refs.
    pub refs: RefSettings,
    /// The one byte budget over buffers, index and encoders.
    pub buffer_bytes_max: usize,
    /// Bound on the disk space of transactions in progress (`limits.spool_bytes`).
    pub spool_bytes_max: u64,
    /// Concurrent COPY of a table that is added or resynced (`init.parallel_workers`).
    pub copy_workers: usize,
    /// How often `live.json` is written.
    pub live_interval: Duration,
    /// Logical heartbeat messages; `None` is off.
    pub heartbeat_interval: Option<Duration>,
    /// Retained WAL of the slot that raises an alarm; `None` is off.
    pub guardrail_bytes: Option<u64>,
    /// When conflicts over the manifest end the daemon.
    pub breaker: BreakerSettings,
    /// Compaction and retention.
    pub compaction: CompactionSettings,
}
