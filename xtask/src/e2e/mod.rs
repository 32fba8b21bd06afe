//! `cargo xtask e2e`: the real binaries between a real PostgreSQL and other projects' Iceberg
//! readers, once per PostgreSQL major.

mod bad_input;
mod crash;
mod edges;
mod memory;
mod quarantine;
mod query;
mod server;
mod streamed;
mod transactions;
mod types;
mod workload;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::pg::{Cluster, Tuning};
use crate::repo::{self, Profile};
use crate::setup::{self, Majors};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only scenarios whose name contains this
    filter: Option<String>,
    /// PostgreSQL majors, comma separated, or `all` (14 to 18)
    #[arg(long, default_value = "15,18")]
    pg: Majors,
    /// Print the names and run nothing
    #[arg(long)]
    list: bool,
    /// Drive release binaries
    #[arg(long)]
    release: bool,
    /// Take the binaries as `cargo test --workspace` left them
    #[arg(long, conflicts_with = "release")]
    built: bool,
}

impl Args {
    /// All scenarios on these majors, with the binaries that the tests were built with: other
    /// features would mean another build of everything below them.
    pub(crate) fn all_on(pg: Majors) -> Self {
        Self { filter: None, pg, list: false, release: false, built: true }
    }
}

/// One expectation, proved on a server.
type Scenario = (&'static str, fn(&Env<'_>) -> Result<()>);

/// All scenarios, the cheap ones first.
fn scenarios() -> impl Iterator<Item = Scenario> {
    [
        workload::SCENARIOS,
        query::SCENARIOS,
        edges::SCENARIOS,
        types::SCENARIOS,
        bad_input::SCENARIOS,
        quarantine::SCENARIOS,
        server::SCENARIOS,
        crash::SCENARIOS,
        transactions::SCENARIOS,
        streamed::SCENARIOS,
        memory::SCENARIOS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// What a scenario is given.
struct Env<'a> {
    cluster: &'a Cluster,
    bins: &'a Path,
    dir: PathBuf,
    name: &'static str,
}

impl Env<'_> {
    /// A lab over a database of its own on the shared server, with the table that settling needs.
    fn lab(&self) -> Result<Lab> {
        self.lab_on(self.cluster)
    }

    /// The same over a server that belongs to the scenario.
    fn lab_on(&self, cluster: &Cluster) -> Result<Lab> {
        // Identifiers end at 63 bytes, and the slot's name has a prefix before this one.
        let database = cluster.create_database(&self.name[..self.name.len().min(50)])?;
        let lab = Lab::new(self.bins, &self.dir, database)?;
        lab.create_sentinel()?;
        Ok(lab)
    }

    /// A server of the same major for this scenario alone.
    fn own_cluster(&self, extra: &str) -> Result<Cluster> {
        Cluster::start(self.cluster.major(), Tuning::Tests, extra)
    }
}

/// Runs the scenarios and ends with a line that counts them.
pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen: Vec<Scenario> = scenarios()
        .filter(|(name, _)| args.filter.as_ref().is_none_or(|part| name.contains(part.as_str())))
        .collect();
    if args.list {
        for (name, _) in &chosen {
            println!("{name}");
        }
        return Ok(());
    }
    if chosen.is_empty() {
        bail!("no scenario has that in its name; hint: cargo xtask e2e --list");
    }
    setup::ensure(&args.pg)?;
    setup::ensure_readers()?;
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let bins = if args.built { repo::binaries(profile) } else { repo::build_binaries(profile)? };
    let (mut passed, mut failed) = (0, Vec::new());
    for major in args.pg.iter() {
        let cluster = Cluster::start(major, Tuning::Tests, "")?;
        for scenario in &chosen {
            match run_one(*scenario, &cluster, &bins) {
                true => passed += 1,
                false => failed.push(format!("{major}/{}", scenario.0)),
            }
        }
    }
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("end-to-end tests failed") }
}

fn run_one((name, scenario): Scenario, cluster: &Cluster, bins: &Path) -> bool {
    let major = cluster.major();
    let started = Instant::now();
    let outcome = tempfile::Builder::new()
        .prefix(&format!("pgcdc-{major}-{name}-"))
        .tempdir()
        .context("no temporary directory")
        .and_then(|dir| {
            let env = Env { cluster, bins, dir: dir.path().join("lab"), name };
            let outcome = scenario(&env);
            if outcome.is_err() {
                println!("     kept: {}", dir.keep().display());
            }
            outcome
        });
    let seconds = started.elapsed().as_secs_f64();
    match &outcome {
        Ok(()) => println!("test {major}/{name} ... ok ({seconds:.1} s)"),
        Err(error) => println!("test {major}/{name} ... FAILED ({seconds:.1} s)\n     {error:#}"),
    }
    outcome.is_ok()
}
