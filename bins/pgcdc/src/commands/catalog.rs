//! `pgcdc catalog register`: the catalog made to agree with the manifest.

use anyhow::Result;
use cdc_runtime::{ExitCode, SourceUse};
use serde_json::json;

use crate::context::{Context, block_on};
use crate::failure::Stop;
use crate::{render, settings};

pub(crate) fn register(context: &Context, as_json: bool) -> Result<ExitCode> {
    let config = context.load(SourceUse::Unused)?;
    let lake = settings::lake(&config)?;
    let registered = block_on(async { Ok(cdc_pipeline::register(&lake).await) })?;
    let registered = match registered {
        // documented as a failure of this command, unlike a status that finds nothing
        Err(error @ cdc_pipeline::Error::NotInitialised { .. }) => {
            return Err(Stop::failure(error.to_string()).into());
        }
        other => other?,
    };
    let cdc_pipeline::Registered { backend, database, tables, changed } = registered;
    if as_json {
        render::json(&json!({
            "catalog": backend, "database": database, "tables": tables, "changed": changed,
        }))?;
    } else {
        render::print(&format!("{backend}: {database} ({tables} tables)\n"))?;
    }
    Ok(ExitCode::Ok)
}
