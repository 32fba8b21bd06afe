//! What the server does around us: it stops, it comes back, it loses our publication or our slot.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Env, Scenario};
use crate::lab::{Expected, Oracle};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_fast_stop_of_the_server_ends_while_we_are_attached", fast_stop),
    ("a_dropped_publication_is_fatal_and_named", missing_publication),
    ("a_dropped_slot_is_fatal_and_never_made_again", missing_slot),
];

/// How long `pg_ctl stop -m fast` may take with the daemon attached.
const FAST_STOP_MAX: Duration = Duration::from_secs(10);

/// How long the daemon may need to see that it cannot go on.
const FATAL_LIMIT: Duration = Duration::from_secs(60);

fn fast_stop(env: &Env<'_>) -> Result<()> {
    let mut cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    // No flush falls due by itself: the request to drain must bring it.
    lab.set("flush.interval_sec", 600.into())?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO items SELECT i, 'x' FROM generate_series(1, 1000) i")?;
    let took = cluster.stop_fast(FAST_STOP_MAX)?;
    println!("     pg_ctl stop -m fast took {:.1} s", took.as_secs_f64());
    daemon.expect_alive()?;
    cluster.boot()?;
    lab.database().execute("UPDATE items SET v = 'y' WHERE id <= 10")?;
    // The same daemon comes back by itself; its next drain brings what came since.
    lab.wait_live(&daemon, "the daemon to stream again", |live| live["slot"]["active"] == true)?;
    daemon.stop()?;
    lab.set("flush.interval_sec", 0.5.into())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn missing_publication(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    let publication = lab.publication();
    // PostgreSQL 18 only warns and goes on without the changes; that must not pass in silence.
    lab.database().execute(&format!("DROP PUBLICATION {publication}"))?;
    lab.database().execute("INSERT INTO items VALUES (1, 'lost?')")?;
    daemon.expect_failure(FATAL_LIMIT, &["gap detected", &publication, "hint"])?;
    drop(oracle);
    Ok(())
}

fn missing_slot(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.init()?;
    let slot = lab.slot();
    lab.database().execute(&format!("SELECT pg_drop_replication_slot('{slot}')"))?;
    lab.expect_failed_start(FATAL_LIMIT, &["gap detected", &slot, "hint"])?;
    let query = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    ensure!(lab.database().number(&query)? == 0, "the daemon made the slot again");
    Ok(())
}
