//! A scan by SQL, beside DuckDB over the very same Parquet files.

use std::path::Path;

use anyhow::{Context, Result};

use super::Options;
use super::measure::{Cost, cost_of};
use super::report::{Report, Section};
use super::source::{self, TABLE};
use crate::lab::Lab;
use crate::pg::{Cluster, Tuning};
use crate::{repo, setup, shell};

/// What is asked; `{t}` stands for the table.
const QUESTIONS: &[(&str, &str)] = &[
    ("count", "SELECT count(*) AS n FROM {t}"),
    ("sum of one column", "SELECT sum(amount) AS total FROM {t}"),
    (
        "group by",
        "SELECT status, count(*) AS n, sum(amount) AS total, max(quantity) AS most \
         FROM {t} GROUP BY status ORDER BY status",
    ),
    ("filter", "SELECT count(*) AS n, min(made_at) AS first FROM {t} WHERE account < 5000 AND ok"),
    ("one row", "SELECT * FROM {t} WHERE id = 4711"),
    (
        "many groups",
        "SELECT account, sum(amount) AS s FROM {t} GROUP BY account ORDER BY s DESC LIMIT 10",
    ),
];

pub(super) fn run(options: &Options, bins: &Path) -> Result<Report> {
    setup::ensure_readers()?;
    let cluster = Cluster::start(options.pg, Tuning::Bench, "")?;
    let dir = tempfile::Builder::new().prefix("pgcdc-bench-").tempdir()?;
    let lab = source::lab(&cluster, bins, dir.path(), "bench", options.rows)?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(&format!(
        "UPDATE {TABLE} SET quantity = quantity + 1 WHERE id % 100 = 0;
         DELETE FROM {TABLE} WHERE id % 1000 = 1;"
    ))?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    let mut sections = Vec::new();
    for (name, question) in QUESTIONS {
        sections.push(measure(&lab, options, name, question)?);
    }
    let title = format!("query over {} rows, median of {}", options.rows, options.rounds);
    Ok(Report { title, sections })
}

fn measure(lab: &Lab, options: &Options, name: &str, question: &str) -> Result<Section> {
    let manifest = lab.manifest()?;
    let entry = &manifest["tables"][format!("public.{TABLE}")];
    let metadata = entry["metadata_location"].as_str().context("no metadata_location")?;
    let ours = question.replace("{t}", &format!("public.{TABLE}"));
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for _ in 0..options.rounds {
        costs[0].push(duck(lab, Files::Parquet, metadata, question)?);
        costs[1].push(duck(lab, Files::Iceberg, metadata, question)?);
        let args = ["query", "--sql", &ours, "-f", "csv"];
        costs[2].push(cost_of(&mut lab.command("pgcdc-serve", &args))?);
    }
    let names = ["DuckDB, read_parquet", "DuckDB, iceberg_scan", "pgcdc query, whole process"];
    let medians: Result<Vec<_>> = names
        .iter()
        .zip(costs)
        .map(|(name, runs)| Ok(((*name).to_owned(), Cost::median(runs)?)))
        .collect();
    Ok(Section::new(name, options.rows, 0, medians?))
}

/// What DuckDB reads.
#[derive(Clone, Copy)]
pub(super) enum Files {
    /// All Parquet files of the table.
    Parquet,
    /// The rows that its Iceberg snapshot has.
    Iceberg,
}

impl Files {
    fn word(self) -> &'static str {
        match self {
            Files::Parquet => "parquet",
            Files::Iceberg => "iceberg",
        }
    }
}

/// The time that DuckDB itself takes, without the start of Python.
pub(super) fn duck(lab: &Lab, files: Files, metadata: &str, question: &str) -> Result<Cost> {
    let mut python = shell::command(setup::interpreter()?);
    python.arg("-B").arg(repo::root().join("xtask/readers/duck_time.py"));
    python.arg(setup::duckdb_extensions()?).arg(files.word());
    python.arg(lab.lake().join(format!("public.{TABLE}"))).arg(metadata).arg(question);
    let out = shell::stdout(&mut python)?;
    let cost: serde_json::Value = serde_json::from_str(&out)?;
    Ok(Cost {
        seconds: cost["seconds"].as_f64().context("no seconds")?,
        cpu_seconds: cost["cpu_seconds"].as_f64().context("no cpu_seconds")?,
        peak_rss_bytes: cost["peak_rss_bytes"].as_u64().context("no peak_rss_bytes")?,
    })
}
