//! A store that fails: calls that never arrive, answers that are lost, an outage. The daemon waits
//! and heals by itself; nothing is lost, nothing is there twice.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::workload::{load_pgbench, load_shop};
use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Lsn, Oracle, parse_lsn};
use crate::s3::{Fault, FaultProxy, LONGER_THAN_CLIENTS, Rule, Which};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("s3_that_fails_and_goes_away_loses_and_doubles_nothing", failing_store),
    ("s3_answers_lost_after_effect_lose_and_double_nothing", lost_answers),
    ("s3_refused_credentials_end_the_daemon_and_say_so", refused_credentials),
];

/// How long the daemon may need to notice, to heal or to end.
const PATIENCE: Duration = Duration::from_secs(180);
/// Bound of the daemon's memory while the store is away.
const RSS_MAX: u64 = 512 * 1024 * 1024;

/// Every kind of failure, thirty calls in a hundred together.
fn thirty_percent() -> Vec<Rule> {
    let some = |fault| Rule::some(Which::All, fault, 5);
    vec![
        some(Fault::Refuse(503)),
        some(Fault::Refuse(500)),
        some(Fault::ResetBefore),
        some(Fault::ResetAfter),
        some(Fault::ErrorAfter(500)),
        Rule::some(Which::Reads, Fault::Truncate, 10),
        Rule::some(Which::ConditionalWrites, Fault::Refuse(409), 10),
        Rule::some(Which::Writes, Fault::Slow(Duration::from_millis(300)), 5),
    ]
}

/// A lab behind a proxy with the usual tables, initialised.
fn loaded(env: &Env<'_>, proxy: &FaultProxy) -> Result<Lab> {
    let mut lab = env.lab_behind(proxy)?;
    lab.set("flush.interval_sec", 0.2.into())?;
    load_shop(&lab)?;
    load_pgbench(&lab, "1")?;
    lab.init()?;
    Ok(lab)
}

fn business(lab: &Lab, days: u32) -> Result<Child> {
    let mut psql = lab.database().psql()?;
    psql.args(["-c", &format!("CALL shop_business(61, {days})")]).stdin(Stdio::null());
    psql.spawn().context("cannot start the load")
}

fn confirmed(lab: &Lab) -> Result<Lsn> {
    parse_lsn(&lab.database().value(&format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        lab.slot()
    ))?)
}

fn failing_store(env: &Env<'_>) -> Result<()> {
    let proxy = FaultProxy::start(env.s3()?.port(), 20_260_504)?;
    let lab = loaded(env, &proxy)?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;

    proxy.set(thirty_percent())?;
    let mut load = business(&lab, 400)?;
    lab.database().pgbench(&["-n", "-c", "2", "-t", "300"])?;
    lab.settle(&daemon)?;
    ensure!(load.wait()?.success(), "the load failed");
    lab.expect_confirmed_is_covered()?;
    let done = proxy.done()?;
    ensure!(done.len() >= 6 && done.values().sum::<u64>() > 30, "hardly a fault: {done:?}");

    outage(env, &proxy, &lab, &daemon)?;

    proxy.set(Vec::new())?;
    lab.settle(&daemon)?;
    println!("     {} calls, faults {:?}", proxy.calls()?, proxy.done()?);
    lab.expect_confirmed_is_covered()?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()?;
    let expected = oracle.counts()?;
    lab.expect_equal(Expected::Changes(&expected))?;
    Ok(())
}

/// The store is away: the position stands, the daemon lives, its memory is bounded.
fn outage(env: &Env<'_>, proxy: &FaultProxy, lab: &Lab, daemon: &Daemon) -> Result<()> {
    // a flush that cannot be written, or a session whose encoder cannot read what it carries over
    let failures = || {
        let log = daemon.log();
        log.matches("flush failed").count() + log.matches("\"reconnecting\"").count()
    };
    proxy.set(vec![Rule::always(Which::All, Fault::ResetBefore)])?;
    let before = failures();
    lab.database().execute("CALL shop_business(62, 20)")?;
    shell::wait_for("the daemon to notice", PATIENCE, || {
        daemon.expect_alive()?;
        Ok((failures() > before).then_some(()))
    })?;
    let (began, frozen) = (Instant::now(), confirmed(lab)?);
    let mut load = business(lab, 100)?;
    shell::wait_for("the outage to last", env.outage + PATIENCE, || {
        daemon.expect_alive()?;
        let at = confirmed(lab)?;
        ensure!(at == frozen, "confirmed went from {frozen:X} to {at:X} while the store was away");
        Ok((began.elapsed() >= env.outage).then_some(()))
    })?;
    ensure!(daemon.peak_rss()? < RSS_MAX, "{} bytes of memory", daemon.peak_rss()?);
    proxy.set(Vec::new())?;
    ensure!(load.wait()?.success(), "the load failed");
    lab.settle(daemon)?;
    // the receipt of the newest cut is confirmed after the cut stands
    shell::wait_for("the position to move again", PATIENCE, || {
        daemon.expect_alive()?;
        Ok((confirmed(lab)? > frozen).then_some(()))
    })?;
    lab.expect_confirmed_is_covered()
}

/// Writes happen and nobody says so: by a reset, by an error, by silence, by a conflict that is
/// one's own success.
fn lost_answers(env: &Env<'_>) -> Result<()> {
    let proxy = FaultProxy::start(env.s3()?.port(), 7)?;
    let lab = loaded(env, &proxy)?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    for (round, fault) in
        [Fault::ResetAfter, Fault::ErrorAfter(500), Fault::ErrorAfter(412), Fault::ErrorAfter(409)]
            .into_iter()
            .enumerate()
    {
        // two of three writes: the client's own retries meet their first try
        proxy.set(vec![Rule::some(Which::Writes, fault, 66)])?;
        lab.database().execute(&format!("CALL shop_business({}, 30)", 70 + round))?;
        lab.settle(&daemon).with_context(|| format!("{} writes", fault.name()))?;
    }
    let silence = Fault::SilentAfter(LONGER_THAN_CLIENTS);
    proxy.set(vec![Rule::times(Which::WritesOf("manifest.json"), silence, 1)])?;
    lab.database().execute("CALL shop_business(80, 30)")?;
    lab.settle(&daemon).context("a manifest without an answer")?;
    let done = proxy.done()?;
    ensure!(done.len() == 5, "some fault never came: {done:?}");
    println!("     {} calls, faults {done:?}", proxy.calls()?);
    proxy.set(Vec::new())?;
    lab.settle(&daemon)?;
    daemon.stop()?;
    lab.expect_confirmed_is_covered()?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    Ok(())
}

fn refused_credentials(env: &Env<'_>) -> Result<()> {
    let proxy = FaultProxy::start(env.s3()?.port(), 1)?;
    let lab = loaded(env, &proxy)?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    proxy.set(vec![Rule::always(Which::All, Fault::Refuse(403))])?;
    lab.database().execute("CALL shop_business(61, 20)")?;
    let code = daemon.wait_for_end(PATIENCE)?;
    let log = daemon.log_end();
    ensure!(code == 1 || code == 2, "the daemon ended with {code}:\n{log}");
    ensure!(log.contains("credentials"), "the log does not say why:\n{log}");
    lab.expect_confirmed_is_covered()?;
    drop(daemon);
    proxy.set(Vec::new())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}
