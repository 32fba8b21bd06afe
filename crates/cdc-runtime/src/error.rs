//! The errors of this crate: a configuration that is not valid, a sibling that cannot run.

use std::path::PathBuf;

use cdc_core::ErrorKind;

use crate::config::Problem;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong before a command does its work. All of it is for the operator to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither default file is in the working directory.
    #[error(
        "no configuration file: neither pgcdc.yml nor pg-cdc.yml is in the working directory; hint: name one with --config, or run `pgcdc quickstart`"
    )]
    NoConfigFile,
    /// The file cannot be read.
    #[error("cannot read configuration file {}; hint: check the path and its permissions", path.display())]
    ConfigRead {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file was read and is wrong; all problems at once.
    #[error("configuration file {} is not valid:{}", path.display(), list(problems))]
    ConfigInvalid {
        /// The file.
        path: PathBuf,
        /// All problems, in file order where they come from the file.
        problems: Vec<Problem>,
    },
    /// A key that this command needs is absent, or a variable in it is unset by now.
    #[error("{0}")]
    ConfigKey(Problem),
    /// The path of the running executable is unknown.
    #[error("cannot find the running executable")]
    CurrentExe {
        /// Cause.
        source: std::io::Error,
    },
    /// A sibling binary is not beside this one.
    #[error(
        "this command needs {}, which does not exist; hint: install all pgcdc binaries in one directory",
        path.display()
    )]
    SiblingMissing {
        /// The file looked for.
        path: PathBuf,
    },
    /// A sibling binary exists and does not start.
    #[error("cannot run {}", path.display())]
    SiblingStart {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A signal handler was refused.
    #[error("cannot install a signal handler")]
    Signal {
        /// Cause.
        source: std::io::Error,
    },
    /// The log level or format on the command line is unknown.
    #[error("{flag}: `{value}` is not one of {choices}")]
    LogFlag {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        choices: &'static str,
    },
}

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::CurrentExe { .. } | Error::Signal { .. } => ErrorKind::Internal,
            _ => ErrorKind::Invalid,
        }
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
