//! The stream into the lake, beside `pg_recvlogical`, which only receives.
//!
//! One slot holds the write-ahead log of the whole workload back; every run gets a copy of it, so
//! that all contenders decode exactly the same log.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::debezium::Debezium;
use super::measure::{Cost, cost_of, cpu_seconds};
use super::report::{Report, Section};
use super::source::{self, LAST_ID, TABLE};
use super::{Options, StreamOptions};
use crate::lab::{Lab, Lsn};
use crate::pg::{Cluster, Database, Tuning};
use crate::setup::{self, Client};
use crate::shell;

/// How long one run may take before it is given up.
const RUN_LIMIT: Duration = Duration::from_secs(1800);

/// The slot that holds the log back.
const BASE_SLOT: &str = "bench_base";

/// The slot of one run of a contender that is not the daemon.
const RUN_SLOT: &str = "bench_run";

/// A shape of load.
struct Load {
    name: &'static str,
    /// The script that makes about `rows` changes on a table of `rows / 2` rows.
    script: fn(rows: u64) -> String,
    /// Rows that are there before the slot is made.
    preloaded: fn(rows: u64) -> u64,
}

const LOADS: &[Load] = &[
    Load { name: "inserts, 20 transactions", script: inserts, preloaded: |_| 0 },
    Load { name: "updates 70 %, 20 transactions", script: updates, preloaded: |rows| rows / 2 },
    Load { name: "mixed, 4 changes per transaction", script: small, preloaded: |_| 0 },
];

fn inserts(rows: u64) -> String {
    let part = rows / 20;
    (0..20).map(|n| source::insert(n * part + 1, (n + 1) * part)).collect()
}

fn updates(rows: u64) -> String {
    let (updated, inserted) = (rows * 7 / 10 / 20, rows * 3 / 10 / 20);
    let half = rows / 2;
    (0..20)
        .map(|n| {
            // Each transaction updates another stretch, round and round, and adds new rows.
            let from = n * updated % half + 1;
            let new = half + n * inserted;
            format!(
                "BEGIN; UPDATE {TABLE} SET quantity = quantity + 1, status = 'paid'
                 WHERE id >= {from} AND id < {from} + {updated};
                 {} COMMIT;\n",
                source::insert(new + 1, new + inserted)
            )
        })
        .collect()
}

fn small(rows: u64) -> String {
    let row = source::insert(0, 0).replace(
        "generate_series(0::bigint, 0) i",
        "(SELECT (n * 2 + j)::bigint AS i FROM generate_series(0, 1) j) g",
    );
    format!(
        "DO $$ BEGIN FOR n IN 1 .. {} LOOP
           {row}
           UPDATE {TABLE} SET account = account + 1 WHERE id = n * 2;
           UPDATE {TABLE} SET status = 'paid' WHERE id = n * 2 - 7;
           COMMIT;
         END LOOP; END $$;",
        rows / 4
    )
}

pub(super) fn run(options: &StreamOptions, bins: &Path) -> Result<Report> {
    let debezium = if options.debezium { Debezium::find()? } else { None };
    let options = &options.common;
    let mut sections = Vec::new();
    for load in LOADS {
        sections.push(measure(load, options, bins, debezium.as_ref())?);
    }
    let title = format!("stream, PostgreSQL {}, TCP, median of {}", options.pg, options.rounds);
    Ok(Report { title, sections })
}

fn measure(
    load: &Load,
    options: &Options,
    bins: &Path,
    debezium: Option<&Debezium>,
) -> Result<Section> {
    let cluster = Cluster::start(options.pg, Tuning::Bench, "")?;
    let database = cluster.create_database("bench")?;
    source::create(&database)?;
    let preloaded = (load.preloaded)(options.rows);
    if preloaded > 0 {
        database.execute(&source::insert(1, preloaded))?;
    }
    let dir = tempfile::Builder::new().prefix("pgcdc-bench-").tempdir()?;
    let mut lab = Lab::new(bins, &dir.path().join("lab"), database.clone())?;
    lab.set("flush.interval_sec", 1.into())?;
    lab.init()?;
    copy_slot(&database, &lab.slot(), BASE_SLOT)?;
    keep_pristine(&lab)?;
    database.execute(&(load.script)(options.rows))?;
    let end = last_commit(&lab)?;

    let receive = || recvlogical(&cluster, &lab, "/dev/null", &end);
    let (changes, bytes) = volume(&lab, &end)?;
    let (mut baseline, mut decoded, mut whole_way) = (Vec::new(), Vec::new(), Vec::new());
    let (mut shares, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        baseline.push(with_run_slot(&database, || cost_of(&mut receive()?))?);
        decoded.push(with_run_slot(&database, || cost_of(&mut decode(bins, &lab, &end)))?);
        let (cost, share) = daemon(&lab, &end)?;
        whole_way.push(cost);
        shares.push(share);
        if let Some(debezium) = debezium {
            let follow = || debezium.follow(&cluster, &lab, RUN_SLOT, changes);
            peer.push(with_run_slot(&database, follow)?);
        }
    }
    let mut costs = vec![
        ("pg_recvlogical to /dev/null".to_owned(), Cost::median(baseline)?),
        ("pgcdc: receive, decode, Arrow".to_owned(), Cost::median(decoded)?),
        ("pgcdc start, into the lake".to_owned(), Cost::median(whole_way)?),
    ];
    if debezium.is_some() {
        costs.push(("Debezium 3.6.3 into Iceberg".to_owned(), Cost::median(peer)?));
    }
    let mut section = Section::new(load.name, changes, bytes, costs);
    section
        .notes
        .push(format!("fencing is at most {:.2} % of the way into the lake", median(shares)));
    Ok(section)
}

/// The end of the workload: a position at or above its last commit, as text and number.
struct End {
    text: String,
    lsn: Lsn,
}

fn last_commit(lab: &Lab) -> Result<End> {
    let text = lab.database().value("SELECT pg_current_wal_insert_lsn()")?;
    let lsn = crate::lab::parse_lsn(&text)?;
    // Something must follow, or nobody would learn that the log goes on to there.
    lab.database().execute("SELECT pg_logical_emit_message(true, 'bench', 'end')")?;
    lab.database().execute(&format!("INSERT INTO {TABLE} (id) VALUES ({LAST_ID})"))?;
    Ok(End { text, lsn })
}

fn copy_slot(database: &Database, from: &str, to: &str) -> Result<()> {
    database.execute(&format!("SELECT pg_copy_logical_replication_slot('{from}', '{to}')"))?;
    Ok(())
}

fn drop_slot(database: &Database, slot: &str) -> Result<()> {
    // The walsender of a client that has just ended may hold the slot a moment longer.
    let drop = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
         WHERE slot_name = '{slot}'"
    );
    shell::wait_for("a slot to become free", Duration::from_secs(30), || {
        Ok(database.execute(&drop).ok().map(|_| ()))
    })
}

fn with_run_slot<T>(database: &Database, run: impl FnOnce() -> Result<T>) -> Result<T> {
    copy_slot(database, BASE_SLOT, RUN_SLOT)?;
    let outcome = run()?;
    drop_slot(database, RUN_SLOT)?;
    Ok(outcome)
}

fn recvlogical(cluster: &Cluster, lab: &Lab, file: &str, end: &End) -> Result<Command> {
    let mut command = shell::command(setup::client(Client::RecvLogical)?);
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-d", lab.database().name()]);
    command.args(["-p", &cluster.port().to_string(), "--slot", RUN_SLOT, "--start", "--no-loop"]);
    command.args(["--file", file, "--endpos", &end.text, "--fsync-interval", "0"]);
    command.args(["-o", "proto_version=1", "-o"]);
    command.arg(format!("publication_names={}", lab.publication()));
    Ok(command)
}

/// The example that stops where files would begin.
fn decode(bins: &Path, lab: &Lab, end: &End) -> Command {
    let mut command = shell::command(bins.join("examples/receive"));
    command.arg(lab.database().url()).args([&lab.publication(), RUN_SLOT, &end.text]);
    command
}

/// How many changes and payload bytes the log holds for this publication.
fn volume(lab: &Lab, end: &End) -> Result<(u64, u64)> {
    let query = format!(
        "SELECT count(*) FILTER (WHERE get_byte(data, 0) IN (73, 85, 68)), sum(length(data))
         FROM pg_logical_slot_peek_binary_changes('{BASE_SLOT}', '{}', NULL,
              'proto_version', '1', 'publication_names', '{}')",
        end.text,
        lab.publication()
    );
    let line = lab.database().value(&query)?;
    let (changes, bytes) = line.split_once('|').context("no counts")?;
    Ok((changes.parse()?, bytes.parse()?))
}

/// Keeps the lake as `init` left it, for each run to start from.
fn keep_pristine(lab: &Lab) -> Result<()> {
    shell::run(shell::command("cp").arg("-a").arg(lab.dir()).arg(pristine(lab)))
}

fn pristine(lab: &Lab) -> std::path::PathBuf {
    lab.dir().with_extension("pristine")
}

/// One life of the daemon over the whole log, from the lake that `init` made.
/// Gives with its cost how much of the time, in percent, went into fencing: beside the stream, so
/// an upper bound of what it costs.
fn daemon(lab: &Lab, end: &End) -> Result<(Cost, f64)> {
    std::fs::remove_dir_all(lab.dir())?;
    shell::run(shell::command("cp").arg("-a").arg(pristine(lab)).arg(lab.dir()))?;
    drop_slot(lab.database(), &lab.slot())?;
    copy_slot(lab.database(), BASE_SLOT, &lab.slot())?;
    let started = Instant::now();
    let daemon = lab.spawn()?;
    let manifest = lab.lake().join("manifest.json");
    shell::wait_for("the whole log to be in the lake", RUN_LIMIT, || {
        daemon.expect_alive()?;
        // The file is replaced by rename, so a read sees a whole one.
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest)?)?;
        let cut = crate::lab::parse_lsn(manifest["commit_lsn"].as_str().unwrap_or("0/0"))?;
        Ok((cut >= end.lsn).then_some(()))
    })?;
    let cost = Cost {
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(daemon.pid())?,
        peak_rss_bytes: daemon.peak_rss()?,
    };
    let fence = daemon.metrics()?.get("pgcdc_flush_duration_seconds_sum{stage=\"fence\"}");
    daemon.stop()?;
    Ok((cost, fence / cost.seconds * 100.0))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
