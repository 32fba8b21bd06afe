//! The errors of this crate.

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
}

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Pattern { .. } => ErrorKind::Invalid,
        }
    }
}
