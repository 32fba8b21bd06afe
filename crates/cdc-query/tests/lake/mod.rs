//! A small lake that a test writes row by row: base files, delta files, position deletes, manifest
//! and refs, all as the daemon would, with fixed times and positions. Rows are JSON text.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::array::{ArrayRef, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use cdc_core::{
    Column, Epoch, FieldId, Identity, Lsn, PgType, StoredType, SystemClock, TableName, TableSchema,
    meta, oid,
};
use cdc_iceberg::{
    Branch, CommitKind, Committer, DataFile, DeleteEncoding, FlushChange, InitialContent,
    LakeFiles, MemoryCatalog, PositionDeletes, Remove, Stamp, TableNaming, TablePair, TableSpec,
    base_arrow_schema, changes_schema, current_schema, data_file_from_parquet, delta_arrow_schema,
    write_position_deletes,
};
use cdc_manifest::{
    AdvanceOptions, CatalogInfo, CompactionInfo, Extra, LakeStore, Manifest, ManifestStore,
    RefsStore, SchemaEntry, SourceInfo, Swap, TableEntry, TableState, layout,
};
use chrono::{DateTime, TimeDelta, Utc};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

/// Rows per row group: small, so that files of a few rows have several.
const ROW_GROUP_ROWS: usize = 3;

/// A change of one row; the row is JSON text with at least the key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op<'a> {
    Insert(&'a str),
    Update(&'a str),
    Delete(&'a str),
}

/// A table as the test knows it.
struct TestTable {
    schema: TableSchema,
    pair: TablePair,
    /// Key text to the place of the live version.
    places: HashMap<String, (String, u64)>,
    base_path: String,
    delta_epoch: Epoch,
}

/// The lake.
pub(crate) struct TestLake {
    pub(crate) store: LakeStore,
    committer: Committer,
    tables: BTreeMap<TableName, TestTable>,
    epoch: Epoch,
    pub(crate) options: AdvanceOptions,
}

/// A column list as `name iceberg_type` pairs; the first is the key.
pub(crate) fn schema(table: &str, columns: &[(&str, &str)]) -> TableSchema {
    let mut next = FieldId::FIRST_USER.0;
    let mut allocate = || {
        next += 1;
        FieldId(next - 1)
    };
    let column = |(at, (name, stored)): (usize, &(&str, &str))| {
        let stored = StoredType::from_iceberg_name(stored).unwrap();
        Column {
            name: (*name).to_owned(),
            field_id: allocate(),
            element_id: matches!(stored, StoredType::List(_)).then(&mut allocate),
            attnum: i16::try_from(at + 1).unwrap(),
            pg_type: PgType::base(oid::TEXT, "text"),
            stored,
            nullable: at > 0,
            lossy: false,
        }
    };
    let columns: Vec<Column> = columns.iter().enumerate().map(column).collect();
    TableSchema {
        table: table.parse().unwrap(),
        version: 1,
        identity: Identity::PrimaryKey(vec![columns[0].name.clone()]),
        columns,
        next_field_id: FieldId(next),
        omitted: Vec::new(),
    }
}

/// The commit time of an epoch.
pub(crate) fn commit_time(epoch: Epoch) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2026-05-04T12:00:00Z".parse().unwrap();
    start + TimeDelta::seconds(10 * i64::try_from(epoch.0).unwrap())
}

/// The commit LSN of an epoch.
pub(crate) fn commit_lsn(epoch: Epoch) -> Lsn {
    Lsn(0x1000 * (epoch.0 + 1))
}

fn stamp(kind: CommitKind, epoch: Epoch) -> Stamp {
    Stamp {
        kind,
        epoch,
        lsn_from: Lsn(commit_lsn(epoch).0 - 0x1000),
        lsn_to: commit_lsn(epoch),
        commit_ts: Some(commit_time(epoch)),
        batch_id: Uuid::from_u128(u128::from(epoch.0) + 1),
        generation: 1,
    }
}

impl TestLake {
    /// A lake at epoch 0 with these tables and their first rows.
    pub(crate) async fn create(store: LakeStore, tables: Vec<(TableSchema, &[&str])>) -> TestLake {
        let files = LakeFiles::new(store.store().clone(), store.location().clone());
        let catalog = Arc::new(MemoryCatalog::new());
        let mut lake = TestLake {
            store,
            committer: Committer::new(files, catalog, Arc::new(SystemClock)),
            tables: BTreeMap::new(),
            epoch: Epoch(0),
            options: AdvanceOptions::default(),
        };
        for (schema, rows) in tables {
            lake.add(schema, rows).await;
        }
        lake.commit().await;
        lake
    }

    async fn add(&mut self, schema: TableSchema, rows: &[&str]) {
        let batch = rows_to_batch(&base_arrow_schema(&schema), rows);
        let key = layout::base_key(&schema.table, Epoch(0), 0, 0);
        let (current, _) = self.put_parquet(&schema, &key, &batch).await;
        let mut places = HashMap::new();
        for (position, row) in rows.iter().enumerate() {
            places.insert(key_of(&schema, row), (current.file_path().to_owned(), position as u64));
        }
        let base_files = if rows.is_empty() { vec![] } else { vec![current] };
        let content = InitialContent {
            stamp: stamp(CommitKind::Init, Epoch(0)),
            branch: Branch::Main,
            base_files,
        };
        let spec = TableSpec {
            schema: &schema,
            namespace: "shop",
            naming: TableNaming::Bare,
            lake_id: "test",
            codec: "zstd",
            generation: 1,
            deletes: DeleteEncoding::Position,
        };
        let pair = self.committer.create_tables(&spec, &content).await.unwrap();
        let base_path = layout::base_dir(&schema.table, Epoch(0), 0);
        let table = schema.table.clone();
        let entry = TestTable { schema, pair, places, base_path, delta_epoch: Epoch(0) };
        self.tables.insert(table, entry);
    }

    /// One flush over several tables.
    pub(crate) async fn flush(&mut self, changes: &[(&str, &[Op<'_>])]) {
        self.epoch = self.epoch.next();
        for (table, ops) in changes {
            let table: TableName = table.parse().unwrap();
            let mut entry = self.tables.remove(&table).unwrap();
            let change = self.prepare(&mut entry, ops).await;
            let flushed = self.committer.commit_flush(&entry.pair, change).await.unwrap();
            entry.pair = flushed.into_pair().unwrap();
            entry.delta_epoch = self.epoch;
            self.tables.insert(table, entry);
        }
        self.commit().await;
    }

    /// Gives a table another schema, without rows.
    pub(crate) async fn evolve(&mut self, table: &str, change: impl FnOnce(&mut TableSchema)) {
        let table: TableName = table.parse().unwrap();
        let entry = self.tables.get_mut(&table).unwrap();
        change(&mut entry.schema);
        entry.schema.version += 1;
        let (pair, schema) = (&entry.pair, &entry.schema);
        let current = self.committer.evolve_current(&pair.current, schema, "").await.unwrap();
        let changes = self.committer.evolve_changes(&pair.changes, schema, "").await.unwrap();
        entry.pair = TablePair {
            current: current.committed().unwrap(),
            changes: changes.committed().unwrap(),
        };
    }

    async fn prepare(&self, entry: &mut TestTable, ops: &[Op<'_>]) -> FlushChange {
        let key = layout::delta_key(&entry.schema.table, self.epoch, 0);
        let location = self.store.location().uri(&key);
        let mut deletes = PositionDeletes::new();
        for (position, op) in ops.iter().enumerate() {
            let (Op::Insert(row) | Op::Update(row) | Op::Delete(row)) = op;
            let key = key_of(&entry.schema, row);
            if let Some((file, old)) = entry.places.remove(&key) {
                deletes.add(&file, old);
            }
            let place = (location.clone(), position as u64);
            match op {
                Op::Delete(_) => deletes.add(&place.0, place.1),
                Op::Insert(_) | Op::Update(_) => {
                    entry.places.insert(key, place);
                }
            }
        }
        let batch = delta_batch(&entry.schema, self.epoch, ops);
        let (current, changes) = self.put_parquet(&entry.schema, &key, &batch).await;
        let table = &entry.schema.table;
        let deletes = write_position_deletes(self.committer.files(), table, deletes).await.unwrap();
        FlushChange {
            stamp: stamp(CommitKind::Flush, self.epoch),
            branch: Branch::Main,
            current_files: vec![current],
            delete_files: deletes.into_iter().collect(),
            remove: Remove::Nothing,
            changes_files: vec![changes],
        }
    }

    async fn put_parquet(
        &self,
        schema: &TableSchema,
        key: &str,
        batch: &RecordBatch,
    ) -> (DataFile, DataFile) {
        let properties =
            WriterProperties::builder().set_max_row_group_row_count(Some(ROW_GROUP_ROWS)).build();
        let mut bytes = Vec::new();
        let mut writer =
            ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        let metadata = writer.close().unwrap();
        let size = bytes.len() as u64;
        let location = self.store.location().uri(key);
        self.committer.files().write_new(&location, bytes.into()).await.unwrap();
        let entry = |iceberg| data_file_from_parquet(&location, size, &metadata, &iceberg).unwrap();
        (entry(current_schema(schema).unwrap()), entry(changes_schema(schema).unwrap()))
    }

    /// Writes manifest and refs of the current epoch.
    async fn commit(&self) {
        let manifests = ManifestStore::new(self.store.clone());
        let before = manifests.load().await.unwrap();
        let manifest = self.manifest();
        let swap = match &before {
            None => manifests.create(&manifest).await.unwrap(),
            Some(before) => manifests.commit(before, &manifest).await.unwrap(),
        };
        assert!(matches!(swap, Swap::Stored(_)), "{swap:?}");
        RefsStore::new(self.store.clone()).advance(&manifest, self.options).await.unwrap();
    }

    fn manifest(&self) -> Manifest {
        let (lsn, time) = (commit_lsn(self.epoch), commit_time(self.epoch));
        let schemas =
            self.tables.iter().map(|(name, entry)| (name.clone(), SchemaEntry::of(&entry.schema)));
        Manifest {
            version: 1,
            lake_id: "0198f3c2-5b1e-7c3a-9f1d-2f6a0c9b1e77".into(),
            source: SourceInfo {
                name: "pg_cdc_slot".into(),
                postgres_version: "PostgreSQL 16.4".into(),
                init_lsn: commit_lsn(Epoch(0)),
                init_timestamp: commit_time(Epoch(0)),
                database: "shop".into(),
                system_identifier: 7,
                timeline: 1,
                slot: "pg_cdc_slot".into(),
                publication: "pg_cdc_pub".into(),
                extra: Extra::new(),
            },
            epoch: self.epoch,
            commit_lsn: lsn,
            commit_ts: time,
            covered_lsn: lsn,
            covered_at: time,
            batch_id: Uuid::from_u128(u128::from(self.epoch.0) + 1).to_string(),
            generation: 1,
            catalog: CatalogInfo {
                kind: "iceberg".into(),
                backend: "sqlite".into(),
                database: "shop".into(),
                extra: Extra::new(),
            },
            tables: self.tables.iter().map(|(name, t)| (name.clone(), self.entry(t))).collect(),
            schemas: schemas.collect(),
            roles: BTreeMap::new(),
            compaction: CompactionInfo::default(),
            updated_at: time + TimeDelta::milliseconds(500),
            extra: Extra::new(),
        }
    }

    fn entry(&self, table: &TestTable) -> TableEntry {
        let TablePair { current, changes } = &table.pair;
        TableEntry {
            base_path: Some(table.base_path.clone()),
            latest_delta_epoch: table.delta_epoch,
            row_count: Some(table.places.len() as u64),
            iceberg_table: Some(current.ident.to_string()),
            metadata_location: Some(current.metadata_location.clone()),
            snapshot_id: current.head_id(Branch::Main),
            changes_iceberg_table: Some(changes.ident.to_string()),
            changes_metadata_location: Some(changes.metadata_location.clone()),
            changes_snapshot_id: changes.head_id(Branch::Main),
            lsn_to: Some(commit_lsn(table.delta_epoch)),
            delete_mode: Some("position".into()),
            soft_delete: Some(false),
            ..TableEntry::active(&table.schema, TableState::Streaming)
        }
    }
}

fn key_of(schema: &TableSchema, row: &str) -> String {
    let batch = rows_to_batch(&base_arrow_schema(schema), &[row]);
    arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap()
}

fn rows_to_batch(schema: &SchemaRef, rows: &[&str]) -> RecordBatch {
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
    decoder.decode(rows.join("\n").as_bytes()).unwrap();
    decoder.flush().unwrap().unwrap_or_else(|| RecordBatch::new_empty(schema.clone()))
}

fn delta_batch(schema: &TableSchema, epoch: Epoch, ops: &[Op<'_>]) -> RecordBatch {
    let rows: Vec<&str> = ops
        .iter()
        .map(|op| match op {
            Op::Insert(row) | Op::Update(row) | Op::Delete(row) => *row,
        })
        .collect();
    let kinds = ops.iter().map(|op| match op {
        Op::Insert(_) => "I",
        Op::Update(_) => "U",
        Op::Delete(_) => "D",
    });
    let arrow = delta_arrow_schema(schema);
    let mut columns = rows_to_batch(&base_arrow_schema(schema), &rows).columns().to_vec();
    let numbers = |start: u64, step: u64| -> ArrayRef {
        let values = (0..ops.len() as u64).map(|row| (start + step * row).cast_signed());
        Arc::new(Int64Array::from_iter_values(values))
    };
    let end = commit_lsn(epoch).0;
    let times = vec![commit_time(epoch).timestamp_micros(); ops.len()];
    let unchanged = arrow.field_with_name(meta::TOAST_UNCHANGED.name).unwrap().data_type();
    let DataType::List(element) = unchanged else { unreachable!() };
    let mut lists = ListBuilder::new(StringBuilder::new()).with_field(element.clone());
    (0..ops.len()).for_each(|_| lists.append(true));
    columns.push(Arc::new(StringArray::from_iter_values(kinds)));
    columns.push(numbers(epoch.0, 0));
    columns.push(numbers(end - 0x800, 0x10));
    columns.push(numbers(end, 0));
    columns.push(Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")));
    columns.push(numbers(0, 1));
    columns.push(numbers(700 + epoch.0, 0));
    columns.push(Arc::new(lists.finish()));
    RecordBatch::try_new(arrow, columns).unwrap()
}
