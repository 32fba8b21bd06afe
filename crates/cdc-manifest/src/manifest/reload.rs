//! From the manifest back to the [`TableSchema`] that wrote it.

use cdc_core::{Column, Identity, OmittedColumn, StoredType, TableName, TableSchema};

use super::{ColumnEntry, Manifest, OmittedEntry, SchemaEntry, TableEntry};
use crate::layout::MANIFEST_KEY;
use crate::{Error, Result};

impl Manifest {
    /// The schema of an active table, exactly as it was when it was put into the manifest.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a table that is not followed, [`Error::Inconsistent`].
    pub fn table_schema(&self, table: &TableName) -> Result<TableSchema> {
        let followed = self.tables.get(table).filter(|entry| entry.is_active());
        let (Some(entry), Some(schema)) = (followed, self.schemas.get(table)) else {
            let what = format!("table {table} in the lake");
            return Err(Error::NotFound { what, hint: "`pgcdc status` lists the tables" });
        };
        rebuild(table, entry, schema)
    }

    /// The last schema of a table, also of one that is not followed any more; `None` for a table that
    /// never was.
    ///
    /// # Errors
    /// [`Error::Inconsistent`].
    pub fn last_schema(&self, table: &TableName) -> Result<Option<TableSchema>> {
        let known = self.tables.get(table).filter(|entry| entry.identity.is_some());
        let known = known.zip(self.schemas.get(table));
        known.map(|(entry, schema)| rebuild(table, entry, schema)).transpose()
    }

    /// Marks columns of a table in which values were replaced, and gives those that were not marked
    /// before.
    pub fn mark_lossy<'c>(
        &mut self,
        table: &TableName,
        columns: impl IntoIterator<Item = &'c String>,
    ) -> Vec<&'c str> {
        let Some(schema) = self.schemas.get_mut(table) else { return Vec::new() };
        let mut marked = Vec::new();
        for name in columns {
            let named = schema.columns.iter_mut().find(|column| column.name == *name);
            if let Some(column) = named.filter(|column| !column.lossy) {
                column.lossy = true;
                marked.push(name.as_str());
            }
        }
        marked
    }

    /// Puts a schema into `schemas` and the fields that repeat it into the table's entry, keeping
    /// unknown fields of both.
    ///
    /// A table without an entry gets none; [`TableEntry::active`] makes one.
    pub fn set_schema(&mut self, schema: &TableSchema) {
        let mut entry = SchemaEntry::of(schema);
        if let Some(before) = self.schemas.get(&schema.table) {
            entry.extra = before.extra.clone();
            for column in &mut entry.columns {
                let same = before.columns.iter().find(|old| old.field_id == column.field_id);
                column.extra = same.map(|old| old.extra.clone()).unwrap_or_default();
                // values were replaced in files that stay
                column.lossy |= same.is_some_and(|old| old.lossy);
            }
        }
        self.schemas.insert(schema.table.clone(), entry);
        if let Some(table) = self.tables.get_mut(&schema.table) {
            let fresh = TableEntry::active(schema, super::TableState::Streaming);
            table.schema_version = fresh.schema_version;
            table.primary_key = fresh.primary_key;
            table.identity = fresh.identity;
            table.identity_columns = fresh.identity_columns;
        }
    }
}

fn inconsistent(table: &TableName, detail: String) -> Error {
    Error::Inconsistent { key: MANIFEST_KEY.to_owned(), at: table.to_string(), detail }
}

pub(super) fn rebuild(
    table: &TableName,
    entry: &TableEntry,
    schema: &SchemaEntry,
) -> Result<TableSchema> {
    let columns = schema.columns.iter().map(|column| rebuild_column(table, column));
    Ok(TableSchema {
        table: table.clone(),
        version: schema.version,
        columns: columns.collect::<Result<_>>()?,
        identity: rebuild_identity(table, entry)?,
        next_field_id: schema.next_field_id,
        omitted: schema.omitted.iter().map(rebuild_omitted).collect(),
    })
}

fn rebuild_omitted(entry: &OmittedEntry) -> OmittedColumn {
    OmittedColumn { name: entry.name.clone(), reason: entry.reason.clone() }
}

fn rebuild_identity(table: &TableName, entry: &TableEntry) -> Result<Identity> {
    let columns = |named: &Option<Vec<String>>| {
        let listed = named.as_ref().filter(|columns| !columns.is_empty());
        listed.cloned().ok_or_else(|| inconsistent(table, "the identity has no columns".to_owned()))
    };
    match entry.identity.as_deref() {
        Some("primary_key") => Ok(Identity::PrimaryKey(columns(&entry.primary_key)?)),
        Some("full") => Ok(Identity::Full),
        Some(label) => match label.strip_prefix("index:") {
            Some(name) => Ok(Identity::Index {
                name: name.to_owned(),
                columns: columns(&entry.identity_columns)?,
            }),
            None => Err(inconsistent(table, format!("unknown identity `{label}`"))),
        },
        None => Err(inconsistent(table, "the table has no identity".to_owned())),
    }
}

fn rebuild_column(table: &TableName, entry: &ColumnEntry) -> Result<Column> {
    let at = |detail: String| inconsistent(table, format!("column {}: {detail}", entry.name));
    let stored = StoredType::from_iceberg_name(&entry.iceberg_type)
        .ok_or_else(|| at(format!("unknown iceberg_type `{}`", entry.iceberg_type)))?;
    let pg_type =
        entry.to_pg_type().ok_or_else(|| at("a domain or an array without type_of".to_owned()))?;
    if matches!(stored, StoredType::List(_)) != entry.element_id.is_some() {
        return Err(at("element_id and list type do not go together".to_owned()));
    }
    Ok(Column {
        name: entry.name.clone(),
        field_id: entry.field_id,
        element_id: entry.element_id,
        attnum: entry.attnum,
        pg_type,
        stored,
        nullable: entry.nullable,
        lossy: entry.lossy,
    })
}
