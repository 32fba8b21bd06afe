//! What every binary of pgcdc needs before it works: configuration file, logs, signals, exit
//! codes, sibling dispatch and build information. Only binaries import this crate.
//!
//! The type to know is [`Config`]: the whole of `pgcdc.yml`, checked, with defaults filled in.
//!
//! ```
//! use cdc_runtime::{Config, ParseOptions, SourceUse};
//!
//! let options = ParseOptions {
//!     file: "pgcdc.yml".as_ref(),
//!     env: &|name| (name == "PW").then(|| "secret".into()),
//!     now: chrono::DateTime::UNIX_EPOCH,
//!     source_use: SourceUse::Needed,
//! };
//! let text = "
//! source: { postgres: { url: 'postgresql://cdc:${PW}@localhost/shop' } }
//! storage: { path: /srv/lake }
//! flush: { interval_sec: 0.5 }
//! ";
//! let config = Config::parse(text, &options).unwrap();
//! assert_eq!(config.flush.interval_sec, 0.5);
//! assert_eq!(config.replication.slot, "pg_cdc_slot");
//!
//! let error = Config::parse("flush: { intervall_sec: 1 }", &options).unwrap_err();
//! assert!(error.to_string().contains("flush.intervall_sec: unknown key"));
//! ```

mod admin;
mod build_info;
mod config;
mod dispatch;
mod error;
mod exit;
mod prompt;
mod signals;
mod telemetry;

pub use admin::{metrics_registry, serve_metrics};
pub use build_info::{BUILD_INFO, BuildInfo, VERSION};
pub use config::{
    ArrayChoice, AuditConfig, AwsConfig, AwsResolution, CatalogBackend, CatalogConfig, CatalogType,
    ChangelogConfig, ColumnForm, CompactionConfig, Compression, Config, DEFAULT_FILES, DeleteMode,
    EmergencyTag, EncryptionConfig, EncryptionType, Env, FailoverChoice, FlushConfig,
    FreshnessConfig, Glob, GovernanceAwsConfig, GovernanceBackend, GovernanceConfig,
    GovernanceMode, GovernedCatalog, GuardrailConfig, HumanDuration, IcebergConfig, InitConfig,
    JwtConfig, LimitsConfig, LogFormat, LogLevel, LoggingConfig, MetricsConfig, NewColumns,
    OnMissing, OnTypeError, ParseOptions, PostgresConfig, Problem, ProfileSource, ProfilesConfig,
    PromotionConfig, PromotionMode, ProviderChoice, QueryConfig, RateLimitConfig, RefstoreConfig,
    ReplicationConfig, RestConfig, RunsConfig, Secret, SourceConfig, SourceUse, StateConfig,
    StateType, StorageConfig, StorageType, StoredForm, StreamingChoice, TableLabels, TableNaming,
    TablesConfig, TagOverride, TagPolicy, TlsConfig, TruncateChoice, TypesConfig,
    UnrepresentableChoice,
};
pub use dispatch::{exec_sibling, sibling_path};
pub use error::{Error, Result};
pub use exit::{CommandKind, ExitCode};
pub use prompt::user_at_prompt;
pub use signals::shutdown_on_signal;
pub use telemetry::{LogFlags, init_logging, init_quiet_logging};
