//! The schema of a copy: the table as it is now, under field ids that never stood for anything else.

use cdc_core::{Identity, SchemaRules, SourceTable, TableSchema};

use super::publish::Loaded;
use crate::Error;
use crate::plan::first_schema;
use crate::settings::ReplicationSettings;

/// The schema of the copy. A column that the lake knows keeps its field id if its values can be read
/// as they are stored now; others get ids that were never used.
pub(super) fn schema(
    source: &SourceTable,
    replication: &ReplicationSettings,
    known: Option<&Loaded>,
    publishes_generated: bool,
) -> Result<TableSchema, Error> {
    // also what refuses a table that cannot be followed
    let fresh = first_schema(source, replication, publishes_generated)?;
    let Some(known) = known else { return Ok(fresh) };
    let types = &replication.types;
    let declared = |column: &str| types.declared(&source.name, column);
    let rules = SchemaRules { policy: &types.policy, declared: &declared, publishes_generated };
    let identity: Identity = fresh.identity;
    let ahead = known.ahead.as_ref();
    if is_continued(known, source) {
        return Ok(known.schema.recopied(source, identity, rules, ahead));
    }
    // a table that was made anew counts its attributes from 1 again
    let strange = TableSchema { columns: Vec::new(), ..known.schema.clone() };
    let ahead = ahead.map(|ahead| TableSchema { columns: Vec::new(), ..ahead.clone() });
    Ok(strange.recopied(source, identity, rules, ahead.as_ref()))
}

/// Whether attribute numbers stand for the columns that the lake knows under them: it is the same table,
/// or one that was made anew just as it was.
fn is_continued(known: &Loaded, source: &SourceTable) -> bool {
    known.source_oid == Some(source.oid)
        || source.columns.iter().all(|column| {
            known
                .schema
                .columns
                .iter()
                .all(|known| (known.attnum == column.attnum) == (known.name == column.name))
        })
}
