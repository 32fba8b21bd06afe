//! `pgcdc init`: a new lake from a source, at one position of its log.

use anyhow::Result;
use cdc_pipeline::InitReport;
use cdc_runtime::{Config, ExitCode, SourceUse, shutdown_on_signal};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::{self, Context, block_on};
use crate::progress::CopyProgress;
use crate::{render, settings};

pub(crate) fn run(context: &Context, json: bool) -> Result<ExitCode> {
    let config = context.load(SourceUse::Needed)?;
    let report = block_on(async { init(&config, &shutdown_on_signal()?).await })?;
    if json {
        render::json(&to_json(&report))?;
    } else {
        render::print(&text(&report))?;
    }
    Ok(ExitCode::Ok)
}

/// Copies the source; a signal undoes what was begun.
pub(crate) async fn init(config: &Config, stop: &CancellationToken) -> Result<InitReport> {
    let settings = settings::init(config)?;
    let source = context::source(config)?;
    let progress = CopyProgress::new();
    Ok(cdc_pipeline::init(&settings, &source, &progress, stop).await?)
}

/// What init made, for a person.
pub(crate) fn text(report: &InitReport) -> String {
    let mut out = String::new();
    for (table, reason) in &report.excluded {
        out.push_str(&format!("skip: {table} ({reason})\n"));
    }
    out.push_str(&format!("Discovered {} tables\n", report.tables.len()));
    let (publication, created) = &report.publication;
    let made = if *created { "created" } else { "found" };
    out.push_str(&format!("Publication: {publication} ({made})\n"));
    out.push_str(&format!("Replication slot: {} (LSN: {})\n", report.slot, report.lsn));
    for (table, rows) in &report.tables {
        out.push_str(&format!("{table}: {rows} rows\n"));
    }
    out.push_str(&render::labels(&[
        ("Slot", report.slot.clone()),
        ("LSN", report.lsn.to_string()),
        ("Tables", report.tables.len().to_string()),
        ("Epoch", "0".to_owned()),
        ("Storage", report.root.clone()),
    ]));
    out
}

fn to_json(report: &InitReport) -> Value {
    let tables = report.tables.iter();
    let excluded = report.excluded.iter();
    json!({
        "slot": report.slot,
        "publication": report.publication.0,
        "publication_created": report.publication.1,
        "lsn": report.lsn.to_string(),
        "epoch": 0,
        "storage": report.root,
        "tables": tables
            .map(|(table, rows)| json!({"name": table.to_string(), "rows": rows}))
            .collect::<Vec<_>>(),
        "excluded": excluded
            .map(|(table, reason)| json!({"name": table.to_string(), "reason": reason}))
            .collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_core::{Lsn, TableName};
    use std::collections::BTreeMap;

    #[test]
    fn the_report_has_the_documented_lines() {
        let report = InitReport {
            slot: "s".into(),
            publication: ("p".into(), true),
            lsn: Lsn(0x1A2B3C8),
            tables: BTreeMap::from([(TableName::new("public", "orders"), 3)]),
            excluded: BTreeMap::from([(TableName::new("public", "log"), "unlogged".into())]),
            root: "file:///lake".into(),
        };
        assert_eq!(
            text(&report),
            "skip: public.log (unlogged)\n\
             Discovered 1 tables\n\
             Publication: p (created)\n\
             Replication slot: s (LSN: 0/1A2B3C8)\n\
             public.orders: 3 rows\n\
             Slot:     s\n\
             LSN:      0/1A2B3C8\n\
             Tables:   1\n\
             Epoch:    0\n\
             Storage:  file:///lake\n"
        );
    }
}
