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
    if is_continued(&known.schema, known.source_oid, source) {
        return Ok(known.schema.recopied(source, identity, rules, ahead));
    }
    // a table that was made anew counts its attributes from 1 again
    let strange = TableSchema { columns: Vec::new(), ..known.schema.clone() };
    let ahead = ahead.map(|ahead| TableSchema { columns: Vec::new(), ..ahead.clone() });
    Ok(strange.recopied(source, identity, rules, ahead.as_ref()))
}

/// Whether attribute numbers stand for the columns that the lake knows under them: it is the same table,
/// or one that was made anew just as it was.
fn is_continued(known: &TableSchema, known_oid: Option<u32>, source: &SourceTable) -> bool {
    known_oid == Some(source.oid)
        || source.columns.iter().all(|column| {
            known
                .columns
                .iter()
                .all(|known| (known.attnum == column.attnum) == (known.name == column.name))
        })
}

#[cfg(test)]
mod tests {
    use cdc_core::{
        Generated, PgType, ReplicaIdentity, SourceColumn, TableKind, TableName, TypePolicy, oid,
    };

    use super::*;

    const OID: u32 = 16_400;

    fn source(oid: u32, columns: &[(&str, i16)]) -> SourceTable {
        let column = |(name, attnum): &(&str, i16)| SourceColumn {
            name: (*name).to_owned(),
            attnum: *attnum,
            pg_type: PgType::base(oid::INT4, "integer"),
            nullable: true,
            generated: Generated::No,
        };
        SourceTable {
            oid,
            name: TableName::new("public", "t"),
            kind: TableKind::Table,
            partition_root: None,
            columns: columns.iter().map(column).collect(),
            primary_key: vec!["id".into()],
            replica_identity: ReplicaIdentity::Default,
            estimated_rows: -1,
            heap_bytes: 0,
        }
    }

    #[test]
    fn columns_go_on_in_the_same_table_and_in_one_that_was_made_anew_as_it_was() {
        let identity = Identity::PrimaryKey(vec!["id".into()]);
        let first = source(OID, &[("id", 1), ("a", 2)]);
        let known = TableSchema::first(&first, identity, &TypePolicy::default(), |_| None, false);
        let cases = [
            (OID, &[("id", 1), ("renamed", 2), ("b", 3)][..], true),
            (OID + 1, &[("id", 1), ("a", 2)][..], true),
            (OID + 1, &[("id", 1), ("a", 2), ("b", 3)][..], true),
            (OID + 1, &[("id", 1), ("b", 2)][..], false),
            (OID + 1, &[("a", 1), ("id", 2)][..], false),
        ];
        for (oid, columns, expected) in cases {
            let found = is_continued(&known, Some(OID), &source(oid, columns));
            assert_eq!(found, expected, "{oid}: {columns:?}");
        }
    }
}
