//! Kills without end: of the daemon and of the server under load, with a proxy between the two that
//! holds every confirmed position against the manifest on disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::workload::load_pgbench;
use super::{Env, Scenario, verify};
use crate::lab::{Daemon, Expected, Lab, Oracle};
use crate::pg::{Cluster, Database};
use crate::proxy::Proxy;

pub(super) const SCENARIOS: &[Scenario] =
    &[("kills_of_daemon_and_server_under_load_lose_nothing_and_confirm_nothing_early", storm)];

/// Deaths of the daemon and of the server.
const KILLS: (u32, u32) = (10, 2);
/// The same for the published figure.
const KILLS_FULL: (u32, u32) = (100, 10);

fn storm(env: &Env<'_>) -> Result<()> {
    let (daemons, servers) = if env.full { KILLS_FULL } else { KILLS };
    let mut cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    load_pgbench(&lab, "1")?;
    lab.set("flush.interval_sec", 0.1.into())?;
    lab.expect_orphans();
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let proxy = Proxy::start(&cluster, lab.storage())?;
    lab.set("source.postgres.url", proxy.url(lab.database().name()).into())?;
    let (is_over, database) = (AtomicBool::new(false), lab.database().clone());
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&database, &is_over));
        let outcome = deaths(&lab, &mut cluster, daemons, servers);
        is_over.store(true, Ordering::Relaxed);
        let runs = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        ensure!(runs > 0, "no load ran to its end");
        outcome
    })?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    verify::expect_equal(&lab)?;
    daemon.stop()?;
    let counts = oracle.counts()?;
    let rows = lab.expect_equal(Expected::Changes(&counts))?;
    lab.expect_confirmed_is_covered()?;
    lab.expect_no_leftovers()?;
    let changes: u64 = counts.values().flat_map(|ops| ops.values()).sum();
    println!(
        "     {daemons} kills of the daemon, {servers} of the server; {} status updates, none \
         beyond the manifest; {changes} changes once each, {rows} rows equal",
        proxy.verdict()?,
    );
    ensure!(proxy.verdict()? > u64::from(daemons), "the proxy saw too little");
    Ok(())
}

/// Lets daemons and servers die, spread evenly, each death at another moment of a flush.
fn deaths(lab: &Lab, cluster: &mut Cluster, daemons: u32, servers: u32) -> Result<()> {
    let mut server_deaths = 0;
    for death in 1..=daemons {
        let daemon = lab.start()?;
        wait_for_epoch(lab, &daemon)?;
        if death * servers / daemons > server_deaths {
            match server_deaths % 2 {
                0 => cluster.kill_hard()?,
                _ => cluster.stop_immediately()?,
            }
            server_deaths += 1;
            cluster.boot()?;
            wait_for_epoch(lab, &daemon)?;
        }
        // not a wait for anything: it only moves the death to another place of the cycle
        std::thread::sleep(Duration::from_millis(u64::from(death * 37 % 150)));
        daemon.kill()?;
        lab.expect_confirmed_is_covered()?;
    }
    Ok(())
}

fn wait_for_epoch(lab: &Lab, daemon: &Daemon) -> Result<()> {
    let epoch = lab.manifest()?["epoch"].as_i64().unwrap_or(0);
    lab.wait_until(daemon, "a new epoch", |manifest| {
        Ok(manifest["epoch"].as_i64().unwrap_or(0) > epoch)
    })
}

/// Runs pgbench again and again and counts the runs that nothing interrupted.
fn load(database: &Database, is_over: &AtomicBool) -> u32 {
    let mut whole = 0;
    while !is_over.load(Ordering::Relaxed) {
        // a run that is cut off by the death of the server is part of the plan
        match database.pgbench(&["-n", "-c", "2", "-R", "200", "-T", "2"]) {
            Ok(_) => whole += 1,
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    whole
}
