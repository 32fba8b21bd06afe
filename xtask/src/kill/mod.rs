//! `cargo xtask e2e kill-matrix`: real binaries die at every kill point, in every way, and the next
//! process must make it good. One server per major is shared; every trial has its own database.

mod block;
mod points;
mod trial;
mod workload;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::pg::{Cluster, Tuning};
use crate::repo;
use crate::s3::S3Server;
use crate::setup::{self, Majors};
use points::{Kind, POINTS, Point, Store};
use trial::Trial;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// PostgreSQL majors, comma separated, or `all` (14 to 18)
    #[arg(long, default_value = "15,18")]
    pg: Majors,
    /// Kill points: names and ranges, as in `i4,s9-s14`
    #[arg(long, default_value = "i1-c7")]
    points: Points,
    /// What happens there: kill, late, abort, error, stop
    #[arg(long, value_delimiter = ',', default_value = "kill")]
    kinds: Vec<Kind>,
    /// Where the lakes are: filesystem, s3
    #[arg(long, value_delimiter = ',', default_value = "filesystem,s3")]
    stores: Vec<Store>,
    /// One server for each point and store, in turn, instead of all
    #[arg(long)]
    short: bool,
    /// Deaths of the daemon in each trial before the successor that lives
    #[arg(long, default_value_t = 1)]
    lives: u64,
    /// Trials at once
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Write the table into docs/reliability.md; needs all points
    #[arg(long)]
    write: bool,
}

impl Args {
    fn columns(&self) -> Vec<Column> {
        let of_kind = |kind: &Kind| self.stores.iter().map(|store| (*kind, *store)).collect();
        self.kinds.iter().flat_map(|kind| -> Vec<Column> { of_kind(kind) }).collect()
    }

    /// What every change must pass.
    pub(crate) fn selection(pg: Majors) -> Self {
        let points = Points(POINTS.to_vec());
        let (kinds, stores) = (vec![Kind::Kill], vec![Store::Filesystem, Store::S3]);
        Self { pg, points, kinds, stores, short: true, lives: 1, jobs: 3, write: false }
    }

    /// The same for deaths that come late, at the points between the choice of a flush and its
    /// confirmation.
    pub(crate) fn late(pg: Majors) -> Result<Self> {
        let points = "s5-s17".parse().map_err(anyhow::Error::msg)?;
        let (kinds, stores) = (vec![Kind::Late], vec![Store::Filesystem]);
        Ok(Self { points, kinds, stores, ..Self::selection(pg) })
    }
}

#[derive(Clone)]
struct Points(Vec<Point>);

impl FromStr for Points {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        points::chosen(text).map(Self)
    }
}

/// How the trials of one cell went: the major, and why not.
type Cell = Vec<(u32, Option<String>)>;
/// What happens at the points, and where the lake is.
type Column = (Kind, Store);
/// Cells by point and column.
type Outcomes = BTreeMap<(&'static str, Column), Cell>;

/// Runs the trials and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let is_whole = args.points.0.len() == POINTS.len();
    ensure!(is_whole || !args.write, "--write needs all points");
    setup::ensure(&args.pg)?;
    setup::ensure_readers()?;
    let bins = repo::build_with_failpoints()?;
    let mut clusters = Vec::new();
    for major in args.pg.iter() {
        let cluster = Cluster::start(major, Tuning::Tests, "")?;
        workload::make_bases(&cluster)?;
        clusters.push(cluster);
    }
    let mut s3 = None;
    if args.stores.contains(&Store::S3) {
        setup::ensure_s3()?;
        s3 = Some(Arc::new(S3Server::start()?));
    }
    let (columns, faults) = (args.columns(), AtomicU64::new(0));
    let mut waiting = VecDeque::new();
    for (index, point) in args.points.0.iter().enumerate() {
        for (turn, (kind, store)) in columns.iter().enumerate() {
            for (number, cluster) in clusters.iter().enumerate() {
                if args.short && (index + turn) % clusters.len() != number {
                    continue;
                }
                waiting.push_back(Trial {
                    cluster,
                    bins: &bins,
                    point: *point,
                    kind: *kind,
                    s3: s3.clone().filter(|_| *store == Store::S3),
                    faults: &faults,
                    lives: args.lives,
                });
            }
        }
    }
    let (waiting, outcomes) = (Mutex::new(waiting), Mutex::new(Outcomes::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| work(&waiting, &outcomes));
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    print!("{}", block::table(&args.points.0, &columns, &outcomes));
    let (mut passed, mut failed) = (0, 0);
    for (_, failure) in outcomes.values().flatten() {
        *(if failure.is_none() { &mut passed } else { &mut failed }) += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("kill matrix: {passed} passed, {failed} failed, {seconds:.0} s");
    println!("{} calls to the store were refused or lost their answer", faults.into_inner());
    if args.write {
        block::write(&repo::root().join("docs/reliability.md"), &columns, &outcomes)?;
    }
    if failed == 0 { Ok(()) } else { bail!("the kill matrix failed") }
}

/// Takes trials until none is left.
fn work(waiting: &Mutex<VecDeque<Trial<'_>>>, outcomes: &Mutex<Outcomes>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(trial) = next else { return };
        let started = Instant::now();
        let outcome = run_one(&trial);
        let (name, major) = (trial.name(), trial.cluster.major());
        let seconds = started.elapsed().as_secs_f64();
        let failure = match outcome {
            Ok(()) => {
                println!("kill {major}/{name} ... ok ({seconds:.1} s)");
                None
            }
            Err(error) => {
                println!("kill {major}/{name} ... FAILED ({seconds:.1} s)\n     {error:#}");
                Some(format!("{error:#}"))
            }
        };
        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes
            .entry((trial.point.name, (trial.kind, trial.store())))
            .or_default()
            .push((major, failure));
    }
}

fn run_one(trial: &Trial<'_>) -> Result<()> {
    let prefix = format!("pgcdc-kill-{}-{}-", trial.cluster.major(), trial.name());
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir().context("no directory")?;
    let outcome = trial.run(&dir.path().join("lab"));
    let cleaned = if trial.point.is_server() { Ok(()) } else { clean(trial.cluster, trial) };
    if outcome.is_err() {
        println!("     kept: {}", dir.keep().display());
    }
    outcome.and(cleaned)
}

/// Gives the shared server its slots and its disk back.
fn clean(cluster: &Cluster, trial: &Trial<'_>) -> Result<()> {
    let name = trial.name();
    let admin = cluster.database("postgres");
    admin.execute(&format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
           WHERE database = '{name}' AND active;
         DO $$ BEGIN
           FOR n IN 1 .. 600 LOOP
             EXIT WHEN NOT EXISTS (SELECT FROM pg_replication_slots
               WHERE database = '{name}' AND active);
             PERFORM pg_sleep(0.1);
           END LOOP; END $$;
         SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
           WHERE database = '{name}';
         DROP DATABASE IF EXISTS {name} WITH (FORCE);"
    ))?;
    Ok(())
}

/// Where the generated parts of a page are.
fn splice(page: &str, begin: &str, end: &str, new: &str) -> Result<String> {
    let (before, rest) = page.split_once(begin).with_context(|| format!("no {begin}"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("no {end}"))?;
    Ok(format!("{before}{begin}\n{new}{end}{after}"))
}

/// Replaces what lies between two marks in a file.
fn splice_file(file: &Path, begin: &str, end: &str, new: &str) -> Result<()> {
    let page = std::fs::read_to_string(file)?;
    std::fs::write(file, splice(&page, begin, end, new)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_marks_is_replaced() -> Result<()> {
        assert_eq!(splice("a<b>\nold<e>\nz", "<b>", "<e>", "new\n")?, "a<b>\nnew\n<e>\nz");
        assert!(splice("a", "<b>", "<e>", "").is_err());
        Ok(())
    }
}
