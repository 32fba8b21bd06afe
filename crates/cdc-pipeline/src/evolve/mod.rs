//! Schema evolution: a table that changes on the source changes in the lake, at the place in the stream
//! where its rows change.
//!
//! ```text
//! Relation message ── differs ──> catalog: which attributes? ─┐
//! every interval: catalog ── differs ──> exact look at L ─────┤ once the stream has reached L
//!                                                             ▼
//!                  next schema ─> do older rows read right? ──no──> quarantine
//!                                     │ yes, or with a constant: they are written anew
//!                                     ▼
//!      rows so far end a file, the next begin one of the new schema; both in one epoch,
//!      whose commit gives the Iceberg tables the schema before its files
//! ```
//! The stream describes a table before the first row of a new shape, also inside a transaction, and is
//! the only truth about where in the stream a change lies. The catalog knows the rest: attribute
//! numbers, NULL, defaults. A change without a row behind it is seen by the look at the catalog only.

mod attribute;
mod catalog;
mod judge;
mod watch;

pub(crate) use attribute::{TableAt, same_type};
pub(crate) use catalog::SourceCatalog;
pub use catalog::{OpenCatalog, SchemaCatalog};
pub(crate) use judge::{Fill, OlderRows, judge};
pub(crate) use watch::{Found, Known, KnownTable, SchemaWatch, WatchEnds};

use cdc_core::{SchemaRules, SourceTable, TableSchema, meta};
use cdc_wal::TableShape;

use crate::settings::TypeSettings;

/// What a changed table becomes.
#[derive(Clone, Debug)]
pub(crate) struct Next {
    pub(crate) schema: TableSchema,
    /// Values that older rows have in columns which they were written without.
    pub(crate) fills: Vec<Fill>,
}

/// How a table's changes are taken into its schema.
#[derive(Clone, Copy)]
pub(crate) struct Evolution<'a> {
    pub(crate) types: &'a TypeSettings,
    pub(crate) publishes_generated: bool,
}

impl Evolution<'_> {
    /// The schema that a table has at some place, or `None` if it is the one known. An error is why
    /// the lake cannot have it.
    pub(crate) fn next(
        &self,
        before: &TableSchema,
        at: &TableAt,
        shape: &TableShape,
        older: OlderRows,
        ahead: Option<&TableSchema>,
    ) -> Result<Option<Next>, String> {
        let Some(schema) = self.schema(before, at, ahead)? else { return Ok(None) };
        let fills = judge(before, &schema, shape, older)?;
        Ok(Some(Next { schema, fills }))
    }

    /// The same without a look at the rows.
    pub(crate) fn schema(
        &self,
        before: &TableSchema,
        at: &TableAt,
        ahead: Option<&TableSchema>,
    ) -> Result<Option<TableSchema>, String> {
        let Some(identity) = at.identity.clone() else {
            return Err(match at.table.replica_identity {
                cdc_core::ReplicaIdentity::Nothing => "its replica identity is now NOTHING".into(),
                _ => "it has no replica identity any more".into(),
            });
        };
        check_names(&at.table)?;
        let declared = |column: &str| self.types.declared(&before.table, column);
        let rules = SchemaRules {
            policy: &self.types.policy,
            declared: &declared,
            publishes_generated: self.publishes_generated,
        };
        let next = before.evolved(&at.table, identity, rules, ahead);
        if next.identity_positions().len() != next.identity.columns().len() {
            return Err("a column of its identity is not replicated".into());
        }
        if let Some(reason) = exchanged(before, &next) {
            return Err(reason);
        }
        Ok((!before.steps_to(&next).is_empty()).then_some(next))
    }
}

/// A column of a name that pgcdc keeps for itself has no place beside our own.
fn check_names(table: &SourceTable) -> Result<(), String> {
    let reserved = table.columns.iter().find(|column| meta::is_reserved(&column.name));
    reserved.map_or(Ok(()), |column| Err(format!("reserved column name: {}", column.name)))
}

/// A column that was dropped and added again under its name and with its type looks the same in the
/// stream, so which rows were written before that is not known.
fn exchanged(before: &TableSchema, next: &TableSchema) -> Option<String> {
    let is_again = |column: &&cdc_core::Column| {
        let same = |old: &cdc_core::Column| {
            old.name == column.name && old.pg_type == column.pg_type && old.attnum != column.attnum
        };
        before.columns.iter().any(same)
            && before.columns.iter().all(|old| old.attnum != column.attnum)
    };
    let column = next.columns.iter().find(is_again)?;
    Some(format!("column {} was dropped and added again", column.name))
}
