//! The sections about writing: `flush`, `init`, `limits`, `tables`, `types`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::value::{Glob, StoredForm};

/// When an epoch is cut and how it is written.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlushConfig {
    /// Seconds between epochs; fractions allowed.
    #[schemars(range(min = 0.1))]
    pub interval_sec: f64,
    /// Rows after which an epoch is cut at the next commit.
    #[schemars(range(min = 1))]
    pub max_rows: u64,
    /// No two epochs begin closer than this many milliseconds.
    pub min_interval_ms: u64,
    /// Bytes after which an epoch is cut at the next commit.
    #[schemars(range(min = 1))]
    pub max_bytes: u64,
    /// Tables encoded at once.
    #[schemars(range(min = 1, max = 64))]
    pub parallel_workers: u32,
    /// Seconds that a shutdown may take to write what it has.
    pub drain_timeout_sec: u64,
    /// Seconds between looks for schema changes that the stream does not announce.
    #[schemars(range(min = 1))]
    pub schema_reconcile_interval_sec: u64,
    /// Manifest conflicts in the window that stop the daemon.
    #[schemars(range(min = 1))]
    pub cas_breaker_threshold: u32,
    /// Length of that window in seconds.
    #[schemars(range(min = 1))]
    pub cas_breaker_window_sec: u64,
}

impl Default for FlushConfig {
    fn default() -> Self {
        Self {
            interval_sec: 10.0,
            max_rows: 100_000,
            min_interval_ms: 100,
            max_bytes: 128 * 1024 * 1024,
            parallel_workers: 4,
            drain_timeout_sec: 30,
            schema_reconcile_interval_sec: 60,
            cas_breaker_threshold: 10,
            cas_breaker_window_sec: 60,
        }
    }
}

/// The first copy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InitConfig {
    /// COPY streams at once.
    #[schemars(range(min = 1, max = 64))]
    pub parallel_workers: u32,
}

impl Default for InitConfig {
    fn default() -> Self {
        Self { parallel_workers: 4 }
    }
}

/// What the daemon may use.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The one byte budget for everything buffered; at least flush.max_bytes.
    #[schemars(range(min = 1))]
    pub buffer_bytes: u64,
    /// Disk for huge transactions; the daemon stops when it is reached.
    #[schemars(range(min = 1))]
    pub spool_bytes: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { buffer_bytes: 256 * 1024 * 1024, spool_bytes: 50 * 1024 * 1024 * 1024 }
    }
}

/// Which tables are followed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TablesConfig {
    /// Tables left out.
    pub exclude: Vec<Glob>,
    /// Tags and the tables that bear them.
    pub tags: BTreeMap<String, Vec<Glob>>,
    /// What a tag does; `untagged` is reserved for tables without one; exclude wins.
    pub policy: BTreeMap<String, TagPolicy>,
    /// Follow new tables of the schemas without `table add`.
    pub auto_add: bool,
}

/// What a tag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TagPolicy {
    /// The table is followed.
    Include,
    /// The table is left out.
    Exclude,
}

/// How values are stored where there is a choice.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TypesConfig {
    /// Form of numeric without precision or with more than 38 digits: string, double or
    /// decimal(p,s).
    pub numeric_unconstrained: StoredForm,
    /// What happens to a value that its column's type cannot hold.
    pub unrepresentable: UnrepresentableChoice,
    /// What an error of one table does, a value or a change of the table that cannot be followed:
    /// quarantine the table, or stop the daemon with nothing confirmed.
    pub on_error: OnTypeError,
    /// Form of arrays.
    pub array: ArrayChoice,
    /// Forms of single columns; the first match wins.
    pub columns: Vec<ColumnForm>,
}

impl Default for TypesConfig {
    fn default() -> Self {
        Self {
            numeric_unconstrained: StoredForm(cdc_core::StoredAs::String),
            unrepresentable: UnrepresentableChoice::Error,
            on_error: OnTypeError::Pause,
            array: ArrayChoice::List,
            columns: Vec::new(),
        }
    }
}

/// What happens to a value that its column's type cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnrepresentableChoice {
    /// It is an error.
    #[default]
    Error,
    /// NULL is stored and counted.
    Null,
    /// The nearest value is stored and counted.
    Clamp,
}

/// What an error of one table does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnTypeError {
    /// The table is quarantined, the others go on.
    #[default]
    Pause,
    /// The daemon stops with nothing confirmed.
    Halt,
}

/// Form of arrays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ArrayChoice {
    /// A list.
    #[default]
    List,
    /// PostgreSQL's text.
    String,
}

/// The form of the columns that a pattern matches.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnForm {
    /// Pattern over `schema.table.column`.
    #[serde(rename = "match")]
    pub pattern: Glob,
    /// string, double, decimal(p,s) or list.
    #[serde(rename = "as")]
    pub form: StoredForm,
}
