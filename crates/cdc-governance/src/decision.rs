//! What was decided about one table, in the words that the manifest keeps.

use std::fmt;

use cdc_core::TableName;

/// Why a table is not followed. `Display` gives the reason text of manifest and `discover`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exclusion {
    /// A pattern of `tables.exclude`.
    Explicit,
    /// The policy of this tag, or of `untagged`.
    Policy(String),
    /// A partition; its root is followed instead.
    PartitionOf(TableName),
    /// PostgreSQL does not replicate foreign tables.
    Foreign,
    /// PostgreSQL does not replicate unlogged tables.
    Unlogged,
    /// A user column has the name of a metadata column.
    ReservedColumn(String),
    /// REPLICA IDENTITY DEFAULT and no primary key: updates and deletes cannot be told apart.
    NoReplicaIdentity,
    /// REPLICA IDENTITY NOTHING.
    ReplicaIdentityNothing,
    /// Another included table has the same catalog name.
    NameCollision(TableName),
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exclusion::Explicit => f.write_str("explicit exclude"),
            Exclusion::Policy(tag) => write!(f, "policy:{tag}"),
            Exclusion::PartitionOf(root) => write!(f, "partition of {root}"),
            Exclusion::Foreign => f.write_str("foreign table"),
            Exclusion::Unlogged => f.write_str("unlogged"),
            Exclusion::ReservedColumn(column) => write!(f, "reserved column name: {column}"),
            Exclusion::NoReplicaIdentity => f.write_str("no replica identity"),
            Exclusion::ReplicaIdentityNothing => f.write_str("replica identity nothing"),
            Exclusion::NameCollision(table) => write!(f, "name collision: {table}"),
        }
    }
}

/// The decision about one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDecision {
    /// The table.
    pub table: TableName,
    /// Its tags by configuration, sorted.
    pub tags: Vec<String>,
    /// Why it is not followed, as manifest and `discover` say it; `None` if it is followed.
    pub excluded: Option<String>,
}

impl TableDecision {
    /// Whether the table is followed.
    pub fn included(&self) -> bool {
        self.excluded.is_none()
    }

    /// Whether the configuration leaves the table out, rather than what the table is.
    pub fn is_ruled_out(&self) -> bool {
        let is_rule = |reason: &str| {
            reason == Exclusion::Explicit.to_string() || reason.starts_with("policy:")
        };
        self.excluded.as_deref().is_some_and(is_rule)
    }
}
