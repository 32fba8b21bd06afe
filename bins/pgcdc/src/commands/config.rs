//! `pgcdc config check` and `pgcdc config show`. Neither opens a connection.

use anyhow::Result;
use cdc_runtime::{CatalogBackend, Config, Error, ExitCode, GovernanceBackend, SourceUse};
use serde_json::json;

use crate::cli::ConfigShowArgs;
use crate::context::Context;
use crate::render;

pub(crate) fn check(context: &Context, as_json: bool) -> Result<ExitCode> {
    let (config, problems) = match Config::load(context.config_flag(), SourceUse::Checked) {
        Ok(config) => (Some(config), Vec::new()),
        Err(Error::ConfigInvalid { problems, .. }) => (None, problems),
        Err(other) => return Err(other.into()),
    };
    if as_json {
        let file = Config::find(context.config_flag())?;
        let backend = |config: &Config| config.catalog.backend.map(CatalogBackend::as_str);
        let governance =
            |config: &Config| config.governance.as_ref()?.backend.map(GovernanceBackend::as_str);
        render::json(&json!({
            "ok": problems.is_empty(),
            "file": file.display().to_string(),
            "errors": problems,
            "catalog_backend": config.as_ref().and_then(backend),
            "governance_backend": config.as_ref().and_then(governance),
        }))?;
    } else if problems.is_empty() {
        render::print("ok\n")?;
    } else {
        let lines: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        render::print(&lines)?;
    }
    Ok(if problems.is_empty() { ExitCode::Ok } else { ExitCode::Usage })
}

pub(crate) fn show(context: &Context, args: &ConfigShowArgs) -> Result<ExitCode> {
    if args.schema {
        render::json(&Config::json_schema())?;
        return Ok(ExitCode::Ok);
    }
    let config = context.load(SourceUse::Checked)?;
    if args.json {
        render::json(&config.effective_json())?;
    } else {
        render::print(&config.effective_yaml())?;
    }
    Ok(ExitCode::Ok)
}
