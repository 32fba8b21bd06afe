//! Catalog rows put together into source tables. Pure.

use std::collections::HashMap;

use cdc_core::{Generated, ReplicaIdentity, SourceColumn, SourceTable, TableKind, TableName};

use super::catalog::{AttributeRow, IndexRow, LeafRow, RelationRow};
use super::resolve::TypeTable;

/// The answers of all catalog queries.
pub(super) struct CatalogParts {
    pub(super) relations: Vec<RelationRow>,
    pub(super) leaves: Vec<LeafRow>,
    pub(super) attributes: Vec<AttributeRow>,
    pub(super) indexes: Vec<IndexRow>,
    pub(super) types: TypeTable,
}

impl CatalogParts {
    pub(super) fn assemble(self) -> Vec<SourceTable> {
        let indexes = Indexes::new(self.indexes);
        let mut columns = group_columns(self.attributes, &self.types);
        let mut leaves: HashMap<u32, Vec<LeafRow>> = HashMap::new();
        for leaf in self.leaves {
            leaves.entry(leaf.root).or_default().push(leaf);
        }
        let table = |relation: RelationRow| {
            let leaves = leaves.remove(&relation.oid).unwrap_or_default();
            let replica_identity = if leaves.is_empty() {
                indexes.identity(relation.oid, &relation.replica_identity)
            } else {
                indexes.shared_identity(relation.oid, &leaves)
            };
            SourceTable {
                oid: relation.oid,
                kind: kind(&relation),
                primary_key: indexes.primary_key(relation.oid).to_vec(),
                replica_identity,
                estimated_rows: estimated_rows(&relation, &leaves),
                heap_bytes: heap_bytes(&relation, &leaves),
                columns: columns.remove(&relation.oid).unwrap_or_default(),
                partition_root: relation.root.map(|(schema, name)| TableName::new(schema, name)),
                name: TableName::new(relation.schema, relation.name),
            }
        };
        self.relations.into_iter().map(table).collect()
    }
}

fn kind(relation: &RelationRow) -> TableKind {
    match (relation.kind.as_str(), relation.persistence.as_str()) {
        ("f", _) => TableKind::Foreign,
        _ if relation.root.is_some() => TableKind::Partition,
        ("p", _) => TableKind::PartitionRoot,
        (_, "u") => TableKind::Unlogged,
        _ => TableKind::Table,
    }
}

fn group_columns(rows: Vec<AttributeRow>, types: &TypeTable) -> HashMap<u32, Vec<SourceColumn>> {
    let mut columns: HashMap<u32, Vec<SourceColumn>> = HashMap::new();
    for row in rows {
        columns.entry(row.relation).or_default().push(SourceColumn {
            pg_type: types.resolve(row.type_oid, row.typmod, &row.type_name),
            name: row.name,
            attnum: row.attnum,
            nullable: !row.not_null,
            generated: match row.generated.as_str() {
                "s" => Generated::Stored,
                "v" => Generated::Virtual,
                _ => Generated::No,
            },
        });
    }
    columns
}

/// −1 only if no part was ever analysed; parts without an estimate count as empty.
fn estimated_rows(relation: &RelationRow, leaves: &[LeafRow]) -> i64 {
    let whole = |tuples: f32| (tuples >= 0.0).then_some(tuples as i64);
    let parts: Vec<i64> = match leaves {
        [] => whole(relation.estimated_rows).into_iter().collect(),
        leaves => leaves.iter().filter_map(|leaf| whole(leaf.estimated_rows)).collect(),
    };
    if parts.is_empty() { -1 } else { parts.iter().sum() }
}

fn heap_bytes(relation: &RelationRow, leaves: &[LeafRow]) -> u64 {
    let bytes = relation.heap_bytes + leaves.iter().map(|leaf| leaf.heap_bytes).sum::<i64>();
    u64::try_from(bytes).unwrap_or(0)
}

/// The identity indexes of tables and leaves, by relation.
struct Indexes {
    by_relation: HashMap<u32, Vec<IndexRow>>,
}

impl Indexes {
    fn new(rows: Vec<IndexRow>) -> Self {
        let mut by_relation: HashMap<u32, Vec<IndexRow>> = HashMap::new();
        for row in rows {
            by_relation.entry(row.relation).or_default().push(row);
        }
        Self { by_relation }
    }

    fn of(&self, relation: u32) -> &[IndexRow] {
        self.by_relation.get(&relation).map_or(&[], Vec::as_slice)
    }

    fn primary_key(&self, relation: u32) -> &[String] {
        let primary = self.of(relation).iter().find(|index| index.primary);
        primary.map_or(&[], |index| index.columns.as_slice())
    }

    /// The identity of one relation without partitions. An index that was dropped after
    /// REPLICA IDENTITY USING INDEX leaves nothing.
    fn identity(&self, relation: u32, setting: &str) -> ReplicaIdentity {
        match setting {
            "f" => ReplicaIdentity::Full,
            "d" => ReplicaIdentity::Default,
            "i" => match self.of(relation).iter().find(|index| index.replica_identity) {
                Some(index) => ReplicaIdentity::Index {
                    name: index.name.clone(),
                    columns: index.columns.clone(),
                },
                None => ReplicaIdentity::Nothing,
            },
            _ => ReplicaIdentity::Nothing,
        }
    }

    /// What all leaves of a root share.
    ///
    /// Old rows carry the identity of the leaf they lie in. FULL beside a key is the key: a whole
    /// old row has it too. An index counts only if the root has it, since a leaf's own index does
    /// not tell rows of different leaves apart.
    fn shared_identity(&self, root: u32, leaves: &[LeafRow]) -> ReplicaIdentity {
        let root_key = self.primary_key(root);
        let mut shared: Option<ReplicaIdentity> = None;
        for leaf in leaves {
            let own = match self.identity(leaf.oid, &leaf.replica_identity) {
                ReplicaIdentity::Default if self.primary_key(leaf.oid).is_empty() => {
                    ReplicaIdentity::Nothing
                }
                ReplicaIdentity::Index { columns, .. } => self.root_index(root, columns),
                other => other,
            };
            shared = Some(match (shared, own) {
                (None, own) => own,
                (Some(a), b) if a == b => a,
                (Some(ReplicaIdentity::Full), ReplicaIdentity::Default)
                | (Some(ReplicaIdentity::Default), ReplicaIdentity::Full)
                    if !root_key.is_empty() =>
                {
                    ReplicaIdentity::Default
                }
                _ => ReplicaIdentity::Nothing,
            });
        }
        match shared {
            Some(ReplicaIdentity::Default) if root_key.is_empty() => ReplicaIdentity::Nothing,
            Some(identity) => identity,
            None => ReplicaIdentity::Nothing,
        }
    }

    fn root_index(&self, root: u32, columns: Vec<String>) -> ReplicaIdentity {
        match self.of(root).iter().find(|index| index.columns == columns) {
            Some(index) => ReplicaIdentity::Index { name: index.name.clone(), columns },
            None => ReplicaIdentity::Nothing,
        }
    }
}
