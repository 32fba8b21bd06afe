//! `pgcdc verify`: source and lake compared at one position of the log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cdc_core::TableName;
use cdc_pipeline::{TableReport, Verdict, VerifyReport};
use cdc_runtime::{CommandKind, Config, ExitCode, SourceUse, shutdown_on_signal};
use serde_json::{Value, json};

use crate::cli::VerifyArgs;
use crate::context::{self, Context, block_on};
use crate::failure::{self, Stop};
use crate::progress::CopyProgress;
use crate::{render, settings};

/// Buckets of a table that are listed for a person; `--json` has them all.
const BUCKETS_LISTED_MAX: usize = 8;

/// Compares; whatever keeps it from comparing is exit 2, for nothing is known then.
pub(crate) fn run(context: &Context, args: &VerifyArgs) -> ExitCode {
    match compare(context, args) {
        Ok(code) => code,
        Err(error) => {
            failure::report(&error, CommandKind::Operator);
            ExitCode::Usage
        }
    }
}

fn compare(context: &Context, args: &VerifyArgs) -> Result<ExitCode> {
    let config = context.load(SourceUse::Needed)?;
    let report = block_on(verify(&config, args))?;
    if args.json.json {
        render::json(&to_json(&report))?;
    } else {
        render::print(&text(&report))?;
    }
    if report.has_difference() {
        return Ok(ExitCode::Difference);
    }
    if report.is_empty() {
        return Err(Stop::usage("no table could be compared; hint: see the reasons above").into());
    }
    Ok(ExitCode::Ok)
}

async fn verify(config: &Config, args: &VerifyArgs) -> Result<VerifyReport> {
    let mut settings = settings::verify(config)?;
    settings.timeout = Duration::from_secs(args.timeout_sec);
    let parse = |name: &String| {
        name.parse::<TableName>()
            .map_err(|_| Stop::usage(format!("--table `{name}`: hint: the form is schema.table")))
    };
    settings.tables = args.table.iter().map(parse).collect::<Result<_, _>>()?;
    let source = context::source(config)?;
    let stop = shutdown_on_signal().context("signals")?;
    Ok(cdc_pipeline::verify(&settings, &source, Arc::new(CopyProgress::new()), &stop).await?)
}

/// The table and what differs, for a person.
fn text(report: &VerifyReport) -> String {
    let cell = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let row = |(name, table): (&TableName, &TableReport)| {
        vec![
            name.to_string(),
            report.lsn.to_string(),
            cell(table.source_rows),
            cell(table.lake_rows),
            checksum(table),
            result(&table.verdict),
        ]
    };
    let header = ["TABLE", "LSN", "SOURCE_ROWS", "LAKE_ROWS", "CHECKSUM", "RESULT"];
    let rows: Vec<Vec<String>> = report.tables.iter().map(row).collect();
    let mut out = render::columns(&header, &rows);
    for (name, table) in &report.tables {
        out.push_str(&details(name, table));
    }
    out
}

fn checksum(table: &TableReport) -> String {
    match (table.source_checksum, table.lake_checksum) {
        (Some(source), Some(lake)) if source == lake => hex(source),
        (Some(_), Some(_)) => "differs".to_owned(),
        _ => "-".to_owned(),
    }
}

fn hex(checksum: u128) -> String {
    format!("{checksum:032x}")
}

fn result(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Equal => "equal".to_owned(),
        Verdict::Different { .. } | Verdict::Damaged { .. } => "different".to_owned(),
        Verdict::Skipped { reason } => format!("skipped: {reason}"),
    }
}

fn details(name: &TableName, table: &TableReport) -> String {
    let mut out = String::new();
    match &table.verdict {
        Verdict::Different { buckets } => {
            for bucket in buckets.iter().take(BUCKETS_LISTED_MAX) {
                let (source, lake) = (bucket.source_rows, bucket.lake_rows);
                let what = if source == lake { ", their contents differ" } else { "" };
                out.push_str(&format!(
                    "{name}: bucket {}: {source} rows on the source, {lake} in the lake{what}\n",
                    bucket.bucket
                ));
            }
            if let Some(more) = buckets.len().checked_sub(BUCKETS_LISTED_MAX).filter(|n| *n > 0) {
                out.push_str(&format!("{name}: and {more} more buckets\n"));
            }
        }
        Verdict::Damaged { file, reason } => {
            out.push_str(&format!("{name}: damaged file {file}: {reason}\n"));
        }
        Verdict::Equal | Verdict::Skipped { .. } => {}
    }
    if !table.lossy_columns.is_empty() {
        let columns = table.lossy_columns.join(", ");
        out.push_str(&format!("{name}: compared in their declared form: {columns}\n"));
    }
    out
}

fn to_json(report: &VerifyReport) -> Value {
    let tables = report.tables.iter().map(|(name, table)| table_json(name, table));
    json!({
        "lsn": report.lsn.to_string(),
        "epoch": report.epoch,
        "duration_ms": u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
        "equal": !report.has_difference() && !report.is_empty(),
        "tables": tables.collect::<Vec<_>>(),
    })
}

fn table_json(name: &TableName, table: &TableReport) -> Value {
    let mut out = json!({
        "name": name.to_string(),
        "result": match &table.verdict {
            Verdict::Equal => "equal",
            Verdict::Different { .. } | Verdict::Damaged { .. } => "different",
            Verdict::Skipped { .. } => "skipped",
        },
        "source_rows": table.source_rows,
        "lake_rows": table.lake_rows,
        "source_checksum": table.source_checksum.map(hex),
        "lake_checksum": table.lake_checksum.map(hex),
        "lossy_columns": table.lossy_columns,
    });
    match &table.verdict {
        Verdict::Different { buckets } => {
            let buckets = buckets.iter().map(|bucket| {
                json!({
                    "bucket": bucket.bucket,
                    "source_rows": bucket.source_rows,
                    "lake_rows": bucket.lake_rows,
                })
            });
            out["buckets"] = buckets.collect();
        }
        Verdict::Damaged { file, reason } => {
            out["damage"] = json!({ "file": file, "reason": reason });
        }
        Verdict::Skipped { reason } => out["reason"] = json!(reason),
        Verdict::Equal => {}
    }
    out
}
