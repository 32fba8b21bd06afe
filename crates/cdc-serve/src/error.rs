//! The errors of the read plane: the closed set of codes that every surface shows, and what the
//! caller does next. HTTP status, MCP error and exit code are chosen from the code elsewhere.

use cdc_core::ErrorKind;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The codes that a caller can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed, an unknown visible column, SQL that is refused.
    BadRequest,
    /// A role that the principal may not take.
    Denied,
    /// Absent or not visible.
    NotFound,
    /// Older than what is kept.
    Expired,
    /// Ours.
    Internal,
    /// No manifest, storage down.
    Unavailable,
    /// Query time or wait ran out.
    Timeout,
}

impl Code {
    /// The code's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "BAD_REQUEST",
            Code::Denied => "DENIED",
            Code::NotFound => "NOT_FOUND",
            Code::Expired => "EXPIRED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::Timeout => "TIMEOUT",
        }
    }
}

/// An error of an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The role is not among those that the principal may take.
    #[error(
        "role `{0}` is not available to you; hint: governance.local_roles lists roles of local callers"
    )]
    RoleDenied(String),
    /// A request that contradicts itself.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration has governance, which this build does not enforce.
    #[error(
        "governance is configured, and this build cannot enforce it; hint: nothing is served rather than too much"
    )]
    GovernanceUnavailable,
    /// Of reading the lake.
    #[error(transparent)]
    Query(#[from] cdc_query::Error),
    /// The answer could not be written.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// What the caller sees.
    pub fn code(&self) -> Code {
        use cdc_query::Error as Q;
        match self {
            Error::RoleDenied(_) => Code::Denied,
            Error::BadRequest(_) => Code::BadRequest,
            Error::GovernanceUnavailable => Code::Unavailable,
            Error::Output(_) => Code::Internal,
            Error::Query(Q::NoLake | Q::OutOfMemory) => Code::Unavailable,
            Error::Query(Q::QueryTimeout { .. } | Q::WaitTimeout { .. }) => Code::Timeout,
            Error::Query(error) => match error.kind() {
                ErrorKind::NotFound => Code::NotFound,
                ErrorKind::Denied => Code::Denied,
                ErrorKind::Gap => Code::Expired,
                ErrorKind::Transient | ErrorKind::Unreachable | ErrorKind::Conflict => {
                    Code::Unavailable
                }
                ErrorKind::Invalid if !is_storage(error) => Code::BadRequest,
                _ => Code::Internal,
            },
        }
    }

    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::RoleDenied(_) => ErrorKind::Denied,
            Error::BadRequest(_) | Error::GovernanceUnavailable => ErrorKind::Invalid,
            Error::Query(error) => error.kind(),
            Error::Output(_) => ErrorKind::Transient,
        }
    }
}

/// Whether the error is about the lake's files and so never the caller's mistake.
fn is_storage(error: &cdc_query::Error) -> bool {
    matches!(error, cdc_query::Error::Manifest(_) | cdc_query::Error::Iceberg(_))
}
