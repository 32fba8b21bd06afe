//! A schema as text of its own, with the identity that the manifest keeps beside it: what an evolution
//! leaves in a table before the manifest says so too. After a crash between the two the table alone
//! knows which field ids its newest files have.

use cdc_core::{TableName, TableSchema};
use serde::{Deserialize, Serialize};

use super::{SchemaEntry, TableEntry, TableState, reload};
use crate::{Error, Result};

/// The text's name in error messages.
const KEY: &str = "pgcdc.schema";

#[derive(Serialize, Deserialize)]
struct Record {
    schema: SchemaEntry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    primary_key: Option<Vec<String>>,
    identity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity_columns: Option<Vec<String>>,
}

/// The text of a schema.
///
/// # Errors
/// Never in practice: every field has a JSON form.
pub fn schema_record(schema: &TableSchema) -> Result<String> {
    let TableEntry { primary_key, identity_columns, .. } =
        TableEntry::active(schema, TableState::Streaming);
    let record = Record {
        schema: SchemaEntry::of(schema),
        primary_key,
        identity: schema.identity.label(),
        identity_columns,
    };
    serde_json::to_string(&record).map_err(malformed)
}

/// The schema of a text that [`schema_record`] made.
///
/// # Errors
/// [`Error::Malformed`], [`Error::Inconsistent`].
pub fn parse_schema_record(table: &TableName, text: &str) -> Result<TableSchema> {
    let record: Record = serde_json::from_str(text).map_err(malformed)?;
    let entry = TableEntry {
        primary_key: record.primary_key,
        identity: Some(record.identity),
        identity_columns: record.identity_columns,
        ..TableEntry::default()
    };
    reload::rebuild(table, &entry, &record.schema)
}

fn malformed(source: serde_json::Error) -> Error {
    let hint = "the property is written by pgcdc alone; run `pgcdc table resync` for the table";
    Error::Malformed { key: KEY.to_owned(), hint, source }
}

#[cfg(test)]
mod tests {
    use cdc_core::{Column, FieldId, Identity, PgType, StoredType};

    use super::*;

    #[test]
    fn a_schema_survives_its_record() {
        let column = |name: &str, id: i32| Column {
            name: name.to_owned(),
            field_id: FieldId(id),
            element_id: None,
            attnum: 3,
            pg_type: PgType::base(25, "text"),
            stored: StoredType::String,
            nullable: true,
            lossy: false,
        };
        let identities = [
            Identity::PrimaryKey(vec!["a".into()]),
            Identity::Index { name: "x".into(), columns: vec!["b".into(), "a".into()] },
            Identity::Full,
        ];
        for identity in identities {
            let schema = TableSchema {
                table: TableName::new("public", "t"),
                version: 7,
                columns: vec![column("a", 100), column("b", 104)],
                identity,
                next_field_id: FieldId(105),
                omitted: Vec::new(),
            };
            let text = schema_record(&schema).unwrap();
            assert_eq!(parse_schema_record(&schema.table, &text).unwrap(), schema);
        }
        assert!(parse_schema_record(&TableName::new("public", "t"), "{}").is_err());
    }
}
