//! `pgcdc reconcile`: the lake's schemas against the source's, as a plan or applied.

use anyhow::Result;
use cdc_core::TableName;
use cdc_pipeline::{ReconcileReport, TablePlan};
use cdc_runtime::{Config, ExitCode, SourceUse};
use serde_json::{Value, json};

use crate::cli::ReconcileArgs;
use crate::context::{self, Context, block_on};
use crate::failure::Stop;
use crate::{render, settings};

pub(crate) fn run(context: &Context, args: &ReconcileArgs) -> Result<ExitCode> {
    let config = context.load(SourceUse::Needed)?;
    let report = block_on(reconcile(&config, args))?;
    if args.json.json {
        render::json(&to_json(&report))?;
    } else {
        render::print(&text(&report))?;
    }
    let is_failed = args.force && report.is_blocked();
    Ok(if is_failed { ExitCode::Failure } else { ExitCode::Ok })
}

async fn reconcile(config: &Config, args: &ReconcileArgs) -> Result<ReconcileReport> {
    let mut settings = settings::reconcile(config)?;
    let parse = |name: &String| {
        name.parse::<TableName>()
            .map_err(|_| Stop::usage(format!("--table `{name}`: hint: the form is schema.table")))
    };
    settings.tables = args.table.iter().map(parse).collect::<Result<_, _>>()?;
    settings.force = args.force;
    let source = context::source(config)?;
    Ok(cdc_pipeline::reconcile(&settings, &source).await?)
}

/// One line for each table.
fn text(report: &ReconcileReport) -> String {
    report.tables.iter().map(|(table, plan)| line(table, plan)).collect()
}

fn line(table: &TableName, plan: &TablePlan) -> String {
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    let mut line = format!("{table}: ");
    line.push_str(match steps.as_slice() {
        [] if plan.blocked.is_none() => "no change",
        _ => "",
    });
    line.push_str(&steps.join(" "));
    if !steps.is_empty() {
        let word = if plan.applied { "applied, version" } else { "version" };
        line.push_str(&format!(" ({word} {} to {})", plan.from, plan.to));
    }
    if let Some(reason) = &plan.blocked {
        let gap = if steps.is_empty() { "" } else { "; " };
        line.push_str(&format!(
            "{gap}cannot be followed: {reason}; hint: `pgcdc table resync {table}`"
        ));
    }
    line.push('\n');
    line
}

fn to_json(report: &ReconcileReport) -> Value {
    let table = |(name, plan): (&TableName, &TablePlan)| {
        let steps = plan.steps.iter();
        let changes: Vec<Value> =
            steps.map(|step| json!({"kind": step.kind(), "change": step.to_string()})).collect();
        json!({
            "name": name.to_string(),
            "from_version": plan.from,
            "to_version": plan.to,
            "changes": changes,
            "applied": plan.applied,
            "blocked": plan.blocked,
        })
    };
    json!({"tables": report.tables.iter().map(table).collect::<Vec<_>>()})
}
