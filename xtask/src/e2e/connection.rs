//! The life of the connections: they break and come back, secrets rotate, an idle slot advances, and
//! a slot that keeps too much is told of.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::workload::load_pgbench;
use super::{Env, Scenario};
use crate::lab::{Expected, Lab, Oracle, parse_lsn};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("a_crash_of_the_server_under_load_is_survived", server_crash),
    ("a_password_rotated_in_the_passfile_is_taken_up", rotated_password),
    ("a_refused_login_ends_the_daemon_at_once", refused_login),
    ("an_idle_slot_follows_the_traffic_of_another_database", idle_slot),
    ("heartbeats_are_transactions_of_the_source", heartbeat),
    ("a_slot_that_keeps_too_much_wal_raises_an_alarm", guardrail),
    ("a_password_is_never_sent_in_clear", cleartext),
    ("no_more_connections_are_opened_than_configured", bounded_connections),
];

/// How long a slot may take to advance, or the daemon to notice something.
const LIMIT: Duration = Duration::from_secs(90);

fn server_crash(env: &Env<'_>) -> Result<()> {
    let mut cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    lab.set("flush.interval_sec", json!(0.2))?;
    load_pgbench(&lab, "1")?;
    lab.init()?;
    let daemon = lab.start()?;
    for _ in 0..2 {
        lab.database().pgbench(&["-n", "-c", "2", "-t", "200"])?;
        cluster.stop_immediately()?;
        lab.wait_live(&daemon, "the daemon to notice", |live| live["state"] == "starting")?;
        cluster.boot()?;
    }
    lab.database().pgbench(&["-n", "-c", "2", "-t", "100"])?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    lab.expect_confirmed_is_covered()?;
    ensure!(daemon.log().contains("reconnecting"), "no word of reconnecting: {}", daemon.log_end());
    daemon.stop()
}

const ROLE_RULES: &str = "host all cdc 127.0.0.1/32 METHOD\nhost replication cdc 127.0.0.1/32 METHOD\n\
     host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";

/// Makes a role that logs in with a password, and a URL with its passfile.
fn with_passfile(lab: &mut Lab, cluster: &crate::pg::Cluster, method: &str) -> Result<()> {
    lab.database().execute("CREATE ROLE cdc LOGIN SUPERUSER PASSWORD 'first'")?;
    cluster.set_access_rules(&ROLE_RULES.replace("METHOD", method))?;
    write_passfile(lab, "first")?;
    let url = cluster.url_as("cdc", lab.database().name());
    let file = lab.dir().join("passfile");
    lab.set("source.postgres.url", json!(format!("{url}&passfile={}", file.display())))
}

fn write_passfile(lab: &Lab, password: &str) -> Result<()> {
    Ok(fs::write(lab.dir().join("passfile"), format!("*:*:*:cdc:{password}\n"))?)
}

const CUT_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cdc'";

fn rotated_password(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    with_passfile(&mut lab, &cluster, "scram-sha-256")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    write_passfile(&lab, "second")?;
    lab.database().execute("ALTER ROLE cdc PASSWORD 'second'")?;
    lab.database().execute(CUT_SESSIONS)?;
    lab.settle(&daemon)?;
    ensure!(daemon.log().contains("reconnecting"), "the session was not cut");
    lab.expect_equal(Expected::AnyChanges)?;
    daemon.stop()
}

fn refused_login(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    with_passfile(&mut lab, &cluster, "scram-sha-256")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.database().execute("ALTER ROLE cdc PASSWORD 'second'")?;
    lab.database().execute(CUT_SESSIONS)?;
    daemon.expect_failure(LIMIT, &["password", "hint"])?;
    // One cut, one refused login: it is not tried ten times.
    let attempts = daemon.log().matches("reconnecting").count();
    ensure!(attempts <= 2, "{attempts} attempts to reconnect after a refused login");
    Ok(())
}

fn cleartext(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    with_passfile(&mut lab, &cluster, "password")?;
    for command in ["preflight", "init", "discover"] {
        lab.pgcdc(&[command])?.expect_code(2)?.expect_words(&["clear", "sslmode=require"])?;
    }
    lab.expect_nothing_on_source()
}

fn confirmed(lab: &Lab) -> Result<u64> {
    parse_lsn(&lab.database().value(&format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        lab.slot()
    ))?)
}

fn idle_slot(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let lab = env.lab_on(&cluster)?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    let before = lab.manifest()?;
    let tags = || fs::read_dir(lab.lake().join("refs/raw")).map(Iterator::count);
    let tags_before = tags()?;
    let busy = cluster.create_database("busy")?;
    busy.execute("CREATE TABLE noise AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i")?;
    let position = lab.position()?;
    let started = Instant::now();
    shell::wait_for("the slot to follow", LIMIT, || {
        daemon.expect_alive()?;
        Ok((confirmed(&lab)? >= position).then_some(()))
    })?;
    println!("     the slot followed after {:.1} s", started.elapsed().as_secs_f64());
    ensure!(started.elapsed() < Duration::from_secs(60), "the slot took {:?}", started.elapsed());
    let after = lab.manifest()?;
    ensure!(after["epoch"] == before["epoch"], "an epoch was made for another database's traffic");
    ensure!(after["commit_lsn"] == before["commit_lsn"], "the cut moved without a change of ours");
    ensure!(tags()? == tags_before, "a raw tag was made without an epoch");
    lab.expect_confirmed_is_covered()?;
    daemon.stop()
}

fn heartbeat(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("autovacuum = off")?;
    let mut lab = env.lab_on(&cluster)?;
    lab.set("replication.heartbeat_interval_sec", json!(1))?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let epoch = lab.manifest()?["epoch"].clone();
    let start = confirmed(&lab)?;
    let daemon = lab.start()?;
    let messages = format!(
        "SELECT count(*) FROM pg_logical_slot_peek_changes('oracle_{}', NULL, NULL)
         WHERE data LIKE 'message: transactional: 1 prefix: pgcdc%'",
        lab.database().name()
    );
    shell::wait_for("three heartbeats", LIMIT, || {
        daemon.expect_alive()?;
        Ok((lab.database().number(&messages)? >= 3).then_some(()))
    })?;
    // Nothing else is written, so what moves the slot are the heartbeats.
    shell::wait_for("the slot to move by heartbeats", LIMIT, || {
        daemon.expect_alive()?;
        Ok((confirmed(&lab)? > start).then_some(()))
    })?;
    ensure!(lab.manifest()?["epoch"] == epoch, "a heartbeat made an epoch");
    ensure!(oracle.counts()?.is_empty(), "a heartbeat changed a table");
    daemon.stop()
}

fn guardrail(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    lab.set("guardrail.max_retained_wal_bytes", json!(20_000_000))?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    ensure!(lab.live()?["slot"]["guardrail_breached"].is_null(), "breached from the beginning");
    // An open transaction that has written holds the slot's restart position.
    let mut psql = lab.database().psql()?;
    psql.args(["-c", "BEGIN; INSERT INTO items VALUES (1, 'open'); SELECT pg_sleep(600); COMMIT"]);
    let mut open = psql.stdout(std::process::Stdio::null()).spawn()?;
    let breached = shell::wait_for("the breach", LIMIT, || {
        daemon.expect_alive()?;
        lab.database().execute(
            "CREATE TABLE IF NOT EXISTS noise (v text);
             INSERT INTO noise SELECT md5(i::text) FROM generate_series(1, 20000) i; CHECKPOINT;",
        )?;
        let live = lab.live()?;
        Ok((live["slot"]["guardrail_breached"] == true).then_some(live))
    });
    open.kill()?;
    open.wait()?;
    let live = breached?;
    ensure!(live["oldest_xact_age_seconds"].as_u64() > Some(0), "no oldest transaction: {live}");
    ensure!(daemon.log().matches("slot guardrail breached").count() == 1, "{}", daemon.log_end());
    let status = lab.pgcdc(&["status", "--json"])?.expect_code(0)?.json()?;
    let replication = &status["replication"];
    ensure!(replication["guardrail_breached"].is_boolean(), "status says {replication}");
    let slots =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'", lab.slot());
    ensure!(lab.database().number(&slots)? == 1, "the alarm dropped the slot");
    lab.settle(&daemon)?;
    daemon.stop()
}

fn bounded_connections(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("")?;
    let mut lab = env.lab_on(&cluster)?;
    lab.set("init.parallel_workers", json!(4))?;
    lab.set("source.postgres.max_conns", json!(5))?;
    let refused = lab.pgcdc(&["config", "check"])?.expect_code(2)?;
    refused.expect_words(&["source.postgres.max_conns", "6"])?;
    lab.set("source.postgres.max_conns", json!(6))?;
    for table in 0..12 {
        lab.database().execute(&format!(
            "CREATE TABLE t{table} (id int PRIMARY KEY);
             INSERT INTO t{table} SELECT generate_series(1, 20000)"
        ))?;
    }
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgcdc'";
    let mut most = 0;
    let mut init = lab.command("pgcdc", &["init"]);
    let mut init = init.stdout(std::process::Stdio::null()).spawn()?;
    let status = shell::wait_for("init", LIMIT, || {
        most = most.max(lab.database().number(query)?);
        Ok(init.try_wait()?)
    })?;
    ensure!(status.success(), "init failed");
    ensure!((2..=6).contains(&most), "{most} connections were open at once");
    lab.expect_equal(Expected::AnyChanges)?;
    Ok(())
}
