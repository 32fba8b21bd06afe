//! `pgcdc compact`: complete bases, old changes let go, unneeded objects removed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use cdc_core::TableName;
use cdc_pipeline::{CompactReport, CompactRequest, TableOutcome, TableResult};
use cdc_runtime::{Config, ExitCode, HumanDuration, SourceUse, shutdown_on_signal};
use serde_json::{Value, json};

use crate::cli::CompactArgs;
use crate::context::{Context, block_on};
use crate::failure::Stop;
use crate::{render, settings};

/// Runs the command; a table that could not be done is exit 1.
pub(crate) fn run(context: &Context, args: &CompactArgs) -> Result<ExitCode> {
    let config = context.load(SourceUse::Checked)?;
    let report = block_on(compact(&config, args))?;
    if args.json.json {
        render::json(&to_json(&report, args.dry_run))?;
    } else {
        render::print(&text(&report, args.dry_run))?;
    }
    Ok(if report.has_failure() { ExitCode::Failure } else { ExitCode::Ok })
}

async fn compact(config: &Config, args: &CompactArgs) -> Result<CompactReport> {
    let settings = settings::compact(config)?;
    let parse = |name: &String| {
        name.parse::<TableName>()
            .map_err(|_| Stop::usage(format!("--table `{name}`: hint: the form is schema.table")))
    };
    let request = CompactRequest {
        tables: args.table.iter().map(parse).collect::<Result<_, _>>()?,
        tombstone_ttl: args.tombstone_ttl.as_deref().map(ttl).transpose()?,
        dry_run: args.dry_run,
    };
    let stop = shutdown_on_signal().context("signals")?;
    Ok(cdc_pipeline::compact(&settings, &request, &stop).await?)
}

fn ttl(text: &str) -> Result<Duration> {
    let parsed = HumanDuration::parse(text);
    Ok(parsed.map_err(|what| Stop::usage(format!("--tombstone-ttl `{text}`: {what}")))?.0)
}

/// A line for each table.
fn text(report: &CompactReport, is_dry_run: bool) -> String {
    let mut out = format!("Compacting {} tables\n", report.tables.len());
    for table in &report.tables {
        out.push_str(&line(table));
    }
    if report.orphans_removed > 0 {
        out.push_str(&format!("{} unneeded objects removed\n", report.orphans_removed));
    }
    out.push_str(if is_dry_run { "Nothing was changed\n" } else { "Compaction complete\n" });
    out
}

fn line(outcome: &TableOutcome) -> String {
    let TableOutcome { table, result, purged } = outcome;
    match result {
        TableResult::UpToDate { base_epoch, latest_epoch } => {
            let up_to_date =
                format!("{table}: up to date (base={base_epoch}, latest={latest_epoch})\n");
            match purged {
                0 => up_to_date,
                purged => format!("{up_to_date}{table}: {purged} purged\n"),
            }
        }
        TableResult::WouldCompact { base_epoch, latest_epoch } => {
            format!("{table}: would be compacted (base={base_epoch}, latest={latest_epoch})\n")
        }
        TableResult::Compacted { deltas, base_epoch, rows, applied, .. } => format!(
            "{table}: compacted {deltas} deltas → base_{base_epoch:06} ({rows} rows, {applied} applied, {purged} purged)\n"
        ),
        TableResult::Skipped { reason } => format!("{table}: not compacted: {reason}\n"),
    }
}

fn to_json(report: &CompactReport, is_dry_run: bool) -> Value {
    json!({
        "tables": report.tables,
        "orphans_removed": report.orphans_removed,
        "orphans_waiting": report.orphans_waiting,
        "dry_run": is_dry_run,
    })
}
