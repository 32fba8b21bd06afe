//! The command line: every command, its flags and its help.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::quickstart::QuickstartArgs;

/// Exit codes, at the end of the help.
const EXIT_CODES: &str = "\
Exit codes: 0 ok · 1 failed while working · 2 usage, configuration or a backend that cannot be reached \
· 3 a difference was found · 4 denied, not found or refused";

/// PostgreSQL to governed, time-travelling Iceberg tables
#[derive(Debug, Parser)]
#[command(name = "pgcdc", version = cdc_runtime::VERSION, after_help = EXIT_CODES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Configuration file [default: pgcdc.yml, then pg-cdc.yml]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Least level that is logged: trace, debug, info, warn, error
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Form of a log line: json, text [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

/// Only `--json`.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy a database into a local lake and follow it, from nothing but its URL
    #[command(
        after_help = "Example: pgcdc quickstart --url postgresql://me@localhost/shop --dir ./lake"
    )]
    Quickstart(QuickstartArgs),
    /// Check whether the source is ready, with a remedy for each thing that is not
    #[command(after_help = "Example: pgcdc preflight --json")]
    Preflight(JsonArgs),
    /// Make publication, slot and lake, and copy all tables at one position of the log
    #[command(after_help = "Example: pgcdc init && pgcdc start")]
    Init(JsonArgs),
    /// Run the daemon: follow the log and commit epochs until a signal
    #[command(
        after_help = "SIGTERM or SIGINT drains and ends with 0; a second one ends at once with 1.\nExample: pgcdc start --log-format json"
    )]
    Start,
    /// Write complete bases, let old changes go, and remove what nothing needs any more
    #[command(after_help = "Example: pgcdc compact --table public.orders --dry-run")]
    Compact(CompactArgs),
    /// Show slot, lag, tables and refs
    #[command(after_help = "Example: pgcdc status --json | jq .replication.lag_bytes")]
    Status(StatusArgs),
    /// List the tables of the source with tags and the decision about each
    #[command(after_help = "Example: pgcdc discover")]
    Discover(DiscoverArgs),
    /// Compare the source's schema with the manifest
    #[command(after_help = "Example: pgcdc reconcile --table public.orders --force")]
    Reconcile(ReconcileArgs),
    /// Prove that source and lake are equal at one position of the log
    #[command(after_help = "Example: pgcdc verify --table public.orders")]
    Verify(VerifyArgs),
    /// Add, remove, resync, pause or resume a table
    #[command(subcommand)]
    Table(TableCommand),
    /// Register the manifest's tables in the catalog
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Drop slot and publication, and with --yes the lake
    #[command(after_help = "Example: pgcdc teardown --yes")]
    Teardown(TeardownArgs),
    /// Print build information
    #[command(after_help = "Example: pgcdc version --json")]
    Version(JsonArgs),
    /// Serve the lake to agents (MCP) and programs (HTTP); run by pgcdc-serve
    #[command(disable_help_flag = true)]
    Serve(PassedOn),
    /// Read tables, changes and older cuts; run by pgcdc-serve
    #[command(disable_help_flag = true)]
    Query(PassedOn),
    /// Move the ref `main` to another cut; run by pgcdc-serve
    #[command(disable_help_flag = true)]
    Promote(PassedOn),
    /// Compare the schemas of two refs; run by pgcdc-serve
    #[command(disable_help_flag = true)]
    Diff(PassedOn),
    /// Classify resources and grant access; run by pgcdc-acl
    #[command(disable_help_flag = true)]
    Acl(PassedOn),
}

/// Arguments for a sibling binary.
#[derive(Debug, Args)]
pub(crate) struct PassedOn {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show instead which engines read which table, by its format version and delete encoding
    #[arg(long)]
    pub(crate) compat: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// Only these tables
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Vec<String>,
    /// Keep tombstones this long instead of `changelog.retention`
    #[arg(long, value_name = "DURATION")]
    pub(crate) tombstone_ttl: Option<String>,
    /// Say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoverArgs {
    /// Show which role may read which columns
    #[arg(long)]
    pub(crate) acl: bool,
    /// Accepted; discover never writes
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    /// Only these tables
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Vec<String>,
    /// Apply the plan
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Only these tables
    #[arg(long, value_name = "TABLE")]
    pub(crate) table: Vec<String>,
    /// Longest time for the whole comparison, in seconds
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) timeout_sec: u64,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Follow a table, without a restart
    Add(TableWaitArgs),
    /// Stop following a table; its data stay unless purged
    Remove(TableRemoveArgs),
    /// Copy a table again beside its old data
    Resync(TableWaitArgs),
    /// Stop writing the changes of a table
    Pause(TableArgs),
    /// Resume a paused table by a resync
    Resume(TableArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    /// schema.table
    pub(crate) table: String,
}

#[derive(Debug, Args)]
pub(crate) struct TableWaitArgs {
    /// schema.table
    pub(crate) table: String,
    /// Return at once
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TableRemoveArgs {
    /// schema.table
    pub(crate) table: String,
    /// Remove the data too
    #[arg(long, requires = "yes")]
    pub(crate) purge: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// Make the catalog agree with the manifest; may be repeated
    Register(JsonArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Read and check the file without a connection; all errors at once
    Check(JsonArgs),
    /// Print the effective configuration, secrets as ***
    Show(ConfigShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Print JSON instead of YAML
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the JSON Schema of the file
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TeardownArgs {
    /// Remove the storage root and the state directory too
    #[arg(long)]
    pub(crate) yes: bool,
}
