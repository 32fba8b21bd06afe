//! The same number of scattered updates in a small table and in one ten times as large: what the key
//! index costs as it grows.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::Options;
use super::measure::{Cost, cpu_seconds};
use super::report::{Report, Section};
use super::source::{self, TABLE};
use crate::pg::{Cluster, Tuning};

/// How much larger the large table is.
const TIMES: u64 = 10;
/// Rows updated in each round.
const UPDATES: u64 = 200_000;

pub(super) fn run(options: &Options, bins: &Path) -> Result<Report> {
    let cluster = Cluster::start(options.pg, Tuning::Bench, "")?;
    let mut costs = Vec::new();
    for rows in [options.rows, options.rows * TIMES] {
        costs.push((format!("a table of {rows} rows"), measure(options, bins, &cluster, rows)?));
    }
    Ok(Report {
        title: format!(
            "scattered updates into the lake, PostgreSQL {}, median of {}",
            options.pg, options.rounds
        ),
        sections: vec![Section::new("updates", UPDATES.min(options.rows), 0, costs)],
    })
}

/// The daemon's cost of one round of updates that wait in the log when it starts.
fn measure(options: &Options, bins: &Path, cluster: &Cluster, rows: u64) -> Result<Cost> {
    let dir = tempfile::Builder::new().prefix("pgcdc-bench-").tempdir()?;
    let name = format!("updates_{rows}");
    let mut lab = source::lab(cluster, bins, &dir.path().join("lab"), &name, rows)?;
    lab.set("compaction.interval_sec", 0.into())?;
    lab.set("flush.interval_sec", 1.into())?;
    lab.init()?;
    let every = (rows / UPDATES).max(1);
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        let daemon = lab.start()?;
        lab.settle(&daemon)?;
        let before = cpu_seconds(daemon.pid())?;
        let began = Instant::now();
        lab.database().execute(&format!(
            "UPDATE {TABLE} SET quantity = quantity + 1 WHERE id % {every} = {}",
            u64::try_from(round)? % every
        ))?;
        let written = began.elapsed();
        lab.settle(&daemon)?;
        runs.push(Cost {
            seconds: (began.elapsed() - written).as_secs_f64(),
            cpu_seconds: cpu_seconds(daemon.pid())? - before,
            peak_rss_bytes: daemon.peak_rss()?,
        });
        daemon.stop()?;
    }
    Cost::median(runs)
}
