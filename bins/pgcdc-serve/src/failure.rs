//! How a failed command ends: what it says on stderr, and with which exit code. The one place of
//! this binary that decides either.

use anyhow::Error;
use cdc_manifest::ContractDiff;
use cdc_runtime::{CommandKind, ExitCode};
use cdc_serve::Code;

/// A command that the contract has and this build has not.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not available in this build; hint: `pgcdc-serve query` is")]
struct Unavailable(&'static str);

/// A verdict that blocks; what it is about was printed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{to} is not safe to promote to {from}; hint: see the reasons above, and promote with --force if they are wanted"
)]
pub(crate) struct Blocked {
    from: String,
    to: String,
}

impl Blocked {
    pub(crate) fn by(diff: &ContractDiff) -> Self {
        Self { from: diff.from.clone(), to: diff.to.clone() }
    }
}

/// A command line or a configuration that does not allow what is asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

impl Refused {
    pub(crate) fn usage(text: String) -> Self {
        Self(text)
    }
}

/// The error of a command that this build has not.
pub(crate) fn unavailable(command: &'static str) -> Error {
    Unavailable(command).into()
}

/// Says what failed and returns the exit code.
pub(crate) fn report(error: &Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::Ok;
    }
    eprintln!("error: {}", chain(error));
    exit_code(error)
}

fn exit_code(error: &Error) -> ExitCode {
    if error.is::<Unavailable>() || error.is::<Refused>() {
        return ExitCode::Usage;
    }
    if error.is::<Blocked>() {
        return ExitCode::Difference;
    }
    if let Some(error) = error.downcast_ref::<cdc_governance::Error>() {
        return ExitCode::of(error.kind(), CommandKind::Operator);
    }
    if let Some(error) = error.downcast_ref::<cdc_iceberg::Error>() {
        return ExitCode::of(error.kind(), CommandKind::Operator);
    }
    if let Some(error) = error.downcast_ref::<cdc_serve::Error>() {
        return of_code(error.code());
    }
    if let Some(error) = error.downcast_ref::<cdc_query::Error>() {
        return ExitCode::of(error.kind(), CommandKind::Operator);
    }
    if let Some(error) = error.downcast_ref::<cdc_manifest::Error>() {
        return ExitCode::of(error.kind(), CommandKind::Operator);
    }
    match error.downcast_ref::<cdc_runtime::Error>() {
        Some(error) => ExitCode::of(error.kind(), CommandKind::Operator),
        None => ExitCode::Failure,
    }
}

fn of_code(code: Code) -> ExitCode {
    match code {
        Code::BadRequest => ExitCode::Usage,
        Code::Denied | Code::NotFound | Code::Expired => ExitCode::Refused,
        Code::Internal | Code::Unavailable | Code::Timeout => ExitCode::Failure,
    }
}

/// The reader of stdout has had enough, as in `pgcdc query … | head`.
fn is_closed_pipe(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// The messages of an error and its causes on one line; hints come last, each once.
fn chain(error: &Error) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut hints: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (message, hint) = match text.split_once("; hint: ") {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        if said.last().is_none_or(|last| !last.ends_with(&message)) {
            said.push(message);
        }
        hints.extend(hint.filter(|hint| !hints.contains(hint)));
    }
    let hints: String = hints.iter().map(|hint| format!("; hint: {hint}")).collect();
    format!("{}{hints}", said.join(": "))
}
