//! `pgcdc-serve`: the read plane's command line. It links no PostgreSQL client and needs no source.

mod cli;
mod diff;
mod failure;
mod promote;
mod query;
mod setup;
mod table_format;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse_from(cli::with_default_command(std::env::args_os()));
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error).into(),
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        Command::Query(args) => query::run(&cli.common, args),
        Command::Version { json } => version(*json),
        Command::Serve(_) => Err(failure::unavailable("serve")),
        Command::Promote(args) => promote::run(&cli.common, args),
        Command::Diff(args) => diff::run(&cli.common, args),
    }
}

fn version(json: bool) -> anyhow::Result<()> {
    let build = cdc_runtime::BUILD_INFO;
    if json {
        println!("{}", serde_json::to_string_pretty(&build)?);
    } else {
        println!("{}", build.line("pgcdc-serve"));
    }
    Ok(())
}
