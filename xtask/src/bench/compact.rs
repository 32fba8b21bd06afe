//! Compaction beside DuckDB's sorted copy of the same rows, and what it is worth to a scan.

use std::path::Path;

use anyhow::{Context, Result};

use super::Options;
use super::measure::{Cost, cost_of};
use super::query::{Files, duck};
use super::report::{Report, Section};
use super::source::{self, TABLE};
use crate::lab::Lab;
use crate::pg::{Cluster, Tuning};
use crate::setup;

/// A scan that decodes columns of every kind.
const SCAN: &str = "SELECT count(*) AS n, sum(amount) AS a, max(note) AS b, min(made_at) AS c, \
                    sum(quantity) AS d FROM {t}";

pub(super) fn run(options: &Options, bins: &Path) -> Result<Report> {
    setup::ensure_readers()?;
    let cluster = Cluster::start(options.pg, Tuning::Bench, "")?;
    let dir = tempfile::Builder::new().prefix("pgcdc-bench-").tempdir()?;
    let mut lab = source::lab(&cluster, bins, &dir.path().join("lab"), "bench", options.rows)?;
    // the daemon leaves the work to the command
    lab.set("compaction.interval_sec", 0.into())?;
    lab.init()?;
    let copy = format!(
        "COPY (SELECT * FROM {{t}} ORDER BY id) TO '{}' (FORMAT parquet, COMPRESSION zstd)",
        dir.path().join("sorted.parquet").display()
    );
    let mut costs: [Vec<Cost>; 4] = Default::default();
    for round in 0..options.rounds {
        update_a_fifth(&lab, round)?;
        let metadata = metadata_location(&lab)?;
        costs[0].push(duck(&lab, Files::Iceberg, &metadata, &copy)?);
        costs[3].push(scan(&lab)?);
        costs[1].push(cost_of(&mut lab.command("pgcdc", &["compact"]))?);
        costs[2].push(scan(&lab)?);
    }
    let [sorted, compacted, clean, worn] = costs;
    let median = |name: &str, runs| Ok((name.to_owned(), Cost::median(runs)?));
    let compaction: Result<Vec<_>> = [
        median("DuckDB, COPY (... ORDER BY id)", sorted),
        median("pgcdc compact, whole process", compacted),
    ]
    .into_iter()
    .collect();
    let scans: Result<Vec<_>> =
        [median("compacted", clean), median("a fifth of the rows deleted", worn)]
            .into_iter()
            .collect();
    Ok(Report {
        title: format!("compaction of {} rows, median of {}", options.rows, options.rounds),
        sections: vec![
            Section::new("a complete base", options.rows, 0, compaction?),
            Section::new("scan, whole process", options.rows, 0, scans?),
        ],
    })
}

/// Leaves every fifth row of the files deleted, and a new version of it in a delta file.
fn update_a_fifth(lab: &Lab, round: usize) -> Result<()> {
    let daemon = lab.start()?;
    lab.database().execute(&format!(
        "UPDATE {TABLE} SET quantity = quantity + 1 WHERE id % 5 = {}",
        round % 5
    ))?;
    lab.settle(&daemon)?;
    daemon.stop()
}

fn scan(lab: &Lab) -> Result<Cost> {
    let sql = SCAN.replace("{t}", &format!("public.{TABLE}"));
    cost_of(&mut lab.command("pgcdc-serve", &["query", "--sql", &sql, "-f", "csv"]))
}

fn metadata_location(lab: &Lab) -> Result<String> {
    let manifest = lab.manifest()?;
    let entry = &manifest["tables"][format!("public.{TABLE}")];
    Ok(entry["metadata_location"].as_str().context("no metadata_location")?.to_owned())
}
