//! `pgcdc status`: slot, lag, tables and refs, as far as they can be found out. Unknown numbers are
//! null, never 0.

use anyhow::Result;
use cdc_core::{Clock, SystemClock, rfc3339};
use cdc_manifest::{LiveState, Manifest, TableState, TableStatus};
use cdc_pipeline::StatusReport;
use cdc_runtime::{Config, ExitCode, SourceUse};
use chrono::{DateTime, Datelike, Utc};
use serde_json::{Value, json};

use crate::context::{self, Context, block_on};
use crate::{render, settings};

pub(crate) fn run(context: &Context, as_json: bool) -> Result<ExitCode> {
    let config = context.load(SourceUse::Unused)?;
    let report = block_on(status(&config))?;
    if let Some(error) = &report.source_error {
        eprintln!("note: the source was not asked: {error}");
    }
    let json = to_json(&config, &report, SystemClock.now());
    if as_json {
        render::json(&json)?;
    } else {
        render::print(&text(&json, &report))?;
    }
    Ok(ExitCode::Ok)
}

/// Reads the lake; asks the source if its URL can be resolved.
async fn status(config: &Config) -> Result<StatusReport> {
    let lake = settings::lake(config)?;
    let replication = settings::replication(config)?;
    let (source, refused) = match &config.source {
        Some(named) if named.postgres.url.is_some() => match context::source(config) {
            Ok(source) => (Some(source), None),
            Err(error) => (None, Some(format!("{error:#}"))),
        },
        _ => (None, None),
    };
    let mut report = cdc_pipeline::status(&lake, &replication, source.as_ref()).await?;
    report.source_error = report.source_error.or(refused);
    Ok(report)
}

fn to_json(config: &Config, report: &StatusReport, now: DateTime<Utc>) -> Value {
    let manifest = &report.manifest;
    let raw = report.refs.raw.as_ref();
    let epoch_of = |name: &str| report.refs.refs.get(name).map(|at| at.epoch.0);
    json!({
        "source": {
            "database": manifest.source.database,
            "version": manifest.source.postgres_version,
            "provider": report.source.as_ref().map(|source| source.provider.as_str()),
            "timeline": manifest.source.timeline,
        },
        "replication": replication(config, report, now),
        "epochs": {
            "committed": manifest.epoch.0,
            "commit_lsn": manifest.commit_lsn.to_string(),
            "commit_ts": rfc3339(manifest.commit_ts),
        },
        "tables": tables(manifest),
        "storage": { "type": config.storage.kind.as_str(), "root": report.root },
        "catalog": {
            "type": manifest.catalog.kind,
            "backend": manifest.catalog.backend,
            "database": manifest.catalog.database,
        },
        "refs": {
            "main": epoch_of("main"),
            "staging": epoch_of("staging"),
            "raw_count": raw.map(|raw| raw.count),
            "raw_oldest": raw.and_then(|raw| raw.oldest.clone()),
            "raw_newest": raw.and_then(|raw| raw.newest.clone()),
        },
        "compaction": { "last_compacted_at": last_compacted(manifest) },
        "cas_conflicts": report.live.as_ref().map(|live| live.cas_conflicts),
        "daemon": daemon(report),
    })
}

/// Whether the slot keeps more WAL than it should; `None` if that is not known or not watched.
fn guardrail_breached(config: &Config, retained_bytes: Option<u64>) -> Option<bool> {
    let limit = Some(config.guardrail.max_retained_wal_bytes).filter(|limit| *limit > 0)?;
    Some(retained_bytes? >= limit)
}

fn replication(config: &Config, report: &StatusReport, now: DateTime<Utc>) -> Value {
    let source = report.source.as_ref();
    let slot = source.and_then(|source| source.slot.as_ref());
    let live = report.live.as_ref();
    let lag = source.and_then(|source| source.lag);
    let lag_bytes = lag.map(|lag| lag.lag_bytes).or(live.map(|live| live.lag_bytes));
    json!({
        "slot": report.manifest.source.slot,
        "active": slot.map(|slot| slot.active),
        "wal_status": slot.map(|slot| slot.wal_status.as_str()),
        "confirmed_lsn": slot
            .map(|slot| slot.confirmed_flush)
            .or(live.map(|live| live.slot.confirmed_lsn))
            .map(|lsn| lsn.to_string()),
        "restart_lsn": slot
            .map(|slot| slot.restart_lsn)
            .or(live.map(|live| live.slot.restart_lsn))
            .map(|lsn| lsn.to_string()),
        "received_lsn": live.map(|live| live.received_lsn.to_string()),
        "lag_bytes": lag_bytes,
        "lag_seconds": lag_seconds(report, lag_bytes, now),
        "retained_wal_bytes": lag.map(|lag| lag.retained_bytes),
        "guardrail_breached": guardrail_breached(config, lag.map(|lag| lag.retained_bytes)),
        "oldest_xact_age_seconds": source.and_then(|source| match &source.oldest {
            Some(oldest) => oldest.age.map(|age| age.as_secs_f64()),
            None => Some(0.0),
        }),
    })
}

/// The daemon's own number while it runs; else the time since the lake was last known to be
/// complete, which is 0 where nothing is left to read.
fn lag_seconds(report: &StatusReport, lag_bytes: Option<u64>, now: DateTime<Utc>) -> Option<f64> {
    match &report.live {
        Some(live) if report.daemon_running => Some(live.lag_seconds),
        _ if lag_bytes == Some(0) => Some(0.0),
        _ => {
            let since = now - report.manifest.covered_at;
            Some((since.num_milliseconds().max(0) as f64) / 1000.0)
        }
    }
}

fn tables(manifest: &Manifest) -> Vec<Value> {
    let one = |(name, entry): (&cdc_core::TableName, &cdc_manifest::TableEntry)| {
        let mut table = json!({
            "name": name.to_string(),
            "status": entry.status,
            "state": entry.state,
            "row_count": entry.row_count,
            "base_epoch": entry.base_epoch.0,
            "latest_delta_epoch": entry.latest_delta_epoch.0,
            "schema_version": entry.schema_version,
            "policy_version": entry.policy_version,
        });
        if let Some(reason) = &entry.reason {
            table["reason"] = json!(reason);
        }
        if let Some(lsn) = entry.verified_through {
            table["verified_through"] = json!(lsn.to_string());
        }
        table
    };
    manifest.tables.iter().map(one).collect()
}

/// `None` before the first: the manifest then holds year 1.
fn last_compacted(manifest: &Manifest) -> Option<String> {
    let at = manifest.compaction.last_compacted_at;
    (at.year() > 1).then(|| rfc3339(at))
}

fn daemon(report: &StatusReport) -> Value {
    let live = report.live.as_ref();
    // what a killed daemon wrote last is no longer true
    let state = match live.map(|live| live.state) {
        Some(state @ (LiveState::Stopped | LiveState::Failed)) => json!(state),
        Some(state) if report.daemon_running => json!(state),
        Some(_) => json!("stopped"),
        None => Value::Null,
    };
    let mut daemon = json!({
        "running": report.daemon_running,
        "instance": live.map(|live| live.instance.clone()),
        "state": state,
    });
    if let Some(error) = live.and_then(|live| live.last_error.clone()) {
        daemon["last_error"] = json!(error);
    }
    daemon
}

/// The labels of the text form, from the same values as the JSON.
fn text(json: &Value, report: &StatusReport) -> String {
    let replication = &json["replication"];
    let manifest = &report.manifest;
    let active = manifest.tables.values().filter(|t| t.status == TableStatus::Active).count();
    let excluded = manifest.tables.len() - active;
    let source = &json["source"];
    let lag = match replication["lag_bytes"].as_u64() {
        Some(count) => {
            format!("{}, {}", render::bytes(count), seconds(&replication["lag_seconds"]))
        }
        None => seconds(&replication["lag_seconds"]),
    };
    let refs = &json["refs"];
    render::labels(&[
        ("Slot", format!("{} ({})", slot_word(report), manifest.source.slot)),
        ("Confirmed LSN", word(&replication["confirmed_lsn"])),
        ("Restart LSN", word(&replication["restart_lsn"])),
        ("Init LSN", manifest.source.init_lsn.to_string()),
        ("Lag", lag),
        ("Oldest transaction", seconds(&replication["oldest_xact_age_seconds"])),
        ("Source", format!("{} {}", word(&source["database"]), word(&source["version"]))),
        ("Tables", format!("{active} active, {excluded} excluded{}", standing(manifest))),
        ("Latest epoch", format!("{} (LSN: {})", manifest.epoch.0, manifest.commit_lsn)),
        ("Storage", report.root.clone()),
        ("Catalog", format!("{} {}", manifest.catalog.backend, manifest.catalog.database)),
        (
            "Refs",
            format!(
                "main at {}, staging at {}, {} raw",
                word(&refs["main"]),
                word(&refs["staging"]),
                word(&refs["raw_count"])
            ),
        ),
        ("Last compacted", last_compacted(manifest).unwrap_or_else(|| "never".into())),
        ("Role profiles", manifest.roles.len().to_string()),
        ("Daemon", daemon_word(&json["daemon"])),
    ])
}

/// The tables by name that do not follow the stream, if there are any.
fn standing(manifest: &Manifest) -> String {
    let states = [
        (TableState::Quarantined, "quarantined"),
        (TableState::Paused, "paused"),
        (TableState::Resyncing, "resyncing"),
        (TableState::Snapshotting, "being added"),
    ];
    let mut out = String::new();
    for (state, word) in states {
        let found = manifest.tables.iter().filter(|(_, entry)| entry.state == Some(state));
        let names: Vec<String> = found.map(|(table, _)| table.to_string()).collect();
        if !names.is_empty() {
            out.push_str(&format!(", {} {word}: {}", names.len(), names.join(", ")));
        }
    }
    out
}

/// What the daemon does, or why it ended.
fn daemon_word(daemon: &Value) -> String {
    match (daemon["state"].as_str(), daemon["last_error"].as_str()) {
        (None, _) => "never ran".into(),
        (Some(state), Some(error)) => format!("{state}: {error}"),
        (Some(state), None) => state.into(),
    }
}

fn slot_word(report: &StatusReport) -> &'static str {
    match &report.source {
        None => "unknown",
        Some(source) => match &source.slot {
            None => "not found",
            Some(slot) if slot.is_lost() => "lost",
            Some(slot) if slot.active => "streaming",
            Some(_) => "inactive",
        },
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "unknown".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or("unknown".into(), |seconds| format!("{seconds:.1} s"))
}
