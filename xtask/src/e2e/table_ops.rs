//! Tables that come, go, stop and are copied again while the daemon runs.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::workload::load_pgbench;
use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Oracle, compare_with_history, parse_lsn};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_table_is_added_under_load", add),
    ("others_stay_fresh_while_a_large_table_is_added", freshness),
    ("a_quarantined_table_is_resynced_under_its_present_columns", resync),
    ("a_table_is_resynced_while_its_rows_change", resync_under_load),
    ("kill_9_in_the_middle_of_a_copy_converges", kills),
    ("a_paused_table_stands_still_until_it_is_resumed", pause),
    ("a_removed_table_is_left_alone_and_can_come_back", remove),
    ("a_renamed_table_goes_on_under_its_new_name", renamed),
    ("a_removed_parent_leaves_its_children_published", inheritance),
    ("without_a_daemon_the_next_start_copies", offline),
    ("what_does_not_go_is_refused", refused),
];

/// How long a copy may take.
const LIMIT: Duration = Duration::from_secs(120);

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn entry(lab: &Lab, table: &str) -> Result<Value> {
    Ok(lab.manifest()?["tables"][table].clone())
}

fn wait_state(lab: &Lab, daemon: &Daemon, table: &str, state: &str) -> Result<Value> {
    lab.wait_until(daemon, &format!("{table} to be {state}"), |manifest| {
        Ok(manifest["tables"][table]["state"] == state)
    })?;
    entry(lab, table)
}

/// Field ids by column.
fn ids(lab: &Lab, table: &str) -> Result<Vec<(String, i64)>> {
    let columns = lab.manifest()?["schemas"][table]["columns"].clone();
    let id = |column: &Value| {
        (text(&column["name"]).to_owned(), column["field_id"].as_i64().unwrap_or_default())
    };
    Ok(columns.as_array().into_iter().flatten().map(id).collect())
}

/// The newest gap is closed: it ends below what is covered, and changes from now on are complete.
fn expect_closed_gap(lab: &Lab, table: &str, reason: &str) -> Result<()> {
    let manifest = lab.manifest()?;
    let gap = manifest["tables"][table]["gaps"].as_array().and_then(|gaps| gaps.last());
    let gap = gap.with_context(|| format!("{table} has no gap"))?;
    let (from, to) = (parse_lsn(text(&gap["lsn_from"]))?, parse_lsn(text(&gap["lsn_to"]))?);
    ensure!(from <= to && to < parse_lsn(text(&manifest["covered_lsn"]))?, "{table}: {gap}");
    ensure!(text(&gap["reason"]).contains(reason), "{table}: {gap}");
    let now = manifest["epoch"].to_string();
    lab.query(&["-t", table, "--changes-since", &now, "-f", "ndjson"])?;
    Ok(())
}

fn load(lab: &Lab, sql: &str) -> Result<Child> {
    let mut psql = lab.database().psql()?;
    psql.args(["-c", sql]).stdin(Stdio::null()).stdout(Stdio::null());
    psql.spawn().context("cannot start the load")
}

/// Many transactions over a table `late` of `id`, `v` and `n`: rows come, change, move and go.
const CHURN: &str = "DO $$ BEGIN FOR i IN 1..400 LOOP
    INSERT INTO late SELECT 100000 + i * 10 + j, 'new', j FROM generate_series(0, 9) j;
    UPDATE late SET n = n + 1 WHERE id % 97 = i % 97;
    UPDATE late SET id = id + 1000000 WHERE id = i;
    DELETE FROM late WHERE id = 500 + i;
    COMMIT; PERFORM pg_sleep(0.01);
  END LOOP; END $$";

const LATE: &str = "CREATE TABLE late (id int PRIMARY KEY, v text, n int);
    ALTER TABLE late ALTER v SET STORAGE EXTERNAL;
    INSERT INTO late SELECT i, repeat('v' || i, 500), i FROM generate_series(1, 20000) i;";

fn add(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", json!(0.2))?;
    load_pgbench(&lab, "1")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().execute(LATE)?;
    let mut churn = load(&lab, CHURN)?;
    let mut others = load(
        &lab,
        "DO $$ BEGIN FOR i IN 1..500 LOOP
        UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = i; COMMIT;
        PERFORM pg_sleep(0.005); END LOOP; END $$",
    )?;
    let added = lab.pgcdc(&["table", "add", "public.late"])?.expect_code(0)?;
    added.expect_words(&["public.late: active at epoch"])?;
    ensure!(churn.wait()?.success() && others.wait()?.success(), "the load failed");
    lab.settle(&daemon)?;
    let published = format!(
        "SELECT count(*) FROM pg_publication_tables WHERE pubname = '{}' AND tablename = 'late'",
        lab.publication()
    );
    ensure!(lab.database().number(&published)? == 1, "it is not in the publication");
    lab.expect_equal(Expected::AnyChanges)?;
    compare_with_history(&lab, "public.late")?;
    let counts = oracle.counts()?;
    let updates = &counts["public.pgbench_accounts"]["U"];
    let read = lab.query(&[
        "-t",
        "public.pgbench_accounts",
        "--changes-since",
        "0",
        "-n",
        "100000",
        "-f",
        "ndjson",
    ])?;
    ensure!(read.lines().count() as u64 == *updates, "the other table lost changes");
    // what it was before it was added is no part of its changes
    let since = ["query", "-t", "public.late", "--changes-since", "0"];
    lab.run("pgcdc-serve", &since)?.expect_code(4)?;
    let metrics = daemon.metrics()?;
    let series = "pgcdc_table_state{table=\"public.late\",state=\"streaming\"}";
    ensure!(metrics.get(series) >= 1.0, "{series} is not 1");
    lab.pgcdc(&["verify", "--table", "public.late"])?.expect_code(0)?;
    // the same behind a restart
    daemon.stop()?;
    let daemon = lab.start()?;
    lab.database()
        .execute("UPDATE late SET n = 0 WHERE id % 7 = 0; DELETE FROM late WHERE id < 50")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

/// Seconds between two flushes where freshness is measured.
const INTERVAL_SECS: f64 = 5.0;

/// Another table changes all the time: the newest of its changes in the lake is never older than two
/// flush intervals.
fn freshness(env: &Env<'_>) -> Result<()> {
    let rows = if env.full { 1_000_000 } else { 100_000 };
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", json!(INTERVAL_SECS))?;
    lab.database().execute(
        "CREATE TABLE busy (id int PRIMARY KEY, at timestamptz); INSERT INTO busy VALUES (1, now());
         CREATE TABLE done (id int PRIMARY KEY);",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(&format!(
        "CREATE TABLE large (id int PRIMARY KEY, v text, n numeric(12,2), at timestamptz);
         INSERT INTO large SELECT i, md5(i::text), i / 7.0, now() FROM generate_series(1, {rows}) i;"
    ))?;
    let mut busy = load(
        &lab,
        "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM done) LOOP
           UPDATE busy SET at = clock_timestamp(); COMMIT; PERFORM pg_sleep(0.05);
         END LOOP; END $$",
    )?;
    let age = || -> Result<f64> {
        let manifest = lab.manifest()?;
        let newest = text(&manifest["commit_ts"]);
        let age = format!("SELECT extract(epoch FROM clock_timestamp() - '{newest}'::timestamptz)");
        Ok(lab.database().value(&age)?.parse()?)
    };
    shell::wait_for("the load to be followed", LIMIT, || {
        Ok((age()? < INTERVAL_SECS).then_some(()))
    })?;
    lab.pgcdc(&["table", "add", "--no-wait", "public.large"])?.expect_code(0)?;
    let mut oldest = 0_f64;
    shell::wait_for("the table to be added", LIMIT, || {
        daemon.expect_alive()?;
        oldest = oldest.max(age()?);
        Ok((entry(&lab, "public.large")?["state"] == "streaming").then_some(()))
    })?;
    println!("     {rows} rows added, the other table at most {oldest:.1} s behind");
    lab.database().execute("INSERT INTO done VALUES (1)")?;
    ensure!(busy.wait()?.success(), "the load failed");
    ensure!(oldest < 2.0 * INTERVAL_SECS, "the other table was {oldest:.1} s behind");
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn resync(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n int, gone int);
         INSERT INTO t SELECT i, 'v' || i, i, i FROM generate_series(1, 100) i;",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("UPDATE t SET n = -n WHERE id <= 10")?;
    lab.settle(&daemon)?;
    let before = ids(&lab, "public.t")?;
    lab.database().execute(
        "ALTER TABLE t ADD COLUMN c int DEFAULT 7, ALTER n TYPE text; INSERT INTO t VALUES (101)",
    )?;
    wait_state(&lab, &daemon, "public.t", "quarantined")?;
    lab.database().execute(
        "ALTER TABLE t DROP COLUMN gone; ALTER TABLE t RENAME v TO word;
         UPDATE t SET word = 'late' WHERE id = 5;",
    )?;
    let done = lab.pgcdc(&["table", "resync", "public.t"])?.expect_code(0)?;
    done.expect_words(&["public.t: active at epoch", "101 rows"])?;
    lab.database().execute("UPDATE t SET c = 8 WHERE id = 1; DELETE FROM t WHERE id = 2")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    compare_with_history(&lab, "public.t")?;
    expect_closed_gap(&lab, "public.t", "column n is no longer integer")?;
    let id = |all: &[(String, i64)], name: &str| {
        all.iter().find(|(found, _)| found == name).map(|(_, id)| *id)
    };
    let after = ids(&lab, "public.t")?;
    ensure!(id(&after, "id") == id(&before, "id"), "the key's field id: {before:?}, {after:?}");
    ensure!(id(&after, "word") == id(&before, "v"), "a renamed column: {before:?}, {after:?}");
    let highest = before.iter().map(|(_, id)| *id).max();
    for new in ["c", "n"] {
        ensure!(id(&after, new) > highest, "{new} has an old field id: {before:?}, {after:?}");
    }
    // a table that was dropped and made again is another one, under the same name
    lab.database().execute(
        "DROP TABLE t; CREATE TABLE t (other text, id bigint PRIMARY KEY);
         INSERT INTO t VALUES ('a', 1), ('b', 2);",
    )?;
    lab.database().execute(&format!("ALTER PUBLICATION {} ADD TABLE t", lab.publication()))?;
    lab.pgcdc(&["table", "resync", "public.t"])?.expect_code(0)?;
    lab.database()
        .execute("UPDATE t SET other = 'c' WHERE id = 2; INSERT INTO t VALUES ('d', 3)")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let anew = ids(&lab, "public.t")?;
    let highest = after.iter().map(|(_, id)| *id).max();
    ensure!(anew.iter().all(|(_, id)| Some(*id) > highest), "ids were used again: {anew:?}");
    daemon.stop()
}

fn resync_under_load(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", json!(0.2))?;
    lab.set("compaction.interval_sec", json!(1))?;
    lab.database().execute(LATE)?;
    lab.init()?;
    let daemon = lab.start()?;
    let mut churn = load(&lab, CHURN)?;
    for _ in 0..3 {
        let done = lab.pgcdc(&["table", "resync", "public.late"])?.expect_code(0)?;
        done.expect_words(&["public.late: active at epoch"])?;
    }
    ensure!(churn.wait()?.success(), "the load failed");
    // a truncate and another shape while it is copied
    let done = lab.pgcdc(&["table", "resync", "--no-wait", "public.late"])?.expect_code(0)?;
    done.expect_words(&["being copied again"])?;
    lab.database().execute(
        "TRUNCATE late; INSERT INTO late SELECT i, 'x', i FROM generate_series(1, 1000) i;
         ALTER TABLE late ADD COLUMN more int; UPDATE late SET more = 1 WHERE id % 2 = 0;",
    )?;
    wait_state(&lab, &daemon, "public.late", "streaming")?;
    lab.settle(&daemon)?;
    // it compacts every second
    daemon.stop()?;
    lab.expect_equal(Expected::AnyChanges)?;
    compare_with_history(&lab, "public.late")?;
    let entry = entry(&lab, "public.late")?;
    ensure!(entry["gaps"].as_array().is_some_and(|gaps| gaps.len() == 4), "gaps: {entry}");
    Ok(())
}

fn kills(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", json!(0.2))?;
    lab.expect_orphans();
    lab.database().execute(
        "CREATE TABLE old (id int PRIMARY KEY, v text);
         INSERT INTO old SELECT i, md5(i::text) FROM generate_series(1, 200000) i;",
    )?;
    lab.init()?;
    lab.database().execute(LATE)?;
    let mut daemon = lab.start()?;
    for (at, (action, table)) in
        [("resync", "public.old"), ("add", "public.late")].into_iter().enumerate()
    {
        lab.pgcdc(&["table", action, "--no-wait", table])?.expect_code(0)?;
        // another moment of the copy each time, behind its end as well
        for delay in [0, 150, 400, 900, 1500] {
            shell::wait_for("the copy to start", LIMIT, || {
                daemon.expect_alive()?;
                let is_done = entry(&lab, table)?["state"] == "streaming";
                Ok((is_done || daemon.log().contains("table copy started")).then_some(()))
            })?;
            std::thread::sleep(Duration::from_millis(delay));
            daemon.kill()?;
            lab.expect_confirmed_is_covered()?;
            lab.database().execute(&format!(
                "UPDATE old SET v = 'k{at}{delay}' WHERE id % 1000 = {delay} % 1000;
                 DELETE FROM late WHERE id = {delay} + {at} + 1;
                 INSERT INTO late VALUES (900000 + {delay} + {at}, 'x', 1);"
            ))?;
            daemon = lab.start()?;
        }
        wait_state(&lab, &daemon, table, "streaming")?;
        lab.settle(&daemon)?;
        lab.expect_equal(Expected::AnyChanges)?;
    }
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'pgcdc_copy_%'";
    ensure!(lab.database().number(slots)? == 0, "a slot was left behind");
    daemon.stop()
}

fn pause(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a');
         CREATE TABLE fine (id int PRIMARY KEY);",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO t VALUES (2, 'b')")?;
    lab.pgcdc(&["table", "pause", "public.t"])?.expect_code(0)?.expect_words(&["paused"])?;
    let paused = entry(&lab, "public.t")?;
    ensure!(paused["state"] == "paused" && paused["reason"] == "paused", "{paused}");
    lab.database().execute("INSERT INTO t VALUES (3, 'c'); INSERT INTO fine VALUES (1)")?;
    lab.settle(&daemon)?;
    let read = lab.query(&["-t", "public.t", "-c", "id", "--order-by", "id", "-f", "csv"])?;
    ensure!(!read.contains('3'), "a paused table reads {read:?}");
    lab.pgcdc(&["table", "pause", "public.t"])?.expect_code(0)?;
    // it stays so over a restart, and its changes are not asked for across the gap
    daemon.stop()?;
    let daemon = lab.start()?;
    lab.database().execute("UPDATE t SET v = 'x'")?;
    lab.settle(&daemon)?;
    ensure!(entry(&lab, "public.t")?["state"] == "paused", "it went on by itself");
    let since = ["query", "-t", "public.t", "--changes-since", "0"];
    lab.run("pgcdc-serve", &since)?.expect_code(4)?;
    let resumed = lab.pgcdc(&["table", "resume", "public.t"])?.expect_code(0)?;
    resumed.expect_words(&["active at epoch", "3 rows"])?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    expect_closed_gap(&lab, "public.t", "paused")?;
    lab.pgcdc(&["table", "resume", "public.t"])?.expect_code(4)?.expect_words(&["not paused"])?;
    daemon.stop()
}

fn remove(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');
         CREATE TABLE fine (id int PRIMARY KEY);",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO t VALUES (3, 'c')")?;
    lab.settle(&daemon)?;
    let before = ids(&lab, "public.t")?;
    lab.pgcdc(&["table", "remove", "public.t"])?.expect_code(0)?.expect_words(&["removed"])?;
    let removed = entry(&lab, "public.t")?;
    ensure!(removed["status"] == "excluded" && removed["reason"] == "removed", "{removed}");
    ensure!(removed["state"].is_null(), "{removed}");
    let published = format!(
        "SELECT count(*) FROM pg_publication_tables WHERE pubname = '{}' AND tablename = 't'",
        lab.publication()
    );
    ensure!(lab.database().number(&published)? == 0, "it is still published");
    ensure!(lab.lake().join(text(&removed["path"])).is_dir(), "its files are gone");
    lab.database().execute("INSERT INTO t VALUES (4, 'd'); INSERT INTO fine VALUES (1)")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    lab.pgcdc(&["table", "remove", "public.t"])?.expect_code(0)?;
    daemon.stop()?;
    let daemon = lab.start()?;
    lab.database().execute("DELETE FROM t WHERE id = 1; INSERT INTO fine VALUES (2)")?;
    lab.settle(&daemon)?;
    // back again, under the same field ids
    lab.pgcdc(&["table", "add", "public.t"])?.expect_code(0)?.expect_words(&["3 rows"])?;
    lab.database().execute("UPDATE t SET v = 'z' WHERE id = 2")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    compare_with_history(&lab, "public.t")?;
    ensure!(ids(&lab, "public.t")? == before, "other field ids");
    expect_closed_gap(&lab, "public.t", "removed")?;
    daemon.stop()
}

/// The old name stops and stays as it was; the new one is another table of the lake.
fn renamed(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.schema_reconcile_interval_sec", 1.into())?;
    lab.database()
        .execute("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'x');")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("ALTER TABLE a RENAME TO b; INSERT INTO b VALUES (2, 'y')")?;
    wait_state(&lab, &daemon, "public.a", "quarantined")?;
    lab.pgcdc(&["table", "add", "public.b"])?.expect_code(0)?.expect_words(&["2 rows"])?;
    let follow = |daemon: &Daemon, sql: &str| -> Result<()> {
        lab.database().execute(sql)?;
        lab.settle(daemon)?;
        compare_with_history(&lab, "public.b").with_context(|| sql.to_owned())?;
        ensure!(entry(&lab, "public.b")?["state"] == "streaming", "b stopped");
        Ok(())
    };
    follow(&daemon, "INSERT INTO b VALUES (3, 'z'); UPDATE b SET v = 'w' WHERE id = 1;")?;
    daemon.stop()?;
    let daemon = lab.start()?;
    follow(&daemon, "DELETE FROM b WHERE id = 2; INSERT INTO b VALUES (4, 'q');")?;
    follow(&daemon, "ALTER TABLE b ADD COLUMN n int; INSERT INTO b VALUES (5, 'r', 5);")?;
    let old = lab.query(&["-t", "public.a", "-c", "id", "--order-by", "id", "-f", "csv"])?;
    ensure!(old.lines().collect::<Vec<_>>() == ["id", "1"], "the old name reads {old:?}");
    daemon.stop()
}

fn inheritance(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE parent (id int PRIMARY KEY, v text); INSERT INTO parent VALUES (1, 'p');
         CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
         INSERT INTO child VALUES (2, 'c');",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.pgcdc(&["table", "remove", "public.parent"])?
        .expect_code(0)?
        .expect_words(&["taken out of publication"])?;
    lab.database()
        .execute("INSERT INTO child VALUES (3, 'd'); INSERT INTO parent VALUES (4, 'e')")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()?;
    // the next session finds its publication whole
    let daemon = lab.start()?;
    lab.database().execute("DELETE FROM child WHERE id = 2")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn offline(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1);
         CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b VALUES (1);
         CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (1);",
    )?;
    lab.init()?;
    lab.start()?.stop()?;
    lab.database()
        .execute("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)")?;
    for (action, table) in [("resync", "public.a"), ("add", "public.late")] {
        let noted = lab.pgcdc(&["table", action, table])?.expect_code(0)?;
        noted.expect_words(&["no daemon is running"])?;
    }
    lab.pgcdc(&["table", "pause", "public.b"])?.expect_code(0)?;
    lab.pgcdc(&["table", "remove", "public.c"])?.expect_code(0)?;
    lab.database().execute(
        "INSERT INTO a VALUES (2); INSERT INTO b VALUES (2); INSERT INTO late VALUES (2)",
    )?;
    let daemon = lab.start()?;
    for table in ["public.a", "public.late"] {
        wait_state(&lab, &daemon, table, "streaming")?;
    }
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    ensure!(entry(&lab, "public.b")?["state"] == "paused", "b is not paused");
    ensure!(entry(&lab, "public.c")?["status"] == "excluded", "c is followed");
    lab.pgcdc(&["table", "resume", "public.b"])?.expect_code(0)?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn refused(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("tables.exclude", json!(["public.secret"]))?;
    lab.database().execute(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE secret (id int PRIMARY KEY);",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(
        "CREATE TABLE keyless (id int); CREATE TABLE odd (id int PRIMARY KEY, d date);
         INSERT INTO odd VALUES (1, 'infinity');",
    )?;
    let cases = [
        ("add", "public.t", "followed already"),
        ("add", "public.none", "not in the schemas"),
        ("add", "public.secret", "explicit exclude"),
        ("add", "public.keyless", "no replica identity"),
        ("resync", "public.none", "not in the schemas"),
        ("pause", "public.none", "not in the lake"),
        ("remove", "public.none", "not in the lake"),
        ("resume", "public.t", "not paused"),
    ];
    for (action, table, word) in cases {
        let run = lab.pgcdc(&["table", action, table])?.expect_code(4)?;
        run.expect_words(&[word, "hint: "]).with_context(|| format!("{action} {table}"))?;
    }
    // a value that the lake cannot hold ends an add, and a resync, with the reason in the manifest
    lab.pgcdc(&["table", "add", "public.odd"])?.expect_code(1)?.expect_words(&["column d"])?;
    let odd = entry(&lab, "public.odd")?;
    ensure!(odd["status"] == "excluded" && odd["state"].is_null(), "{odd}");
    ensure!(text(&odd["reason"]).contains("column d"), "{odd}");
    lab.database().execute("UPDATE odd SET d = '2026-01-01'")?;
    lab.pgcdc(&["table", "add", "public.odd"])?.expect_code(0)?;
    lab.database().execute("INSERT INTO odd VALUES (2, 'infinity')")?;
    wait_state(&lab, &daemon, "public.odd", "quarantined")?;
    lab.pgcdc(&["table", "resync", "public.odd"])?.expect_code(1)?.expect_words(&["column d"])?;
    ensure!(entry(&lab, "public.odd")?["state"] == "quarantined", "it is not told");
    lab.database().execute("DELETE FROM odd WHERE id = 2")?;
    lab.pgcdc(&["table", "resync", "public.odd"])?.expect_code(0)?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}
