//! Messages against catalogs that are where the stream is, or ahead of it.

use cdc_core::{TableName, TypePolicy, oid};
use cdc_wal::Attribute;

use super::*;

fn source(columns: &[(&str, i16, u32)]) -> SourceTable {
    let column = |(name, attnum, type_oid): &(&str, i16, u32)| SourceColumn {
        name: (*name).to_owned(),
        attnum: *attnum,
        pg_type: PgType::base(*type_oid, "x"),
        nullable: true,
        generated: Generated::No,
    };
    SourceTable {
        oid: 16_400,
        name: TableName::new("public", "t"),
        kind: TableKind::Table,
        partition_root: None,
        columns: columns.iter().map(column).collect(),
        primary_key: vec![columns[0].0.to_owned()],
        replica_identity: ReplicaIdentity::Default,
        estimated_rows: -1,
        heap_bytes: 0,
    }
}

fn schema(columns: &[(&str, i16, u32)]) -> TableSchema {
    let table = source(columns);
    let identity = Identity::PrimaryKey(table.primary_key.clone());
    TableSchema::first(&table, identity, &TypePolicy::default(), |_| None, false)
}

/// A catalog with these columns, which ever had `attnum_max` attributes.
fn shape(columns: &[(&str, i16, u32)], attnum_max: i16) -> TableShape {
    let table = source(columns);
    let attribute = |attnum: i16| Attribute {
        attnum,
        dropped: table.columns.iter().all(|column| column.attnum != attnum),
        missing: None,
        missing_differs: false,
        has_default: false,
    };
    TableShape { attributes: (1..=attnum_max).map(attribute).collect(), filenode: 1, table }
}

fn relation(columns: &[(&str, u32)]) -> Relation {
    let column = |(at, (name, type_oid)): (usize, &(&str, u32))| RelationColumn {
        name: (*name).to_owned(),
        type_oid: *type_oid,
        typmod: -1,
        is_key: at == 0,
    };
    Relation {
        oid: 16_400,
        schema: "public".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentityKind::Default,
        columns: columns.iter().enumerate().map(column).collect(),
        version: 1,
    }
}

fn types(relation: &Relation) -> Vec<Option<PgType>> {
    relation.columns.iter().map(|column| Some(PgType::base(column.type_oid, "x"))).collect()
}

fn attnums(schema: &TableSchema, relation: &Relation, shape: &TableShape) -> Option<Vec<i16>> {
    let at = TableAt::described(schema, relation, &types(relation), shape, false).ok()?;
    Some(at.table.columns.iter().map(|column| column.attnum).collect())
}

const INT: u32 = oid::INT4;
const TEXT: u32 = oid::TEXT;

#[test]
fn a_catalog_that_agrees_decides() {
    let known = schema(&[("id", 1, INT), ("a", 2, TEXT)]);
    let seen = relation(&[("id", INT), ("b", TEXT)]);
    // renamed, and dropped with another one added
    let renamed = shape(&[("id", 1, INT), ("b", 2, TEXT)], 2);
    assert_eq!(attnums(&known, &seen, &renamed), Some(vec![1, 2]));
    let exchanged = shape(&[("id", 1, INT), ("b", 3, TEXT)], 3);
    assert_eq!(attnums(&known, &seen, &exchanged), Some(vec![1, 3]));
    // two columns changed their names
    let known = schema(&[("id", 1, INT), ("a", 2, TEXT), ("b", 3, TEXT)]);
    let seen = relation(&[("id", INT), ("b", TEXT), ("a", TEXT)]);
    let swapped = shape(&[("id", 1, INT), ("b", 2, TEXT), ("a", 3, TEXT)], 3);
    assert_eq!(attnums(&known, &seen, &swapped), Some(vec![1, 2, 3]));
}

#[test]
fn a_catalog_that_is_ahead_leaves_one_way_or_none() {
    let known = schema(&[("id", 1, INT), ("a", 2, TEXT)]);
    // c was added, and is named d by now
    let seen = relation(&[("id", INT), ("a", TEXT), ("c", INT)]);
    let ahead = shape(&[("id", 1, INT), ("a", 2, TEXT), ("d", 3, INT)], 3);
    assert_eq!(attnums(&known, &seen, &ahead), Some(vec![1, 2, 3]));
    // c was added, a has been dropped since, and e was added
    let ahead = shape(&[("id", 1, INT), ("c", 3, INT), ("e", 4, INT)], 4);
    assert_eq!(attnums(&known, &seen, &ahead), Some(vec![1, 2, 3]));
    // a was renamed to b, and again to c
    let seen = relation(&[("id", INT), ("b", TEXT)]);
    let ahead = shape(&[("id", 1, INT), ("c", 2, TEXT)], 2);
    assert_eq!(attnums(&known, &seen, &ahead), Some(vec![1, 2]));
    // a was renamed to b and then dropped, or dropped and b added and dropped
    let ahead = shape(&[("id", 1, INT)], 3);
    assert_eq!(attnums(&known, &seen, &ahead), None);
    // what was added is gone again, or is one of two of which one is gone
    let seen = relation(&[("id", INT), ("a", TEXT), ("c", INT)]);
    let ahead = shape(&[("id", 1, INT), ("a", 2, TEXT)], 3);
    assert_eq!(attnums(&known, &seen, &ahead), Some(vec![1, 2, 3]));
    let ahead = shape(&[("id", 1, INT), ("a", 2, TEXT), ("d", 4, INT)], 4);
    assert_eq!(attnums(&known, &seen, &ahead), None);
    // c was added; since then it was renamed to d, b dropped, and e added
    let known = schema(&[("id", 1, INT), ("a", 2, TEXT), ("b", 3, INT)]);
    let seen = relation(&[("id", INT), ("a", TEXT), ("b", INT), ("c", INT)]);
    let ahead = shape(&[("id", 1, INT), ("a", 2, TEXT), ("d", 4, INT), ("e", 5, TEXT)], 5);
    assert_eq!(attnums(&known, &seen, &ahead), Some(vec![1, 2, 3, 4]));
}

#[test]
fn a_column_exchanged_for_its_like_is_told_and_one_that_lives_goes_on() {
    let known = schema(&[("id", 1, INT), ("a", 2, TEXT)]);
    let seen = relation(&[("id", INT), ("a", TEXT)]);
    let why = |shape: &TableShape| {
        TableAt::described(&known, &seen, &types(&seen), shape, false).unwrap_err()
    };
    let exchanged = shape(&[("id", 1, INT), ("a", 3, TEXT)], 3);
    assert_eq!(why(&exchanged), "column a was dropped and added again");
    for now in [shape(&[("id", 1, INT), ("a", 2, TEXT)], 2), shape(&[("id", 1, INT)], 2)] {
        assert_eq!(attnums(&known, &seen, &now), Some(vec![1, 2]));
    }
}

#[test]
fn only_drops_need_no_catalog_that_agrees() {
    let known = schema(&[("id", 1, INT), ("a", 2, TEXT), ("b", 3, TEXT)]);
    let seen = relation(&[("id", INT), ("b", TEXT)]);
    let ahead = shape(&[("id", 1, INT), ("c", 4, TEXT)], 4);
    assert_eq!(attnums(&known, &seen, &ahead), Some(vec![1, 3]));
}

#[test]
fn a_key_is_what_the_message_marks_and_under_full_what_was_known() {
    let known = schema(&[("id", 1, INT), ("a", 2, INT)]);
    let identity = |relation: &Relation, shape: &TableShape| {
        TableAt::described(&known, relation, &types(relation), shape, false).unwrap().identity
    };
    let mut now = shape(&[("id", 1, INT), ("a", 2, INT)], 2);
    let mut seen = relation(&[("id", INT), ("a", INT)]);
    seen.columns.iter_mut().for_each(|column| column.is_key = true);
    now.table.primary_key = vec!["a".into(), "id".into()];
    let both = Identity::PrimaryKey(vec!["a".into(), "id".into()]);
    assert_eq!(identity(&seen, &now), Some(both));
    seen.replica_identity = ReplicaIdentityKind::Full;
    assert_eq!(identity(&seen, &now), Some(Identity::Full));
    now.table.primary_key = vec!["id".into()];
    assert_eq!(identity(&seen, &now), Some(Identity::PrimaryKey(vec!["id".into()])));
    seen.replica_identity = ReplicaIdentityKind::Nothing;
    assert_eq!(identity(&seen, &now), None);
    seen.replica_identity = ReplicaIdentityKind::Default;
    seen.columns.iter_mut().for_each(|column| column.is_key = false);
    assert_eq!(identity(&seen, &now), None);
}
