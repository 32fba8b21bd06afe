//! What the daemon shows of itself on `/metrics`, held against what really happened.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Oracle};
use crate::s3::{Fault, FaultProxy, Rule, Which};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("metrics_tell_what_the_daemon_did", told),
    ("a_slow_sink_shows_on_metrics_and_keeps_its_session", slow_sink),
];

/// How long a metric may take to follow.
const LIMIT: Duration = Duration::from_secs(60);

/// The names and types that alerts are written against.
const TYPES: &[(&str, &str)] = &[
    ("pgcdc_slot_active", "gauge"),
    ("pgcdc_replication_lag_seconds", "gauge"),
    ("pgcdc_source_oldest_xact_age_seconds", "gauge"),
    ("pgcdc_slot_retained_wal_bytes", "gauge"),
    ("pgcdc_slot_guardrail_breach", "gauge"),
    ("pgcdc_heartbeat_total", "counter"),
    ("pgcdc_events_per_sec", "gauge"),
    ("pgcdc_buffer_depth", "gauge"),
    ("pgcdc_sink_latency_seconds", "histogram"),
    ("pgcdc_sink_errors_total", "counter"),
    ("pgcdc_iceberg_snapshot_count", "gauge"),
    ("pgcdc_manifest_conflicts_resolved_total", "counter"),
    ("pgcdc_event_channel_full_total", "counter"),
    ("pgcdc_event_channel_blocked_seconds_total", "counter"),
    ("pgcdc_flush_parallel_workers_used", "gauge"),
    ("pgcdc_table_latest_epoch", "gauge"),
    ("pgcdc_events_flushed_total", "counter"),
    ("pgcdc_refs_raw_tags_pruned_total", "counter"),
    ("pgcdc_build_info", "gauge"),
];

fn told(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("replication.heartbeat_interval_sec", 1.into())?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, v text); CREATE TABLE more (id int PRIMARY KEY)",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database().execute(
        "BEGIN; INSERT INTO items SELECT i, 'x' FROM generate_series(1, 500) i;
         INSERT INTO more VALUES (1), (2); COMMIT;
         UPDATE items SET v = 'y' WHERE id <= 100; DELETE FROM items WHERE id > 450;",
    )?;
    lab.settle(&daemon)?;
    // some are measured beside the stream
    shell::wait_for("all metrics", LIMIT, || {
        daemon.expect_alive()?;
        Ok(daemon.metrics()?.expect_types(TYPES).is_ok().then_some(()))
    })
    .or_else(|_| daemon.metrics()?.expect_types(TYPES))?;
    let metrics = daemon.metrics()?;
    for (series, expected) in [
        ("pgcdc_events_flushed_total{table=\"public.items\"}", 650.0),
        ("pgcdc_events_flushed_total{table=\"public.more\"}", 2.0),
        ("pgcdc_slot_active", 1.0),
        ("pgcdc_sink_errors_total", 0.0),
        ("pgcdc_flushes_total{result=\"failed\"}", 0.0),
        ("pgcdc_buffer_depth", 0.0),
    ] {
        ensure!(metrics.get(series) == expected, "{series} is {}", metrics.get(series));
    }
    let entry = &lab.manifest()?["tables"]["public.items"];
    let epoch = metrics.get("pgcdc_table_latest_epoch{table=\"public.items\"}");
    ensure!(entry["latest_delta_epoch"].as_f64() == Some(epoch), "epoch {epoch}, but {entry}");
    let written = metrics.get("pgcdc_sink_latency_seconds_count");
    ensure!(written >= 4.0, "{written} writes were timed");
    let flushes = metrics.get("pgcdc_flushes_total{result=\"committed\"}");
    ensure!(flushes >= 1.0, "{flushes} flushes");
    for stage in ["encode", "publish", "fence", "commit", "refs"] {
        let count = format!("pgcdc_flush_duration_seconds_count{{stage=\"{stage}\"}}");
        ensure!(metrics.get(&count) == flushes, "{stage}: {}, not {flushes}", metrics.get(&count));
    }
    let heartbeats = metrics.get("pgcdc_heartbeat_total");
    wait_for(&daemon, "another heartbeat", "pgcdc_heartbeat_total", |now| now > heartbeats)?;
    daemon.stop()
}

fn wait_for(
    daemon: &Daemon,
    what: &str,
    series: &str,
    is_met: impl Fn(f64) -> bool,
) -> Result<f64> {
    shell::wait_for(what, LIMIT, || {
        daemon.expect_alive()?;
        Ok(Some(daemon.metrics()?.get(series)).filter(|value| is_met(*value)))
    })
}

/// The store takes nothing for longer than the server waits for a client: memory stays bounded by
/// leaving the socket unread, which shows, and the session lives on.
fn slow_sink(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster("wal_sender_timeout = '2s'")?;
    let proxy = FaultProxy::start(env.s3()?.port(), 3)?;
    let mut lab = env.lab_on_behind(&cluster, &proxy)?;
    lab.set("limits.buffer_bytes", 8_000_000.into())?;
    lab.set("flush.max_bytes", 4_000_000.into())?;
    lab.set("flush.interval_sec", json!(0.1))?;
    lab.database().execute("CREATE TABLE items (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    let (session, quiet) = (session(&lab)?, daemon.metrics()?);
    proxy.set(vec![Rule::always(Which::Writes, Fault::ResetBefore)])?;
    lab.database().execute(
        "INSERT INTO items SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 100000) i",
    )?;
    for n in 0..20 {
        lab.database().execute(&format!(
            "UPDATE items SET v = v || 'x' WHERE id BETWEEN {n} * 5000 AND {n} * 5000 + 4999"
        ))?;
    }
    wait_for(&daemon, "a failed write", "pgcdc_sink_errors_total", |now| now > 0.0)?;
    wait_for(&daemon, "a full buffer", "pgcdc_event_channel_full_total", |now| {
        now > quiet.get("pgcdc_event_channel_full_total")
    })?;
    let blocked = wait_for(
        &daemon,
        "intake to have waited for thrice the server's patience",
        "pgcdc_event_channel_blocked_seconds_total",
        |now| now > 6.0,
    )?;
    ensure!(session == self::session(&lab)?, "the session did not live through the wait");
    let held = daemon.metrics()?.get("pgcdc_buffer_bytes");
    ensure!(held < 16_000_000.0, "{held} bytes are buffered");
    proxy.set(Vec::new())?;
    lab.settle(&daemon)?;
    ensure!(session == self::session(&lab)?, "the session did not live through the catch-up");
    daemon.stop()?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    println!("     intake waited {blocked:.1} s, {held} bytes held");
    Ok(())
}

/// The server's process for our stream.
fn session(lab: &Lab) -> Result<i64> {
    lab.database().number(&format!(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
        lab.slot()
    ))
}
