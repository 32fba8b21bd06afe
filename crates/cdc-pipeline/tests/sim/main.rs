//! The write plane's streaming part under a seed: the daemon as it ships, between a simulated
//! PostgreSQL and a store and a catalog that fail in every way a network can.
//!
//! ```text
//!   Database ─ walsender ═pipe═ cdc-wal ─ ingest ─ lanes ─ flush ─ commit ═╦═ FaultStore ─ Disk
//!      │            ▲ status: I1                                           ╚═ FaultCatalog
//!      └── tape ────┴──────────── Judge: cuts, rows, changelogs, bank ◀────── what is durable
//! ```
//! One seed decides everything that happens. `cargo xtask sim` runs many; without arguments this runs
//! the seeds that once failed and some more.

mod catalog;
mod check;
mod gate;
mod lake;
mod read;
mod rng;
mod schemas;
mod seed;
mod server;
mod store;
mod tables;
mod tape;
mod wire;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;

/// The seeds that once failed, one a line, a reason behind each.
const REGRESSIONS: &str = include_str!("../../../../testdata/sim/seeds.txt");

#[derive(Parser)]
#[command(about = "Simulate the write plane's stream under seeds")]
struct Args {
    /// Seeds to run, beside those that once failed
    #[arg(long, default_value_t = 6)]
    seeds: u64,
    /// The first of them; with --seeds 1 the only one
    #[arg(long)]
    seed: Option<u64>,
    /// Transactions on the source in each seed
    #[arg(long, default_value_t = 60)]
    steps: usize,
    /// Seeds at a time [default: processors]
    #[arg(long)]
    jobs: Option<usize>,
    /// Lines of the event log shown of a seed that failed
    #[arg(long, default_value_t = 60)]
    tail: usize,
    /// Run each seed twice and compare the event logs
    #[arg(long)]
    twice: bool,
    /// Show the log of the daemon itself (with --seeds 1)
    #[arg(long)]
    trace: bool,
    /// Names of tests, as `cargo test <name>` hands them to every target
    #[arg(hide = true)]
    names: Vec<String>,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    if !args.names.is_empty() && !args.names.iter().any(|name| "sim".contains(name.as_str())) {
        return ExitCode::SUCCESS;
    }
    if args.trace {
        tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().init();
    }
    let seeds = chosen(&args);
    let started = Instant::now();
    let report = run_all(&args, &seeds);
    report.print(&args, started.elapsed());
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seeds to run: first those that once failed, unless one is asked for.
fn chosen(args: &Args) -> Vec<u64> {
    let first = args.seed.unwrap_or(1);
    let range = first..first.saturating_add(args.seeds);
    if args.seed.is_some() {
        return range.collect();
    }
    let once_failed = REGRESSIONS
        .lines()
        .filter_map(|line| line.split('#').next().and_then(|seed| seed.trim().parse::<u64>().ok()));
    once_failed.chain(range).collect()
}

#[derive(Default)]
struct Report {
    passed: usize,
    failed: BTreeMap<u64, seed::Outcome>,
    transactions: usize,
    epochs: u64,
    daemons: u64,
    virtual_time: Duration,
    /// Over all seeds, so that two runs can be compared.
    hash: u64,
}

fn run_all(args: &Args, seeds: &[u64]) -> Report {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = args.jobs.unwrap_or(processors).max(1);
    let next = AtomicUsize::new(0);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_one(args, *seed);
                    if let Ok(mut report) = report.lock() {
                        report.add(*seed, outcome);
                    }
                }
            });
        }
    });
    report.into_inner().unwrap_or_default()
}

fn run_one(args: &Args, number: u64) -> seed::Outcome {
    let first = run_caught(number, args.steps);
    if !args.twice {
        return first;
    }
    let second = run_caught(number, args.steps);
    if first.log_hash == second.log_hash {
        return first;
    }
    let differs = first.log_tail.iter().zip(&second.log_tail).find(|(one, other)| one != other);
    let failure = Some(format!("two runs of one seed differ: {differs:?}"));
    seed::Outcome { failure, ..first }
}

/// A panic fails the seed, not the run.
fn run_caught(number: u64, steps: usize) -> seed::Outcome {
    let failed = |failure: String| seed::Outcome {
        failure: Some(failure),
        log_hash: 0,
        log_lines: 0,
        log_tail: Vec::new(),
        transactions: 0,
        epochs: 0,
        daemons: 0,
        virtual_seconds: 0,
    };
    match std::panic::catch_unwind(|| seed::run(number, steps)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => failed(format!("cannot run: {error}")),
        Err(_) => failed("a panic, see above".to_owned()),
    }
}

impl Report {
    fn add(&mut self, seed: u64, outcome: seed::Outcome) {
        self.transactions += outcome.transactions;
        self.epochs += outcome.epochs;
        self.daemons += u64::from(outcome.daemons);
        self.virtual_time += Duration::from_secs(outcome.virtual_seconds);
        // the order in which seeds end is not part of it
        self.hash = self.hash.wrapping_add(outcome.log_hash.rotate_left((seed % 64) as u32));
        if outcome.failure.is_some() {
            self.failed.insert(seed, outcome);
        } else {
            self.passed += 1;
        }
    }

    fn print(&self, args: &Args, took: Duration) {
        for (seed, outcome) in &self.failed {
            let tail = outcome.log_tail.len().saturating_sub(args.tail);
            println!("seed {seed}: last {} of {} events", args.tail, outcome.log_lines);
            outcome.log_tail[tail..].iter().for_each(|line| println!("  {line}"));
            println!("seed {seed} FAILED: {}", outcome.failure.as_deref().unwrap_or_default());
            println!("  again: cargo xtask sim --seed {seed} --seeds 1 --steps {}", args.steps);
        }
        println!(
            "sim: {} seeds passed, {} failed in {:.1} s; {} transactions, {} epochs, {} daemons, \
             {:.1} virtual hours; log {:016x}",
            self.passed,
            self.failed.len(),
            took.as_secs_f64(),
            self.transactions,
            self.epochs,
            self.daemons,
            self.virtual_time.as_secs_f64() / 3600.0,
            self.hash
        );
    }
}
