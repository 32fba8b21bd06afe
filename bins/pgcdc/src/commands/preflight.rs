//! `pgcdc preflight`: whether init would work, without making anything.

use anyhow::Result;
use cdc_runtime::{Config, ExitCode, SourceUse};
use cdc_wal::{Check, CheckStatus, PreflightReport};
use serde_json::{Value, json};

use crate::context::{self, Context, block_on};
use crate::{render, settings};

pub(crate) fn run(context: &Context, json: bool) -> Result<ExitCode> {
    let config = context.load(SourceUse::Needed)?;
    let report = block_on(check(&config))?;
    if json {
        render::json(&to_json(&report))?;
    } else {
        render::print(&render::paint_verdicts(&table(report.checks.iter())))?;
    }
    Ok(if report.is_ready() { ExitCode::Ok } else { ExitCode::Failure })
}

/// All checks of a configuration.
pub(crate) async fn check(config: &Config) -> Result<PreflightReport> {
    let lake = settings::lake(config)?;
    let replication = settings::replication(config)?;
    let source = context::source(config)?;
    Ok(cdc_pipeline::preflight(&lake, &replication, &source).await?)
}

/// Checks as a table.
pub(crate) fn table<'a>(checks: impl Iterator<Item = &'a Check>) -> String {
    let row = |check: &Check| {
        let status = check.status.as_str().to_owned();
        vec![check.name.to_owned(), status, check.detail.clone(), check.remediation.clone()]
    };
    let rows: Vec<Vec<String>> = checks.map(row).collect();
    render::columns(&["CHECK", "STATUS", "DETAIL", "REMEDIATION"], &rows)
}

fn to_json(report: &PreflightReport) -> Value {
    let count =
        |status: CheckStatus| report.checks.iter().filter(|check| check.status == status).count();
    let check = |check: &Check| {
        json!({
            "name": check.name,
            "status": check.status.as_str(),
            "detail": check.detail,
            "remediation": check.remediation,
        })
    };
    json!({
        "ready": report.is_ready(),
        "passed": count(CheckStatus::Pass),
        "warned": count(CheckStatus::Warn),
        "failed": count(CheckStatus::Fail),
        "checks": report.checks.iter().map(check).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_shown_with_status_and_remedy() {
        let check = |name, status, detail: &str, remediation: &str| Check {
            name,
            status,
            detail: detail.into(),
            remediation: remediation.into(),
        };
        let report = PreflightReport {
            checks: vec![
                check("wal_level", CheckStatus::Fail, "replica", "set it to logical"),
                check("version", CheckStatus::Pass, "PostgreSQL 16.4", ""),
            ],
        };
        assert_eq!(
            table(report.checks.iter()),
            "CHECK      STATUS  DETAIL           REMEDIATION\n\
             wal_level  FAIL    replica          set it to logical\n\
             version    PASS    PostgreSQL 16.4\n"
        );
        let json = to_json(&report);
        assert_eq!((&json["ready"], &json["failed"]), (&json!(false), &json!(1)));
    }
}
