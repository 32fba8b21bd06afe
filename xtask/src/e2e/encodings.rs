//! Delete encodings: with deletion vectors the lake is equal to its source in every reader that knows
//! them, from the first table on or after a switch, and the switch does not go back.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::workload::load_pgbench;
use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Oracle, compare_with_history};
use crate::{setup, shell};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("vectors_from_the_first_table_on_are_equal_to_the_source", from_the_start),
    ("a_live_table_switches_to_vectors_and_never_back", switched),
    ("vectors_wait_on_staging_for_a_promotion", staged),
    ("status_compat_tells_who_reads_what", compat),
    ("spark_and_clickhouse_read_the_encodings_they_know", engines),
];

/// Changes of every kind, different ones in each round.
fn change(lab: &Lab, round: u32) -> Result<()> {
    lab.database().pgbench(&["-n", "-c", "2", "-t", "60"])?;
    lab.database().execute(&format!(
        "DELETE FROM notes WHERE n % 17 = {round};
         UPDATE notes SET n = n + 1 WHERE n % 5 = {round};
         INSERT INTO notes (n, body) SELECT i, 'round {round}' FROM generate_series(1, 200) i;
         UPDATE pgbench_accounts SET aid = aid + 1000000 WHERE aid = {round} + 1;"
    ))?;
    if round % 2 == 1 {
        lab.database().execute(
            "BEGIN; TRUNCATE lists; INSERT INTO lists SELECT i, 'new' FROM generate_series(1, 20) i;
             DELETE FROM lists WHERE id % 3 = 0; COMMIT;
             UPDATE lists SET v = 'newer' WHERE id % 2 = 0;",
        )?;
    }
    Ok(())
}

fn load(lab: &Lab) -> Result<()> {
    load_pgbench(lab, "1")?;
    lab.database().execute(
        "CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int, body text);
         INSERT INTO notes (n, body) SELECT i, md5(i::text) FROM generate_series(1, 3000) i;
         CREATE TABLE lists (id int, v text);
         ALTER TABLE lists REPLICA IDENTITY FULL;
         INSERT INTO lists SELECT i % 40, 'old' FROM generate_series(1, 100) i;",
    )?;
    Ok(())
}

/// Several flushes, each compared.
fn rounds(lab: &Lab, daemon: &Daemon, oracle: &Oracle, rounds: std::ops::Range<u32>) -> Result<()> {
    for round in rounds {
        change(lab, round)?;
        lab.settle(daemon)?;
        lab.expect_equal(Expected::Changes(&oracle.counts()?))
            .with_context(|| format!("after round {round}"))?;
    }
    Ok(())
}

fn metadata(lab: &Lab, table: &str, key: &str) -> Result<Value> {
    let manifest = lab.manifest()?;
    let location = manifest["tables"][table][key].as_str().context("no metadata location")?;
    let text = std::fs::read(location.trim_start_matches("file://"))?;
    Ok(serde_json::from_slice(&text)?)
}

/// The format version of the current state, as its metadata and the manifest say it.
fn expect_format(lab: &Lab, table: &str, version: u64, mode: &str) -> Result<()> {
    let current = metadata(lab, table, "metadata_location")?;
    ensure!(current["format-version"] == version, "{table}: {}", current["format-version"]);
    let changes = metadata(lab, table, "changes_metadata_location")?;
    ensure!(changes["format-version"] == 2, "{table}: the changelog is of another format");
    let entry = &lab.manifest()?["tables"][table];
    ensure!(entry["delete_mode"] == mode, "{table}: {entry}");
    Ok(())
}

/// The value of a key in the summary of the newest snapshot, 0 without it.
fn newest(lab: &Lab, table: &str, key: &str) -> Result<u64> {
    let current = metadata(lab, table, "metadata_location")?;
    let id = &current["current-snapshot-id"];
    let snapshots = current["snapshots"].as_array().context("no snapshots")?;
    let head = snapshots.iter().find(|snapshot| snapshot["snapshot-id"] == *id);
    let value = &head.context("no head")?["summary"][key];
    Ok(value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// The sum of the values of a key over all snapshots that are kept.
fn ever(lab: &Lab, table: &str, key: &str) -> Result<u64> {
    let current = metadata(lab, table, "metadata_location")?;
    let snapshots = current["snapshots"].as_array().context("no snapshots")?;
    let value = |snapshot: &Value| snapshot["summary"][key].as_str()?.parse::<u64>().ok();
    Ok(snapshots.iter().filter_map(value).sum())
}

fn from_the_start(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("iceberg", json!({"deletes": "vector"}))?;
    load(&lab)?;
    lab.init()?;
    expect_format(&lab, "public.notes", 3, "vector")?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    rounds(&lab, &daemon, &oracle, 0..4)?;
    ensure!(ever(&lab, "public.notes", "added-dvs")? > 0, "no vector was written");
    ensure!(ever(&lab, "public.notes", "removed-dvs")? > 0, "no vector was replaced");
    lab.pgcdc(&["verify"])?.expect_code(0)?;
    // a compaction beside the daemon, then one without, and the index goes on where rows are
    lab.pgcdc(&["compact"])?.expect_code(0)?;
    ensure!(newest(&lab, "public.notes", "total-delete-files")? == 0, "vectors of files that left");
    rounds(&lab, &daemon, &oracle, 4..6)?;
    daemon.stop()?;
    lab.pgcdc(&["compact"])?.expect_code(0)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    let daemon = lab.start()?;
    rounds(&lab, &daemon, &oracle, 6..8)?;
    ensure!(!daemon.log().contains("index rebuilt"), "{}", daemon.log_end());
    daemon.stop()?;
    // an index that is gone is made anew from data files and vectors
    std::fs::remove_dir_all(lab.state_dir().join("index"))?;
    let daemon = lab.start()?;
    rounds(&lab, &daemon, &oracle, 8..10)?;
    ensure!(daemon.log().contains("index rebuilt"), "{}", daemon.log_end());
    lab.pgcdc(&["verify"])?.expect_code(0)?;
    daemon.stop()?;
    compare_with_history(&lab, "public.notes")?;
    compare_with_history(&lab, "public.lists")?;
    lab.expect_no_leftovers()
}

fn switched(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    load(&lab)?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    rounds(&lab, &daemon, &oracle, 0..3)?;
    daemon.stop()?;
    expect_format(&lab, "public.notes", 2, "position")?;
    ensure!(newest(&lab, "public.notes", "total-delete-files")? > 0, "no position deletes");
    lab.set("iceberg", json!({"deletes": "vector"}))?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    // nothing happens to a table before its next commit
    expect_format(&lab, "public.notes", 2, "position")?;
    rounds(&lab, &daemon, &oracle, 3..4)?;
    expect_format(&lab, "public.notes", 3, "vector")?;
    let left = ever(&lab, "public.notes", "removed-position-delete-files")?;
    ensure!(left > 0, "the position delete files stayed");
    rounds(&lab, &daemon, &oracle, 4..6)?;
    lab.pgcdc(&["compact"])?.expect_code(0)?;
    rounds(&lab, &daemon, &oracle, 6..7)?;
    lab.pgcdc(&["verify"])?.expect_code(0)?;
    daemon.stop()?;
    // snapshots of both formats are read
    compare_with_history(&lab, "public.notes")?;
    lab.set("iceberg", json!({"deletes": "position"}))?;
    let before = lab.manifest()?;
    let words = ["iceberg.deletes", "takes no position delete files", "public."];
    lab.pgcdc(&["compact"])?.expect_code(2)?.expect_words(&words)?;
    lab.pgcdc(&["start"])?.expect_code(2)?.expect_words(&words)?;
    ensure!(lab.manifest()?["tables"] == before["tables"], "something was written");
    lab.set("iceberg", json!({"deletes": "copy_on_write"}))?;
    lab.pgcdc(&["start"])?.expect_code(2)?.expect_words(&["iceberg.deletes", "copy_on_write"])?;
    lab.set("iceberg", json!({"deletes": "vector"}))?;
    let daemon = lab.start()?;
    rounds(&lab, &daemon, &oracle, 7..8)?;
    daemon.stop()?;
    lab.expect_no_leftovers()
}

/// Rows of a table on a branch, as pyiceberg finds them.
fn rows_on(lab: &Lab, branch: &str) -> Result<u64> {
    let script = "import sys
from pyiceberg.catalog.sql import SqlCatalog
table = SqlCatalog('pgcdc', uri='sqlite:///' + sys.argv[1]).load_table(sys.argv[2])
snapshot = table.snapshot_by_name(sys.argv[3])
print(table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows)";
    let manifest = lab.manifest()?;
    let ident = manifest["tables"]["public.items"]["iceberg_table"].as_str();
    let mut python = shell::command(setup::interpreter()?);
    python.args(["-B", "-c", script]).arg(lab.state_dir().join("catalog.db"));
    let said = shell::stdout(python.args([ident.context("no iceberg_table")?, branch]))?;
    Ok(said.trim().parse()?)
}

fn staged(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("iceberg", json!({"deletes": "vector"}))?;
    lab.set("promotion", json!({"mode": "manual"}))?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text);
         INSERT INTO items SELECT i, 'x' FROM generate_series(1, 100) i;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    for id in [1, 2, 3] {
        lab.database().execute(&format!(
            "DELETE FROM items WHERE id = {id}; UPDATE items SET v = 'y' WHERE id % 7 = {id}"
        ))?;
        lab.settle(&daemon)?;
    }
    ensure!((rows_on(&lab, "main")?, rows_on(&lab, "staging")?) == (100, 97), "before");
    lab.pgcdc(&["promote", "--reason", "vectors"])?.expect_code(0)?;
    ensure!((rows_on(&lab, "main")?, rows_on(&lab, "staging")?) == (97, 97), "after");
    lab.pgcdc(&["compact"])?.expect_code(0)?;
    lab.database().execute("DELETE FROM items WHERE id < 10")?;
    lab.settle(&daemon)?;
    ensure!((rows_on(&lab, "main")?, rows_on(&lab, "staging")?) == (97, 91), "at the end");
    daemon.stop()
}

fn compat(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text); CREATE TABLE idle (id int PRIMARY KEY);
         INSERT INTO items SELECT i, 'x' FROM generate_series(1, 10) i;",
    )?;
    lab.init()?;
    lab.set("iceberg", json!({"deletes": "vector"}))?;
    let daemon = lab.start()?;
    lab.database().execute("DELETE FROM items WHERE id = 1")?;
    lab.settle(&daemon)?;
    lab.pgcdc(&["status", "--compat"])?.expect_code(0)?.expect_words(&[
        "items__changes",
        "vector",
        "pyiceberg",
        "does not read vector",
    ])?;
    let said = lab.pgcdc(&["status", "--compat", "--json"])?.expect_code(0)?.json()?;
    let tables = said["tables"].as_array().context("no tables")?;
    let of = |name: &str, kind: &str| {
        let found = tables.iter().find(|table| table["name"] == name && table["kind"] == kind);
        found.context("a table is missing")
    };
    let items = of("public.items", "current")?;
    ensure!(items["format_version"] == 3 && items["delete_mode"] == "vector", "{items}");
    ensure!(of("public.idle", "current")?["format_version"] == 2, "{said}");
    ensure!(of("public.items", "changes")?["format_version"] == 2, "{said}");
    let reads = |table: &Value, engine: &str| {
        let engines = table["engines"].as_array().into_iter().flatten();
        engines.clone().find(|known| known["name"] == engine).map(|known| known["reads"] == true)
    };
    ensure!(reads(items, "DuckDB") == Some(true), "{items}");
    ensure!(reads(items, "ClickHouse") == Some(false), "{items}");
    daemon.stop()
}

/// What an engine says of `public.items`: its rows, or why it refuses.
fn ask_engine(lab: &Lab, python: &Path, engine: &str) -> Result<Result<Vec<String>, String>> {
    let manifest = lab.manifest()?;
    let location = &manifest["tables"]["public.items"]["metadata_location"];
    let asked = json!([{ "metadata": location, "columns": ["id", "n", "v"] }]);
    let script = crate::repo::root().join("xtask/readers/engines.py");
    let mut command = shell::command(python);
    command.arg("-B").arg(script).args([engine, &asked.to_string()]);
    let said = shell::stdout(&mut command)?;
    let said: Value = serde_json::from_str(said.lines().last().context("no answer")?)?;
    if let Some(reason) = said[0]["refused"].as_str() {
        return Ok(Err(reason.to_owned()));
    }
    let rows = said[0]["rows"].as_array().context("no rows")?;
    Ok(Ok(rows.iter().filter_map(|row| Some(row.as_str()?.to_owned())).collect()))
}

fn expect_rows(lab: &Lab, python: &Path, engine: &str) -> Result<()> {
    let found = ask_engine(lab, python, engine)?;
    let found = found.map_err(|reason| anyhow::anyhow!("{engine} refuses: {reason}"))?;
    let line = r"id || '|' || coalesce(n::text, '\N') || '|' || v";
    let query =
        format!(r#"SELECT string_agg({line}, E'\n' ORDER BY ({line}) COLLATE "C") FROM items"#);
    let source = lab.database().value(&query)?;
    let source: Vec<&str> = source.lines().collect();
    ensure!(found == source, "{engine}: {} rows, source {}", found.len(), source.len());
    Ok(())
}

fn engines(env: &Env<'_>) -> Result<()> {
    if !env.full {
        println!("     left out: set PGCDC_E2E_FULL=1, it installs 430 MB");
        return Ok(());
    }
    let Some(python) = setup::ensure_engines()? else {
        println!("     left out: there is no Java");
        return Ok(());
    };
    let mut lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, n bigint, v text);
         INSERT INTO items SELECT i, nullif(i % 13, 0), md5(i::text) FROM generate_series(1, 2000) i;",
    )?;
    lab.init()?;
    let turn = |lab: &Lab, daemon: &Daemon, round: u32| {
        lab.database().execute(&format!(
            "DELETE FROM items WHERE id % 11 = {round}; UPDATE items SET n = id WHERE id % 7 = {round};
             INSERT INTO items SELECT 5000 + 100 * {round} + i, i, 'new' FROM generate_series(1, 50) i;"
        ))?;
        lab.settle(daemon)
    };
    let daemon = lab.start()?;
    for round in 0..3 {
        turn(&lab, &daemon, round)?;
    }
    daemon.stop()?;
    expect_rows(&lab, &python, "spark")?;
    expect_rows(&lab, &python, "chdb")?;
    lab.set("iceberg", json!({"deletes": "vector"}))?;
    let daemon = lab.start()?;
    for round in 3..6 {
        turn(&lab, &daemon, round)?;
        expect_rows(&lab, &python, "spark")?;
    }
    let refused = ask_engine(&lab, &python, "chdb")?;
    ensure!(
        refused.is_err(),
        "ClickHouse reads vectors now: docs and `status --compat` are behind"
    );
    lab.pgcdc(&["compact"])?.expect_code(0)?;
    turn(&lab, &daemon, 6)?;
    expect_rows(&lab, &python, "spark")?;
    daemon.stop()
}
