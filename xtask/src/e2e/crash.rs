//! Killing the daemon at any moment loses nothing and doubles nothing.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::workload::{load_pgbench, load_shop};
use super::{Env, Scenario};
use crate::lab::{Expected, Lab, Oracle};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("kill_9_in_mid_load_loses_and_doubles_nothing", kill_in_load),
    ("a_killed_init_is_done_over_by_the_next", kill_in_init),
];

fn kill_in_load(env: &Env<'_>) -> Result<()> {
    kill_in_load_of(env.lab()?)
}

/// Kills the daemon of a lab with nothing in it yet, again and again under load.
pub(super) fn kill_in_load_of(mut lab: Lab) -> Result<()> {
    lab.set("flush.interval_sec", 0.1.into())?;
    lab.expect_orphans();
    load_shop(&lab)?;
    load_pgbench(&lab, "1")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let mut psql = lab.database().psql()?;
    psql.args(["-c", "CALL shop_business(61, 1500)"]).stdin(Stdio::null());
    let mut load = psql.spawn().context("cannot start the load")?;
    for _ in 0..4 {
        let epoch = lab.manifest()?["epoch"].as_i64().unwrap_or(0);
        let daemon = lab.start()?;
        lab.database().pgbench(&["-n", "-c", "2", "-t", "150"])?;
        // At least one epoch per life, so that each kill falls between or inside of flushes.
        lab.wait_until(&daemon, "an epoch of this life", |manifest| {
            Ok(manifest["epoch"].as_i64().unwrap_or(0) > epoch)
        })?;
        daemon.kill()?;
        lab.expect_confirmed_is_covered()?;
    }
    let daemon = lab.start()?;
    ensure!(load.wait()?.success(), "the load failed");
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}

fn kill_in_init(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    load_pgbench(&lab, "10")?;
    let mut init = lab.command("pgcdc", &["init"]);
    let mut init = init.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let slot =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'", lab.slot());
    crate::shell::wait_for("init to make its slot", std::time::Duration::from_secs(60), || {
        Ok((lab.database().number(&slot)? > 0).then_some(()))
    })?;
    init.kill()?;
    init.wait()?;
    let done = lab.lake().join("manifest.json").exists();
    ensure!(!done, "init was done before it could be killed, so this proves nothing");
    lab.init()?;
    lab.expect_equal(Expected::AnyChanges)?;
    let daemon = lab.start()?;
    lab.database().execute("UPDATE pgbench_branches SET bbalance = bbalance + 1")?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}
