//! Commands that this version knows and cannot run yet.

use anyhow::Result;
use cdc_runtime::{ExitCode, SourceUse};

use crate::context::Context;
use crate::failure::Stop;

/// Refuses the command, after the configuration was found to be right.
pub(crate) fn run(context: &Context, command: &str) -> Result<ExitCode> {
    context.load(SourceUse::Checked)?;
    Err(Stop::usage(format!("`pgcdc {command}` is not available yet")).into())
}
