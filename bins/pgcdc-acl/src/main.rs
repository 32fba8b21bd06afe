//! `pgcdc-acl`: the governance command line. This version knows its commands and can run none of
//! them yet but `version`.

mod cli;

use anyhow::{Result, bail};
use cdc_runtime::{BUILD_INFO, Config, ExitCode, LogFlags, LoggingConfig, SourceUse};
use clap::Parser;

use cli::{Cli, Command};

fn main() -> std::process::ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::Ok.into(),
        Err(error) => {
            // usage, configuration, or a command that is not available: all the same code
            eprintln!("error: {error:#}");
            ExitCode::Usage.into()
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Command::Version { json } = cli.command {
        if json {
            println!("{:#}", serde_json::to_value(BUILD_INFO)?);
        } else {
            println!("{}", BUILD_INFO.line("pgcdc-acl"));
        }
        return Ok(());
    }
    let common = &cli.common;
    let (level, format) = (common.log_level.clone(), common.log_format.clone());
    LogFlags { level, format }.over(&LoggingConfig::default())?;
    Config::load(common.config.as_deref(), SourceUse::Unused)?;
    bail!("`pgcdc acl {}` is not available yet", cli.command.name())
}
