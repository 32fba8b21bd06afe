//! The crate's error: which object of the lake, what was tried, and what its caller does next.

use std::path::PathBuf;

use cdc_core::{ErrorKind, TableName};

use crate::store::Refusal;

/// An error of the lake's durable files. Names the object; the cause is its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lake's directory cannot be created or written.
    #[error("cannot {operation} the lake directory {path}; hint: check storage.path and its owner", path = path.display())]
    Directory {
        /// What was tried: `create`, `open`, `write to`.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The settings of the store contradict each other or lack something.
    #[error(
        "storage.type `{kind}` cannot be used as configured; hint: check the storage section and the credentials in the environment"
    )]
    Storage {
        /// The value of `storage.type`.
        kind: &'static str,
        /// Why not.
        source: object_store::Error,
    },
    /// The credentials file cannot be used.
    #[error("cannot use the credentials file {path}; hint: check storage.credentials_file", path = path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store refuses a setting, and will until somebody acts.
    #[error("cannot {operation} {key}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The object's key.
        key: String,
        /// What is wrong, with a hint.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object of this name holds something else.
    #[error("{key} is in the lake already, with other content")]
    NameTaken {
        /// The object's key.
        key: String,
    },
    /// The content of an object to be written could not be read.
    #[error("cannot read the content of {key}")]
    Content {
        /// The object's key.
        key: String,
        /// Why not.
        source: std::io::Error,
    },
    /// An object could not be read, written, listed or removed.
    #[error("cannot {operation} {key}{}", object_hint(source))]
    Object {
        /// What was tried: `read`, `write`, `list`, `remove`.
        operation: &'static str,
        /// The object's key.
        key: String,
        /// Why not.
        source: object_store::Error,
    },
    /// The store accepts a conditional write whose condition does not hold.
    #[error(
        "{location} ignores the precondition `{precondition}` of a conditional write; hint: two writers could overwrite each other here, use a store with conditional writes"
    )]
    PreconditionIgnored {
        /// Root of the lake.
        location: String,
        /// The precondition in words.
        precondition: &'static str,
    },
    /// The file is not the JSON it must be.
    #[error("{key} is not well-formed; hint: {hint}")]
    Malformed {
        /// The object's key.
        key: String,
        /// What the operator can do.
        hint: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The file is empty or holds NUL bytes: a write was torn by something other than pgcdc.
    #[error(
        "{key} is {state}; hint: restore it from a backup or a version of the store, nothing was changed"
    )]
    Torn {
        /// The object's key.
        key: String,
        /// `empty`, or `filled with NUL bytes`.
        state: &'static str,
    },
    /// An object in the file has one key twice.
    #[error("{key} has the key `{path}` twice; hint: restore it, pgcdc never writes this")]
    DuplicateKey {
        /// The object's key.
        key: String,
        /// Path of the repeated key, joined by dots.
        path: String,
    },
    /// The file has another version than this build reads.
    #[error("{key} has version {found}, this build reads version {supported}; hint: {hint}")]
    Version {
        /// The object's key.
        key: String,
        /// The version found; 0 when missing.
        found: i64,
        /// The version read.
        supported: u32,
        /// What the operator can do.
        hint: &'static str,
    },
    /// The file contradicts itself.
    #[error("{key} contradicts itself at {at}: {detail}")]
    Inconsistent {
        /// The object's key.
        key: String,
        /// Table or field.
        at: String,
        /// What is wrong.
        detail: String,
    },
    /// A manifest that must never be written was about to be.
    #[error("refused to write {key}: {rule}")]
    Invariant {
        /// The object's key.
        key: &'static str,
        /// The rule it breaks, with values.
        rule: String,
    },
    /// Two tables share a directory on a case-insensitive file system.
    #[error(
        "tables {first} and {second} share the directory `{segment}` where case does not matter; hint: exclude one of them"
    )]
    NamesCollide {
        /// One table.
        first: TableName,
        /// The other.
        second: TableName,
        /// Their directory, lower case.
        segment: String,
    },
    /// The table's directory name is longer than file systems allow.
    #[error(
        "the directory name of table {table} has {length} bytes, file systems allow {max}; hint: exclude the table or rename it"
    )]
    NameTooLong {
        /// The table.
        table: TableName,
        /// Bytes of the escaped name.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// No lake, ref, tag or cut of this name.
    #[error("{what} does not exist; hint: {hint}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// What the caller can do.
        hint: &'static str,
    },
    /// Two writers changed the same field in ways that exclude each other.
    #[error(
        "two writers changed `{at}` of {key}; hint: make sure that only one daemon writes to this lake"
    )]
    Diverged {
        /// The object's key.
        key: &'static str,
        /// Path of the field, joined by dots.
        at: String,
    },
    /// Somebody else changed the object first, every time.
    #[error("{key} was changed by somebody else {attempts} times in a row")]
    Contended {
        /// The object's key.
        key: String,
        /// Attempts made.
        attempts: u32,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Directory { .. }
            | Error::Storage { .. }
            | Error::Credentials { .. }
            | Error::Refused { .. }
            | Error::PreconditionIgnored { .. }
            | Error::Version { .. }
            | Error::NamesCollide { .. }
            | Error::NameTooLong { .. } => ErrorKind::Invalid,
            Error::Object { operation: "complete", .. } => ErrorKind::Transient,
            Error::Object { source, .. } => object_kind(source),
            Error::NameTaken { .. } => ErrorKind::Conflict,
            Error::Content { .. } => ErrorKind::Transient,
            Error::Malformed { .. }
            | Error::Torn { .. }
            | Error::DuplicateKey { .. }
            | Error::Inconsistent { .. } => ErrorKind::Corrupt,
            Error::Invariant { .. } => ErrorKind::Internal,
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::Contended { .. } | Error::Diverged { .. } => ErrorKind::Conflict,
        }
    }

    pub(crate) fn object(operation: &'static str, key: &str, source: object_store::Error) -> Self {
        let key = key.to_owned();
        match source {
            object_store::Error::Generic { source, .. } if source.is::<Refusal>() => {
                Error::Refused { operation, key, source }
            }
            source => Error::Object { operation, key, source },
        }
    }
}

/// What a user can do about an object store's error, where it tells.
fn object_hint(error: &object_store::Error) -> &'static str {
    use object_store::Error as E;
    match error {
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            "; hint: check the credentials and what they may do below the root of the lake"
        }
        E::Generic { store: "S3" | "GCS" | "MicrosoftAzure", .. } => {
            "; hint: check that the store is up, storage.endpoint, and where credentials come from"
        }
        _ => "",
    }
}

/// The class of an object store's error: what is not known to last may pass.
pub fn object_kind(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => ErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => {
            ErrorKind::Conflict
        }
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Denied,
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
        _ => ErrorKind::Transient,
    }
}
