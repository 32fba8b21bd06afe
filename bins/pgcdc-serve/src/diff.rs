//! `diff`: what changes for readers from one ref to another.

use std::io::Write as _;

use cdc_manifest::{ContractDiff, TableDiff};
use cdc_serve::DiffAnswer;
use serde_json::Value;

use crate::cli::{Common, DiffArgs};
use crate::failure::Blocked;
use crate::setup;

pub(crate) fn run(common: &Common, args: &DiffArgs) -> anyhow::Result<()> {
    let config = setup::config(common)?;
    let plane = setup::read_plane(&config)?;
    let caller = setup::caller(None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(plane.diff(&caller, &args.from, &args.to))?;
    print(&answer, args.json)?;
    if args.exit_code && !answer.diff.promote_safe {
        return Err(Blocked::by(&answer.diff).into());
    }
    Ok(())
}

/// The comparison on stdout.
pub(crate) fn print(answer: &DiffAnswer, as_json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let mut value = serde_json::to_value(&answer.diff)?;
        if let Value::Object(fields) = &mut value {
            fields.insert("evidence".into(), serde_json::to_value(&answer.evidence)?);
        }
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
    } else {
        write!(out, "{}", text(&answer.diff))?;
    }
    Ok(())
}

/// The comparison for people: the verdict, then each table that differs with its reasons.
fn text(diff: &ContractDiff) -> String {
    let safe = if diff.promote_safe { "safe to promote" } else { "needs --force to promote" };
    let mut text = format!("{} -> {}: {} ({safe})\n", diff.from, diff.to, diff.verdict.as_str());
    for table in &diff.tables {
        text.push_str(&format!("  {}: {}{}\n", table.name, table.status.as_str(), epochs(table)));
        for reason in &table.reasons {
            text.push_str(&format!("    {reason}\n"));
        }
    }
    text
}

fn epochs(table: &TableDiff) -> String {
    match (table.latest_delta_epoch_from, table.latest_delta_epoch_to) {
        (Some(from), Some(to)) if from != to => format!(", epoch {from} -> {to}"),
        _ => String::new(),
    }
}
