//! A table as the lake keeps it: columns with field ids and stored types, and its row identity.

use crate::{
    FieldId, Generated, PgType, ReplicaIdentity, SourceColumn, SourceTable, StoredAs, StoredType,
    TableName, TypePolicy,
};

/// How a row of a table is told from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The primary key; columns in key order.
    PrimaryKey(Vec<String>),
    /// The index named by REPLICA IDENTITY USING INDEX.
    Index {
        /// Index name.
        name: String,
        /// Columns in index order.
        columns: Vec<String>,
    },
    /// The whole row (REPLICA IDENTITY FULL without a primary key). Duplicates are allowed; a
    /// delete removes one occurrence.
    Full,
}

impl Identity {
    /// The identity that the source's settings allow, or `None` if updates and deletes cannot be
    /// told apart (no primary key under DEFAULT, or NOTHING).
    ///
    /// With USING INDEX the old tuple holds the index columns only, so the index is the identity
    /// even where a primary key exists.
    pub fn of(table: &SourceTable) -> Option<Identity> {
        let has_key = !table.primary_key.is_empty();
        match &table.replica_identity {
            ReplicaIdentity::Nothing => None,
            ReplicaIdentity::Index { name, columns } => {
                Some(Identity::Index { name: name.clone(), columns: columns.clone() })
            }
            ReplicaIdentity::Default | ReplicaIdentity::Full if has_key => {
                Some(Identity::PrimaryKey(table.primary_key.clone()))
            }
            ReplicaIdentity::Full => Some(Identity::Full),
            ReplicaIdentity::Default => None,
        }
    }

    /// The identity's columns; empty for [`Identity::Full`].
    pub fn columns(&self) -> &[String] {
        match self {
            Identity::PrimaryKey(columns) | Identity::Index { columns, .. } => columns,
            Identity::Full => &[],
        }
    }

    /// The text kept in the manifest and in table properties: `primary_key`, `index:<name>`, `full`.
    pub fn label(&self) -> String {
        match self {
            Identity::PrimaryKey(_) => "primary_key".into(),
            Identity::Index { name, .. } => format!("index:{name}"),
            Identity::Full => "full".into(),
        }
    }
}

/// One column of a lake table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name, as on the source.
    pub name: String,
    /// Iceberg field id, kept through rename and widening.
    pub field_id: FieldId,
    /// Field id of the list element, for list columns.
    pub element_id: Option<FieldId>,
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// PostgreSQL type.
    pub pg_type: PgType,
    /// Type in files.
    pub stored: StoredType,
    /// Whether the source allows NULL. In files every column is optional.
    pub nullable: bool,
    /// Whether a declared choice can change values.
    pub lossy: bool,
}

/// A source column that is not replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OmittedColumn {
    /// Column name.
    pub name: String,
    /// Why, in words.
    pub reason: String,
}

/// A table as the lake keeps it. Columns in table order; one field-id allocator for the
/// current-state table and its changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Name.
    pub table: TableName,
    /// Version, from 1, raised by each evolution.
    pub version: u32,
    /// Columns.
    pub columns: Vec<Column>,
    /// Row identity.
    pub identity: Identity,
    /// The next field id to hand out.
    pub next_field_id: FieldId,
    /// Columns left out, with reasons.
    pub omitted: Vec<OmittedColumn>,
}

impl TableSchema {
    /// The first schema of a table. `declared` gives the configured form of a column by name;
    /// `publishes_generated` says whether the publication sends stored generated columns.
    pub fn first(
        source: &SourceTable,
        identity: Identity,
        policy: &TypePolicy,
        declared: impl Fn(&str) -> Option<StoredAs>,
        publishes_generated: bool,
    ) -> TableSchema {
        let mut schema = TableSchema {
            table: source.name.clone(),
            version: 1,
            columns: Vec::with_capacity(source.columns.len()),
            identity,
            next_field_id: FieldId::FIRST_USER,
            omitted: Vec::new(),
        };
        for column in &source.columns {
            match omission(column, publishes_generated) {
                Some(reason) => {
                    schema.omitted.push(OmittedColumn { name: column.name.clone(), reason });
                }
                None => schema.push(column, policy, declared(&column.name)),
            }
        }
        schema
    }

    fn push(&mut self, column: &SourceColumn, policy: &TypePolicy, declared: Option<StoredAs>) {
        let mapped = policy.map(&column.pg_type, declared);
        let field_id = self.allocate();
        let element_id = matches!(mapped.stored, StoredType::List(_)).then(|| self.allocate());
        self.columns.push(Column {
            name: column.name.clone(),
            field_id,
            element_id,
            attnum: column.attnum,
            pg_type: column.pg_type.clone(),
            stored: mapped.stored,
            nullable: column.nullable,
            lossy: mapped.lossy,
        });
    }

    pub(crate) fn allocate(&mut self) -> FieldId {
        let id = self.next_field_id;
        self.next_field_id = FieldId(id.0 + 1);
        id
    }

    /// Positions of the identity columns in `columns`; empty for [`Identity::Full`].
    ///
    /// Every identity column is in the schema: a generated column cannot be part of a key that the
    /// stream leaves out without init refusing the table.
    pub fn identity_positions(&self) -> Vec<usize> {
        let position = |name: &String| self.columns.iter().position(|column| column.name == *name);
        self.identity.columns().iter().filter_map(position).collect()
    }
}

/// Why a column is left out, if it is.
pub(crate) fn omission(column: &SourceColumn, publishes_generated: bool) -> Option<String> {
    match column.generated {
        Generated::No => None,
        Generated::Stored if publishes_generated => None,
        Generated::Stored => Some(
            "stored generated column: the server does not publish it before PostgreSQL 18".into(),
        ),
        Generated::Virtual => Some("virtual generated column: never published".into()),
    }
}
