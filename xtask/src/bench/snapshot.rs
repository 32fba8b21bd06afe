//! The first copy of a table into Parquet, beside the fastest that PostgreSQL can send it.

use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::Options;
use super::measure::{Cost, cost_of};
use super::report::{Report, Section};
use super::source::{self, TABLE};
use crate::lab::Lab;
use crate::pg::{Cluster, Database, Tuning};

pub(super) fn run(options: &Options, bins: &Path) -> Result<Report> {
    let cluster = Cluster::start(options.pg, Tuning::Bench, "")?;
    let database = cluster.create_database("bench")?;
    source::create(&database)?;
    database.execute(&source::insert(1, options.rows))?;
    database.execute(&format!("VACUUM (ANALYZE, FREEZE) {TABLE}; CHECKPOINT;"))?;
    let copy = |format: &str| {
        source::psql(&database, &format!("COPY {TABLE} TO STDOUT (FORMAT {format})"))
    };
    let bytes = source::count_bytes(&mut copy("text")?)?;

    let mut costs: [Vec<Cost>; 4] = Default::default();
    for _ in 0..options.rounds {
        costs[0].push(cost_of(&mut copy("text")?)?);
        costs[1].push(cost_of(&mut copy("binary")?)?);
        costs[2].push(init(bins, &database, 1)?);
        costs[3].push(init(bins, &database, 2)?);
    }
    let names = [
        "COPY TO STDOUT, text",
        "COPY TO STDOUT, binary",
        "pgcdc init, 1 worker",
        "pgcdc init, 2 workers",
    ];
    let medians: Result<Vec<_>> = names
        .iter()
        .zip(costs)
        .map(|(name, runs)| Ok(((*name).to_owned(), Cost::median(runs)?)))
        .collect();
    Ok(Report {
        title: format!("snapshot, PostgreSQL {}, TCP, median of {}", options.pg, options.rounds),
        sections: vec![Section::new("one table", options.rows, bytes, medians?)],
    })
}

/// One `init` into an empty lake, and its teardown, which is not measured.
fn init(bins: &Path, database: &Database, workers: u32) -> Result<Cost> {
    let dir = tempfile::Builder::new().prefix("pgcdc-bench-").tempdir()?;
    let mut lab = Lab::new(bins, dir.path(), database.clone())?;
    lab.set("init", json!({"parallel_workers": workers}))?;
    let cost = cost_of(&mut lab.command("pgcdc", &["init"]))?;
    lab.pgcdc(&["teardown"])?.expect_code(0)?;
    Ok(cost)
}
