//! `cargo xtask bench`: ratios, not absolute numbers. Every contender does the same work on the
//! same server in one run, one after the other; the median of several rounds counts.

mod compact;
mod debezium;
mod measure;
mod query;
mod report;
mod restart;
mod snapshot;
mod source;
mod stream;
mod updates;

use std::path::PathBuf;

use anyhow::Result;

use crate::repo::{self, Profile};
use crate::setup::{self, Majors};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The first copy of a table, beside `COPY ... TO STDOUT` in text and binary
    Snapshot(Options),
    /// The stream into the lake, beside `pg_recvlogical` on the same write-ahead log
    Stream(StreamOptions),
    /// A scan by SQL, beside DuckDB over the same Parquet files
    Query(Options),
    /// From a crash to the first new commit
    Restart(Options),
    /// Compaction, beside DuckDB's sorted copy of the same rows, and a scan before and after
    Compact(Options),
    /// The same updates in a table of this many rows and in one of ten times as many
    Updates(Options),
}

/// Sizes and rounds of a benchmark.
#[derive(clap::Args)]
struct Options {
    /// The PostgreSQL major of the source
    #[arg(long, default_value_t = 15)]
    pg: u32,
    /// Rows of the table, or changes of the log
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Rounds per contender; the median is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the JSON goes [default: target/bench/<what>.json]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// The same, and whom to run beside us.
#[derive(clap::Args)]
struct StreamOptions {
    #[command(flatten)]
    common: Options,
    /// Also run Debezium into Iceberg on the same log; needs Java 17 or newer
    #[arg(long)]
    debezium: bool,
}

impl Options {
    fn out(&self, what: &str) -> PathBuf {
        let default = || repo::root().join("target/bench").join(format!("{what}.json"));
        self.out.clone().unwrap_or_else(default)
    }
}

/// Runs one benchmark with release binaries, prints its table and writes its JSON.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (name, options) = match &args.what {
        What::Snapshot(options) => ("snapshot", options),
        What::Stream(options) => ("stream", &options.common),
        What::Query(options) => ("query", options),
        What::Restart(options) => ("restart", options),
        What::Compact(options) => ("compact", options),
        What::Updates(options) => ("updates", options),
    };
    setup::ensure(&Majors::one(options.pg))?;
    let bins = repo::build_binaries(Profile::Release)?;
    if matches!(args.what, What::Stream(_)) {
        repo::build_example("receive", Profile::Release)?;
    }
    let report = match &args.what {
        What::Snapshot(options) => snapshot::run(options, &bins)?,
        What::Stream(options) => stream::run(options, &bins)?,
        What::Query(options) => query::run(options, &bins)?,
        What::Restart(options) => restart::run(options, &bins)?,
        What::Compact(options) => compact::run(options, &bins)?,
        What::Updates(options) => updates::run(options, &bins)?,
    };
    report.print();
    report.write(&options.out(name))
}
