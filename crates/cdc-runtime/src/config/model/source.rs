//! The sections about the source: `source`, `replication`, `guardrail`, `profiles`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::value::{HumanDuration, Secret, format};

/// Where changes come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// The PostgreSQL database.
    pub postgres: PostgresConfig,
}

/// The PostgreSQL database.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// libpq URL; its variables and its passfile are read again at each connection. Required by
    /// commands that talk to the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// Schemas whose tables are candidates; each must exist at init.
    #[schemars(length(min = 1))]
    pub schemas: Vec<String>,
    /// What runs the server.
    pub provider: ProviderChoice,
    /// Authenticate with an RDS IAM token made for each connection; needs sslmode require or
    /// better and no password in the URL.
    pub iam_auth: bool,
    /// Region of the IAM token; from the host name, then the AWS chain, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_region: Option<String>,
    /// Connections at most; at least init.parallel_workers + 2.
    #[schemars(range(min = 3))]
    pub max_conns: u32,
    /// How long one connection attempt may take, where the URL does not say.
    pub connect_timeout: HumanDuration,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: None,
            schemas: vec!["public".into()],
            provider: ProviderChoice::Auto,
            iam_auth: false,
            aws_region: None,
            max_conns: 8,
            connect_timeout: HumanDuration::from_secs(10),
        }
    }
}

/// What runs the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderChoice {
    /// Found out at connection.
    #[default]
    Auto,
    /// PostgreSQL that somebody runs themselves.
    SelfManaged,
    /// Amazon RDS.
    Rds,
    /// Amazon Aurora.
    Aurora,
}

/// Publication, slot and how the stream is read.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationConfig {
    /// Name of the publication; made by init if absent.
    #[schemars(length(min = 1, max = 63))]
    pub publication: String,
    /// Name of the replication slot.
    #[schemars(extend("format" = format::SLOT))]
    pub slot: String,
    /// Seconds between logical messages that move an idle slot; 0 is off.
    pub heartbeat_interval_sec: u64,
    /// Whether transactions in progress are streamed and spooled to disk.
    pub streaming: StreamingChoice,
    /// Whether the slot is a failover slot (PostgreSQL 17 and newer).
    pub failover: FailoverChoice,
    /// What a TRUNCATE on the source does to the lake.
    pub truncate: TruncateChoice,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            publication: "pg_cdc_pub".into(),
            slot: "pg_cdc_slot".into(),
            heartbeat_interval_sec: 0,
            streaming: StreamingChoice::Auto,
            failover: FailoverChoice::Auto,
            truncate: TruncateChoice::Apply,
        }
    }
}

/// Whether transactions in progress are streamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StreamingChoice {
    /// Where the server can.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Whether the slot is a failover slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverChoice {
    /// Where the server can.
    #[default]
    Auto,
    /// Always; an older server is refused.
    On,
    /// Never.
    Off,
}

/// What a TRUNCATE does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TruncateChoice {
    /// Empty the current-state table; the changelog keeps its rows and gains one of kind T.
    #[default]
    Apply,
    /// Skip it, with a warning.
    Ignore,
    /// Stop the daemon.
    Halt,
}

/// Alarms about the slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardrailConfig {
    /// Alarm when the slot retains this many bytes of WAL; 0 is off. The slot is never dropped.
    pub max_retained_wal_bytes: u64,
}

/// Role profiles read from the source's privileges.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProfilesConfig {
    /// Where profiles come from; empty is off.
    pub source: ProfileSource,
    /// Roles to take; empty takes none.
    pub roles: Vec<String>,
    /// Display names of roles.
    pub aliases: BTreeMap<String, String>,
    /// How often profiles are read again while streaming.
    pub sync_interval: HumanDuration,
}

impl Default for ProfilesConfig {
    fn default() -> Self {
        Self {
            source: ProfileSource::None,
            roles: Vec::new(),
            aliases: BTreeMap::new(),
            sync_interval: HumanDuration::from_secs(3600),
        }
    }
}

/// Where role profiles come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProfileSource {
    /// Off.
    #[default]
    #[serde(rename = "")]
    None,
    /// The privileges of the source.
    #[serde(rename = "pg_acl")]
    PgAcl,
}
