//! The configuration file as plain data, one struct per section. The JSON Schema, the check for
//! unknown keys and the reference page are all made from these types and their documentation.

mod governance;
mod lake;
mod serving;
mod source;
mod write;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::Secret;

pub use governance::*;
pub use lake::*;
pub use serving::*;
pub use source::*;
pub use write::*;

/// A whole configuration. Made by [`Config::load`] or [`Config::parse`], which check it and fill
/// in what follows from other keys (catalog and governance backend, audit path, regions).
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where changes come from; a read-plane process needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceConfig>,
    /// Where the lake is.
    pub storage: StorageConfig,
    /// Local state; it can be lost and rebuilt from the lake.
    pub state: StateConfig,
    /// Publication, slot and how the stream is read.
    pub replication: ReplicationConfig,
    /// When an epoch is cut and how it is written.
    pub flush: FlushConfig,
    /// The first copy.
    pub init: InitConfig,
    /// What the daemon may use.
    pub limits: LimitsConfig,
    /// Which tables are followed.
    pub tables: TablesConfig,
    /// Role profiles read from the source's privileges.
    pub profiles: ProfilesConfig,
    /// The catalog of the Iceberg tables.
    pub catalog: CatalogConfig,
    /// How Iceberg tables are written.
    pub iceberg: IcebergConfig,
    /// The changelog tables.
    pub changelog: ChangelogConfig,
    /// Rewriting of small files and of files with many deletes.
    pub compaction: CompactionConfig,
    /// How values are stored where there is a choice.
    pub types: TypesConfig,
    /// Tags, their registry and how they are enforced; absent = ungoverned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub governance: Option<GovernanceConfig>,
    /// Alarms about the slot.
    pub guardrail: GuardrailConfig,
    /// Named cuts of the lake.
    pub refstore: RefstoreConfig,
    /// How `main` advances.
    pub promotion: PromotionConfig,
    /// How fresh answers are.
    pub freshness: FreshnessConfig,
    /// The HTTP server.
    pub rest: RestConfig,
    /// Bounds of one answer and of all of them.
    pub query: QueryConfig,
    /// Requests per principal.
    pub rate_limit: RateLimitConfig,
    /// Audit records.
    pub audit: AuditConfig,
    /// AWS clients.
    pub aws: AwsConfig,
    /// Prometheus metrics.
    pub metrics: MetricsConfig,
    /// Logs on stderr.
    pub logging: LoggingConfig,
    /// Run artifacts in the state directory.
    pub runs: RunsConfig,
    /// Variables given by the command line, over those of the environment.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) variables: BTreeMap<String, Secret>,
}
