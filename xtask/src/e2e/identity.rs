//! The source is no longer the one that the lake belongs to: the daemon says `gap detected`, writes
//! nothing, acknowledges nothing, and leaves what is on the source as it found it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Env, Scenario};
use crate::lab::{Expected, Lab};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_slot_made_again_under_its_name_is_a_gap", slot_recreated),
    ("a_slot_advanced_by_somebody_else_is_a_gap", slot_advanced),
    ("a_slot_of_another_plugin_is_a_gap", slot_of_another_plugin),
    ("a_slot_whose_wal_was_removed_is_a_gap", slot_lost),
    ("a_slot_that_idled_too_long_is_a_gap", slot_timed_out),
    ("a_publication_dropped_and_made_again_is_a_gap", publication_made_again),
    ("a_table_taken_out_of_the_publication_is_a_gap", table_unpublished),
    ("another_system_is_a_gap", another_system),
    ("a_restore_that_lacks_what_we_hold_is_a_gap", restored_to_before),
    ("a_new_timeline_that_holds_all_we_hold_is_followed", promoted),
];

/// How long the daemon may need to see that it cannot go on.
const FATAL_LIMIT: Duration = Duration::from_secs(90);

const TABLE: &str = "CREATE TABLE items (id int PRIMARY KEY, v text);
                     INSERT INTO items VALUES (0, 'snapshot')";

/// A lab whose lake has an epoch and whose daemon has drained.
fn stopped(lab: &Lab) -> Result<()> {
    lab.database().execute(TABLE)?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO items VALUES (1, 'held')")?;
    lab.settle(&daemon)?;
    daemon.stop()
}

/// Starts the daemon, which must refuse with a gap that names `words`.
fn expect_gap(lab: &Lab, words: &[&str]) -> Result<()> {
    let manifest = lab.lake().join("manifest.json");
    let before = fs::read(&manifest)?;
    let slot = format!(
        "SELECT confirmed_flush_lsn || ' ' || catalog_xmin::text FROM pg_replication_slots \
         WHERE slot_name = '{}'",
        lab.slot()
    );
    let confirmed = lab.database().value(&slot)?;
    let words: Vec<&str> = ["gap detected", "hint"].iter().chain(words).copied().collect();
    lab.expect_failed_start(FATAL_LIMIT, &words)?;
    ensure!(fs::read(&manifest)? == before, "the manifest was written although there is a gap");
    ensure!(
        lab.database().value(&slot)? == confirmed,
        "the slot was moved although there is a gap"
    );
    let live = lab.live()?;
    ensure!(live["state"] == "failed", "live.json says {}", live["state"]);
    let status = lab.pgcdc(&["status", "--json"])?.expect_code(0)?.json()?;
    let daemon = &status["daemon"];
    ensure!(daemon["running"] == false && daemon["state"] == "failed", "status says {daemon}");
    let error = daemon["last_error"].as_str().context("status has no last_error")?;
    ensure!(error.contains("gap detected"), "status says {error:?}");
    Ok(())
}

fn slot_recreated(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    stopped(&lab)?;
    let slot = lab.slot();
    lab.database().execute(&format!(
        "SELECT pg_drop_replication_slot('{slot}');
         INSERT INTO items VALUES (2, 'between the slots');
         SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput');"
    ))?;
    expect_gap(&lab, &[&slot])
}

fn slot_advanced(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    stopped(&lab)?;
    let slot = lab.slot();
    // A slot advances to what is flushed, and the server of the tests does not flush at commit.
    lab.database().execute(&format!(
        "SET synchronous_commit = on; INSERT INTO items VALUES (2, 'skipped');
         SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn());"
    ))?;
    expect_gap(&lab, &[&slot])
}

fn slot_of_another_plugin(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    stopped(&lab)?;
    let slot = lab.slot();
    lab.database().execute(&format!(
        "SELECT pg_drop_replication_slot('{slot}');
         SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding');"
    ))?;
    expect_gap(&lab, &[&slot, "test_decoding"])
}

fn slot_lost(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("max_slot_wal_keep_size = 1MB\nmax_wal_size = 32MB")?;
    let lab = env.lab_on(&cluster)?;
    stopped(&lab)?;
    write_wal_until(&lab, "wal_status = 'lost'")?;
    expect_gap(&lab, &[&lab.slot(), "lost"])
}

fn slot_timed_out(env: &Env<'_>) -> Result<()> {
    if env.cluster.major() < 18 {
        println!("     PostgreSQL {} has no idle_replication_slot_timeout", env.cluster.major());
        return Ok(());
    }
    let cluster = env.own_cluster("idle_replication_slot_timeout = 1s")?;
    let lab = env.lab_on(&cluster)?;
    stopped(&lab)?;
    write_wal_until(&lab, "invalidation_reason = 'idle_timeout'")?;
    expect_gap(&lab, &[&lab.slot(), "idle_replication_slot_timeout"])
}

/// Fills and switches WAL segments, each behind a checkpoint, until the slot is as it should be.
fn write_wal_until(lab: &Lab, condition: &str) -> Result<()> {
    let query = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND {condition}",
        lab.slot()
    );
    shell::wait_for("the slot to be invalidated", FATAL_LIMIT, || {
        lab.database().execute(
            "CREATE TABLE IF NOT EXISTS noise (v text);
             INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 1000);
             SELECT pg_switch_wal(); CHECKPOINT;",
        )?;
        Ok((lab.database().number(&query)? == 1).then_some(()))
    })
}

fn publication_made_again(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    stopped(&lab)?;
    let publication = lab.publication();
    // The change between the two is not in the stream, whatever stands there now.
    lab.database().execute(&format!(
        "DROP PUBLICATION {publication}; INSERT INTO items VALUES (2, 'unpublished');
         CREATE PUBLICATION {publication} FOR TABLE items, heartbeat;"
    ))?;
    let words = ["gap detected", publication.as_str(), "hint"];
    lab.expect_failed_start(FATAL_LIMIT, &words)?;
    ensure!(lab.live()?["state"] == "failed", "live.json says {}", lab.live()?["state"]);
    lab.expect_confirmed_is_covered()
}

fn table_unpublished(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    let publication = lab.publication();
    lab.database().execute("CREATE TABLE dropped (id int PRIMARY KEY)")?;
    stopped(&lab)?;
    // A table that the source no longer has is no gap: there is nothing to miss.
    lab.database().execute(&format!(
        "DROP TABLE dropped; ALTER PUBLICATION {publication} DROP TABLE items;"
    ))?;
    expect_gap(&lab, &[&publication, "public.items", "ALTER PUBLICATION"])?;
    lab.database().execute(&format!("ALTER PUBLICATION {publication} ADD TABLE items"))?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO items VALUES (2, 'published again')")?;
    lab.settle(&daemon)?;
    daemon.stop()
}

fn another_system(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    stopped(&lab)?;
    let other = env.own_cluster("")?;
    let name = lab.database().name().to_owned();
    let database = other.create_database(&name)?;
    database.execute(&format!(
        "{TABLE}; CREATE TABLE heartbeat (id int PRIMARY KEY, n bigint);
         CREATE PUBLICATION {} FOR ALL TABLES;
         SELECT pg_create_logical_replication_slot('{}', 'pgoutput');",
        lab.publication(),
        lab.slot()
    ))?;
    lab.move_to(database)?;
    expect_gap(&lab, &["system identifier"])
}

fn restored_to_before(env: &Env<'_>) -> Result<()> {
    let mut cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    stopped(&lab)?;
    cluster.stop_fast(FATAL_LIMIT)?;
    let mut backup = cluster.copy()?;
    cluster.boot()?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO items VALUES (2, 'after the backup')")?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    drop(cluster);

    // The same system at the time of the backup, which goes its own way from there.
    backup.leave_timeline()?;
    backup.boot()?;
    lab.move_to(backup.database(lab.database().name()))?;
    lab.database().execute("INSERT INTO items VALUES (2, 'another two')")?;
    expect_gap(&lab, &["timeline"])
}

fn promoted(env: &Env<'_>) -> Result<()> {
    let mut cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    stopped(&lab)?;
    // What the daemon does not hold yet is in the copy, too.
    lab.database().execute("UPDATE items SET v = 'before the switch'")?;
    cluster.stop_fast(FATAL_LIMIT)?;
    let mut standby = cluster.copy()?;
    drop(cluster);
    standby.leave_timeline()?;
    standby.boot()?;
    lab.move_to(standby.database(lab.database().name()))?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO items VALUES (3, 'on the new timeline')")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let timeline = &lab.manifest()?["source"]["timeline"];
    ensure!(*timeline == json!(2), "the manifest names timeline {timeline}");
    daemon.stop()?;
    // From now on the new timeline is the known one.
    lab.set("flush.interval_sec", json!(0.2))?;
    let daemon = lab.start()?;
    lab.database().execute("DELETE FROM items WHERE id = 1")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}
