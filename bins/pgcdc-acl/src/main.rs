//! `pgcdc-acl`: the governance command line over the registry of the configuration.

mod cli;
mod commands;
mod failure;
mod render;
mod setup;

use cdc_runtime::ExitCode;
use clap::Parser;

use cli::Cli;

fn main() -> std::process::ExitCode {
    match commands::run(Cli::parse()) {
        Ok(code) => code.into(),
        Err(error) => failure::report(&error).into(),
    }
}

/// What a command leaves behind.
type Outcome = anyhow::Result<ExitCode>;
