//! `pgcdc version`.

use anyhow::Result;
use cdc_runtime::{BUILD_INFO, ExitCode};

use crate::render;

pub(crate) fn run(json: bool) -> Result<ExitCode> {
    if json {
        render::json(&serde_json::to_value(BUILD_INFO)?)?;
    } else {
        render::print(&format!("{}\n", BUILD_INFO.line("pgcdc")))?;
    }
    Ok(ExitCode::Ok)
}
