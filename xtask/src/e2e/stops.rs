//! Ending the daemon on purpose: the drain, again and again, and the impatient second signal.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Env, Scenario};
use crate::lab::{Expected, Lab, Oracle, lsn_at, parse_lsn};
use crate::proxy::Proxy;
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("sigterm_loop_drains_each_time_and_nothing_comes_again", sigterm_loop),
    ("a_second_sigterm_ends_the_daemon_at_once_and_harms_nothing", second_signal),
];

/// Cycles of start and SIGTERM, and the same for the published figure.
const CYCLES: (u32, u32) = (10, 100);
/// `flush.drain_timeout_sec` of the lab; the drain of a small batch must be far below.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the daemon may take to see a signal, or to end after the second.
const SIGNAL_LIMIT: Duration = Duration::from_secs(20);

fn sigterm_loop(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", 0.2.into())?;
    lab.database().execute(
        "CREATE TABLE items (id bigserial PRIMARY KEY, v text);
         CREATE PROCEDURE work(rounds int) LANGUAGE plpgsql AS $$ BEGIN
           FOR n IN 1 .. rounds LOOP
             INSERT INTO items (v) VALUES ('x'), ('y');
             UPDATE items SET v = v || n WHERE id = (SELECT max(id) FROM items) - 1;
             DELETE FROM items WHERE id = (SELECT max(id) FROM items) - 7;
             COMMIT;
             PERFORM pg_sleep(0.01);
           END LOOP; END $$;",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let cycles = if env.full { CYCLES.1 } else { CYCLES.0 };
    let mut longest = Duration::ZERO;
    for cycle in 0..cycles {
        let daemon = lab.start()?;
        let mut work = lab.database().psql()?;
        work.args(["-c", "CALL work(60)"]).stdin(Stdio::null());
        let mut work = work.spawn().context("cannot start the load")?;
        // not a wait for anything: the signal comes at another moment of a flush each time
        std::thread::sleep(Duration::from_millis(u64::from(cycle * 61 % 500)));
        let began = Instant::now();
        daemon.stop()?;
        longest = longest.max(began.elapsed());
        expect_all_confirmed(&lab)?;
        lab.expect_no_leftovers()?;
        ensure!(work.wait()?.success(), "the load failed");
    }
    ensure!(longest < DRAIN_TIMEOUT, "a drain took {longest:?}");
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    expect_all_confirmed(&lab)?;
    let epoch = lab.manifest()?["epoch"].clone();
    expect_nothing_to_receive(&lab)?;
    ensure!(lab.manifest()?["epoch"] == epoch, "an epoch was made for what was there already");
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    println!("     {cycles} cycles, the longest drain took {:.1} s", longest.as_secs_f64());
    Ok(())
}

/// The last status of a drain is the whole cut, so that the server sends none of it again.
fn expect_all_confirmed(lab: &Lab) -> Result<()> {
    let confirmed = parse_lsn(&lab.database().value(&format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        lab.slot()
    ))?)?;
    let covered = lsn_at(&lab.manifest()?, "covered_lsn")?;
    ensure!(confirmed == covered, "confirmed {confirmed:X}, covered {covered:X}");
    Ok(())
}

/// A daemon that starts behind everything receives no row, and drains without an epoch.
fn expect_nothing_to_receive(lab: &Lab) -> Result<()> {
    let waiting = lab.database().number(&format!(
        "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('{}', NULL, NULL,
           'proto_version', '1', 'publication_names', '{}') AS waiting
         WHERE get_byte(waiting.data, 0) IN (73, 85, 68, 84)",
        lab.slot(),
        lab.publication()
    ))?;
    ensure!(waiting == 0, "the slot would send {waiting} changes again");
    lab.start()?.stop()
}

fn second_signal(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("flush.interval_sec", 600.into())?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let proxy = Proxy::start(env.cluster, lab.storage())?;
    lab.set("source.postgres.url", proxy.url(lab.database().name()).into())?;
    let daemon = lab.start()?;
    lab.database().execute("INSERT INTO items SELECT i, 'x' FROM generate_series(1, 100) i")?;
    // the drain's last message reaches nobody, so that the daemon waits for the server
    proxy.silence();
    daemon.signal("TERM")?;
    shell::wait_for("the drain to begin", SIGNAL_LIMIT, || {
        Ok(daemon.log().contains("shutdown requested").then_some(()))
    })?;
    daemon.signal("TERM")?;
    let code = daemon.wait_for_end(SIGNAL_LIMIT)?;
    ensure!(code == 1, "the second signal ended the daemon with {code}:\n{}", daemon.log_end());
    ensure!(daemon.log().contains("second signal"), "it drained instead:\n{}", daemon.log_end());
    proxy.cut();
    lab.expect_confirmed_is_covered()?;
    lab.set("flush.interval_sec", 0.5.into())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    lab.expect_no_leftovers()?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    proxy.verdict().map(|_| ())
}
