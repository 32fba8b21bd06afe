//! The Arrow schemas of delta and base files. Field ids travel as `PARQUET:field_id`, so a Parquet
//! file written from one of them is read by id.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use cdc_core::{Column, FieldId, StoredType, TableSchema, meta};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

use crate::schema::meta_type;

/// Key and name of the Arrow extension type for UUIDs
/// (<https://arrow.apache.org/docs/format/CanonicalExtensions.html#uuid>).
const EXTENSION_NAME_KEY: &str = "ARROW:extension:name";
const UUID_EXTENSION: &str = "arrow.uuid";

/// The schema of a delta file: user columns, then the metadata columns; all nullable.
pub fn delta_arrow_schema(table: &TableSchema) -> SchemaRef {
    let user = table.columns.iter().map(user_field);
    let fields = user.chain(meta::DELTA_COLUMNS.iter().map(meta_field));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The schema of a base file: the user columns; all nullable.
pub fn base_arrow_schema(table: &TableSchema) -> SchemaRef {
    Arc::new(Schema::new(table.columns.iter().map(user_field).collect::<Vec<_>>()))
}

/// The Arrow type of a stored type. A list's element is named `element` and carries `element_id`.
pub fn arrow_type(stored: &StoredType, element_id: Option<FieldId>) -> DataType {
    match stored {
        StoredType::Boolean => DataType::Boolean,
        StoredType::Int32 => DataType::Int32,
        StoredType::Int64 => DataType::Int64,
        StoredType::Float32 => DataType::Float32,
        StoredType::Float64 => DataType::Float64,
        StoredType::Decimal { precision, scale } => {
            DataType::Decimal128(*precision, scale.cast_signed())
        }
        StoredType::String => DataType::Utf8,
        StoredType::Binary => DataType::Binary,
        StoredType::Date => DataType::Date32,
        StoredType::Time => DataType::Time64(TimeUnit::Microsecond),
        StoredType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        StoredType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        StoredType::Uuid => DataType::FixedSizeBinary(16),
        StoredType::List(element) => {
            DataType::List(Arc::new(field("element", element, element_id, None)))
        }
    }
}

fn user_field(column: &Column) -> Field {
    field(&column.name, &column.stored, Some(column.field_id), column.element_id)
}

fn meta_field(column: &meta::MetaColumn) -> Field {
    let (stored, element_id) = meta_type(column);
    field(column.name, &stored, Some(column.field_id), element_id)
}

/// A nullable field. UUIDs carry the Arrow extension type that makes the Parquet writer set the
/// logical type UUID.
fn field(
    name: &str,
    stored: &StoredType,
    id: Option<FieldId>,
    element_id: Option<FieldId>,
) -> Field {
    let mut metadata = HashMap::new();
    if let Some(FieldId(id)) = id {
        metadata.insert(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string());
    }
    if *stored == StoredType::Uuid {
        metadata.insert(EXTENSION_NAME_KEY.to_owned(), UUID_EXTENSION.to_owned());
    }
    Field::new(name, arrow_type(stored, element_id), true).with_metadata(metadata)
}
