//! A lake table's columns as an Iceberg schema, with our field ids.
//!
//! Every column is optional: a delta file holds delete and truncate rows. Identifier fields are not
//! declared, because Iceberg allows only required columns there; the property `pgcdc.identity` has
//! the key instead.

use std::sync::Arc;

use cdc_core::{Column, FieldId, StoredType, TableSchema, meta};
use iceberg::spec::{
    ListType, NestedField, NestedFieldRef, PrimitiveType, Schema, SchemaBuilder, Type,
};

use crate::{Error, Result};

/// The schema of the current-state table: the user columns.
pub fn current_schema(table: &TableSchema) -> Result<Schema> {
    let fields = table.columns.iter().map(user_field).collect();
    build(table, fields)
}

/// The schema of the changelog: the user columns, then the metadata columns.
pub fn changes_schema(table: &TableSchema) -> Result<Schema> {
    let user = table.columns.iter().map(user_field);
    let fields = user.chain(meta::DELTA_COLUMNS.iter().map(meta_field)).collect();
    build(table, fields)
}

/// The Iceberg type of a stored type. `element_id` is the id of the list element.
pub fn iceberg_type(stored: &StoredType, element_id: Option<FieldId>) -> Type {
    let primitive = match stored {
        StoredType::Boolean => PrimitiveType::Boolean,
        StoredType::Int32 => PrimitiveType::Int,
        StoredType::Int64 => PrimitiveType::Long,
        StoredType::Float32 => PrimitiveType::Float,
        StoredType::Float64 => PrimitiveType::Double,
        StoredType::Decimal { precision, scale } => {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(*scale) }
        }
        StoredType::String => PrimitiveType::String,
        StoredType::Binary => PrimitiveType::Binary,
        StoredType::Date => PrimitiveType::Date,
        StoredType::Time => PrimitiveType::Time,
        StoredType::Timestamp => PrimitiveType::Timestamp,
        StoredType::TimestampTz => PrimitiveType::Timestamptz,
        StoredType::Uuid => PrimitiveType::Uuid,
        StoredType::List(element) => {
            // lists do not nest, so an element never needs an id below it
            let id = element_id.map_or(0, |id| id.0);
            let element = NestedField::list_element(id, iceberg_type(element, None), false);
            return Type::List(ListType::new(Arc::new(element)));
        }
    };
    Type::Primitive(primitive)
}

/// The stored type of a metadata column.
pub(crate) fn meta_type(column: &meta::MetaColumn) -> (StoredType, Option<FieldId>) {
    match *column {
        meta::OP => (StoredType::String, None),
        meta::COMMIT_TS | meta::DELETED_AT => (StoredType::TimestampTz, None),
        meta::TOAST_UNCHANGED => {
            (StoredType::List(Box::new(StoredType::String)), Some(meta::TOAST_UNCHANGED_ELEMENT))
        }
        _ => (StoredType::Int64, None),
    }
}

fn user_field(column: &Column) -> NestedFieldRef {
    let data_type = iceberg_type(&column.stored, column.element_id);
    Arc::new(NestedField::optional(column.field_id.0, &column.name, data_type))
}

fn meta_field(column: &meta::MetaColumn) -> NestedFieldRef {
    let (stored, element_id) = meta_type(column);
    let data_type = iceberg_type(&stored, element_id);
    Arc::new(NestedField::optional(column.field_id.0, column.name, data_type))
}

fn build(table: &TableSchema, fields: Vec<NestedFieldRef>) -> Result<Schema> {
    let builder: SchemaBuilder = Schema::builder().with_fields(fields);
    builder.build().map_err(Error::build(&table.table, "schema"))
}
