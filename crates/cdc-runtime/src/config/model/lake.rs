//! The sections about the lake: `storage`, `state`, `catalog`, `iceberg`, `changelog`,
//! `compaction`, `refstore`, `promotion`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::value::{HumanDuration, Secret};

/// Where the lake is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Kind of store.
    #[serde(rename = "type")]
    pub kind: StorageType,
    /// Directory; required for filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Bucket; required for s3 and gcs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Key prefix; a leading slash is dropped, a trailing one added.
    pub prefix: String,
    /// Region; required for s3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another endpoint than the provider's; implies path-style addressing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Storage account; required for azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Container; required for azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Credentials file for gcs and azure; the provider's chain when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Encryption at rest; s3 only.
    pub encryption: EncryptionConfig,
    /// Bytes per part of a multipart upload; at least 5 MiB.
    #[schemars(range(min = 5_242_880))]
    pub upload_part_bytes: u64,
    /// Parts sent at once.
    #[schemars(range(min = 1, max = 32))]
    pub upload_concurrency: u32,
    /// Keep deleted rows in the current-state table with `__deleted_at` until the tombstone TTL.
    pub soft_delete: bool,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            kind: StorageType::Filesystem,
            path: None,
            bucket: None,
            prefix: String::new(),
            region: None,
            endpoint: None,
            account: None,
            container: None,
            credentials_file: None,
            encryption: EncryptionConfig::default(),
            upload_part_bytes: 8 * 1024 * 1024,
            upload_concurrency: 4,
            soft_delete: false,
        }
    }
}

/// Kind of store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StorageType {
    /// A local directory.
    #[default]
    Filesystem,
    /// Amazon S3 or compatible.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// The process's memory; for tests.
    Memory,
}

impl StorageType {
    /// The configuration's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            StorageType::Filesystem => "filesystem",
            StorageType::S3 => "s3",
            StorageType::Gcs => "gcs",
            StorageType::Azure => "azure",
            StorageType::Memory => "memory",
        }
    }
}

/// Encryption at rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EncryptionConfig {
    /// Kind of encryption.
    #[serde(rename = "type")]
    pub kind: EncryptionType,
    /// Key of sse-kms; the account's default key when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// Kind of encryption at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionType {
    /// The bucket's own setting.
    #[default]
    None,
    /// Keys managed by S3.
    SseS3,
    /// Keys managed by KMS.
    SseKms,
}

/// Local state; it can be lost and rebuilt from the lake.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// Kind of state store.
    #[serde(rename = "type")]
    pub kind: StateType,
    /// The database file; its directory is the state directory, mode 0700.
    pub path: PathBuf,
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { kind: StateType::Sqlite, path: PathBuf::from(".pgcdc/state.db") }
    }
}

/// Kind of state store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StateType {
    /// SQLite.
    #[default]
    Sqlite,
}

/// The catalog of the Iceberg tables.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogConfig {
    /// Iceberg only, or Hive/Parquet tables in Glue in addition.
    #[serde(rename = "type")]
    pub kind: CatalogType,
    /// Catalog of the Iceberg tables: sqlite, or glue when `governance.catalog` is glue and
    /// `catalog.type` is iceberg.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<CatalogBackend>,
    /// Iceberg namespace and Glue database; the source database in lower case when absent;
    /// required for glue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Region; that of the storage when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another endpoint than the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The storage root (sqlite, glue), or the warehouse name sent to a REST catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warehouse: Option<String>,
    /// Address of a REST catalog; required for rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Bearer token of a REST catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// OAuth2 token endpoint of a REST catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth2_uri: Option<String>,
    /// OAuth2 client credential `id:secret` of a REST catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Secret>,
    /// Service name for SigV4 signing; SigV4 is used when set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigv4_name: Option<String>,
    /// DynamoDB table of the registry; sets `governance.backend` to aws when that is unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl_table: Option<String>,
    /// How Iceberg tables are named.
    pub table_naming: TableNaming,
    /// Snapshots kept per table, besides those pinned by refs.
    #[schemars(range(min = 1))]
    pub snapshot_retain_count: u32,
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self {
            kind: CatalogType::Iceberg,
            backend: None,
            database: None,
            region: None,
            endpoint: None,
            warehouse: None,
            uri: None,
            token: None,
            oauth2_uri: None,
            credential: None,
            sigv4_name: None,
            acl_table: None,
            table_naming: TableNaming::Bare,
            snapshot_retain_count: 100,
        }
    }
}

/// What is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CatalogType {
    /// Iceberg tables.
    #[default]
    Iceberg,
    /// Iceberg tables in the embedded catalog and Hive/Parquet tables in Glue.
    Glue,
}

/// Catalog of the Iceberg tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CatalogBackend {
    /// The embedded one, `catalog.db` in the state directory.
    Sqlite,
    /// AWS Glue.
    Glue,
    /// An Iceberg REST catalog.
    Rest,
}

impl CatalogBackend {
    /// The configuration's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            CatalogBackend::Sqlite => "sqlite",
            CatalogBackend::Glue => "glue",
            CatalogBackend::Rest => "rest",
        }
    }
}

/// How Iceberg tables are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TableNaming {
    /// The table's name.
    #[default]
    Bare,
    /// Schema and table.
    Qualified,
}

/// How Iceberg tables are written.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IcebergConfig {
    /// How deleted rows are recorded.
    pub deletes: DeleteMode,
    /// Parquet compression.
    pub compression: Compression,
}

/// How deleted rows are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeleteMode {
    /// Position delete files, format version 2.
    #[default]
    Position,
    /// Deletion vectors, format version 3.
    Vector,
    /// The current state is that of the last compaction.
    CopyOnWrite,
}

/// Parquet compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Zstandard.
    #[default]
    Zstd,
    /// Snappy.
    Snappy,
    /// None.
    None,
}

/// The changelog tables.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChangelogConfig {
    /// How long changelog rows and tombstones are kept; 0 keeps them for ever.
    pub retention: HumanDuration,
}

impl Default for ChangelogConfig {
    fn default() -> Self {
        Self { retention: HumanDuration::from_secs(30 * 86_400) }
    }
}

/// Rewriting of small files and of files with many deletes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CompactionConfig {
    /// Seconds between runs inside the daemon; 0 leaves it to the command.
    pub interval_sec: u64,
    /// Size of a base file.
    #[schemars(range(min = 1))]
    pub target_file_bytes: u64,
    /// A file with a larger share of deleted rows is rewritten.
    #[schemars(range(min = 0, max = 1))]
    pub max_delete_ratio: f64,
    /// Age at which an unreferenced file may be removed.
    #[schemars(range(min = 3600))]
    pub orphan_grace_sec: u64,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            interval_sec: 3600,
            target_file_bytes: 256 * 1024 * 1024,
            max_delete_ratio: 0.2,
            orphan_grace_sec: 86_400,
        }
    }
}

/// Named cuts of the lake.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RefstoreConfig {
    /// Newest raw tags kept; -1 keeps all.
    #[schemars(range(min = -1))]
    pub retain_raw: i64,
    /// Besides those, the first tag of this many hours.
    pub retain_hourly: u32,
    /// Besides those, the first tag of this many days.
    pub retain_daily: u32,
    /// Newest tags repeated inside refs.json.
    pub inline_raw: u32,
}

impl Default for RefstoreConfig {
    fn default() -> Self {
        Self { retain_raw: 100, retain_hourly: 24, retain_daily: 30, inline_raw: 10 }
    }
}

/// How `main` advances.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromotionConfig {
    /// With each epoch, or by `promote`.
    pub mode: PromotionMode,
}

/// How `main` advances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromotionMode {
    /// With each epoch.
    #[default]
    Auto,
    /// Only by `promote`.
    Manual,
}
