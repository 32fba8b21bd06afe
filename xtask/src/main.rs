//! `cargo xtask`: every task of this workspace that is more than one cargo command.
//!
//! Tasks never install anything into the checkout; what they need from outside lies in the cache
//! directory (`PGCDC_CACHE`, see [`repo::cache_dir`]).

mod bench;
mod ci;
mod demo;
mod deps;
mod e2e;
mod kill;
mod lab;
mod pg;
mod proxy;
mod repo;
mod s3;
mod setup;
mod shell;
mod sim;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the pgcdc workspace", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the other tasks need: PostgreSQL servers, client tools, Python readers
    Setup(setup::Args),
    /// Show the whole product on a private PostgreSQL
    Demo(demo::Args),
    /// Run the end-to-end tests against real PostgreSQL servers
    E2e(e2e::Args),
    /// Simulate the write plane's stream under seeded faults and crashes
    Sim(sim::Args),
    /// Compare speed and memory with the floor, side by side
    Bench(bench::Args),
    /// Check who imports whom against the rules of docs/ARCHITECTURE.md
    Deps,
    /// Everything a change must pass: setup, fmt, clippy, deps, unit tests, simulation, e2e
    Ci(ci::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup(args) => setup::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::E2e(args) => e2e::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Deps => deps::run(),
        Task::Ci(args) => ci::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
