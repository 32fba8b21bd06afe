//! Bad input: the message names the key or object and the remedy, the exit code is the documented
//! one, and nothing half-made is left behind.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{Env, Scenario};
use crate::lab::{Finished, Lab};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("bad_configuration_names_the_key", configuration),
    ("an_unreachable_server_is_named", unreachable),
    ("a_wrong_password_is_refused_and_not_shown", wrong_password),
    ("wal_level_replica_fails_preflight_and_init", wal_level),
    ("a_missing_privilege_is_named", missing_privilege),
    ("a_slot_of_somebody_else_is_left_alone", foreign_slot),
    ("a_publication_with_other_tables_is_left_alone", foreign_publication),
    ("a_root_that_cannot_be_written_leaves_nothing", unwritable_root),
    ("a_missing_schema_is_named", missing_schema),
    ("a_newer_or_torn_manifest_is_refused", bad_manifest),
    ("commands_before_init_say_so", before_init),
];

fn refused(finished: Finished, code: i32, words: &[&str]) -> Result<()> {
    finished.expect_code(code)?.expect_words(words).map(|_| ())
}

fn configuration(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    for (key, value, words) in [
        ("flush.intervall_sec", json!(1), vec!["flush.intervall_sec"]),
        ("flush.max_rows", json!("many"), vec!["flush.max_rows"]),
        ("flush.interval_sec", json!(0.01), vec!["flush.interval_sec"]),
        ("nonsense", json!({}), vec!["nonsense"]),
        ("replication.slot", json!("Not-A-Slot"), vec!["replication.slot"]),
        ("storage.type", json!("floppy"), vec!["storage.type"]),
        (
            "source.postgres.url",
            json!("postgresql://u:${PGCDC_E2E_NOT_SET}@h/d"),
            vec!["source.postgres.url", "PGCDC_E2E_NOT_SET"],
        ),
    ] {
        let good = lab.database().url().to_owned();
        lab.set(key, value)?;
        refused(lab.pgcdc(&["config", "check"])?, 2, &words).context("config check")?;
        refused(lab.pgcdc(&["init"])?, 2, &words).context("init")?;
        match key {
            "source.postgres.url" => lab.set(key, json!(good))?,
            "replication.slot" => lab.set(key, json!(lab.slot()))?,
            "storage.type" => lab.set(key, json!("filesystem"))?,
            _ => lab.set(key, json!(null))?,
        }
    }
    fs::write(lab.config_file(), "flush: {interval_sec: 1, interval_sec: 2}\n")?;
    refused(lab.pgcdc(&["config", "check"])?, 2, &["interval_sec"]).context("duplicate key")?;
    fs::remove_file(lab.config_file())?;
    lab.pgcdc(&["config", "check"])?.expect_code(2)?;
    Ok(())
}

fn unreachable(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    let port = crate::pg::free_port()?;
    lab.set("source.postgres.url", json!(format!("postgresql://postgres@127.0.0.1:{port}/x")))?;
    for command in ["preflight", "init", "discover"] {
        refused(lab.pgcdc(&[command])?, 2, &[&port.to_string(), "hint"])?;
    }
    ensure!(!lab.lake().join("manifest.json").exists(), "a failed init left a manifest");
    Ok(())
}

fn wrong_password(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    lab.database().execute("CREATE ROLE cdc LOGIN SUPERUSER PASSWORD 'the right one'")?;
    cluster.set_access_rules(
        "host all cdc 127.0.0.1/32 scram-sha-256\nhost replication cdc 127.0.0.1/32 scram-sha-256\n\
         host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n",
    )?;
    let name = lab.database().name().to_owned();
    lab.set("source.postgres.url", json!(cluster.url_as("cdc:topsecret", &name)))?;
    let run = lab.pgcdc(&["init"])?;
    ensure!(!run.stderr.contains("topsecret"), "the password is shown: {}", run.stderr);
    refused(run, 2, &["password", "hint"])?;
    lab.set("source.postgres.url", json!(cluster.url_as("cdc:the%20right%20one", &name)))?;
    lab.init().map(|_| ())
}

fn wal_level(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("wal_level = replica")?;
    let lab = env.lab_on(&cluster)?;
    refused(lab.pgcdc(&["preflight"])?, 1, &["wal_level", "logical", "FAIL"])?;
    refused(lab.pgcdc(&["init"])?, 1, &["wal_level", "hint"])?;
    lab.expect_nothing_on_source()
}

fn missing_privilege(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    let name = lab.database().name().to_owned();
    lab.database().execute("CREATE ROLE weak LOGIN")?;
    lab.set("source.postgres.url", json!(env.cluster.url_as("weak", &name)))?;
    refused(lab.pgcdc(&["preflight"])?, 1, &["REPLICATION", "FAIL"])?;
    refused(lab.pgcdc(&["init"])?, 1, &["REPLICATION", "hint"])?;
    lab.expect_nothing_on_source()
}

fn foreign_slot(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    let slot = lab.slot();
    lab.database()
        .execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"))?;
    refused(lab.pgcdc(&["init"])?, 1, &[&slot, "hint", "teardown"])?;
    let kept = lab
        .database()
        .number(&format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'"))?;
    ensure!(kept == 1, "init dropped a slot that it did not make");
    lab.database().execute(&format!("SELECT pg_drop_replication_slot('{slot}')"))?;
    lab.expect_nothing_on_source()
}

fn foreign_publication(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    let publication = lab.publication();
    lab.database().execute(&format!(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);
         CREATE PUBLICATION {publication} FOR TABLE a;"
    ))?;
    refused(lab.pgcdc(&["init"])?, 1, &[&publication, "public.b", "hint"])?;
    let tables = lab.database().value(&format!(
        "SELECT string_agg(tablename, ',') FROM pg_publication_tables WHERE pubname = '{publication}'"
    ))?;
    ensure!(tables == "a", "init changed a publication that it did not make: {tables}");
    lab.database().execute(&format!("DROP PUBLICATION {publication}"))?;
    lab.expect_nothing_on_source()
}

fn unwritable_root(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    let file = lab.dir().join("a-file");
    fs::write(&file, "not a directory")?;
    // Below a file nobody can write, root included.
    lab.set("storage.path", json!(file.join("lake")))?;
    refused(lab.pgcdc(&["init"])?, 2, &["a-file", "hint"])?;
    lab.expect_nothing_on_source()
}

fn missing_schema(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("source.postgres.schemas", json!(["public", "nowhere"]))?;
    refused(lab.pgcdc(&["init"])?, 2, &["nowhere", "hint"])?;
    lab.expect_nothing_on_source()
}

fn bad_manifest(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.init()?;
    let file = lab.lake().join("manifest.json");
    let good = fs::read_to_string(&file)?;
    let torn = &good[..good.len() / 2];
    let newer = good.replacen("\"version\": 1", "\"version\": 99", 1);
    ensure!(newer != good, "the manifest has no version: {good}");
    for (bad, word) in [(torn, "manifest.json"), (&newer, "99")] {
        fs::write(&file, bad)?;
        refused(lab.pgcdc(&["status"])?, 1, &[word, "hint"])?;
        // The daemon refuses to start; a service manager must not try again.
        refused(lab.pgcdc(&["start"])?, 2, &[word, "hint"])?;
        refused(lab.run("pgcdc-serve", &["query"])?, 1, &[word])?;
        ensure!(fs::read_to_string(&file)? == bad, "a refused manifest was rewritten");
    }
    Ok(())
}

fn before_init(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    refused(lab.pgcdc(&["status"])?, 4, &["init"])?;
    let start = lab.pgcdc(&["start"])?;
    ensure!(start.code != 0, "start without init succeeded");
    start.expect_words(&["init"])?;
    ensure!(nothing_in(&lab)?, "start without init made a lake");
    Ok(())
}

fn nothing_in(lab: &Lab) -> Result<bool> {
    match fs::read_dir(lab.lake()) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error.into()),
    }
}
