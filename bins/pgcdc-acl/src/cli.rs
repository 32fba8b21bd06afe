//! The governance command line: every command, its flags and its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put a resource into the registry with its default tags
    Register(AnyArgs),
    /// Show the classification of a resource
    Get(AnyArgs),
    /// Set or remove tags of a resource, with a reason
    Set(AnyArgs),
    /// List classifications
    List(AnyArgs),
    /// Compare the registry with what is enforced
    Diff(AnyArgs),
    /// Make what is enforced agree with the registry
    Sync(AnyArgs),
    /// Let a principal read a resource
    Grant(AnyArgs),
    /// Take a grant back
    Revoke(AnyArgs),
    /// List grants
    Grants(AnyArgs),
    /// Say what a principal sees of a resource, and why
    Explain(AnyArgs),
    /// Give, list or take back emergency grants
    BreakGlass(AnyArgs),
    /// Verify or follow the audit log
    Audit(AnyArgs),
    /// Check the posture of the governance backend
    Preflight(AnyArgs),
    /// Print build information
    Version {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// The name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Register(_) => "register",
            Command::Get(_) => "get",
            Command::Set(_) => "set",
            Command::List(_) => "list",
            Command::Diff(_) => "diff",
            Command::Sync(_) => "sync",
            Command::Grant(_) => "grant",
            Command::Revoke(_) => "revoke",
            Command::Grants(_) => "grants",
            Command::Explain(_) => "explain",
            Command::BreakGlass(_) => "break-glass",
            Command::Audit(_) => "audit",
            Command::Preflight(_) => "preflight",
            Command::Version { .. } => "version",
        }
    }
}
