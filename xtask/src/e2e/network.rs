//! Bad networks and absent servers: the daemon heals without help, or ends at once where no patience
//! would help.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Oracle};
use crate::pg::Cluster;
use crate::proxy::Proxy;
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("cut_reset_and_slow_connections_heal", bad_connections),
    ("a_half_open_connection_is_noticed_and_replaced", half_open),
    ("a_server_that_is_down_is_called_at_growing_intervals", server_down),
    ("a_wrong_password_ends_the_daemon_at_once", wrong_password),
];

/// How long the daemon may need to call again.
const HEAL_LIMIT: Duration = Duration::from_secs(120);

/// A lab whose daemon reaches its server through a proxy.
fn proxied(env: &Env<'_>, cluster: &Cluster) -> Result<(Lab, Oracle, Proxy)> {
    let mut lab = env.lab_on(cluster)?;
    lab.set("flush.interval_sec", 0.1.into())?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let proxy = Proxy::start(cluster, lab.storage())?;
    lab.set("source.postgres.url", proxy.url(lab.database().name()).into())?;
    Ok((lab, oracle, proxy))
}

fn finish(lab: &Lab, oracle: &Oracle, proxy: &Proxy, daemon: Daemon) -> Result<()> {
    lab.settle(&daemon)?;
    daemon.stop()?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    ensure!(proxy.verdict()? > 0, "the proxy saw no status update");
    Ok(())
}

fn insert(lab: &Lab, from: u32) -> Result<()> {
    lab.database()
        .execute(&format!(
            "INSERT INTO items SELECT i, 'x' FROM generate_series({from}, {from} + 99) i"
        ))
        .map(|_| ())
}

fn wait_for_streams(proxy: &Proxy, daemon: &Daemon, count: usize) -> Result<()> {
    shell::wait_for("another replication session", HEAL_LIMIT, || {
        daemon.expect_alive()?;
        Ok((proxy.streams().len() >= count).then_some(()))
    })
}

fn bad_connections(env: &Env<'_>) -> Result<()> {
    let (lab, oracle, proxy) = proxied(env, env.cluster)?;
    let daemon = lab.start()?;
    for round in 0..4 {
        insert(&lab, round * 1000)?;
        let streams = proxy.streams().len();
        match round % 2 {
            0 => proxy.cut(),
            _ => proxy.reset(),
        }
        insert(&lab, round * 1000 + 500)?;
        wait_for_streams(&proxy, &daemon, streams + 1)?;
        lab.settle(&daemon)?;
    }
    proxy.set_delay(Duration::from_millis(500));
    insert(&lab, 9000)?;
    finish(&lab, &oracle, &proxy, daemon)
}

fn half_open(env: &Env<'_>) -> Result<()> {
    // the server gives up a silent session after this time, and so does the daemon after twice that
    let cluster = env.own_cluster("wal_sender_timeout = '5s'")?;
    let (lab, oracle, proxy) = proxied(env, &cluster)?;
    let daemon = lab.start()?;
    insert(&lab, 0)?;
    lab.settle(&daemon)?;
    let (streams, began) = (proxy.streams().len(), Instant::now());
    proxy.silence();
    insert(&lab, 1000)?;
    wait_for_streams(&proxy, &daemon, streams + 1)?;
    println!("     noticed after {:.1} s", began.elapsed().as_secs_f64());
    finish(&lab, &oracle, &proxy, daemon)
}

fn server_down(env: &Env<'_>) -> Result<()> {
    let mut cluster = env.own_cluster("")?;
    let (lab, oracle, proxy) = proxied(env, &cluster)?;
    let daemon = lab.start()?;
    insert(&lab, 0)?;
    lab.settle(&daemon)?;
    let before = proxy.streams().len();
    let stopped = Instant::now();
    cluster.stop_immediately()?;
    wait_for_streams(&proxy, &daemon, before + 4)?;
    let calls = proxy.streams().split_off(before);
    let mut last = stopped;
    // the first session moved the position, which still counts as progress at the first call
    for (call, expected) in calls.iter().zip([1.0, 1.0, 2.0, 4.0]) {
        let waited = call.duration_since(last).as_secs_f64();
        // a fifth may be taken off at random; a loaded machine adds
        ensure!(
            (0.75 * expected..expected + 4.0).contains(&waited),
            "a call after {waited:.1} s instead of {expected} s"
        );
        last = *call;
    }
    cluster.boot()?;
    insert(&lab, 1000)?;
    wait_for_streams(&proxy, &daemon, before + 5)?;
    println!("     down for {:.0} s, {} calls", stopped.elapsed().as_secs_f64(), calls.len());
    finish(&lab, &oracle, &proxy, daemon)
}

fn wrong_password(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    lab.database().execute(
        "CREATE ROLE reader LOGIN SUPERUSER REPLICATION PASSWORD 'right';
         CREATE TABLE items (id int PRIMARY KEY)",
    )?;
    lab.init()?;
    cluster.set_access_rules(
        "host all postgres 127.0.0.1/32 trust\n\
         host all reader 127.0.0.1/32 scram-sha-256\n",
    )?;
    let database = lab.database().name().to_owned();
    lab.set("source.postgres.url", cluster.url_as("reader:wrong", &database).into())?;
    let began = Instant::now();
    let daemon = lab.spawn()?;
    let code = daemon.wait_for_end(HEAL_LIMIT)?;
    let log = daemon.log();
    ensure!(code == 1, "exit {code}:\n{log}");
    ensure!(!log.contains("reconnecting"), "it called again with the same password:\n{log}");
    ensure!(log.contains("password") && !log.contains("wrong"), "the log says:\n{log}");
    println!("     ended after {:.1} s", began.elapsed().as_secs_f64());
    lab.set("source.postgres.url", cluster.url_as("reader:right", &database).into())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    daemon.stop()
}
