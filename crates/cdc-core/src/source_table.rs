//! A table as the source describes it, before the lake has a schema for it.

use crate::{PgType, TableName};

/// `pg_class.relkind` of what can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// An ordinary table that is not a partition.
    Table,
    /// The root of a partitioned table; it stands for all its leaves.
    PartitionRoot,
    /// A partition of another table, replicated through its root.
    Partition,
    /// A foreign table; PostgreSQL does not replicate it.
    Foreign,
    /// An unlogged table; PostgreSQL does not replicate it.
    Unlogged,
}

/// `pg_class.relreplident`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// The columns of this unique index.
    Index {
        /// Index name.
        name: String,
        /// Its columns in index order.
        columns: Vec<String>,
    },
    /// The whole row.
    Full,
    /// Nothing: updates and deletes cannot be replicated.
    Nothing,
}

/// Whether and how a column is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    /// An ordinary column.
    No,
    /// `GENERATED ALWAYS AS (…) STORED`.
    Stored,
    /// `GENERATED ALWAYS AS (…) VIRTUAL` (PostgreSQL 18).
    Virtual,
}

/// One column of a source table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceColumn {
    /// `pg_attribute.attname`.
    pub name: String,
    /// `pg_attribute.attnum`; survives a rename.
    pub attnum: i16,
    /// Resolved type.
    pub pg_type: PgType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// Whether it is computed.
    pub generated: Generated,
}

/// One table of the source. Columns in `attnum` order, dropped ones left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTable {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Name.
    pub name: TableName,
    /// What it is.
    pub kind: TableKind,
    /// The partition root, for a partition.
    pub partition_root: Option<TableName>,
    /// Columns.
    pub columns: Vec<SourceColumn>,
    /// Primary key columns in key order; empty without one.
    pub primary_key: Vec<String>,
    /// Replica identity. For a partition root: what all its leaves share, `Nothing` if one has none.
    pub replica_identity: ReplicaIdentity,
    /// `pg_class.reltuples` summed over leaves; −1 if never analysed.
    pub estimated_rows: i64,
    /// Bytes of the main fork, summed over leaves.
    pub heap_bytes: u64,
}
