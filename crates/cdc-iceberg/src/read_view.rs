//! What a reader needs of a table in words that are not Iceberg's: columns with stored types, and
//! the bounds of a data file's columns.

use cdc_core::{FieldId, StoredType};
use iceberg::spec::{DataFile, Datum, PrimitiveLiteral, TableMetadata, Type};

use crate::{Error, Result};

/// A column of a snapshot's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadColumn {
    /// Name at that snapshot.
    pub name: String,
    /// Field id.
    pub field_id: FieldId,
    /// Stored type.
    pub stored: StoredType,
}

/// The least and the greatest value that a data file may have in a column, and how often it is
/// NULL. Strings may be cut, the upper one then being raised; NaN is within no bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnBounds {
    /// Lower bound, inclusive.
    pub lower: Option<BoundValue>,
    /// Upper bound, inclusive.
    pub upper: Option<BoundValue>,
    /// NULLs.
    pub nulls: Option<u64>,
}

/// A value in the form that its stored type has in memory.
#[derive(Clone, Debug, PartialEq)]
pub enum BoundValue {
    /// `boolean`.
    Boolean(bool),
    /// `int`, `date`.
    Int32(i32),
    /// `long`, `time`, `timestamp`, `timestamptz`.
    Int64(i64),
    /// `decimal`, unscaled.
    Decimal(i128),
    /// `string`.
    Text(String),
}

/// The columns of the schema that a snapshot was written with; without a snapshot, of the current
/// schema.
///
/// # Errors
/// [`Error::NoSnapshot`]; [`Error::Build`] for a column of a type that pgcdc never writes.
pub fn read_columns(metadata: &TableMetadata, snapshot_id: Option<i64>) -> Result<Vec<ReadColumn>> {
    let table = || metadata.location().to_owned();
    let schema = match snapshot_id {
        None => metadata.current_schema().clone(),
        Some(id) => metadata
            .snapshot_by_id(id)
            .ok_or_else(|| Error::NoSnapshot { table: table(), snapshot_id: id })?
            .schema(metadata)
            .map_err(Error::build(table(), "schema"))?,
    };
    let column = |field: &iceberg::spec::NestedFieldRef| {
        let stored = stored_type(&field.field_type).ok_or_else(|| Error::Build {
            table: table(),
            what: "schema",
            source: format!("column {} has type {}", field.name, field.field_type).into(),
        })?;
        Ok(ReadColumn { name: field.name.clone(), field_id: FieldId(field.id), stored })
    };
    schema.as_struct().fields().iter().map(column).collect()
}

/// The bounds of a column of a data file. Floats have none: NaN is outside of them.
pub fn column_bounds(file: &DataFile, field_id: FieldId) -> ColumnBounds {
    ColumnBounds {
        lower: file.lower_bounds().get(&field_id.0).and_then(bound_value),
        upper: file.upper_bounds().get(&field_id.0).and_then(bound_value),
        nulls: file.null_value_counts().get(&field_id.0).copied(),
    }
}

/// The inverse of [`iceberg_type`](crate::iceberg_type).
fn stored_type(data_type: &Type) -> Option<StoredType> {
    match data_type {
        Type::Primitive(primitive) => StoredType::from_iceberg_name(&primitive.to_string()),
        Type::List(list) => {
            let element = stored_type(&list.element_field.field_type)?;
            Some(StoredType::List(Box::new(element)))
        }
        Type::Struct(_) | Type::Map(_) => None,
    }
}

fn bound_value(datum: &Datum) -> Option<BoundValue> {
    Some(match datum.literal() {
        PrimitiveLiteral::Boolean(value) => BoundValue::Boolean(*value),
        PrimitiveLiteral::Int(value) => BoundValue::Int32(*value),
        PrimitiveLiteral::Long(value) => BoundValue::Int64(*value),
        PrimitiveLiteral::Int128(value) => BoundValue::Decimal(*value),
        PrimitiveLiteral::String(value) => BoundValue::Text(value.clone()),
        _ => return None,
    })
}
