//! The ordinary day: snapshot, changes, restarts, and equality with the source afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Env, Scenario};
use crate::lab::{Expected, Lab, Oracle};
use crate::repo;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("inserts_updates_and_deletes_reach_both_tables", inserts_updates_and_deletes),
    ("changelog_is_in_commit_order", changelog_order),
    ("pgbench_and_the_shop_equal_their_source", pgbench_and_shop),
    ("a_restart_continues_where_the_drain_ended", restart),
    ("an_idle_source_stays_covered_and_lets_wal_go", idle_source),
    ("raw_tags_are_pruned_to_what_is_kept", raw_tags),
    ("teardown_leaves_nothing_on_the_source", teardown),
];

/// Loads the shop of testdata into a lab's source.
pub(super) fn load_shop(lab: &Lab) -> Result<()> {
    let script = fs::read_to_string(repo::root().join("testdata/shop.sql"))?;
    lab.database().execute(&script).map(|_| ())
}

/// Loads pgbench's tables; the history has no key, so its whole rows must identify it.
pub(super) fn load_pgbench(lab: &Lab, scale: &str) -> Result<()> {
    lab.database().pgbench(&["-i", "-q", "-s", scale])?;
    lab.database().execute("ALTER TABLE pgbench_history REPLICA IDENTITY FULL").map(|_| ())
}

fn inserts_updates_and_deletes(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(8,2));
         INSERT INTO items VALUES (1, 'one', 1.00), (2, 'two', 2.00), (3, NULL, NULL);",
    )?;
    lab.init()?.expect_words(&["public.items: 3 rows"])?;
    ensure!(lab.expect_equal(Expected::AnyChanges)? == 4, "init copied another number of rows");
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().execute(
        "INSERT INTO items VALUES (4, 'four', 4), (5, 'five', 5);
         UPDATE items SET price = price + 0.5 WHERE id IN (1, 4);
         DELETE FROM items WHERE id IN (2, 5);
         INSERT INTO items VALUES (2, 'two again', 2.2);
         BEGIN; INSERT INTO items VALUES (9, 'never', 0); ROLLBACK;",
    )?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}

fn changelog_order(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(
        "INSERT INTO items VALUES (1, 'a');
         BEGIN; UPDATE items SET v = 'b'; INSERT INTO items VALUES (2, 'c'); COMMIT;
         DELETE FROM items WHERE id = 1;
         UPDATE items SET v = NULL WHERE id = 2;",
    )?;
    lab.settle(&daemon)?;
    let args = ["-t", "public.items", "--changes-since", "0", "-f", "ndjson"];
    let lines = lab.query(&args)?;
    let mut rows = Vec::new();
    for line in lines.lines() {
        rows.push(serde_json::from_str::<Value>(line)?);
    }
    let ops: Vec<_> = rows.iter().map(|row| (row["__op"].as_str(), row["id"].as_i64())).collect();
    let expected = [("I", 1), ("U", 1), ("I", 2), ("D", 1), ("U", 2)];
    let expected: Vec<_> = expected.map(|(op, id)| (Some(op), Some(id))).to_vec();
    ensure!(ops == expected, "the changelog reads {ops:?}\n{lines}");
    let keys: Vec<_> = rows.iter().map(order_key).collect();
    ensure!(keys.is_sorted(), "keys are out of order: {keys:?}");
    ensure!(keys[1].0 == keys[2].0 && keys[1].2 < keys[2].2, "one transaction, two: {keys:?}");
    daemon.stop()
}

/// What orders changes: commit LSN, then transaction, then place in the transaction.
fn order_key(row: &Value) -> (u64, u64, u64) {
    // Numbers above 2^53 are strings in our JSON.
    let number = |name: &str| match &row[name] {
        Value::String(text) => text.parse().unwrap_or(0),
        other => other.as_u64().unwrap_or(0),
    };
    (number("__commit_lsn"), number("__xid"), number("__seq"))
}

fn pgbench_and_shop(env: &Env<'_>) -> Result<()> {
    pgbench_and_shop_in(&env.lab()?)
}

/// The whole workload in a lab with nothing in it yet.
pub(super) fn pgbench_and_shop_in(lab: &Lab) -> Result<()> {
    load_shop(lab)?;
    load_pgbench(lab, "1")?;
    lab.init()?;
    lab.expect_equal(Expected::AnyChanges)?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().pgbench(&["-n", "-c", "2", "-t", "1000"])?;
    lab.database().execute("CALL shop_business(61, 200)")?;
    lab.database().execute("DELETE FROM pgbench_accounts WHERE aid % 1000 = 7")?;
    lab.settle(&daemon)?;
    let counts = oracle.counts()?;
    let history = counts.get("public.pgbench_history").and_then(|ops| ops.get("I"));
    ensure!(history == Some(&2000), "the oracle missed changes: {counts:?}");
    lab.expect_equal(Expected::Changes(&counts))?;
    daemon.stop()?;
    lab.expect_equal(Expected::Changes(&counts))?;
    Ok(())
}

fn restart(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    for round in 0..3 {
        let daemon = lab.start()?;
        lab.database().execute(&format!(
            "INSERT INTO items SELECT {round} * 100 + i, 'x' FROM generate_series(1, 50) i;
             UPDATE items SET v = v || '{round}' WHERE id % 7 = 0;"
        ))?;
        // Not settled on purpose: what the drain does not bring must come in the next life.
        daemon.stop()?;
        lab.expect_confirmed_is_covered()?;
        lab.database().execute(&format!("DELETE FROM items WHERE id % 11 = {round}"))?;
    }
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}

fn raw_tags(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("refstore", json!({"retain_raw": 3, "retain_hourly": 0, "retain_daily": 0}))?;
    lab.init()?;
    let tags = || -> Result<Vec<(String, Vec<u8>)>> {
        let mut tags = Vec::new();
        for file in fs::read_dir(lab.lake().join("refs/raw"))? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            // a tag may go while we look
            tags.extend(fs::read(file.path()).ok().map(|bytes| (name, bytes)));
        }
        tags.sort();
        Ok(tags)
    };
    let daemon = lab.start()?;
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for _ in 0..7 {
        lab.settle(&daemon)?;
        for (name, bytes) in tags()? {
            let known = seen.entry(name.clone()).or_insert_with(|| bytes.clone());
            ensure!(*known == bytes, "the tag {name} was changed");
        }
    }
    daemon.stop()?;
    seen.extend(tags()?);
    ensure!(seen.len() > 3, "only {} tags were ever made", seen.len());
    let left: Vec<String> = tags()?.into_iter().map(|(name, _)| name).collect();
    let newest: Vec<String> = seen.keys().rev().take(3).rev().cloned().collect();
    ensure!(left == newest, "kept {left:?}, not {newest:?}");
    let status = lab.pgcdc(&["status", "--json"])?.expect_code(0)?.json()?;
    ensure!(status["refs"]["raw_count"] == 3, "status: {}", status["refs"]);
    // what is kept is read, what is not is not found
    let epoch = lab.manifest()?["epoch"].as_u64().unwrap_or(0);
    lab.query(&["-t", "public.heartbeat", "--epoch", &(epoch - 2).to_string()])?;
    let gone = (epoch - 3).to_string();
    let gone = ["query", "-t", "public.heartbeat", "--epoch", gone.as_str()];
    lab.run("pgcdc-serve", &gone)?.expect_code(4).map(|_| ())
}

fn idle_source(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY)")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    let epoch = lab.manifest()?["epoch"].clone();
    // Traffic that is not ours, created after init: it must be covered without an epoch.
    lab.database().execute(
        "CREATE TABLE elsewhere (id int); INSERT INTO elsewhere SELECT generate_series(1, 1000)",
    )?;
    let position = lab.position()?;
    let confirmed = format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        lab.slot()
    );
    crate::shell::wait_for("the slot to move on", Duration::from_secs(90), || {
        daemon.expect_alive()?;
        let at = crate::lab::parse_lsn(&lab.database().value(&confirmed)?)?;
        Ok((at >= position).then_some(()))
    })?;
    ensure!(lab.manifest()?["epoch"] == epoch, "an epoch was made for changes that are not ours");
    daemon.stop()
}

fn teardown(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.pgcdc(&["teardown"])?.expect_code(1)?;
    daemon.stop()?;
    lab.pgcdc(&["teardown"])?.expect_code(0)?.expect_words(&["Teardown complete"])?;
    lab.expect_nothing_on_source()?;
    ensure!(lab.lake().join("manifest.json").exists(), "teardown without --yes removed the lake");
    Ok(())
}
