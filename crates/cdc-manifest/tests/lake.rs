//! What several tests need: lakes to write to, and manifests to write.

use cdc_core::{Column, Epoch, FieldId, Identity, Lsn, PgType, StoredType, TableName, TableSchema};
use cdc_manifest::{LakeStore, Manifest, StorageSpec, TableEntry, TableState};
use chrono::TimeDelta;

pub(crate) const MANIFEST_FIXTURE: &str = include_str!("fixtures/manifest-v1.json");

pub(crate) fn filesystem() -> (tempfile::TempDir, LakeStore) {
    let dir = tempfile::tempdir().unwrap();
    let lake = LakeStore::open(&StorageSpec::Filesystem { path: dir.path().into() }).unwrap();
    (dir, lake)
}

pub(crate) fn memory() -> LakeStore {
    LakeStore::open(&StorageSpec::Memory).unwrap()
}

/// The manifest of the contract's example.
pub(crate) fn example() -> Manifest {
    Manifest::parse(MANIFEST_FIXTURE.as_bytes()).unwrap()
}

/// The manifest after one more flush of some bytes of WAL.
pub(crate) fn flushed(manifest: &Manifest) -> Manifest {
    let mut next = manifest.clone();
    next.epoch = next.epoch.next();
    next.commit_lsn = Lsn(next.commit_lsn.0 + 0x100);
    next.covered_lsn = next.commit_lsn;
    next.commit_ts += TimeDelta::seconds(1);
    next.updated_at += TimeDelta::seconds(1);
    next.batch_id = format!("batch-{}", next.epoch);
    next
}

/// A manifest of epoch 0 with these tables, each with a column `id`.
pub(crate) fn manifest_of(tables: &[TableName]) -> Manifest {
    let mut manifest = example();
    manifest.epoch = Epoch(0);
    manifest.tables.clear();
    manifest.schemas.clear();
    for table in tables {
        let schema = schema_of(table);
        manifest.tables.insert(table.clone(), TableEntry::active(&schema, TableState::Streaming));
        manifest.set_schema(&schema);
    }
    manifest
}

pub(crate) fn schema_of(table: &TableName) -> TableSchema {
    let id = Column {
        name: "id".into(),
        field_id: FieldId(100),
        element_id: None,
        attnum: 1,
        pg_type: PgType::base(20, "bigint"),
        stored: StoredType::Int64,
        nullable: false,
        lossy: false,
    };
    TableSchema {
        table: table.clone(),
        version: 1,
        columns: vec![id],
        identity: Identity::PrimaryKey(vec!["id".into()]),
        next_field_id: FieldId(101),
        omitted: Vec::new(),
    }
}
