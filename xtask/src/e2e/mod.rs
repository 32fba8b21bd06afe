//! `cargo xtask e2e`: the real binaries between a real PostgreSQL and other projects' Iceberg
//! readers, once per PostgreSQL major.

mod bad_input;
mod compaction;
mod connection;
mod crash;
mod edges;
mod encodings;
mod evolution;
mod fencing;
mod identity;
mod memory;
mod metrics;
mod network;
mod promotion;
mod quarantine;
mod query;
mod recovery;
mod run;
mod s3;
mod s3_faults;
mod server;
mod stops;
mod storm;
mod streamed;
mod table_ops;
mod transactions;
mod types;
mod upkeep;
mod verify;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use self::run::{Run, SharedS3};
use crate::kill;
use crate::lab::{Bucket, Lab, Storage};
use crate::pg::{Cluster, Database, Tuning};
use crate::repo::{self, Profile};
use crate::s3::{FaultProxy, S3Server};
use crate::setup::{self, Majors};

/// What to run.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Only scenarios whose name contains this
    filter: Option<String>,
    /// PostgreSQL majors, comma separated, or `all` (14 to 18)
    #[arg(long, default_value = "15,18")]
    pg: Majors,
    /// Run what does not depend on the server's version on the first major only
    #[arg(long)]
    once: bool,
    /// Print the names and run nothing
    #[arg(long)]
    list: bool,
    /// Drive release binaries
    #[arg(long)]
    release: bool,
    /// Take the binaries as `cargo test --workspace` left them
    #[arg(long, conflicts_with = "release")]
    built: bool,
    /// Seconds that the store is away in the scenario about that
    #[arg(long, default_value_t = OUTAGE_SECS)]
    outage_sec: u64,
    /// As many kills, stops and cycles as the published figures name; so does PGCDC_E2E_FULL=1
    #[arg(long)]
    full: bool,
}

/// A part with arguments of its own.
#[derive(clap::Subcommand)]
enum Part {
    /// End the process at every kill point, in every way, and check that nothing is lost
    KillMatrix(kill::Args),
}

/// An outage that outlasts every retry of a client and is short enough for each change.
const OUTAGE_SECS: u64 = 20;

impl Args {
    /// All scenarios on these majors, those that do not depend on the server's version once, with the
    /// binaries that the tests were built with: other features would mean another build of everything
    /// below them.
    pub(crate) fn all_on(pg: Majors) -> Self {
        Self {
            part: None,
            filter: None,
            pg,
            once: true,
            list: false,
            release: false,
            built: true,
            outage_sec: OUTAGE_SECS,
            full: false,
        }
    }
}

/// One expectation, proved on a server.
type Scenario = (&'static str, fn(&Env<'_>) -> Result<()>);

/// On how many majors a scenario is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    /// It proves something of what the server does.
    EachMajor,
    /// What it proves lies with our own programs and the store.
    Once,
}
use Needed::{EachMajor, Once};

/// All scenarios, the cheap ones first.
const SCENARIOS: &[(Needed, &[Scenario])] = &[
    (EachMajor, workload::SCENARIOS),
    (Once, query::SCENARIOS),
    (Once, promotion::SCENARIOS),
    (EachMajor, edges::SCENARIOS),
    (EachMajor, types::SCENARIOS),
    (EachMajor, evolution::SCENARIOS),
    (EachMajor, table_ops::SCENARIOS),
    (Once, verify::SCENARIOS),
    (EachMajor, bad_input::SCENARIOS),
    (EachMajor, quarantine::SCENARIOS),
    (EachMajor, server::SCENARIOS),
    (EachMajor, identity::SCENARIOS),
    (Once, fencing::SCENARIOS),
    (EachMajor, recovery::SCENARIOS),
    (EachMajor, connection::SCENARIOS),
    (Once, crash::SCENARIOS),
    (Once, stops::SCENARIOS),
    (Once, network::SCENARIOS),
    (EachMajor, storm::SCENARIOS),
    (EachMajor, transactions::SCENARIOS),
    (EachMajor, streamed::SCENARIOS),
    (Once, memory::SCENARIOS),
    (Once, metrics::SCENARIOS),
    (Once, upkeep::SCENARIOS),
    (Once, compaction::SCENARIOS),
    (Once, encodings::SCENARIOS),
    (Once, s3::SCENARIOS),
    (Once, s3_faults::SCENARIOS),
];

fn scenarios() -> impl Iterator<Item = (Needed, Scenario)> {
    let of_group = |(needed, group): &'static (Needed, &'static [Scenario])| {
        group.iter().map(|scenario| (*needed, *scenario))
    };
    SCENARIOS.iter().flat_map(of_group)
}

/// What a scenario is given.
struct Env<'a> {
    cluster: &'a Cluster,
    bins: &'a Path,
    dir: PathBuf,
    name: &'static str,
    /// The S3 server of the run, once a scenario has asked for it.
    s3: &'a SharedS3,
    outage: Duration,
    /// Whether the figures that are published are to be reached.
    full: bool,
}

impl Env<'_> {
    /// A lab over a database of its own on the shared server, with the table that settling needs.
    fn lab(&self) -> Result<Lab> {
        self.lab_on(self.cluster)
    }

    /// The same over a server that belongs to the scenario.
    fn lab_on(&self, cluster: &Cluster) -> Result<Lab> {
        let lab = Lab::new(self.bins, &self.dir, self.database(cluster)?)?;
        lab.create_sentinel()?;
        Ok(lab)
    }

    fn database(&self, cluster: &Cluster) -> Result<Database> {
        // Identifiers end at 63 bytes, and the slot's name has a prefix before this one.
        cluster.create_database(&self.name[..self.name.len().min(50)])
    }

    /// A lab whose lake is in a place of its own in a bucket; the product is told of `endpoint`.
    fn lab_in_bucket(
        &self,
        cluster: &Cluster,
        name: &str,
        prefix: &str,
        endpoint: Option<String>,
    ) -> Result<Lab> {
        let server = self.s3()?;
        let endpoint = endpoint.unwrap_or_else(|| server.endpoint());
        let (name, prefix) = (name.to_owned(), prefix.to_owned());
        let storage = Storage::S3(Bucket { server, endpoint, name, prefix });
        let lab = Lab::with_storage(self.bins, &self.dir, self.database(cluster)?, storage)?;
        lab.create_sentinel()?;
        Ok(lab)
    }

    /// A lab on S3.
    fn lab_on_s3(&self) -> Result<Lab> {
        self.lab_in_bucket(self.cluster, "lab", &self.s3_prefix(), None)
    }

    /// A lab on S3, the product behind a proxy.
    fn lab_behind(&self, proxy: &FaultProxy) -> Result<Lab> {
        self.lab_on_behind(self.cluster, proxy)
    }

    /// The same over a database of this server.
    fn lab_on_behind(&self, cluster: &Cluster, proxy: &FaultProxy) -> Result<Lab> {
        self.lab_in_bucket(cluster, "lab", &self.s3_prefix(), Some(proxy.endpoint()))
    }

    fn s3_prefix(&self) -> String {
        format!("{}/{}", self.cluster.major(), self.name)
    }

    /// The S3 server of this run.
    fn s3(&self) -> Result<Arc<S3Server>> {
        self.s3.server()
    }

    /// A server of the same major for this scenario alone.
    fn own_cluster(&self, extra: &str) -> Result<Cluster> {
        Cluster::start(self.cluster.major(), Tuning::Tests, extra)
    }
}

/// Runs the scenarios and ends with a line that counts them.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Part::KillMatrix(args)) = &args.part {
        return kill::run(args);
    }
    let chosen: Vec<(Needed, Scenario)> = scenarios()
        .filter(|(_, (name, _))| {
            args.filter.as_ref().is_none_or(|part| name.contains(part.as_str()))
        })
        .collect();
    if args.list {
        for (_, (name, _)) in &chosen {
            println!("{name}");
        }
        return Ok(());
    }
    if chosen.is_empty() {
        bail!("no scenario has that in its name; hint: cargo xtask e2e --list");
    }
    setup::ensure(&args.pg)?;
    setup::ensure_readers()?;
    setup::ensure_s3()?;
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let bins = if args.built { repo::binaries(profile) } else { repo::build_binaries(profile)? };
    let run = Run {
        bins,
        s3: SharedS3::default(),
        outage: Duration::from_secs(args.outage_sec),
        full: args.full || std::env::var_os("PGCDC_E2E_FULL").is_some_and(|wish| wish == "1"),
    };
    let (passed, failed) = run.on_majors(&args.pg, &chosen, args.once)?;
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{passed} passed, {} failed", failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("end-to-end tests failed") }
}
