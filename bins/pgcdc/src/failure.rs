//! How a failed command ends: what it says on stderr, and with which exit code. The one place of
//! this binary that decides either.

use anyhow::Error;
use cdc_core::ErrorKind;
use cdc_runtime::{CommandKind, ExitCode};

/// A failure that a command decides itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Stop {
    pub(crate) code: ExitCode,
    pub(crate) message: String,
}

impl Stop {
    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Failure, message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Refused, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: ExitCode::Usage, message: message.into() }
    }
}

/// Says what failed and returns the exit code. The daemon's last word is a log record.
pub(crate) fn report(error: &Error, command: CommandKind) -> ExitCode {
    let text = chain(error);
    let hint = if text.contains("hint: ") { "" } else { generic_hint(error) };
    match command {
        CommandKind::Operator => eprintln!("error: {text}{hint}"),
        CommandKind::Daemon => tracing::error!(error = format!("{text}{hint}"), "stopped"),
    }
    exit_code(error, command)
}

/// The messages of an error and its causes; hints come last, each once.
fn chain(error: &Error) -> String {
    let mut said = Vec::new();
    let mut hints = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (message, hint) = match text.split_once("; hint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        if said.last().is_none_or(|last: &String| !last.ends_with(&message)) {
            said.push(message);
        }
        hints.extend(hint);
    }
    let hints: Vec<String> = hints.iter().map(|hint| format!("; hint: {hint}")).collect();
    format!("{}{}", said.join(": "), hints.concat())
}

fn exit_code(error: &Error, command: CommandKind) -> ExitCode {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return stop.code;
    }
    if let Some(error) = error.downcast_ref::<cdc_pipeline::Error>() {
        return pipeline_code(error, command);
    }
    if let Some(error) = error.downcast_ref::<cdc_wal::Error>() {
        return source_code(error, command);
    }
    match kind(error) {
        Some(kind) => ExitCode::of(kind, command),
        None => ExitCode::Failure,
    }
}

fn pipeline_code(error: &cdc_pipeline::Error, command: CommandKind) -> ExitCode {
    use cdc_pipeline::Error;
    match error {
        // the configuration is right; what it asks for cannot be done as things stand
        Error::SlotTaken { .. } | Error::AlreadyInitialised { .. } | Error::Preflight { .. } => {
            ExitCode::Failure
        }
        Error::Source(source) => source_code(source, command),
        Error::Manifest(source) => store_code(source, command),
        Error::Objects { .. } if command == CommandKind::Operator => ExitCode::Usage,
        // a value that its column cannot take, under a configuration that says so
        Error::Sink(_) => ExitCode::Failure,
        other => ExitCode::of(other.kind(), command),
    }
}

fn store_code(error: &cdc_manifest::Error, command: CommandKind) -> ExitCode {
    use cdc_manifest::Error;
    match (error, error.kind()) {
        // a store that cannot be used is a matter of the configuration, what lies in it is not
        (
            Error::Directory { .. }
            | Error::Storage { .. }
            | Error::Credentials { .. }
            | Error::Refused { .. }
            | Error::PreconditionIgnored { .. },
            _,
        )
        | (Error::Object { .. }, ErrorKind::Denied) => ExitCode::Usage,
        (Error::Object { .. }, ErrorKind::Transient) if command == CommandKind::Operator => {
            ExitCode::Usage
        }
        // the daemon refuses to start on files that somebody must restore first; a service manager
        // does not try again
        (_, ErrorKind::Invalid | ErrorKind::Corrupt) if command == CommandKind::Daemon => {
            ExitCode::Usage
        }
        (_, ErrorKind::Invalid) => ExitCode::Failure,
        (_, kind) => ExitCode::of(kind, command),
    }
}

fn source_code(error: &cdc_wal::Error, command: CommandKind) -> ExitCode {
    match (error.kind(), command) {
        // a refused login is an unreachable source, not a refused reader
        (ErrorKind::Denied, _) => ExitCode::of(ErrorKind::Unreachable, command),
        // a schema that the configuration names
        (ErrorKind::NotFound, CommandKind::Operator) => ExitCode::Usage,
        // the configuration was right when the daemon started
        (ErrorKind::Invalid | ErrorKind::NotFound, CommandKind::Daemon) => ExitCode::Failure,
        (kind, _) => ExitCode::of(kind, command),
    }
}

fn kind(error: &Error) -> Option<ErrorKind> {
    if let Some(error) = error.downcast_ref::<cdc_runtime::Error>() {
        return Some(error.kind());
    }
    if let Some(error) = error.downcast_ref::<cdc_pipeline::Error>() {
        return Some(error.kind());
    }
    if let Some(error) = error.downcast_ref::<cdc_governance::Error>() {
        return Some(error.kind());
    }
    error.downcast_ref::<cdc_wal::Error>().map(cdc_wal::Error::kind)
}

fn generic_hint(error: &Error) -> &'static str {
    match kind(error) {
        Some(ErrorKind::Unreachable) => {
            "; hint: check that the server is up and that source.postgres.url names it"
        }
        Some(ErrorKind::Denied) => {
            "; hint: check user, password and pg_hba.conf for source.postgres.url"
        }
        Some(ErrorKind::Transient) => "; hint: try again",
        _ => "",
    }
}
