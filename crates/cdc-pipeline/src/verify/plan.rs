//! Which tables are compared, which are not and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{SourceTable, TableName, TableSchema, UnrepresentablePolicy};
use cdc_manifest::{Manifest, TableEntry, TableState};

use super::declared::Form;
use crate::Error;

/// A table that is compared.
#[derive(Clone, Debug)]
pub(crate) struct Compared {
    pub(crate) source: SourceTable,
    pub(crate) schema: Arc<TableSchema>,
    /// By column of the schema.
    pub(crate) forms: Arc<Vec<Form>>,
}

impl Compared {
    /// The columns that are compared through a lossy declared form.
    pub(crate) fn lossy_columns(&self) -> Vec<String> {
        let pairs = self.schema.columns.iter().zip(self.forms.iter());
        pairs.filter(|(_, form)| form.is_lossy()).map(|(column, _)| column.name.clone()).collect()
    }
}

/// All tables that were asked for.
pub(crate) struct VerifyPlan {
    pub(crate) compared: BTreeMap<TableName, Compared>,
    /// Reasons by table.
    pub(crate) skipped: BTreeMap<TableName, String>,
}

impl VerifyPlan {
    /// Decides over the tables of the manifest, or over `wanted` if that is not empty. Tables that
    /// the lake does not follow are told of only if they were asked for.
    ///
    /// # Errors
    /// [`Error::UnknownTable`].
    pub(crate) fn new(
        manifest: &Manifest,
        discovered: &[SourceTable],
        wanted: &[TableName],
        policy: UnrepresentablePolicy,
    ) -> Result<VerifyPlan, Error> {
        if let Some(unknown) = wanted.iter().find(|table| !manifest.tables.contains_key(table)) {
            return Err(Error::UnknownTable { table: unknown.clone() });
        }
        let mut plan = VerifyPlan { compared: BTreeMap::new(), skipped: BTreeMap::new() };
        for (table, entry) in &manifest.tables {
            let is_wanted = wanted.contains(table);
            if !(is_wanted || wanted.is_empty() && entry.is_active()) {
                continue;
            }
            if let Some(reason) = standstill(entry) {
                plan.skipped.insert(table.clone(), reason);
                continue;
            }
            let schema = manifest.table_schema(table)?;
            let source = discovered.iter().find(|source| source.name == *table);
            match difference(&schema, source) {
                Some(reason) => {
                    plan.skipped.insert(table.clone(), reason);
                }
                None => {
                    let forms = schema.columns.iter().map(|column| Form::of(column, policy));
                    let forms = Arc::new(forms.collect());
                    let compared = source.map(|source| Compared {
                        source: source.clone(),
                        schema: Arc::new(schema),
                        forms,
                    });
                    plan.compared.extend(compared.map(|compared| (table.clone(), compared)));
                }
            }
        }
        Ok(plan)
    }
}

/// Why a table of the lake does not follow the source at present.
fn standstill(entry: &TableEntry) -> Option<String> {
    if !entry.is_active() {
        return Some(format!("excluded ({})", entry.reason.as_deref().unwrap_or("no reason")));
    }
    match entry.state {
        Some(TableState::Streaming) | None => None,
        Some(TableState::Snapshotting) => Some("its first snapshot is being taken".into()),
        Some(TableState::Resyncing) => Some("a resync is under way".into()),
        Some(TableState::Paused) => Some("paused".into()),
        Some(TableState::Quarantined) => Some("quarantined".into()),
    }
}

/// How the source's table differs from the schema, if its columns cannot be compared one to one.
fn difference(schema: &TableSchema, source: Option<&SourceTable>) -> Option<String> {
    let Some(source) = source else { return Some("not on the source any more".into()) };
    let missing = schema.columns.iter().find_map(|column| {
        match source.columns.iter().find(|found| found.name == column.name) {
            None => Some(format!("column {} is gone on the source", column.name)),
            Some(found) if found.pg_type.oid != column.pg_type.oid => Some(format!(
                "column {} is {} on the source and {} in the lake",
                column.name, found.pg_type.name, column.pg_type.name
            )),
            Some(_) => None,
        }
    });
    missing.or_else(|| {
        let is_known = |name: &String| {
            schema.columns.iter().any(|column| column.name == *name)
                || schema.omitted.iter().any(|column| column.name == *name)
        };
        let new = source.columns.iter().find(|column| !is_known(&column.name))?;
        Some(format!("column {} is new on the source", new.name))
    })
}
