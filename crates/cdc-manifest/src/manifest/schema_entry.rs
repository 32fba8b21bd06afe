//! `schemas{}` of the manifest: what each column is, in enough detail that a restarted daemon
//! rebuilds the [`TableSchema`] without asking the source.

use cdc_core::{Column, FieldId, OmittedColumn, PgType, PgTypeKind, StoredType, TableSchema, oid};
use serde::{Deserialize, Serialize};

use crate::json::Extra;
use crate::wire;

/// The schema of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaEntry {
    /// From 1, raised by each evolution.
    pub version: u32,
    /// Allocator shared by the current state and the changelog.
    #[serde(with = "wire::field_id")]
    pub next_field_id: FieldId,
    /// Columns in table order.
    #[serde(deserialize_with = "wire::null_is_default")]
    pub columns: Vec<ColumnEntry>,
    /// Columns of the source that are not replicated.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "wire::null_is_default"
    )]
    pub omitted: Vec<OmittedEntry>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnEntry {
    /// Name.
    pub name: String,
    /// `information_schema.columns.data_type`.
    pub pg_type: String,
    /// The vocabulary of pg-cdc (Go): `INT64`, `UTF8`, `LIST`, …
    pub parquet_type: String,
    /// Of a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<u8>,
    /// Of a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<u8>,
    /// Whether the source allows NULL.
    pub nullable: bool,
    /// Iceberg field id.
    #[serde(with = "wire::field_id")]
    pub field_id: FieldId,
    /// Field id of a list's element.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::field_id_option")]
    pub element_id: Option<FieldId>,
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// `pg_type.oid`.
    pub type_oid: u32,
    /// `format_type(oid, typmod)`.
    pub pg_type_full: String,
    /// `pg_attribute.atttypmod`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typmod: Option<i32>,
    /// What the type is made of, unless it is a base type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_kind: Option<TypeKind>,
    /// The type below a domain or of an array's elements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_of: Option<Box<NestedType>>,
    /// The Iceberg type.
    pub iceberg_type: String,
    /// Whether a declared choice can change values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lossy: bool,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a type that is not a base type is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TypeKind {
    /// An enumeration.
    Enum,
    /// A row type.
    Composite,
    /// A range or multirange.
    Range,
    /// A domain over `type_of`.
    Domain,
    /// An array of `type_of`.
    Array,
}

/// The type below a domain or of an array's elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NestedType {
    /// `pg_type.oid`.
    pub type_oid: u32,
    /// `format_type(oid, typmod)`.
    pub pg_type_full: String,
    /// The modifier, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typmod: Option<i32>,
    /// What it is made of, unless it is a base type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_kind: Option<TypeKind>,
    /// The type below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_of: Option<Box<NestedType>>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A column that is not replicated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OmittedEntry {
    /// Column name.
    pub name: String,
    /// Why, in words.
    pub reason: String,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

impl SchemaEntry {
    /// The entry of a schema.
    pub fn of(schema: &TableSchema) -> SchemaEntry {
        SchemaEntry {
            version: schema.version,
            next_field_id: schema.next_field_id,
            columns: schema.columns.iter().map(ColumnEntry::of).collect(),
            omitted: schema.omitted.iter().map(OmittedEntry::of).collect(),
            extra: Extra::new(),
        }
    }
}

impl OmittedEntry {
    fn of(column: &OmittedColumn) -> OmittedEntry {
        let OmittedColumn { name, reason } = column.clone();
        OmittedEntry { name, reason, extra: Extra::new() }
    }
}

impl ColumnEntry {
    /// The entry of a column.
    pub fn of(column: &Column) -> ColumnEntry {
        let nested = NestedType::of(&column.pg_type);
        let (precision, scale) = match column.stored {
            StoredType::Decimal { precision, scale } => (Some(precision), Some(scale)),
            _ => (None, None),
        };
        ColumnEntry {
            name: column.name.clone(),
            pg_type: data_type(&column.pg_type),
            parquet_type: parquet_type(&column.stored, &column.pg_type).to_owned(),
            precision,
            scale,
            nullable: column.nullable,
            field_id: column.field_id,
            element_id: column.element_id,
            attnum: column.attnum,
            type_oid: nested.type_oid,
            pg_type_full: nested.pg_type_full,
            typmod: nested.typmod,
            type_kind: nested.type_kind,
            type_of: nested.type_of,
            iceberg_type: column.stored.iceberg_name(),
            lossy: column.lossy,
            extra: Extra::new(),
        }
    }

    /// The PostgreSQL type with everything below it.
    pub fn to_pg_type(&self) -> Option<PgType> {
        let kind = kind_of(self.type_kind, self.type_of.as_deref())?;
        let (typmod, name) = (self.typmod.unwrap_or(-1), self.pg_type_full.clone());
        Some(PgType { oid: self.type_oid, typmod, name, kind })
    }
}

impl NestedType {
    fn of(pg_type: &PgType) -> NestedType {
        let (type_kind, below) = match &pg_type.kind {
            PgTypeKind::Base => (None, None),
            PgTypeKind::Enum => (Some(TypeKind::Enum), None),
            PgTypeKind::Composite => (Some(TypeKind::Composite), None),
            PgTypeKind::Range => (Some(TypeKind::Range), None),
            PgTypeKind::Domain(below) => (Some(TypeKind::Domain), Some(below)),
            PgTypeKind::Array(below) => (Some(TypeKind::Array), Some(below)),
        };
        NestedType {
            type_oid: pg_type.oid,
            pg_type_full: pg_type.name.clone(),
            typmod: (pg_type.typmod >= 0).then_some(pg_type.typmod),
            type_kind,
            type_of: below.map(|below| Box::new(NestedType::of(below))),
            extra: Extra::new(),
        }
    }

    fn to_pg_type(&self) -> Option<PgType> {
        let kind = kind_of(self.type_kind, self.type_of.as_deref())?;
        let (typmod, name) = (self.typmod.unwrap_or(-1), self.pg_type_full.clone());
        Some(PgType { oid: self.type_oid, typmod, name, kind })
    }
}

/// `None` when a domain or an array lacks the type below.
fn kind_of(kind: Option<TypeKind>, below: Option<&NestedType>) -> Option<PgTypeKind> {
    let below = || below.and_then(NestedType::to_pg_type).map(Box::new);
    Some(match kind {
        None => PgTypeKind::Base,
        Some(TypeKind::Enum) => PgTypeKind::Enum,
        Some(TypeKind::Composite) => PgTypeKind::Composite,
        Some(TypeKind::Range) => PgTypeKind::Range,
        Some(TypeKind::Domain) => PgTypeKind::Domain(below()?),
        Some(TypeKind::Array) => PgTypeKind::Array(below()?),
    })
}

/// The stored type in the vocabulary of pg-cdc (Go).
fn parquet_type(stored: &StoredType, pg_type: &PgType) -> &'static str {
    let is_json = matches!(pg_type.undomained().oid, oid::JSON | oid::JSONB);
    match stored {
        StoredType::Boolean => "BOOLEAN",
        StoredType::Int32 => "INT32",
        StoredType::Int64 => "INT64",
        StoredType::Float32 => "FLOAT",
        StoredType::Float64 => "DOUBLE",
        StoredType::Decimal { .. } => "DECIMAL",
        StoredType::String if is_json => "JSON",
        StoredType::String => "UTF8",
        StoredType::Binary => "BYTE_ARRAY",
        StoredType::Date => "DATE",
        StoredType::Time => "TIME_MICROS",
        StoredType::Timestamp | StoredType::TimestampTz => "TIMESTAMP_MICROS",
        StoredType::Uuid => "UUID",
        StoredType::List(_) => "LIST",
    }
}

/// `information_schema.columns.data_type`
/// (<https://www.postgresql.org/docs/current/infoschema-columns.html>): of the type below a domain,
/// without modifiers, one word for all arrays and one for all types outside the system catalog.
fn data_type(pg_type: &PgType) -> String {
    let base = pg_type.undomained();
    if matches!(base.kind, PgTypeKind::Array(_)) {
        return "ARRAY".into();
    }
    if base.oid >= oid::FIRST_NORMAL {
        return "USER-DEFINED".into();
    }
    if base.name.starts_with("interval") {
        return "interval".into();
    }
    match base.name.split_once('(') {
        Some((before, rest)) => {
            let behind = rest.split_once(')').map_or("", |(_, behind)| behind);
            format!("{before}{behind}")
        }
        None if base.name == "bpchar" => "character".into(),
        None => base.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_types_are_those_of_the_information_schema() {
        let domain = PgType {
            kind: PgTypeKind::Domain(Box::new(PgType::base(1700, "numeric(6,2)"))),
            ..PgType::base(20000, "price")
        };
        let array = PgType {
            kind: PgTypeKind::Array(Box::new(PgType::base(23, "integer"))),
            ..PgType::base(1007, "integer[]")
        };
        let cases = [
            (PgType::base(20, "bigint"), "bigint"),
            (PgType::base(1043, "character varying(20)"), "character varying"),
            (PgType::base(1114, "timestamp(3) without time zone"), "timestamp without time zone"),
            (PgType::base(1186, "interval day to second(3)"), "interval"),
            (PgType::base(1042, "bpchar"), "character"),
            (PgType::base(20001, "mood"), "USER-DEFINED"),
            (domain, "numeric"),
            (array, "ARRAY"),
        ];
        for (pg_type, expected) in cases {
            assert_eq!(data_type(&pg_type), expected);
        }
    }
}
