//! The governance command line: every command, its flags and its help.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

/// Classify resources and grant access; `pgcdc acl …` runs this
#[derive(Debug, Parser)]
#[command(name = "pgcdc-acl", version = cdc_runtime::VERSION, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
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

/// Arguments of commands that are not available yet; nothing looks at them.
#[derive(Debug, Args)]
pub(crate) struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) args: Vec<String>,
}

/// How a command answers.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put a resource into the registry with its default tags
    Register {
        /// db, db.schema, db.schema.table or db.schema.table.column
        resource: String,
        /// Sensitivity to start with, over the defaults of the configuration
        #[arg(long, value_name = "VALUE")]
        sensitivity: Option<String>,
        /// Take over the classification of a resource that had this name
        #[arg(long)]
        adopt: bool,
    },
    /// Show the classification of a resource
    Get {
        /// The resource
        resource: String,
        /// Show all versions too
        #[arg(long)]
        history: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Set or remove tags of a resource, with a reason
    Set(SetArgs),
    /// List classifications
    List {
        /// Only what nobody has classified: version 0 or quarantined
        #[arg(long)]
        unclassified: bool,
        /// Only this state: active, archived
        #[arg(long, value_parser = ["active", "archived"])]
        state: Option<String>,
        /// Only what has this direct tag
        #[arg(long, value_name = "K=V")]
        tag: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Compare the registry with what is enforced
    Diff {
        #[command(flatten)]
        output: Output,
    },
    /// Make what is enforced agree with the registry
    Sync {
        /// Compare only
        #[arg(long)]
        dry_run: bool,
        /// Remove tags of other keys too
        #[arg(long)]
        prune: bool,
        /// Change at most this much
        #[arg(long, value_name = "N")]
        max_ops: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Let a principal read a resource
    Grant(GrantArgs),
    /// Take a grant back
    Revoke {
        /// Id of the grant, as `grants` shows it
        id: String,
        /// Why, at least 8 characters
        #[arg(long)]
        reason: String,
    },
    /// List grants
    Grants {
        /// Only those of this principal
        #[arg(long)]
        principal: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Say what a principal sees of a resource, and why
    Explain(AnyArgs),
    /// Give, list or take back emergency grants
    #[command(subcommand)]
    BreakGlass(BreakGlass),
    /// Verify or follow the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Check the posture of the governance backend
    Preflight {
        #[command(flatten)]
        output: Output,
    },
    /// Print build information
    Version {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct SetArgs {
    /// The resource
    pub(crate) resource: String,
    /// Tag to set
    #[arg(long = "tag", value_name = "K=V", group = "change")]
    pub(crate) tags: Vec<String>,
    /// Key to remove
    #[arg(long = "untag", value_name = "K", group = "change")]
    pub(crate) untags: Vec<String>,
    /// Why, at least 8 characters
    #[arg(long)]
    pub(crate) reason: String,
    /// Refuse unless the resource has this version
    #[arg(long, value_name = "N")]
    pub(crate) expect_version: Option<u64>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("permission").required(true).multiple(true))]
#[command(group = ArgGroup::new("target").required(true))]
pub(crate) struct GrantArgs {
    /// To whom: user:<name>, role:<name>, group:<name>, token:<id>, stdio
    #[arg(long)]
    pub(crate) principal: String,
    /// Reading
    #[arg(long, group = "permission")]
    pub(crate) select: bool,
    /// The feed of changes
    #[arg(long, group = "permission")]
    pub(crate) changes: bool,
    /// Kept for Lake Formation; shows nothing by itself
    #[arg(long, group = "permission")]
    pub(crate) describe: bool,
    /// Explaining, audit and policies; shows no data
    #[arg(long, group = "permission")]
    pub(crate) admin: bool,
    /// A resource and all below it
    #[arg(long, value_name = "RESOURCE", group = "target")]
    pub(crate) on: Option<String>,
    /// Whatever bears these tags: 'k=v1|v2,k2=v'
    #[arg(long, value_name = "TAGS", group = "target")]
    pub(crate) where_tags: Option<String>,
    /// With --on: these columns, or '*' for all
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "where_tags")]
    pub(crate) columns: Vec<String>,
    /// With --on: all columns but these
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with_all = ["where_tags", "columns"])]
    pub(crate) except: Vec<String>,
    /// Only rows for which this holds
    #[arg(long, value_name = "EXPR")]
    pub(crate) row_filter: Option<String>,
    /// Show a mask instead of a column's values
    #[arg(long = "mask", value_name = "COL=MASK")]
    pub(crate) masks: Vec<String>,
    /// For how long
    #[arg(long, value_name = "DURATION")]
    pub(crate) ttl: Option<String>,
    /// Why, at least 8 characters
    #[arg(long)]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BreakGlass {
    /// Give one
    Grant {
        /// To whom
        #[arg(long)]
        principal: String,
        /// On which table
        #[arg(long)]
        resource: String,
        /// On which columns
        #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
        columns: Vec<String>,
        /// For how long
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        ttl: String,
        /// Why, at least 8 characters
        #[arg(long)]
        reason: String,
        /// The ticket it belongs to
        #[arg(long)]
        ticket: String,
        /// Who approved it
        #[arg(long)]
        approver: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List them
    List {
        #[command(flatten)]
        output: Output,
    },
    /// End one before its time
    Revoke {
        /// Its id
        id: String,
        /// Why, at least 8 characters
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Compute every hash anew
    Verify {
        #[command(flatten)]
        output: Output,
    },
    /// Print records, one JSON line each
    Tail {
        /// From this record on
        #[arg(long, value_name = "SEQ", default_value_t = 1)]
        since: u64,
    },
}
