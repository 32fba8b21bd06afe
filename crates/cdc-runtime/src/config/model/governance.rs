//! The sections about who sees what: `governance`, `audit`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::value::{Glob, HumanDuration, format};

/// Tags, their registry and how they are enforced. Without this section the read plane runs
/// ungoverned, on loopback only.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GovernanceConfig {
    /// Registry: sqlite, or aws when `catalog.acl_table` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<GovernanceBackend>,
    /// Lake Formation enforcement on these tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<GovernedCatalog>,
    /// Whether tables that lack required tags are published: refuse, or warn. Reading is denied
    /// by default in both.
    pub mode: GovernanceMode,
    /// What a missing tag does; fail in strict mode, warn in permissive mode when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_missing: Option<OnMissing>,
    /// Tags that each published table needs.
    pub require_tags: Vec<String>,
    /// Legal values per tag; on aws they are read from Lake Formation.
    pub taxonomy: BTreeMap<String, Vec<String>>,
    /// Tags that a resource gets when it is registered.
    pub defaults: BTreeMap<String, String>,
    /// Tags by pattern, over the defaults.
    pub overrides: Vec<TagOverride>,
    /// Tags that hold until a date, over everything.
    pub emergency: Vec<EmergencyTag>,
    /// Whether a new or renamed column stays invisible until `acl set`.
    pub new_columns: NewColumns,
    /// How long a decision may be remembered.
    #[schemars(range(min = 1, max = 300))]
    pub cache_ttl_sec: u64,
    /// How long a remembered decision may be used while the backend is away.
    pub cache_grace_sec: u64,
    /// Whether the registry and Lake Formation are compared at each decision.
    pub cross_check: bool,
    /// Choices of the aws backend.
    pub aws: GovernanceAwsConfig,
    /// Longest emergency grant; at most 24h.
    pub break_glass_max_ttl: HumanDuration,
    /// Key of `hash` masks, at least 32 bytes; two lines are the new and the old key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask_key_file: Option<PathBuf>,
    /// Roles that local callers may name.
    pub local_roles: Vec<String>,
}

impl Default for GovernanceConfig {
    fn default() -> Self {
        Self {
            backend: None,
            catalog: None,
            mode: GovernanceMode::Permissive,
            on_missing: None,
            require_tags: Vec::new(),
            taxonomy: BTreeMap::new(),
            defaults: BTreeMap::new(),
            overrides: Vec::new(),
            emergency: Vec::new(),
            new_columns: NewColumns::Quarantine,
            cache_ttl_sec: 60,
            cache_grace_sec: 0,
            cross_check: false,
            aws: GovernanceAwsConfig::default(),
            break_glass_max_ttl: HumanDuration::from_secs(4 * 3600),
            mask_key_file: None,
            local_roles: Vec::new(),
        }
    }
}

/// Where the registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GovernanceBackend {
    /// `governance.db` in the state directory.
    Sqlite,
    /// DynamoDB and Lake Formation.
    Aws,
}

impl GovernanceBackend {
    /// The configuration's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            GovernanceBackend::Sqlite => "sqlite",
            GovernanceBackend::Aws => "aws",
        }
    }
}

/// What enforces tags for other engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GovernedCatalog {
    /// Glue with Lake Formation.
    Glue,
}

/// Whether tables that lack required tags are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GovernanceMode {
    /// No.
    Strict,
    /// Yes, with a warning.
    #[default]
    Permissive,
}

/// What a missing tag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnMissing {
    /// Refuse.
    Fail,
    /// Warn.
    Warn,
}

/// What happens to a new or renamed column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NewColumns {
    /// Invisible until `acl set`.
    #[default]
    Quarantine,
    /// The table's tags hold for it.
    Inherit,
}

/// Choices of the aws backend.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GovernanceAwsConfig {
    /// Whose view of Lake Formation decides.
    pub resolution: AwsResolution,
}

/// Whose view of Lake Formation decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AwsResolution {
    /// An administrator's.
    #[default]
    Admin,
    /// The registered engine's.
    Engine,
}

/// Tags by pattern.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TagOverride {
    /// Pattern over `schema.table`.
    #[serde(rename = "match")]
    pub pattern: Glob,
    /// Tags of the table.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Tags of its columns.
    #[serde(default)]
    pub columns: BTreeMap<String, BTreeMap<String, String>>,
}

/// Tags that hold until a date.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmergencyTag {
    /// Pattern over `schema.table`.
    #[serde(rename = "match")]
    pub pattern: Glob,
    /// Tags of the table.
    pub tags: BTreeMap<String, String>,
    /// Why.
    #[schemars(length(min = 1))]
    pub reason: String,
    /// By whom.
    #[schemars(length(min = 1))]
    pub created_by: String,
    /// Since when, RFC 3339.
    #[schemars(extend("format" = format::TIME))]
    pub created_at: String,
    /// Until when, RFC 3339; refused when past.
    #[schemars(extend("format" = format::TIME))]
    pub expires_at: String,
}

/// Audit records.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Directory; `audit/` in the state directory when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How long records are kept.
    pub retention: HumanDuration,
    /// Without a record no answer; true in strict mode when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// CloudWatch log group of the aws backend.
    #[schemars(length(min = 1))]
    pub log_group: String,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            path: None,
            retention: HumanDuration::from_secs(365 * 86_400),
            required: None,
            log_group: "/pgcdc/audit".into(),
        }
    }
}
