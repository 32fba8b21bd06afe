//! `cargo xtask ci`: what a change must pass, in the order that fails fastest, with the time each
//! step took.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::setup::Majors;
use crate::{deps, e2e, kill, repo, setup, shell, sim};

/// The PostgreSQL major that the crates' own tests start.
const UNIT_TEST_MAJOR: u32 = 15;

/// Which steps to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// PostgreSQL majors that the end-to-end tests run against
    #[arg(long, default_value = "15,18")]
    pg: Majors,
}

/// Runs all steps and stops at the first that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("setup", || {
        setup::ensure(&args.pg)?;
        setup::ensure(&Majors::one(UNIT_TEST_MAJOR))?;
        setup::ensure_readers()?;
        setup::ensure_s3()
    })?;
    steps.run("fmt", || cargo(&["fmt", "--all", "--check"]))?;
    steps.run("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    })?;
    steps.run("deps", deps::run)?;
    steps.run("test", || {
        let mut test = shell::command(repo::cargo());
        test.current_dir(repo::root()).args(["test", "--workspace"]);
        test.env("PGCDC_TEST_PG_BIN", setup::server_bin(UNIT_TEST_MAJOR)?);
        shell::run(test.env("PGCDC_TEST_WEED", setup::weed()?))
    })?;
    steps.run("sim", || sim::run(&sim::Args::ci()))?;
    steps.run("e2e", || e2e::run(&e2e::Args::all_on(args.pg.clone())))?;
    steps.run("kill", || kill::run(&kill::Args::selection(args.pg.clone())))?;
    steps.run("late kill", || kill::run(&kill::Args::late(args.pg.clone())?))?;
    steps.report();
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    shell::run(shell::command(repo::cargo()).current_dir(repo::root()).args(args))
}

#[derive(Default)]
struct Steps {
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        println!("==> {name}");
        let started = Instant::now();
        let outcome = step();
        self.done.push((name, started.elapsed()));
        if outcome.is_err() {
            self.report();
        }
        outcome.with_context(|| format!("step `{name}` failed"))
    }

    fn report(&self) {
        println!("==> time per step");
        for (name, took) in &self.done {
            println!("{name:>8} {:7.1} s", took.as_secs_f64());
        }
    }
}
