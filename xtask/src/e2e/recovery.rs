//! What is local can be lost, and what a crash left half done is finished: the lake goes on from
//! what is durable in it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::workload::load_shop;
use super::{Env, Scenario};
use crate::lab::{Expected, Oracle, files_below, lsn_at};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_lost_catalog_is_registered_again_from_the_manifest", lost_catalog),
    ("a_lost_state_directory_loses_no_data", lost_state),
    ("a_torn_or_missing_key_index_is_rebuilt", broken_index),
    ("tables_ahead_of_the_manifest_are_caught_up_with", tables_ahead),
];

const ITEMS: &str = "CREATE TABLE items (id int PRIMARY KEY, v text);
                     INSERT INTO items SELECT i, 'x' FROM generate_series(1, 200) i;";

fn lost_catalog(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.pgcdc(&["catalog", "register"])?
        .expect_code(1)?
        .expect_words(&["manifest.json", "init"])?;
    lab.database().execute(ITEMS)?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database()
        .execute("UPDATE items SET v = 'y' WHERE id < 50; DELETE FROM items WHERE id = 7")?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        match fs::remove_file(lab.state_dir().join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let refused = lab.pgcdc(&["start"])?;
    ensure!(refused.code != 0, "the daemon started without a catalog");
    refused.expect_words(&["catalog", "catalog register"])?;
    let manifest = lab.manifest()?;
    for expected in [4, 0] {
        let run = lab.pgcdc(&["catalog", "register", "--json"])?.expect_code(0)?;
        ensure!(run.json()?["changed"] == expected, "changed: {}", run.stdout);
    }
    let database = manifest["catalog"]["database"].as_str().unwrap_or_default();
    let words = format!("sqlite: {database} (2 tables)");
    lab.pgcdc(&["catalog", "register"])?.expect_code(0)?.expect_words(&[&words])?;
    ensure!(lab.manifest()? == manifest, "catalog register wrote the manifest");
    // pyiceberg reads through the catalog, and compares its snapshots with those of the manifest.
    lab.expect_equal(Expected::AnyChanges)?;
    Ok(())
}

fn lost_state(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    load_shop(&lab)?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().execute("CALL shop_business(61, 50)")?;
    lab.settle(&daemon)?;
    // Killed, so that changes are under way which the manifest does not have.
    lab.database().execute("CALL shop_business(61, 20)")?;
    daemon.kill()?;
    let init_lsn = lab.manifest()?["source"]["init_lsn"].clone();
    fs::remove_dir_all(lab.state_dir())?;
    lab.pgcdc(&["catalog", "register"])?.expect_code(0)?;
    let daemon = lab.start()?;
    lab.database().execute("CALL shop_business(61, 20)")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    ensure!(lab.manifest()?["source"]["init_lsn"] == init_lsn, "the lake was initialised anew");
    daemon.stop()
}

fn broken_index(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(ITEMS)?;
    lab.init()?;
    let index = lab.state_dir().join("index");
    for (round, damage) in [torn as fn(&Path) -> Result<()>, gone, older].into_iter().enumerate() {
        let daemon = lab.start()?;
        lab.database().execute(&format!(
            "UPDATE items SET v = v || '{round}' WHERE id % 3 = {round};
             DELETE FROM items WHERE id = {round} + 10;"
        ))?;
        lab.settle(&daemon)?;
        daemon.stop()?;
        damage(&index).with_context(|| format!("damage {round}"))?;
    }
    let daemon = lab.start()?;
    lab.database()
        .execute("UPDATE items SET v = 'last' WHERE id % 2 = 0; DELETE FROM items WHERE id < 9")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    ensure!(daemon.log().contains("index rebuilt"), "no index was rebuilt");
    daemon.stop()
}

/// Each file loses its second half, as after a power cut.
fn torn(index: &Path) -> Result<()> {
    let files = files_below(index)?;
    ensure!(!files.is_empty(), "there is no index below {}", index.display());
    for file in files {
        let length = fs::metadata(&file)?.len();
        fs::File::options().write(true).open(&file)?.set_len(length / 2)?;
    }
    Ok(())
}

fn gone(index: &Path) -> Result<()> {
    Ok(fs::remove_dir_all(index)?)
}

/// The run files are gone, their list is not.
fn older(index: &Path) -> Result<()> {
    let files = files_below(index)?;
    let runs = files.iter().filter(|file| !file.ends_with("index.json"));
    let mut removed = 0;
    for run in runs {
        fs::remove_file(run)?;
        removed += 1;
    }
    ensure!(removed > 0, "there is no run file below {}", index.display());
    Ok(())
}

/// A crash between the tables and the manifest, played exactly: the manifest of an epoch ago, with
/// a slot that still stands there, under tables that are an epoch further. No new change comes.
fn tables_ahead(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(ITEMS)?;
    lab.database()
        .execute("CREATE TABLE quiet (id int PRIMARY KEY); INSERT INTO quiet VALUES (1)")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().execute("UPDATE items SET v = 'first' WHERE id < 20")?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    let file = lab.lake().join("manifest.json");
    let behind = fs::read(&file)?;
    let (slot, kept) = (lab.slot(), format!("kept_{}", lab.database().name()));
    let copy = |from: &str, to: &str| {
        lab.database()
            .execute(&format!("SELECT pg_copy_logical_replication_slot('{from}', '{to}')"))
    };
    copy(&slot, &kept)?;

    let daemon = lab.start()?;
    lab.database()
        .execute("UPDATE items SET v = 'second' WHERE id < 40; DELETE FROM items WHERE id > 190")?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    let ahead: Value = lab.manifest()?;
    lab.database().execute(&format!("SELECT pg_drop_replication_slot('{slot}')"))?;
    copy(&kept, &slot)?;
    fs::write(&file, &behind)?;

    let daemon = lab.start()?;
    let reached = lsn_at(&ahead, "commit_lsn")?;
    lab.wait_until(&daemon, "the cut that the tables have", |manifest| {
        Ok(lsn_at(manifest, "commit_lsn")? >= reached)
    })?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    ensure!(daemon.log().contains("tables stand ahead of the manifest"), "{}", daemon.log_end());
    lab.database()
        .execute("INSERT INTO items VALUES (1000, 'third'); INSERT INTO quiet VALUES (2)")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}
