//! The first metadata of a table. It is written as JSON and parsed, because every call of the
//! iceberg crate that makes a table gives the fields new ids.

use std::collections::BTreeMap;

use cdc_core::{LakeLocation, TableSchema};
use chrono::{DateTime, Utc};
use iceberg::spec::{FormatVersion, Schema, TableMetadata};
use serde_json::json;
use uuid::Uuid;

use crate::schema::{changes_schema, current_schema};
use crate::{DeleteEncoding, Error, Result, TableIdent, TableNaming};

/// The folder of the current-state table's metadata and delete files.
pub(crate) const METADATA_FOLDER: &str = "metadata";
/// The folder of the changelog's metadata.
const CHANGES_METADATA_FOLDER: &str = "changes_metadata";
/// The table property that fences daemons of older generations.
pub(crate) const GENERATION_PROPERTY: &str = "pgcdc.generation";
/// The table property that names the columns of the row identity.
/// The property of a table that names its source table.
pub const SOURCE_PROPERTY: &str = "pgcdc.source-table";
/// The property of a table that names its lake.
pub const LAKE_PROPERTY: &str = "pgcdc.lake-id";
pub(crate) const IDENTITY_PROPERTY: &str = "pgcdc.identity";
/// The table property with the schema in the caller's own form, set by each evolution.
pub(crate) const SCHEMA_PROPERTY: &str = "pgcdc.schema";
/// The same, set only by a commit that wrote all rows anew under that schema.
pub(crate) const FILLED_PROPERTY: &str = "pgcdc.filled-schema";
/// The table property that moves a table's metadata out of `metadata/`.
const METADATA_PATH_PROPERTY: &str = "write.metadata.path";
/// Ids of unpartitioned specs end below this one (Iceberg spec, partition evolution).
const LAST_PARTITION_ID: i32 = 999;

/// What is needed to make the two tables of a source table.
#[derive(Clone, Debug)]
pub struct TableSpec<'a> {
    /// Columns and identity.
    pub schema: &'a TableSchema,
    /// Catalog namespace (`catalog.database`).
    pub namespace: &'a str,
    /// How names are made.
    pub naming: TableNaming,
    /// The lake's id, as in the manifest.
    pub lake_id: &'a str,
    /// Parquet compression, `zstd` or `snappy`.
    pub codec: &'a str,
    /// The daemon's generation.
    pub generation: u64,
    /// How deletes of the current-state table are recorded. The changelog has none, so it is of
    /// format version 2, which all readers know.
    pub deletes: DeleteEncoding,
}

impl TableSpec<'_> {
    /// The name of the current-state table.
    pub fn current_ident(&self) -> TableIdent {
        self.naming.current(self.namespace, &self.schema.table)
    }

    /// The name of the changelog.
    pub fn changes_ident(&self) -> TableIdent {
        self.naming.changes(self.namespace, &self.schema.table)
    }

    /// The first metadata of the current-state table.
    pub(crate) fn current_metadata(
        &self,
        lake: &LakeLocation,
        now: DateTime<Utc>,
    ) -> Result<TableMetadata> {
        let properties =
            BTreeMap::from([("pgcdc.changes-table".to_owned(), self.changes_ident().to_string())]);
        self.metadata(lake, &current_schema(self.schema)?, self.deletes, properties, now)
    }

    /// The first metadata of the changelog.
    pub(crate) fn changes_metadata(
        &self,
        lake: &LakeLocation,
        now: DateTime<Utc>,
    ) -> Result<TableMetadata> {
        let folder = format!("{}/{CHANGES_METADATA_FOLDER}", self.location(lake));
        let properties = BTreeMap::from([
            ("pgcdc.current-table".to_owned(), self.current_ident().to_string()),
            (METADATA_PATH_PROPERTY.to_owned(), folder),
        ]);
        let schema = changes_schema(self.schema)?;
        self.metadata(lake, &schema, DeleteEncoding::Position, properties, now)
    }

    fn location(&self, lake: &LakeLocation) -> String {
        lake.uri(&self.schema.table.key_segment())
    }

    fn metadata(
        &self,
        lake: &LakeLocation,
        schema: &Schema,
        deletes: DeleteEncoding,
        mut properties: BTreeMap<String, String>,
        now: DateTime<Utc>,
    ) -> Result<TableMetadata> {
        // data files are shared by both tables, so no engine may remove any of them
        properties.insert("gc.enabled".into(), "false".into());
        properties.insert("write.parquet.compression-codec".into(), self.codec.into());
        properties.insert(SOURCE_PROPERTY.into(), self.schema.table.to_string());
        properties.insert(IDENTITY_PROPERTY.into(), identity_text(self.schema));
        properties.insert(LAKE_PROPERTY.into(), self.lake_id.into());
        properties.insert(GENERATION_PROPERTY.into(), self.generation.to_string());
        let mut json = json!({
            "format-version": deletes.format() as u8,
            "table-uuid": Uuid::new_v4(),
            "location": self.location(lake),
            "last-sequence-number": 0,
            "last-updated-ms": now.timestamp_millis(),
            "last-column-id": (self.schema.next_field_id.0 - 1).max(schema.highest_field_id()),
            "schemas": [schema],
            "current-schema-id": schema.schema_id(),
            "partition-specs": [{"spec-id": 0, "fields": []}],
            "default-spec-id": 0,
            "last-partition-id": LAST_PARTITION_ID,
            "sort-orders": [{"order-id": 0, "fields": []}],
            "default-sort-order-id": 0,
            "properties": properties,
            "snapshots": [],
            "refs": {},
        });
        if deletes.format() == FormatVersion::V3 {
            json["next-row-id"] = json!(0);
        }
        serde_json::from_value(json).map_err(|source| Error::Build {
            table: self.schema.table.to_string(),
            what: "metadata",
            source: Box::new(source),
        })
    }
}

/// The identity's columns as a JSON array of names, or `full`.
pub(crate) fn identity_text(schema: &TableSchema) -> String {
    match schema.identity.columns() {
        [] => schema.identity.label(),
        columns => json!(columns).to_string(),
    }
}

/// The folder of a table's metadata files, a URI without trailing slash.
pub(crate) fn metadata_folder(metadata: &TableMetadata) -> String {
    match metadata.properties().get(METADATA_PATH_PROPERTY) {
        Some(folder) => folder.trim_end_matches('/').to_owned(),
        None => format!("{}/{METADATA_FOLDER}", metadata.location()),
    }
}

/// The location of the metadata file behind `previous`: `00001-<uuid>.metadata.json`.
pub(crate) fn next_metadata_location(metadata: &TableMetadata, previous: Option<&str>) -> String {
    let number = previous.map_or(0, |location| {
        let name = location.rsplit('/').next().unwrap_or(location);
        let number = name.split('-').next().and_then(|number| number.parse::<u64>().ok());
        number.map_or(metadata.metadata_log().len() as u64 + 1, |number| number + 1)
    });
    format!("{}/{number:05}-{}.metadata.json", metadata_folder(metadata), Uuid::new_v4())
}
