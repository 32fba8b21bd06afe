//! `diff`, `sync`, `audit`, `preflight`.

use cdc_governance::{Drift, EnforcementPlane, IntentRegistry};
use cdc_runtime::ExitCode;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::setup::Registry;
use crate::{Outcome, render};

/// Audit records read at a time.
const PAGE: usize = 500;

pub(crate) async fn diff(registry: &Registry, output: Output) -> Outcome {
    let drift = registry.registry.diff().await?;
    show(&json!({"clean": drift.is_empty(), "drift": described(&drift)}), &drift, output)?;
    Ok(if drift.is_empty() { ExitCode::Ok } else { ExitCode::Difference })
}

pub(crate) async fn sync(registry: &Registry, output: Output) -> Outcome {
    let report = registry.registry.sync().await?;
    let shown = json!({
        "healed": described(&report.healed),
        "remaining": described(&report.remaining),
    });
    show(&shown, &report.remaining, output)?;
    Ok(match (report.remaining.is_empty(), report.healed.is_empty()) {
        (false, _) => ExitCode::DriftRemains,
        (true, false) => ExitCode::Difference,
        (true, true) => ExitCode::Ok,
    })
}

fn show(document: &Value, drift: &[Drift], output: Output) -> std::io::Result<()> {
    if output.json {
        return render::json(document);
    }
    if drift.is_empty() {
        return render::print("clean\n");
    }
    let rows = drift.iter().map(|d| vec![d.resource.to_string(), d.difference.clone()]);
    render::table(&["RESOURCE", "DIFFERENCE"], rows.collect())
}

fn described(drift: &[Drift]) -> Value {
    let rows = drift.iter();
    rows.map(|d| json!({"resource": d.resource.to_string(), "difference": d.difference})).collect()
}

pub(crate) async fn verify(registry: &Registry, output: Output) -> Outcome {
    let report = registry.registry.verify_audit().await?;
    if output.json {
        render::json(&json!({"whole": true, "records": report.records, "head": report.head}))?;
    } else {
        render::print(&format!("registry: {} records, whole\n", report.records))?;
    }
    Ok(ExitCode::Ok)
}

pub(crate) async fn tail(registry: &Registry, since: u64) -> Outcome {
    let mut after = since.saturating_sub(1);
    loop {
        let page = registry.registry.audit(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(ExitCode::Ok) };
        after = last.seq;
        for line in &page {
            render::print(&format!("{}\n", line.line))?;
        }
    }
}

pub(crate) async fn preflight(registry: &Registry, output: Output) -> Outcome {
    let checks = registry.registry.preflight().await?;
    let passed = checks.iter().all(|check| check.passed);
    let word = |passed: bool| if passed { "PASS" } else { "FAIL" };
    if output.json {
        let rows = checks
            .iter()
            .map(|c| json!({"check": c.check, "status": word(c.passed), "detail": c.detail}));
        render::json(&rows.collect())?;
    } else {
        let rows = checks
            .iter()
            .map(|c| vec![c.check.to_owned(), word(c.passed).to_owned(), c.detail.clone()]);
        render::table(&["CHECK", "STATUS", "DETAIL"], rows.collect())?;
    }
    Ok(if passed { ExitCode::Ok } else { ExitCode::Failure })
}
