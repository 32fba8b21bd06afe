//! What keeps a lake small: snapshots expire, objects go, metadata stays bounded.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Env, Scenario};
use crate::lab::{Expected, Lab, files_below};
use crate::{setup, shell};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("snapshots_expire_to_what_is_kept_and_pinned", expiry),
    ("objects_without_a_reference_go_after_the_grace_time", orphans),
    ("many_flushes_leave_small_metadata_and_fast_planning", many_flushes),
];

/// The metadata file that the manifest names, of one of a table's two Iceberg tables.
fn metadata(lab: &Lab, table: &str, field: &str) -> Result<(Value, u64)> {
    let manifest = lab.manifest()?;
    let location = manifest["tables"][table][field].as_str().context("no metadata location")?;
    let bytes = fs::read(location.trim_start_matches("file://"))?;
    Ok((serde_json::from_slice(&bytes)?, bytes.len() as u64))
}

fn snapshots(metadata: &Value) -> BTreeSet<i64> {
    let all = metadata["snapshots"].as_array().into_iter().flatten();
    all.filter_map(|snapshot| snapshot["snapshot-id"].as_i64()).collect()
}

/// The snapshots that refs name of a table.
fn pinned(lab: &Lab, table: &str, field: &str) -> Result<BTreeSet<i64>> {
    let mut pinned = BTreeSet::new();
    let mut note = |cut: &Value| {
        let id: Option<i64> = cut["tables"][table][field].as_str().and_then(|id| id.parse().ok());
        pinned.extend(id);
    };
    let refs: Value = serde_json::from_slice(&fs::read(lab.lake().join("refs.json"))?)?;
    refs["refs"].as_object().into_iter().flatten().for_each(|(_, cut)| note(cut));
    for file in fs::read_dir(lab.lake().join("refs/raw"))? {
        let tag = match fs::read(file?.path()) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes)?,
            // the daemon took the oldest away meanwhile
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        note(&tag["ref"]);
    }
    Ok(pinned)
}

fn expiry(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("catalog.snapshot_retain_count", json!(5))?;
    lab.set("refstore", json!({"retain_raw": 2, "retain_hourly": 0, "retain_daily": 1}))?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    for round in 0..20 {
        lab.database().execute(&format!(
            "INSERT INTO items VALUES ({round}, 'x'); UPDATE items SET v = v || 'y' WHERE id % 3 = 0"
        ))?;
        lab.settle(&daemon)?;
    }
    // the refs are read at most once a second
    std::thread::sleep(Duration::from_millis(1200));
    lab.database().execute("UPDATE items SET v = 'end'")?;
    lab.settle(&daemon)?;
    for (field, named) in
        [("metadata_location", "snapshot_id"), ("changes_metadata_location", "changes_snapshot_id")]
    {
        let (metadata, _) = metadata(&lab, "public.items", field)?;
        let (found, pinned) = (snapshots(&metadata), pinned(&lab, "public.items", named)?);
        ensure!(found.is_superset(&pinned), "{field}: a ref names a snapshot that is gone");
        let others = found.difference(&pinned).count();
        ensure!(others <= 5 && found.len() <= 5 + pinned.len(), "{field}: {found:?}, {pinned:?}");
        ensure!(found.len() >= 5, "{field}: only {found:?}");
    }
    let expired = daemon.metrics()?;
    let series = "pgcdc_iceberg_snapshots_expired_total{table=\"public.items\"}";
    ensure!(expired.get(series) >= 10.0, "metric: {}", expired.get(series));
    let count = expired.get("pgcdc_iceberg_snapshot_count{table=\"public.items\"}");
    ensure!(count <= 9.0, "metric: {count} snapshots");
    lab.expect_equal(Expected::AnyChanges)?;
    // a pinned cut is read although its snapshot is old
    let refs: Value = serde_json::from_slice(&fs::read(lab.lake().join("refs.json"))?)?;
    let oldest = refs["raw"]["oldest"].as_str().context("no raw tag")?.to_owned();
    lab.query(&["-t", "public.items", "--ref", &oldest])?;
    daemon.stop()
}

/// Makes all objects of a lake older by two days.
fn age_objects(lab: &Lab) -> Result<()> {
    for file in files_below(&lab.lake())? {
        shell::run(Command::new("touch").args(["-c", "-d", "2 days ago"]).arg(file))?;
    }
    Ok(())
}

/// Makes the time longer by two days for which objects are known to have no reference.
fn age_sightings(lab: &Lab) -> Result<()> {
    let script = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('UPDATE orphan SET first_seen = first_seen - 172800000000')
db.commit()";
    let mut python = shell::command(setup::interpreter()?);
    shell::run(python.args(["-c", script]).arg(lab.state_dir().join("state.db")))
}

fn orphans(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("catalog.snapshot_retain_count", json!(1))?;
    lab.set("compaction.orphan_grace_sec", json!(86400))?;
    lab.set("refstore", json!({"retain_raw": 1, "retain_hourly": 0, "retain_daily": 1}))?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text);
         INSERT INTO items SELECT i, 'x' FROM generate_series(1, 50) i;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    for _ in 0..5 {
        lab.database().execute("UPDATE items SET v = v || 'y'")?;
        lab.settle(&daemon)?;
    }
    daemon.stop()?;
    let sweep = |expected: std::ops::RangeInclusive<u64>| -> Result<u64> {
        let report = lab.pgcdc(&["compact", "--json"])?.expect_code(0)?.json()?;
        let removed = report["orphans_removed"].as_u64().context("no orphans_removed")?;
        ensure!(expected.contains(&removed), "{removed} objects removed, not {expected:?}");
        Ok(report["orphans_waiting"].as_u64().unwrap_or(0))
    };
    sweep(0..=0)?;
    // old by themselves, but nobody has seen them without a reference for long
    age_objects(&lab)?;
    ensure!(sweep(0..=0)? > 10, "nothing waits");
    let planted = lab.lake().join("public.items/data/stray.parquet");
    fs::create_dir_all(planted.parent().unwrap_or(Path::new("/")))?;
    fs::write(&planted, "written by somebody else just now")?;
    age_sightings(&lab)?;
    let before = files_below(&lab.lake())?.len();
    let waiting = sweep(10..=1000)?;
    ensure!(waiting < 10, "{waiting} objects still wait");
    let after = files_below(&lab.lake())?.len();
    ensure!(after < before, "{before} files before, {after} after");
    ensure!(planted.exists(), "what is young was removed");
    lab.expect_equal(Expected::AnyChanges)?;
    lab.query(&["-t", "public.items", "--no-deltas"])?;
    lab.query(&["-t", "public.items", "--changes-since", "0"])?;
    let refs: Value = serde_json::from_slice(&fs::read(lab.lake().join("refs.json"))?)?;
    for name in refs["refs"].as_object().into_iter().flatten().map(|(name, _)| name.clone()) {
        lab.query(&["-t", "public.items", "--ref", &name])?;
    }
    let daemon = lab.start()?;
    lab.database().execute("UPDATE items SET v = 'z' WHERE id < 20")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

/// Milliseconds that pyiceberg needs to plan a scan of `items`, the best of some tries.
fn planning_ms(lab: &Lab) -> Result<f64> {
    let script = "import sys, time
from pyiceberg.catalog.sql import SqlCatalog
catalog = SqlCatalog('pgcdc', uri='sqlite:///' + sys.argv[1])
best = 1e9
for _ in range(5):
    began = time.perf_counter()
    list(catalog.load_table(sys.argv[2]).scan().plan_files())
    best = min(best, time.perf_counter() - began)
print(best * 1000)";
    let manifest = lab.manifest()?;
    let ident = manifest["tables"]["public.items"]["iceberg_table"].as_str();
    let mut python = shell::command(setup::interpreter()?);
    python.args(["-B", "-c", script]).arg(lab.state_dir().join("catalog.db"));
    let best = shell::stdout(python.arg(ident.context("no iceberg_table")?))?;
    Ok(best.trim().parse()?)
}

fn many_flushes(env: &Env<'_>) -> Result<()> {
    let flushes: u64 = if env.full { 10_000 } else { 300 };
    let mut lab = env.lab()?;
    lab.set("flush", json!({"interval_sec": 0.1, "min_interval_ms": 0, "max_rows": 1}))?;
    lab.set("compaction", json!({"interval_sec": 2}))?;
    lab.set("refstore", json!({"retain_raw": 10, "retain_hourly": 2, "retain_daily": 2}))?;
    lab.set("catalog.snapshot_retain_count", json!(20))?;
    lab.database().execute(
        "CREATE TABLE items (id bigint PRIMARY KEY, v text);
         CREATE PROCEDURE work(first int, last int) LANGUAGE plpgsql AS $$ BEGIN
           FOR n IN first .. last LOOP
             INSERT INTO items VALUES (n, 'x'); COMMIT;
             UPDATE items SET v = v || 'y' WHERE id = n / 2; COMMIT;
           END LOOP;
         END $$;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    let epoch = |lab: &Lab| -> Result<u64> { Ok(lab.manifest()?["epoch"].as_u64().unwrap_or(0)) };
    let (mut figures, mut next) = (Vec::new(), 0);
    let began = Instant::now();
    for part in 1..=10 {
        while epoch(&lab)? < flushes * part / 10 {
            lab.database().execute(&format!("CALL work({next}, {})", next + 4))?;
            next += 5;
            lab.settle(&daemon)?;
        }
        let (current, bytes) = metadata(&lab, "public.items", "metadata_location")?;
        let pinned = pinned(&lab, "public.items", "snapshot_id")?.len();
        let found = snapshots(&current).len();
        ensure!(found <= 20 + pinned + 2, "{found} snapshots, {pinned} pinned");
        ensure!(bytes < 1 << 20, "the metadata file has {bytes} bytes");
        let (_, changes_bytes) = metadata(&lab, "public.items", "changes_metadata_location")?;
        ensure!(changes_bytes < 1 << 20, "the changelog's has {changes_bytes} bytes");
        figures.push((epoch(&lab)?, found, bytes, planning_ms(&lab)?));
    }
    for (epochs, snapshots, bytes, planning) in &figures {
        println!(
            "     {epochs} epochs: {snapshots} snapshots, {bytes} bytes of metadata, planning {planning:.1} ms"
        );
    }
    println!("     {:.0} s", began.elapsed().as_secs_f64());
    let early = figures.iter().take(3).map(|figure| figure.3).fold(0.0, f64::max);
    let late = figures.last().map_or(0.0, |figure| figure.3);
    ensure!(late < early * 2.0 + 10.0, "planning went from {early:.1} to {late:.1} ms");
    daemon.stop()?;
    lab.expect_equal(Expected::AnyChanges).map(|_| ())
}
