//! The crate's error: which object of the lake, what was tried, and what its caller does next.

use std::path::PathBuf;

use cdc_core::{ErrorKind, TableName};

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
    /// The storage type is known but not available in this build.
    #[error("storage.type `{kind}` is not available in this build; hint: use `filesystem`")]
    StorageUnavailable {
        /// The value of `storage.type`.
        kind: &'static str,
    },
    /// An object could not be read, written, listed or removed.
    #[error("cannot {operation} {key}")]
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
            | Error::StorageUnavailable { .. }
            | Error::PreconditionIgnored { .. }
            | Error::Version { .. }
            | Error::NamesCollide { .. }
            | Error::NameTooLong { .. } => ErrorKind::Invalid,
            Error::Object { source, .. } => object_kind(source),
            Error::Malformed { .. }
            | Error::Torn { .. }
            | Error::DuplicateKey { .. }
            | Error::Inconsistent { .. } => ErrorKind::Corrupt,
            Error::Invariant { .. } => ErrorKind::Internal,
            Error::NotFound { .. } => ErrorKind::NotFound,
            Error::Contended { .. } => ErrorKind::Conflict,
        }
    }

    pub(crate) fn object(operation: &'static str, key: &str, source: object_store::Error) -> Self {
        Error::Object { operation, key: key.to_owned(), source }
    }
}

/// The class of an object store's error.
fn object_kind(error: &object_store::Error) -> ErrorKind {
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
