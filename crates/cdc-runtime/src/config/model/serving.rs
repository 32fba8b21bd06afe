//! The sections about reading and running: `freshness`, `rest`, `query`, `rate_limit`, `aws`,
//! `metrics`, `logging`, `runs`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::value::{Secret, format};

/// How fresh answers are.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FreshnessConfig {
    /// Lag in seconds above which an answer says that it is stale.
    #[schemars(range(min = 0))]
    pub stale_threshold_sec: f64,
    /// Seconds between reloads of an idle reader.
    #[schemars(range(min = 0.1))]
    pub refresh_interval_sec: f64,
    /// Seconds between writes of `live.json` by the daemon.
    #[schemars(range(min = 0.1))]
    pub live_interval_sec: f64,
}

impl Default for FreshnessConfig {
    fn default() -> Self {
        Self { stale_threshold_sec: 30.0, refresh_interval_sec: 30.0, live_interval_sec: 10.0 }
    }
}

/// The HTTP server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RestConfig {
    /// `host:port` or `unix:<path>`.
    #[schemars(extend("format" = format::LISTEN))]
    pub listen_addr: String,
    /// One bearer token, principal `token:default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token: Option<Secret>,
    /// Digests of tokens, one JSON object per line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_file: Option<PathBuf>,
    /// Tokens of an identity provider.
    pub jwt: JwtConfig,
    /// Networks from which `X-Principal` is believed.
    pub trusted_proxies: Vec<String>,
    /// TLS of the server.
    pub tls: TlsConfig,
    /// Host names that are answered, loopback when empty.
    pub allowed_hosts: Vec<String>,
    /// Origins that browsers may call from.
    pub allowed_origins: Vec<String>,
    /// Largest request body.
    #[schemars(range(min = 1))]
    pub max_body_bytes: u64,
    /// Seconds that a request may take.
    #[schemars(range(min = 1))]
    pub request_timeout_sec: u64,
    /// Seconds that sending the header may take.
    #[schemars(range(min = 1))]
    pub header_timeout_sec: u64,
    /// SSE clients at most.
    pub sse_max_clients: u32,
    /// Whether the web console is served.
    pub console: bool,
}

impl Default for RestConfig {
    fn default() -> Self {
        Self {
            listen_addr: "127.0.0.1:8080".into(),
            bearer_token: None,
            tokens_file: None,
            jwt: JwtConfig::default(),
            trusted_proxies: Vec::new(),
            tls: TlsConfig::default(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_body_bytes: 1024 * 1024,
            request_timeout_sec: 30,
            header_timeout_sec: 10,
            sse_max_clients: 64,
            console: true,
        }
    }
}

/// Tokens of an identity provider; RS256, ES256 and EdDSA only.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// `iss` of the tokens; switches JWT on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// `aud` of the tokens; required with an issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Where the keys are; required with an issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Claim with the principal.
    #[schemars(length(min = 1))]
    pub principal_claim: String,
    /// Claim with the roles.
    #[schemars(length(min = 1))]
    pub roles_claim: String,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            jwks_url: None,
            principal_claim: "sub".into(),
            roles_claim: "roles".into(),
        }
    }
}

/// TLS of the server.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Authority of client certificates; switches mutual TLS on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// Bounds of one answer and of all of them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryConfig {
    /// Rows per answer.
    #[schemars(range(min = 1))]
    pub max_rows: u64,
    /// Bytes per answer.
    #[schemars(range(min = 1))]
    pub max_bytes: u64,
    /// Seconds per answer.
    #[schemars(range(min = 1))]
    pub timeout_sec: u64,
    /// Memory for all queries together.
    #[schemars(range(min = 1))]
    pub memory_bytes: u64,
    /// Queries at once.
    #[schemars(range(min = 1))]
    pub max_concurrent: u32,
    /// Queries at once per principal.
    #[schemars(range(min = 1))]
    pub max_concurrent_per_principal: u32,
    /// Longest wait for an LSN that a caller may ask for.
    pub wait_timeout_max_ms: u64,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            max_rows: 10_000,
            max_bytes: 8 * 1024 * 1024,
            timeout_sec: 30,
            memory_bytes: 256 * 1024 * 1024,
            max_concurrent: 8,
            max_concurrent_per_principal: 4,
            wait_timeout_max_ms: 30_000,
        }
    }
}

/// Requests per principal.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Requests per second; 0 is off.
    #[schemars(range(min = 0))]
    pub rate_per_second: f64,
    /// Requests at once on top of the rate.
    pub burst: u32,
    /// Principals remembered; the least recently used is forgotten.
    #[schemars(range(min = 1))]
    pub max_principals: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { rate_per_second: 0.0, burst: 0, max_principals: 10_000 }
    }
}

/// AWS clients.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AwsConfig {
    /// Retries per call.
    pub max_retries: u32,
    /// Endpoint of an emulator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl Default for AwsConfig {
    fn default() -> Self {
        Self { max_retries: 5, endpoint: None }
    }
}

/// Prometheus metrics.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// `host:port` of the daemon's `/metrics`.
    #[schemars(extend("format" = format::ADDRESS))]
    pub listen_addr: String,
    /// How tables appear in labels: full, but off in `serve` with governance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_labels: Option<TableLabels>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen_addr: "127.0.0.1:9090".into(), table_labels: None }
    }
}

/// How tables appear in labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TableLabels {
    /// By name.
    Full,
    /// By a hash of the name.
    Hashed,
    /// Not at all.
    Off,
}

/// Logs on stderr.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// Least level that is written.
    pub level: LogLevel,
    /// Form of a line.
    pub format: LogFormat,
}

/// Least level that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// For finding defects.
    Debug,
    /// Lifecycle.
    #[default]
    Info,
    /// Recovered or degraded.
    Warn,
    /// Somebody must act.
    Error,
}

impl LogLevel {
    /// All levels, as text.
    pub const CHOICES: &str = "trace, debug, info, warn, error";

    /// The level of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "trace" => LogLevel::Trace,
            "debug" => LogLevel::Debug,
            "info" => LogLevel::Info,
            "warn" => LogLevel::Warn,
            "error" => LogLevel::Error,
            _ => return None,
        })
    }

    /// The configuration's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// All formats that a flag may name, as text.
    pub const CHOICES: &str = "json, text, auto";

    /// The format of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "auto" => LogFormat::Auto,
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return None,
        })
    }
}

/// Run artifacts in the state directory.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunsConfig {
    /// Run directories kept.
    #[schemars(range(min = 1))]
    pub retain: u32,
}

impl Default for RunsConfig {
    fn default() -> Self {
        Self { retain: 20 }
    }
}
