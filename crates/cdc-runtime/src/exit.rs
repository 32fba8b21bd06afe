//! The exit codes of all binaries, and the one place where an error becomes one of them.

use cdc_core::ErrorKind;

/// How a process ends. The numbers are part of the command line's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, clean.
    Ok = 0,
    /// Failed while working.
    Failure = 1,
    /// Wrong usage or configuration, or a backend that an operator command cannot reach.
    Usage = 2,
    /// A difference: drift found or healed, source and lake differ, a verdict that blocks.
    Difference = 3,
    /// Denied, not found, or refused by policy.
    Refused = 4,
    /// Drift remains after a sync.
    DriftRemains = 5,
}

/// What kind of command failed; an unreachable source is the operator's mistake at a prompt, and a
/// failure of the daemon after its retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// A command that a person or a script runs and waits for.
    Operator,
    /// A process that stays up and retries by itself.
    Daemon,
}

impl ExitCode {
    /// The exit code of an error.
    pub fn of(kind: ErrorKind, command: CommandKind) -> ExitCode {
        match kind {
            ErrorKind::Invalid => ExitCode::Usage,
            // the service manager does not start it again until somebody has acted
            ErrorKind::NotFound if command == CommandKind::Daemon => ExitCode::Usage,
            ErrorKind::Denied if command == CommandKind::Daemon => ExitCode::Failure,
            ErrorKind::Denied | ErrorKind::NotFound => ExitCode::Refused,
            ErrorKind::Unreachable if command == CommandKind::Operator => ExitCode::Usage,
            _ => ExitCode::Failure,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_kind_has_its_exit_code() {
        let cases = [
            (ErrorKind::Transient, 1, 1),
            (ErrorKind::Conflict, 1, 1),
            (ErrorKind::Invalid, 2, 2),
            (ErrorKind::Denied, 4, 1),
            (ErrorKind::NotFound, 4, 2),
            (ErrorKind::Corrupt, 1, 1),
            (ErrorKind::Gap, 1, 1),
            (ErrorKind::Unreachable, 2, 1),
            (ErrorKind::Internal, 1, 1),
        ];
        for (kind, operator, daemon) in cases {
            assert_eq!(ExitCode::of(kind, CommandKind::Operator) as u8, operator, "{kind:?}");
            assert_eq!(ExitCode::of(kind, CommandKind::Daemon) as u8, daemon, "{kind:?}");
        }
    }
}
