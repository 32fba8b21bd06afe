//! The errors of this crate.

use std::path::{Path, PathBuf};

use cdc_core::ErrorKind;

use crate::{ResourceId, TagWord};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A rule that cannot be applied, a change that is refused, or a registry that cannot be used.
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
    /// A record of the audit trail does not follow from the one before it.
    #[error("audit trail {} is broken{}", path.display(), at_line(*line))]
    BrokenChain {
        /// The file.
        path: PathBuf,
        /// The first wrong line, where it was looked for.
        line: Option<u64>,
    },
    /// A text names no resource.
    #[error(
        "`{text}` names no resource; hint: write db, db.schema, db.schema.table or db.schema.table.column, and %2E for a dot inside a part"
    )]
    Resource {
        /// The text.
        text: String,
    },
    /// A text is no key and no value of a tag.
    #[error(
        "`{text}` cannot be a key or value of a tag; hint: 1 to 50 letters, numbers, spaces and _.:/=+-@%"
    )]
    TagWord {
        /// The text.
        text: String,
    },
    /// A resource would have more tags than Lake Formation takes.
    #[error("a resource has at most {} tags", crate::tags::TAGS_MAX)]
    TooManyTags,
    /// A tag that the taxonomy does not have.
    #[error("the taxonomy has no {key}={value}{}", known_values(known.as_deref()))]
    UnknownTag {
        /// The key.
        key: TagWord,
        /// The value.
        value: TagWord,
        /// The values of the key, if the taxonomy has it.
        known: Option<String>,
    },
    /// The configuration no longer has a tag that a resource or a grant names.
    #[error(
        "the taxonomy lost {key}={value}, which {user} uses; hint: keep it in governance.taxonomy until nothing uses it"
    )]
    TagInUse {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Who uses it.
        user: String,
    },
    /// A text names no principal.
    #[error(
        "`{text}` names no principal; hint: user:<name>, role:<name>, group:<name>, token:<id>, stdio or the ARN of a role"
    )]
    Principal {
        /// The text.
        text: String,
    },
    /// A role that the caller may not take.
    #[error("role `{role}` is not available to you")]
    RoleDenied {
        /// The role.
        role: String,
    },
    /// A tag expression that means nothing.
    #[error("the tag expression cannot be used: {reason}")]
    Expression {
        /// Why.
        reason: &'static str,
    },
    /// A row filter that cannot be evaluated.
    #[error("the row filter cannot be used: {reason}")]
    RowFilter {
        /// Why.
        reason: String,
    },
    /// A text is no mask.
    #[error(
        "`{text}` is not a mask; hint: partial:<n>, date_trunc:<unit>, bucket:<width>, hash, constant:<value>, null"
    )]
    Mask {
        /// The text.
        text: String,
    },
    /// A grant that means nothing.
    #[error("the grant cannot be made: {reason}")]
    Grant {
        /// Why.
        reason: &'static str,
    },
    /// An emergency grant that is refused.
    #[error("the emergency grant is refused: {reason}")]
    BreakGlass {
        /// Why.
        reason: &'static str,
    },
    /// The reason is missing or too short.
    #[error("a reason needs at least {} characters", crate::registry::REASON_CHARS_MIN)]
    Reason,
    /// The registry has no such resource.
    #[error("`{resource}` is not registered; hint: acl register {resource}")]
    UnknownResource {
        /// The resource.
        resource: ResourceId,
    },
    /// The registry has no such grant in force.
    #[error("no grant `{id}` is in force; hint: acl grants and acl break-glass list show them")]
    UnknownGrant {
        /// Its id.
        id: String,
    },
    /// Somebody else changed the resource first.
    #[error(
        "`{resource}` is at version {found}, not {expected}; hint: look at it again, then repeat"
    )]
    VersionConflict {
        /// The resource.
        resource: ResourceId,
        /// The version that the change was meant for.
        expected: u64,
        /// The version it has.
        found: u64,
    },
    /// The registry cannot be read or written.
    #[error("registry {}", path.display())]
    Registry {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The registry's file cannot be used as it is.
    #[error("registry {}: {reason}", path.display())]
    RegistryFile {
        /// The file.
        path: PathBuf,
        /// Why, with a hint.
        reason: &'static str,
        /// What the operating system says.
        source: Option<std::io::Error>,
    },
    /// The registry was written by a newer version.
    #[error(
        "registry {} has version {found}, and this program knows {known}; hint: upgrade pgcdc", path.display()
    )]
    RegistryNewer {
        /// The file.
        path: PathBuf,
        /// Version of the file.
        found: u64,
        /// The latest version that this program knows.
        known: u64,
    },
    /// A row of the registry is not what was written.
    #[error("registry {}: {what} cannot be read", path.display())]
    RegistryRow {
        /// The file.
        path: PathBuf,
        /// The row.
        what: String,
    },
    /// A backend says less than was known before: a copy that lags, or a backup.
    #[error("the registry is at policy version {found}, and {known} was seen before")]
    StalePolicy {
        /// The version it is at.
        found: u64,
        /// The version that is known.
        known: u64,
    },
    /// Work on the registry did not end.
    #[error("work on the registry was cut short")]
    Interrupted {
        /// Why.
        source: tokio::task::JoinError,
    },
}

fn at_line(line: Option<u64>) -> String {
    line.map_or_else(|| " at its end".to_owned(), |line| format!(" at line {line}"))
}

fn known_values(known: Option<&str>) -> String {
    match known {
        Some(values) => format!("; hint: the values of this key are {values}"),
        None => "; hint: governance.taxonomy lists the keys".to_owned(),
    }
}

impl Error {
    pub(crate) fn audit(path: &Path, source: std::io::Error) -> Error {
        Error::Audit { path: path.to_owned(), source }
    }

    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Pattern { .. }
            | Error::Resource { .. }
            | Error::Principal { .. }
            | Error::Expression { .. }
            | Error::RowFilter { .. }
            | Error::Mask { .. }
            | Error::Grant { .. }
            | Error::TagInUse { .. }
            | Error::RegistryFile { source: None, .. }
            | Error::RegistryNewer { .. } => ErrorKind::Invalid,
            Error::TagWord { .. }
            | Error::TooManyTags
            | Error::UnknownTag { .. }
            | Error::RoleDenied { .. }
            | Error::BreakGlass { .. }
            | Error::Reason => ErrorKind::Denied,
            Error::UnknownResource { .. } | Error::UnknownGrant { .. } => ErrorKind::NotFound,
            Error::VersionConflict { .. } => ErrorKind::Conflict,
            Error::Registry { .. } | Error::RegistryFile { .. } => ErrorKind::Unreachable,
            Error::Audit { .. } | Error::StalePolicy { .. } => ErrorKind::Transient,
            Error::BrokenChain { .. } | Error::RegistryRow { .. } => ErrorKind::Corrupt,
            Error::Interrupted { .. } => ErrorKind::Internal,
        }
    }
}
