//! One file per command. A command returns its exit code, or an error that [`crate::failure`] turns
//! into one.

mod catalog;
mod compact;
mod compat;
mod config;
mod discover;
pub(crate) mod init;
pub(crate) mod preflight;
pub(crate) mod quickstart;
mod reconcile;
pub(crate) mod start;
mod status;
mod table;
mod teardown;
mod verify;
mod version;

use anyhow::Result;
use cdc_runtime::{CommandKind, ExitCode};

use crate::cli::{CatalogCommand, Cli, Command, ConfigCommand};
use crate::context::Context;
use crate::failure;

/// Runs a command to its exit code.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let context = Context::new(cli.common);
    let result = match cli.command {
        Command::Version(args) => version::run(args.json),
        Command::Config(ConfigCommand::Check(args)) => config::check(&context, args.json),
        Command::Config(ConfigCommand::Show(args)) => config::show(&context, &args),
        Command::Preflight(args) => preflight::run(&context, args.json),
        Command::Discover(args) => discover::run(&context, &args),
        Command::Init(args) => init::run(&context, args.json),
        Command::Start => return start::run(&context),
        Command::Status(args) if args.compat => compat::run(&context, args.json.json),
        Command::Status(args) => status::run(&context, args.json.json),
        Command::Teardown(args) => teardown::run(&context, args.yes),
        Command::Quickstart(args) => quickstart::run(&context, &args),
        Command::Compact(args) => compact::run(&context, &args),
        Command::Reconcile(args) => reconcile::run(&context, &args),
        Command::Verify(args) => return verify::run(&context, &args),
        Command::Table(command) => table::run(&context, &command),
        Command::Catalog(CatalogCommand::Register(args)) => catalog::register(&context, args.json),
        // reached only where common flags stand in an unusual place
        Command::Serve(_)
        | Command::Query(_)
        | Command::Promote(_)
        | Command::Diff(_)
        | Command::Acl(_) => misplaced(),
    };
    result.unwrap_or_else(|error| failure::report(&error, CommandKind::Operator))
}

fn misplaced() -> Result<ExitCode> {
    let message = "the command must come before its own flags; hint: pgcdc --config <path> query …";
    Err(failure::Stop::usage(message).into())
}
