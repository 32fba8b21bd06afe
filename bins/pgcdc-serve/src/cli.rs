//! The command line: every command, its flags and its help.

use std::ffi::OsString;
use std::path::PathBuf;

use cdc_core::Lsn;
use cdc_query::{Condition, OrderKey};
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exit codes, at the end of the help.
const EXIT_CODES: &str = "\
Exit codes: 0 ok · 1 failed while working, timed out or no lake · 2 usage or configuration \
· 3 a difference was found · 4 denied or not found";

const QUERY_EXAMPLES: &str = "\
Examples:
  pgcdc query                                            list the tables
  pgcdc query -t public.orders -c id,amount -w amount:gt:100 --order-by -amount -n 10
  pgcdc query -t public.orders --epoch 42 -f csv         as it was at an earlier cut
  pgcdc query -t public.orders --changes-since 41 -f ndjson
  pgcdc query --sql 'SELECT status, count(*) FROM orders GROUP BY 1' --evidence

Conditions are column:operator:value with one of eq ne gt gte lt lte like in isnull notnull;
`in` takes a|b|c. Several -w must all hold.";

/// Read a lake: tables, changes and SQL at one consistent cut
#[derive(Debug, Parser)]
#[command(name = "pgcdc-serve", version = version(), after_help = EXIT_CODES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

fn version() -> String {
    let build = cdc_runtime::BUILD_INFO;
    format!("{} ({})", build.version, build.git_sha)
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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Rows of a table, its changes, or of a SELECT; without -t and --sql, the list of tables
    #[command(after_help = QUERY_EXAMPLES)]
    Query(Box<QueryArgs>),
    /// Serve agents and people over MCP or HTTP (not in this build)
    #[command(after_help = "Example: pgcdc serve --mcp")]
    Serve(ServeArgs),
    /// Move `main` to another cut, under `promotion.mode: manual`
    #[command(after_help = "Example: pgcdc promote --from staging --reason 'release 12'")]
    Promote(PromoteArgs),
    /// Compare the contracts of two cuts: tables, columns, keys, policies
    #[command(after_help = "Example: pgcdc diff --from main --to staging --exit-code")]
    Diff(DiffArgs),
    /// Print build information
    Version {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// The form of rows on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    Table,
    Json,
    Ndjson,
    Csv,
    Arrow,
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// Table, as schema.table; the name alone where one schema has it
    #[arg(short, long, value_name = "TABLE")]
    pub(crate) table: Option<String>,
    /// Columns, separated by commas [default: all]
    #[arg(short, long, value_name = "A,B", value_delimiter = ',', requires = "table")]
    pub(crate) columns: Vec<String>,
    /// Condition, as column:operator:value; may be repeated
    #[arg(short = 'w', long = "where", value_name = "COL:OP:VALUE", requires = "table")]
    pub(crate) conditions: Vec<String>,
    /// Rows at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u64,
    /// Form of the rows
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: OutputFormat,
    /// See only what this role may see on the source
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: Option<String>,
    /// The table as of its newest complete base
    #[arg(long, requires = "table")]
    pub(crate) no_deltas: bool,
    /// All changes behind this epoch, in commit order, with their metadata
    #[arg(long, value_name = "EPOCH", requires = "table")]
    #[arg(conflicts_with_all = ["no_deltas", "include_deleted"])]
    pub(crate) changes_since: Option<u64>,
    /// One SELECT over the lake's tables; `orders__changes` is the changelog of `orders`
    #[arg(long, value_name = "TEXT", conflicts_with = "table")]
    pub(crate) sql: Option<String>,
    /// Sort keys, separated by commas; -a is descending
    #[arg(long, value_name = "A,-B", value_delimiter = ',', allow_hyphen_values = true)]
    #[arg(requires = "table")]
    pub(crate) order_by: Vec<String>,
    #[command(flatten)]
    pub(crate) cut: CutArgs,
    /// Wait until this position is covered
    #[arg(long, value_name = "X/Y", conflicts_with_all = ["epoch", "lsn", "as_of"])]
    pub(crate) min_lsn: Option<Lsn>,
    /// How long to wait for --min-lsn
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub(crate) timeout_ms: u64,
    /// Show soft-deleted rows, with __deleted_at
    #[arg(long, requires = "table")]
    pub(crate) include_deleted: bool,
    /// Say on stderr, as JSON, which cut this is and how fresh
    #[arg(long)]
    pub(crate) evidence: bool,
}

/// The cut to read; at most one of them.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct CutArgs {
    /// Cut by name: main, staging, raw@<time>
    #[arg(long = "ref", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Cut of this epoch
    #[arg(long, value_name = "N")]
    pub(crate) epoch: Option<u64>,
    /// Newest cut at or before this position
    #[arg(long, value_name = "X/Y")]
    pub(crate) lsn: Option<Lsn>,
    /// Newest cut at or before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(crate) as_of: Option<DateTime<Utc>>,
}

impl QueryArgs {
    pub(crate) fn parsed_conditions(&self) -> cdc_query::Result<Vec<Condition>> {
        self.conditions.iter().map(|text| text.parse()).collect()
    }

    pub(crate) fn order_keys(&self) -> cdc_query::Result<Vec<OrderKey>> {
        self.order_by.iter().map(|text| text.parse()).collect()
    }
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Surface {
    /// Model Context Protocol on stdin and stdout
    #[arg(long)]
    pub(crate) mcp: bool,
    /// REST, SSE, console and MCP over HTTP
    #[arg(long)]
    pub(crate) http: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) surface: Surface,
    /// Address to listen on [default: rest.listen_addr]
    #[arg(long, value_name = "ADDR", requires = "http")]
    pub(crate) listen_addr: Option<String>,
    /// Loopback address for profiles
    #[arg(long, value_name = "ADDR", requires = "http")]
    pub(crate) pprof: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PromoteArgs {
    /// Cut to promote
    #[arg(long, value_name = "REF", default_value = "staging")]
    pub(crate) from: String,
    /// Ref to move
    #[arg(long, value_name = "REF", default_value = "main")]
    pub(crate) to: String,
    /// Why, for the audit record
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
    /// Even where the verdict blocks
    #[arg(long)]
    pub(crate) force: bool,
    /// Only say what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Cut to compare from
    #[arg(long, value_name = "REF", default_value = "main")]
    pub(crate) from: String,
    /// Cut to compare to
    #[arg(long, value_name = "REF", default_value = "staging")]
    pub(crate) to: String,
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
    /// End with 3 when promotion is not safe
    #[arg(long)]
    pub(crate) exit_code: bool,
}

/// `pgcdc-serve --mcp` and `pgcdc-serve --http` are `pgcdc-serve serve …`, as MCP clients write it.
pub(crate) fn with_default_command(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|first| first == "--mcp" || first == "--http") {
        args.insert(1, "serve".into());
    }
    args
}
