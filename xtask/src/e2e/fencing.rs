//! Two writers on one lake: one of them ends, names the other, and changes nothing.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Env, Scenario};
use crate::lab::{Expected, Lab};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_second_daemon_on_one_state_directory_names_the_first", same_state),
    ("a_zombie_that_wakes_after_its_successor_changes_nothing", zombie),
    ("what_another_writer_put_into_the_manifest_survives_a_flush", merged),
    ("a_contest_over_the_manifest_trips_the_breaker", contest),
];

/// How long a daemon may need to see that it was overtaken.
const FATAL_LIMIT: Duration = Duration::from_secs(90);

/// The product's lock for whoever replaces manifest.json.
const LAKE_LOCK: &str = ".pgcdc-lock#0";

fn same_state(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.wait_live(&daemon, "the first daemon to stream", |live| live["state"] == "streaming")?;
    let generation = lab.manifest()?["generation"].clone();
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let holder = format!("host {}, pid {}, since 20", host.trim(), daemon.pid());
    lab.pgcdc(&["start"])?.expect_code(1)?.expect_words(&["daemon.lock", &holder, "hint"])?;
    ensure!(lab.manifest()?["generation"] == generation, "the refused daemon wrote the manifest");
    lab.settle(&daemon)?;
    daemon.stop()
}

/// The successor runs on a copy of the state directory, as on another machine: no lock tells the
/// two apart.
fn zombie(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("wal_sender_timeout = 3s")?;
    let mut lab = env.lab_on(&cluster)?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    lab.set("flush.interval_sec", json!(8))?;
    let zombie = lab.start()?;
    lab.wait_live(&zombie, "the first daemon to stream", |live| live["state"] == "streaming")?;
    lab.database().execute("INSERT INTO items SELECT i, 'a' FROM generate_series(1, 100) i")?;
    lab.wait_live(&zombie, "rows in its buffer", |live| live["buffer_events"] != 0)?;
    zombie.signal("STOP")?;

    let copy = lab.dir().join("state2");
    shell::run(Command::new("cp").arg("-a").arg(lab.state_dir()).arg(&copy))?;
    fs::remove_file(copy.join("daemon.lock"))?;
    lab.set("state.path", json!(copy.join("state.db")))?;
    lab.set("flush.interval_sec", json!(0.3))?;
    let successor = lab.start()?;
    lab.settle(&successor)?;
    lab.database().execute("UPDATE items SET v = 'b' WHERE id <= 50")?;
    lab.settle(&successor)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let generation = lab.manifest()?["generation"].clone();
    lab.wait_live(&successor, "the successor's live.json", |live| {
        live["generation"] == generation
    })?;
    let instance = lab.live()?["instance"].as_str().unwrap_or_default().to_owned();

    zombie.signal("CONT")?;
    let code = zombie.wait_for_end(FATAL_LIMIT)?;
    let log = zombie.log_end();
    ensure!(code == 1, "the zombie ended with {code}:\n{log}");
    for word in ["generation", "took this lake over", instance.as_str()] {
        ensure!(log.contains(word), "the zombie does not say {word:?}:\n{log}");
    }
    ensure!(lab.manifest()?["generation"] == generation, "the generation changed");
    ensure!(lab.live()?["instance"] == instance.as_str(), "the zombie wrote live.json");
    lab.database().execute("DELETE FROM items WHERE id > 90")?;
    lab.settle(&successor)?;
    lab.expect_equal(Expected::AnyChanges)?;
    successor.stop()
}

/// Replaces manifest.json the way another process of ours does: under the lake's lock, whole.
fn rewrite_manifest(lab: &Lab, edit: impl Fn(&mut Value)) -> Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let lock = options.open(lab.lake().join(LAKE_LOCK)).context("cannot open the lake's lock")?;
    lock.lock()?;
    let mut manifest = lab.manifest()?;
    edit(&mut manifest);
    let new = lab.lake().join("manifest.json.other");
    fs::write(&new, serde_json::to_vec_pretty(&manifest)?)?;
    fs::rename(&new, lab.lake().join("manifest.json"))?;
    Ok(())
}

fn merged(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    for round in 0..3 {
        let verified = lab.manifest()?["commit_lsn"].clone();
        rewrite_manifest(&lab, |manifest| {
            let table = &mut manifest["tables"]["public.items"];
            table["verified_through"] = verified.clone();
            table["verified_at"] = json!(format!("2026-05-0{}T00:00:00Z", round + 1));
            manifest["of_a_newer_build"] = json!({ "round": round });
        })?;
        lab.database().execute(&format!("INSERT INTO items VALUES ({round}, 'x')"))?;
        lab.settle(&daemon)?;
        let manifest = lab.manifest()?;
        let table = &manifest["tables"]["public.items"];
        ensure!(table["verified_through"] == verified, "verified_through was lost: {table}");
        ensure!(manifest["of_a_newer_build"]["round"] == round, "an unknown field was lost");
    }
    lab.expect_equal(Expected::AnyChanges)?;
    lab.wait_live(&daemon, "the conflicts to be counted", |live| {
        live["cas_conflicts"].as_u64() >= Some(3)
    })?;
    let status = lab.pgcdc(&["status", "--json"])?.expect_code(0)?.json()?;
    ensure!(status["cas_conflicts"].as_u64() >= Some(3), "status: {}", status["cas_conflicts"]);
    daemon.stop()
}

fn contest(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", json!(0.1))?;
    lab.set("flush.cas_breaker_threshold", json!(3))?;
    lab.set("flush.cas_breaker_window_sec", json!(600))?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    let words = ["cas breaker tripped", "hint", "daemon"];
    std::thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| daemon.expect_failure(FATAL_LIMIT, &words));
        while !waiting.is_finished() {
            rewrite_manifest(&lab, |manifest| manifest["rival"] = json!("was here"))?;
            lab.database()
                .execute("INSERT INTO items SELECT coalesce(max(id), 0) + 1, 'x' FROM items")?;
        }
        waiting.join().ok().context("the waiting thread panicked")?
    })?;
    let live = lab.live()?;
    ensure!(live["state"] == "failed" && live["cas_conflicts"] == 4, "live.json: {live}");
    // Nothing is lost: without the rival the next life goes on.
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}
