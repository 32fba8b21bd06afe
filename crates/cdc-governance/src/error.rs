//! The errors of this crate.

use std::path::{Path, PathBuf};

use cdc_core::ErrorKind;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A rule that cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A table pattern is malformed; applied, it would match nothing.
    #[error(
        "`{pattern}` is not a table pattern; hint: `*` stands for any text, `?` for one character"
    )]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// The audit trail cannot be read or written.
    #[error("audit trail {}; hint: check that the directory of `audit.path` exists and is writable", path.display())]
    Audit {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of the audit trail does not follow from the one before it.
    #[error("audit trail {} is broken{}", path.display(), at_line(*line))]
    BrokenChain {
        /// The file.
        path: PathBuf,
        /// The first wrong line, where it was looked for.
        line: Option<u64>,
    },
}

fn at_line(line: Option<u64>) -> String {
    line.map_or_else(|| " at its end".to_owned(), |line| format!(" at line {line}"))
}

impl Error {
    pub(crate) fn audit(path: &Path, source: std::io::Error) -> Error {
        Error::Audit { path: path.to_owned(), source }
    }

    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Pattern { .. } => ErrorKind::Invalid,
            Error::Audit { .. } => ErrorKind::Transient,
            Error::BrokenChain { .. } => ErrorKind::Corrupt,
        }
    }
}
