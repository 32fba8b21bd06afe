//! Compaction: the lake stays equal to its source, whoever compacts and whatever goes on meanwhile.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::workload::{load_pgbench, load_shop};
use super::{Env, Scenario};
use crate::lab::{Expected, Lab, Oracle};
use crate::{setup, shell};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("compact_writes_a_complete_base_equal_to_the_source", complete_base),
    ("deleted_rows_stay_deleted_and_are_purged_past_retention", deleted_rows),
    ("the_daemon_compacts_what_needs_it", in_the_daemon),
    ("compaction_beside_the_stream_disturbs_nobody", beside_the_stream),
];

/// Rows, and the sum of a column, that DuckDB finds in the Parquet files of a table's base.
fn base_in_duckdb(lab: &Lab, table: &str, column: &str) -> Result<(i64, String)> {
    let manifest = lab.manifest()?;
    let base = manifest["tables"][table]["base_path"].as_str().context("no base_path")?;
    let script = "import duckdb, sys
print(*duckdb.sql(f\"SELECT count(*), sum({sys.argv[2]}) FROM read_parquet('{sys.argv[1]}*.parquet')\").fetchone())";
    let mut python = shell::command(setup::interpreter()?);
    python.args(["-B", "-c", script]).arg(lab.lake().join(base)).arg(column);
    let found = shell::stdout(&mut python)?;
    let (rows, sum) = found.trim().split_once(' ').context("no row")?;
    Ok((rows.parse()?, sum.to_owned()))
}

fn expect_base(lab: &Lab, table: &str, column: &str) -> Result<()> {
    let query = format!("SELECT count(*) || ' ' || sum({column}) FROM {table}");
    let source = lab.database().value(&query)?;
    let (rows, sum) = base_in_duckdb(lab, &format!("public.{table}"), column)?;
    ensure!(source == format!("{rows} {sum}"), "{table}: base {rows} {sum}, source {source}");
    let manifest = lab.manifest()?;
    let entry = &manifest["tables"][format!("public.{table}")];
    ensure!(entry["base_epoch"] == entry["latest_delta_epoch"], "{table}: {entry}");
    Ok(())
}

fn complete_base(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    load_pgbench(&lab, "1")?;
    lab.database().execute(
        "CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int, body text);
         INSERT INTO notes (n, body) SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 5000) i;",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    for round in 0..5 {
        lab.database().pgbench(&["-n", "-c", "2", "-t", "100"])?;
        lab.database().execute(&format!(
            "DELETE FROM notes WHERE n % 17 = {round};
             UPDATE notes SET n = n + 1 WHERE n % 5 = {round};
             INSERT INTO notes (n, body) SELECT i, 'new' FROM generate_series(1, 100) i;
             UPDATE pgbench_accounts SET aid = aid + 1000000 WHERE aid = {round} + 1;"
        ))?;
        lab.settle(&daemon)?;
    }
    daemon.stop()?;
    lab.pgcdc(&["compact", "--dry-run"])?.expect_code(0)?.expect_words(&["would be compacted"])?;
    let before = lab.manifest()?;
    lab.pgcdc(&["compact"])?.expect_code(0)?.expect_words(&[
        "Compacting 6 tables",
        "public.pgbench_accounts: compacted",
        "Compaction complete",
    ])?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    expect_base(&lab, "pgbench_accounts", "abalance")?;
    expect_base(&lab, "notes", "n")?;
    let after = lab.manifest()?;
    ensure!(after["epoch"] == before["epoch"], "a compaction is no epoch");
    ensure!(after["compaction"]["tombstone_retention"] == "30d", "{}", after["compaction"]);
    lab.pgcdc(&["compact"])?.expect_code(0)?.expect_words(&["public.notes: up to date (base="])?;
    ensure!(lab.manifest()?["tables"] == after["tables"], "nothing was to be done");
    lab.pgcdc(&["compact", "--table", "public.nothing"])?.expect_code(4)?;
    // the stream goes on where its rows are now, and the key index was told
    let daemon = lab.start()?;
    lab.database().pgbench(&["-n", "-c", "2", "-t", "200"])?;
    lab.database().execute(
        "DELETE FROM notes WHERE n % 3 = 0; UPDATE notes SET body = body || 'x' WHERE n % 3 = 1",
    )?;
    lab.settle(&daemon)?;
    ensure!(!daemon.log().contains("index rebuilt"), "{}", daemon.log_end());
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    // the same beside the daemon, by the daemon
    let report = lab.pgcdc(&["compact", "--json"])?.expect_code(0)?.json()?;
    let done = report["tables"].as_array().context("no tables")?;
    let compacted = done.iter().filter(|table| table["result"] == "compacted").count();
    ensure!(compacted >= 5, "{report}");
    lab.database().execute("UPDATE notes SET n = n + 1; DELETE FROM notes WHERE n % 2 = 0")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    ensure!(!daemon.log().contains("index rebuilt"), "{}", daemon.log_end());
    daemon.stop()
}

/// Rows of the changelog of `items` by operation, as our own reader finds them.
fn changes(lab: &Lab, since: &str) -> Result<Vec<Value>> {
    let lines =
        lab.query(&["-t", "public.items", "--changes-since", since, "-f", "ndjson", "-n", "1000"])?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn deleted_rows(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text);
         INSERT INTO items SELECT i, 'x' FROM generate_series(1, 100) i;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("DELETE FROM items WHERE id <= 10")?;
    lab.settle(&daemon)?;
    for _ in 0..2 {
        lab.pgcdc(&["compact"])?.expect_code(0)?;
        lab.expect_equal(Expected::AnyChanges)?;
        lab.database().execute("UPDATE items SET v = v || 'y' WHERE id % 2 = 0")?;
        lab.settle(&daemon)?;
    }
    daemon.stop()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let kept = changes(&lab, "0")?;
    ensure!(kept.iter().filter(|row| row["__op"] == "D").count() == 10, "{kept:?}");
    std::thread::sleep(Duration::from_secs(2));
    let before = lab.expect_equal(Expected::AnyChanges)?;
    let report = lab.pgcdc(&["compact", "--tombstone-ttl", "1s", "--json"])?.expect_code(0)?;
    let report = report.json()?;
    let of_items = report["tables"].as_array().into_iter().flatten();
    let of_items = of_items.clone().find(|table| table["table"] == "public.items");
    let purged = of_items.and_then(|table| table["purged"].as_u64()).unwrap_or(0);
    ensure!(purged == kept.len() as u64, "{report}");
    ensure!(lab.expect_equal(Expected::AnyChanges)? == before, "rows of t went too");
    // what is gone is not silently left out
    let gone = ["query", "-t", "public.items", "--changes-since", "0"];
    let gone = lab.run("pgcdc-serve", &gone)?;
    ensure!(gone.code != 0, "purged changes are asked for and none is missed: {}", gone.stdout);
    let epoch = lab.manifest()?["epoch"].to_string();
    lab.database().execute("DELETE FROM items WHERE id = 50")?;
    lab.settle(&daemon)?;
    let newer = changes(&lab, &epoch)?;
    ensure!(newer.len() == 1 && newer[0]["__op"] == "D", "{newer:?}");
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn in_the_daemon(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", json!(0.1))?;
    lab.set("compaction", json!({"interval_sec": 1, "max_delete_ratio": 0.3}))?;
    load_pgbench(&lab, "1")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    let base =
        |manifest: &Value| manifest["tables"]["public.pgbench_accounts"]["base_epoch"].clone();
    let first = base(&lab.manifest()?);
    for _ in 0..10 {
        lab.database().pgbench(&["-n", "-c", "2", "-t", "150"])?;
    }
    lab.settle(&daemon)?;
    lab.wait_until(&daemon, "two runs", |_| {
        Ok(daemon.log().matches("\"compaction complete\"").count() >= 2)
    })?;
    lab.wait_until(&daemon, "a small table to be in few files", |manifest| {
        let tellers = &manifest["tables"]["public.pgbench_tellers"];
        let location = tellers["metadata_location"].as_str().context("no metadata")?;
        let metadata = std::fs::read(location.trim_start_matches("file://"))?;
        let metadata: Value = serde_json::from_slice(&metadata)?;
        let current = &metadata["current-snapshot-id"];
        let head = metadata["snapshots"].as_array().into_iter().flatten();
        let head = head.clone().find(|snapshot| snapshot["snapshot-id"] == *current);
        let files =
            head.and_then(|head| head["summary"]["total-data-files"].as_str()?.parse::<u64>().ok());
        Ok(files.is_some_and(|files| files < 10))
    })?;
    // only a command makes complete bases
    ensure!(base(&lab.manifest()?) == first, "base_epoch moved");
    // each index once, when its first change came
    let rebuilt = daemon.log().matches("\"index rebuilt\"").count();
    ensure!(rebuilt <= 5, "{rebuilt} indexes were rebuilt: {}", daemon.log_end());
    let metrics = daemon.metrics()?;
    ensure!(metrics.get("pgcdc_compact_duration_seconds_count") >= 2.0, "no run is counted");
    ensure!(metrics.get("pgcdc_compact_staleness_seconds") < 60.0, "stale");
    lab.pgcdc(&["verify"])?.expect_code(0)?;
    daemon.stop()?;
    // while a run commits, catalog and manifest differ for a moment
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    lab.expect_no_leftovers()
}

/// How long the load runs: five minutes where the published figures are to be reached.
fn load_time(env: &Env<'_>) -> Duration {
    Duration::from_secs(if env.full { 300 } else { 20 })
}

fn beside_the_stream(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", json!(0.2))?;
    lab.set("compaction", json!({"interval_sec": 2}))?;
    load_shop(&lab)?;
    load_pgbench(&lab, "1")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    let seconds = load_time(env).as_secs().to_string();
    let mut psql = lab.database().psql()?;
    psql.args(["-c", "CALL shop_business(61, 2000)"]).stdin(Stdio::null());
    let mut shop = psql.spawn().context("cannot start the load")?;
    let is_over = AtomicBool::new(false);
    let ends = Instant::now() + load_time(env);
    let (bases, reads) = std::thread::scope(|scope| -> Result<_> {
        let manifests = scope.spawn(|| watch_manifests(&lab, &is_over));
        let readers = scope.spawn(|| read_on(&lab, &is_over));
        let load = scope.spawn(|| lab.database().pgbench(&["-n", "-c", "2", "-T", &seconds]));
        let compact = || {
            let mut compact = lab.command("pgcdc", &["compact"]);
            compact.stdin(Stdio::null()).stdout(Stdio::null());
            shell::run(&mut compact)
        };
        let mut compacted = Ok(());
        while Instant::now() < ends && compacted.is_ok() {
            compacted = compact();
        }
        let loaded = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        // on a slow machine the only run so far may have come to the table before the load did
        compacted = compacted.and_then(|()| compact());
        is_over.store(true, Ordering::Relaxed);
        let manifests = manifests.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        let readers = readers.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        compacted?;
        loaded?;
        Ok((manifests?, readers?))
    })?;
    ensure!(shop.wait()?.success(), "the shop's load failed");
    let expected = if env.full { 3 } else { 1 };
    ensure!(bases >= expected, "only {bases} complete bases were seen");
    println!("     {bases} complete bases and {reads} reads beside the load");
    lab.settle(&daemon)?;
    lab.pgcdc(&["verify"])?.expect_code(0)?;
    daemon.stop()?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?)).map(|_| ())
}

/// Reads manifests until `is_over`; counts how often a complete base was replaced.
fn watch_manifests(lab: &Lab, is_over: &AtomicBool) -> Result<u64> {
    let (mut epoch, mut base, mut moves) = (0, 0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let manifest = lab.manifest()?;
        let now = manifest["epoch"].as_u64().context("no epoch")?;
        let accounts = &manifest["tables"]["public.pgbench_accounts"];
        let at = accounts["base_epoch"].as_u64().context("no base_epoch")?;
        ensure!(now >= epoch, "epoch went from {epoch} to {now}");
        ensure!(at >= base, "base_epoch went from {base} to {at}");
        moves += u64::from(at > base);
        (epoch, base) = (now, at);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(moves)
}

/// Reads a table through every cut that turns up; the number of rows never changes.
fn read_on(lab: &Lab, is_over: &AtomicBool) -> Result<u64> {
    let mut reads = 0;
    let sql = "SELECT count(*) AS n, count(DISTINCT aid) AS m FROM public.pgbench_accounts";
    while !is_over.load(Ordering::Relaxed) {
        let mut query = lab.command("pgcdc-serve", &["query", "--sql", sql, "-f", "csv"]);
        query.stdin(Stdio::null());
        let answer = shell::stdout(&mut query)?;
        ensure!(answer.lines().nth(1) == Some("100000,100000"), "a reader found {answer}");
        reads += 1;
    }
    Ok(reads)
}
