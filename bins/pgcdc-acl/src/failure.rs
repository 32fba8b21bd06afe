//! How a failed command ends: what it says on stderr, and with which exit code. The one place of this
//! binary that decides either.

use anyhow::Error;
use cdc_runtime::{CommandKind, ExitCode};

/// A failure that a command decides itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stop {
    pub(crate) code: ExitCode,
    pub(crate) message: String,
}

impl Stop {
    pub(crate) fn usage(message: impl Into<String>) -> Stop {
        Stop { code: ExitCode::Usage, message: message.into() }
    }
}

/// Says what failed and returns the exit code.
pub(crate) fn report(error: &Error) -> ExitCode {
    eprintln!("error: {error:#}");
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.code;
    }
    match error.downcast_ref::<cdc_governance::Error>() {
        // a lost race is a refusal: nothing was changed
        Some(cdc_governance::Error::VersionConflict { .. }) => ExitCode::Refused,
        Some(error) => ExitCode::of(error.kind(), CommandKind::Operator),
        None => ExitCode::Usage,
    }
}
