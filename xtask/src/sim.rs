//! `cargo xtask sim`: the write plane's stream under simulation, many seeds of it.

use anyhow::Result;

use crate::{repo, shell};

/// Seeds of a run by hand.
const SEEDS: u64 = 200;
/// Seeds of a run that a change must pass, and their length: many short lives find more than few
/// long ones.
const CI_SEEDS: u64 = 600;
const CI_STEPS: usize = 20;

/// Which seeds to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seeds to run, beside those that once failed
    #[arg(long, default_value_t = SEEDS)]
    seeds: u64,
    /// The first of them; with --seeds 1 the only one
    #[arg(long)]
    seed: Option<u64>,
    /// Transactions on the source in each seed
    #[arg(long)]
    steps: Option<usize>,
    /// Seeds at a time [default: processors]
    #[arg(long)]
    jobs: Option<usize>,
    /// Lines of the event log shown of a seed that failed
    #[arg(long)]
    tail: Option<usize>,
    /// Run each seed twice and compare the event logs
    #[arg(long)]
    twice: bool,
    /// Show the log of the daemon itself (with --seeds 1)
    #[arg(long)]
    trace: bool,
}

impl Args {
    /// What a change must pass.
    pub(crate) fn ci() -> Args {
        Args {
            seeds: CI_SEEDS,
            seed: None,
            steps: Some(CI_STEPS),
            jobs: None,
            tail: None,
            twice: false,
            trace: false,
        }
    }
}

/// Builds the simulation, with the features that the tests have, and runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut run = shell::command(repo::cargo());
    run.current_dir(repo::root()).args(["test", "--quiet", "--workspace", "--test", "sim", "--"]);
    run.args(["--seeds", &args.seeds.to_string()]);
    let values = [
        ("--seed", args.seed.map(|seed| seed.to_string())),
        ("--steps", args.steps.map(|steps| steps.to_string())),
        ("--jobs", args.jobs.map(|jobs| jobs.to_string())),
        ("--tail", args.tail.map(|tail| tail.to_string())),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            run.args([name, &value]);
        }
    }
    for (name, is_set) in [("--twice", args.twice), ("--trace", args.trace)] {
        if is_set {
            run.arg(name);
        }
    }
    shell::run(&mut run)
}
