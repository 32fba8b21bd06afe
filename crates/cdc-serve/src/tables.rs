//! The operations about tables: which there are, and what one looks like.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use cdc_core::TableName;
use cdc_manifest::{Manifest, TableEntry, TableState};
use serde::Serialize;
use std::sync::Arc;

use crate::caller::Caller;
use crate::plane::ReadPlane;
use crate::{Error, Result};

/// A visible table, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    /// `schema.table`.
    pub table: String,
    /// streaming, snapshotting, resyncing, paused, quarantined.
    pub state: String,
    /// Rows of the current state, where known.
    pub row_count: Option<u64>,
    /// Newest epoch with a complete base.
    pub base_epoch: u64,
    /// Newest epoch with a change of the table.
    pub latest_delta_epoch: u64,
    /// Version of the schema.
    pub schema_version: u32,
}

/// A table with its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableDescription {
    /// As in lists.
    #[serde(flatten)]
    pub summary: TableSummary,
    /// Visible columns in table order.
    pub columns: Vec<ColumnDescription>,
    /// Key columns in key order, where there is a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<Vec<String>>,
}

/// A visible column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnDescription {
    /// Name.
    pub name: String,
    /// Type on the source.
    pub pg_type: String,
    /// Type in the lake, in Iceberg's words.
    #[serde(rename = "type")]
    pub stored_type: String,
    /// Whether NULL is allowed on the source.
    pub nullable: bool,
    /// Whether a declared choice can change values.
    pub lossy: bool,
}

impl ReadPlane {
    /// The active tables that the caller may see, by name.
    ///
    /// # Errors
    /// [`Error::RoleDenied`], or why the lake cannot be read.
    pub async fn list_tables(&self, caller: &Caller) -> Result<Vec<TableSummary>> {
        let manifest = self.manifest().await?;
        let decisions = self.policy().decide(caller, &manifest)?;
        let visible = manifest.active_tables().filter(|(name, _)| decisions.access(name).is_some());
        Ok(visible.map(|(name, entry)| summary(name, entry)).collect())
    }

    /// One table of the newest manifest.
    ///
    /// # Errors
    /// [`cdc_query::Error::NoSuchTable`] if it is absent or not visible.
    pub async fn describe_table(&self, caller: &Caller, table: &str) -> Result<TableDescription> {
        let manifest = self.manifest().await?;
        let decisions = self.policy().decide(caller, &manifest)?;
        let missing = || Error::Query(cdc_query::Error::NoSuchTable(table.to_owned()));
        let name: TableName = table.parse().map_err(|_| missing())?;
        let access = decisions.access(&name).ok_or_else(missing)?;
        let entry = manifest.tables.get(&name).filter(|entry| entry.is_active());
        let entry = entry.ok_or_else(missing)?;
        let columns = columns(&manifest, &name, &access);
        let primary_key = entry.primary_key.clone();
        Ok(TableDescription { summary: summary(&name, entry), columns, primary_key })
    }
}

fn summary(name: &TableName, entry: &TableEntry) -> TableSummary {
    let state = match entry.state {
        None | Some(TableState::Streaming) => "streaming",
        Some(TableState::Snapshotting) => "snapshotting",
        Some(TableState::Resyncing) => "resyncing",
        Some(TableState::Paused) => "paused",
        Some(TableState::Quarantined) => "quarantined",
    };
    TableSummary {
        table: name.to_string(),
        state: state.to_owned(),
        row_count: entry.row_count,
        base_epoch: entry.base_epoch.0,
        latest_delta_epoch: entry.latest_delta_epoch.0,
        schema_version: entry.schema_version.unwrap_or_default(),
    }
}

fn columns(
    manifest: &Manifest,
    name: &TableName,
    access: &cdc_query::TableAccess,
) -> Vec<ColumnDescription> {
    let Some(schema) = manifest.schemas.get(name) else { return Vec::new() };
    let visible = schema.columns.iter().filter(|column| access.shows(column.field_id));
    let describe = |column: &cdc_manifest::ColumnEntry| ColumnDescription {
        name: column.name.clone(),
        pg_type: column.pg_type_full.clone(),
        stored_type: column.iceberg_type.clone(),
        nullable: column.nullable,
        lossy: column.lossy,
    };
    visible.map(describe).collect()
}

/// A list of tables as a batch, for the formats of rows.
///
/// # Errors
/// Never in practice: the columns have one length.
pub fn tables_batch(tables: &[TableSummary]) -> Result<RecordBatch> {
    let text = |of: fn(&TableSummary) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(tables.iter().map(of)))
    };
    let number = |of: fn(&TableSummary) -> Option<u64>| -> ArrayRef {
        let signed = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok());
        Arc::new(Int64Array::from_iter(tables.iter().map(|table| signed(of(table)))))
    };
    let columns = [
        ("table", text(|table| &table.table)),
        ("state", text(|table| &table.state)),
        ("row_count", number(|table| table.row_count)),
        ("base_epoch", number(|table| Some(table.base_epoch))),
        ("latest_delta_epoch", number(|table| Some(table.latest_delta_epoch))),
        ("schema_version", number(|table| Some(table.schema_version.into()))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|error| Error::Output(std::io::Error::other(error)))
}
