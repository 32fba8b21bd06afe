//! A table as a decision needs it: names, identities and the kinds of its columns.

use cdc_core::{FieldId, StoredType, TableName, TableSchema};

use crate::ResourceId;

/// What the values of a column are like, for row filters and masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the kinds")]
pub enum ColumnKind {
    Boolean,
    Integer,
    Decimal,
    Float,
    Text,
    Uuid,
    Date,
    Time,
    Timestamp,
    Binary,
    List,
}

impl ColumnKind {
    /// The kind of a stored type.
    pub fn of(stored: &StoredType) -> ColumnKind {
        match stored {
            StoredType::Boolean => ColumnKind::Boolean,
            StoredType::Int32 | StoredType::Int64 => ColumnKind::Integer,
            StoredType::Decimal { .. } => ColumnKind::Decimal,
            StoredType::Float32 | StoredType::Float64 => ColumnKind::Float,
            StoredType::String => ColumnKind::Text,
            StoredType::Uuid => ColumnKind::Uuid,
            StoredType::Date => ColumnKind::Date,
            StoredType::Time => ColumnKind::Time,
            StoredType::Timestamp | StoredType::TimestampTz => ColumnKind::Timestamp,
            StoredType::Binary => ColumnKind::Binary,
            StoredType::List(_) => ColumnKind::List,
        }
    }
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnShape {
    /// Name.
    pub name: String,
    /// Iceberg field id; with the name it is the column's identity.
    pub field_id: FieldId,
    /// What its values are like.
    pub kind: ColumnKind,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// Database of the source.
    pub database: String,
    /// Name.
    pub table: TableName,
    /// OID of the source relation; with the name it is the table's identity.
    pub relation: u32,
    /// Version of the schema.
    pub schema_version: u32,
    /// Columns in table order.
    pub columns: Vec<ColumnShape>,
    /// Names of the columns that tell a row from the others.
    pub merge_key: Vec<String>,
}

impl TableShape {
    /// The shape of a table of the lake.
    pub fn of(database: &str, relation: u32, schema: &TableSchema) -> TableShape {
        let columns = schema.columns.iter().map(|column| ColumnShape {
            name: column.name.clone(),
            field_id: column.field_id,
            kind: ColumnKind::of(&column.stored),
        });
        TableShape {
            database: database.to_owned(),
            table: schema.table.clone(),
            relation,
            schema_version: schema.version,
            columns: columns.collect(),
            merge_key: schema.identity.columns().to_vec(),
        }
    }

    /// The table's resource.
    pub fn resource(&self) -> ResourceId {
        ResourceId::table(&self.database, &self.table)
    }

    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.name == name)
    }
}
