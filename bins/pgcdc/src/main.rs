//! `pgcdc`: the write plane and the one command line of the operator. Commands of the other planes
//! are run by the sibling binaries.

mod allocator;
mod cli;
mod commands;
mod context;
#[cfg(feature = "failpoints")]
mod failpoints;
mod failure;
mod progress;
mod render;
mod settings;
mod sibling;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(call) = sibling::requested(&args) {
        return sibling::run(&call);
    }
    let cli = cli::Cli::parse();
    #[cfg(feature = "failpoints")]
    if let Err(error) = failpoints::arm() {
        eprintln!("error: {error:#}");
        return cdc_runtime::ExitCode::Usage.into();
    }
    commands::run(cli).into()
}
