//! A small lake with one table of every stored type, driven by a model that knows what each reader
//! must see. Used by the tests and by the example.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, Time64MicrosecondArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::SchemaRef;
use cdc_core::{
    Column, Epoch, FieldId, Identity, LakeLocation, Lsn, PgType, StoredType, SystemClock,
    TableName, TableSchema, meta, oid,
};
use cdc_iceberg::{
    Branch, Catalog, CommitKind, CommitOutcome, Committer, DataFile, DeleteEncoding, FlushChange,
    InitialContent, LakeFiles, PositionDeletes, Remove, Stamp, TableNaming, TablePair, TableSpec,
    base_arrow_schema, changes_schema, current_schema, data_file_from_parquet, delta_arrow_schema,
    live_deletes, write_deletion_vectors, write_position_deletes,
};
use object_store::ObjectStore;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use uuid::Uuid;

/// The namespace of the sample tables.
pub(crate) const NAMESPACE: &str = "lake";

/// One version of a row in a delta file.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Upsert(i64, String),
    Delete(i64),
}

/// The lake, the model of its current state, and what comes next.
pub(crate) struct Sample {
    pub(crate) committer: Committer,
    pub(crate) schema: TableSchema,
    pub(crate) pair: TablePair,
    /// Key to value: what `t` must show.
    pub(crate) rows: BTreeMap<i64, String>,
    /// How many rows `t__changes` must show.
    pub(crate) change_rows: usize,
    /// How the next flushes record deletes.
    pub(crate) deletes: DeleteEncoding,
    places: HashMap<i64, (String, u64)>,
    epoch: Epoch,
}

pub(crate) fn schema() -> TableSchema {
    let columns = [
        ("id", StoredType::Int64),
        ("name", StoredType::String),
        ("amount", StoredType::Decimal { precision: 12, scale: 2 }),
        ("wide", StoredType::Decimal { precision: 38, scale: 4 }),
        ("flag", StoredType::Boolean),
        ("small", StoredType::Int32),
        ("single", StoredType::Float32),
        ("double", StoredType::Float64),
        ("day", StoredType::Date),
        ("at", StoredType::Time),
        ("local", StoredType::Timestamp),
        ("instant", StoredType::TimestampTz),
        ("ref", StoredType::Uuid),
        ("raw", StoredType::Binary),
        ("tags", StoredType::List(Box::new(StoredType::String))),
    ];
    let mut next = FieldId::FIRST_USER.0;
    let mut allocate = || {
        next += 1;
        FieldId(next - 1)
    };
    // ids with a gap before the last column, as after a dropped column
    let columns = columns.into_iter().enumerate().map(|(position, (name, stored))| {
        if name == "tags" {
            allocate();
        }
        Column {
            name: name.into(),
            field_id: allocate(),
            element_id: matches!(stored, StoredType::List(_)).then(&mut allocate),
            attnum: i16::try_from(position + 1).unwrap(),
            pg_type: PgType::base(oid::INT8, "int8"),
            stored,
            nullable: true,
            lossy: false,
        }
    });
    let columns: Vec<Column> = columns.collect();
    TableSchema {
        table: TableName::new("public", "Order Items"),
        version: 1,
        columns,
        identity: Identity::PrimaryKey(vec!["id".into()]),
        next_field_id: FieldId(next),
        omitted: Vec::new(),
    }
}

pub(crate) fn spec(schema: &TableSchema) -> TableSpec<'_> {
    TableSpec {
        schema,
        namespace: NAMESPACE,
        naming: TableNaming::Qualified,
        lake_id: "sample",
        codec: "zstd",
        generation: 1,
        deletes: DeleteEncoding::Position,
    }
}

pub(crate) fn stamp(kind: CommitKind, epoch: u64) -> Stamp {
    Stamp {
        kind,
        epoch: Epoch(epoch),
        lsn_from: Lsn(1000 * epoch),
        lsn_to: Lsn(1000 * (epoch + 1)),
        commit_ts: chrono::DateTime::from_timestamp_micros(1_700_000_000_123_456),
        batch_id: Uuid::new_v4(),
        generation: 1,
    }
}

impl Sample {
    /// A lake with two base files of `rows` rows each.
    pub(crate) async fn create(
        objects: Arc<dyn ObjectStore>,
        location: LakeLocation,
        catalog: Arc<dyn Catalog>,
        rows: i64,
    ) -> Sample {
        let files = LakeFiles::new(objects, location);
        let committer = Committer::new(files, catalog, Arc::new(SystemClock));
        let schema = schema();
        let (mut model, mut places) = (BTreeMap::new(), HashMap::new());
        let mut base_files = Vec::new();
        for part in 0..2 {
            let ids: Vec<i64> = (part * rows..(part + 1) * rows).collect();
            let names: Vec<Option<String>> =
                ids.iter().map(|id| Some(format!("base {id}"))).collect();
            let batch = user_batch(&base_arrow_schema(&schema), &ids, &names);
            let key = format!("{}/base/base_000000/part-{part:05}.parquet", segment(&schema));
            let (current, _) = put_parquet(&committer, &schema, &key, &batch).await;
            for (position, (id, name)) in ids.iter().zip(names).enumerate() {
                places.insert(*id, (current.file_path().to_owned(), position as u64));
                model.insert(*id, name.unwrap());
            }
            base_files.push(current);
        }
        let content =
            InitialContent { stamp: stamp(CommitKind::Init, 0), branch: Branch::Main, base_files };
        let pair = committer.create_tables(&spec(&schema), &content).await.unwrap();
        let epoch = Epoch(0);
        let deletes = DeleteEncoding::Position;
        Sample { committer, schema, pair, rows: model, change_rows: 0, deletes, places, epoch }
    }

    /// Writes the files of the next epoch and returns the change, without committing it.
    pub(crate) async fn prepare(&mut self, ops: &[Op]) -> FlushChange {
        self.epoch = self.epoch.next();
        let key = format!("{}/deltas/epoch={:06}.parquet", segment(&self.schema), self.epoch.0);
        let location = self.committer.files().location().uri(&key);
        let mut deletes = PositionDeletes::new();
        for (position, op) in ops.iter().enumerate() {
            let position = position as u64;
            let (Op::Upsert(id, _) | Op::Delete(id)) = op;
            if let Some((file, row)) = self.places.remove(id) {
                deletes.add(&file, row);
            }
            match op {
                Op::Upsert(id, name) => {
                    self.places.insert(*id, (location.clone(), position));
                    self.rows.insert(*id, name.clone());
                }
                Op::Delete(id) => {
                    deletes.add(&location, position);
                    self.rows.remove(id);
                }
            }
        }
        self.change_rows += ops.len();
        let batch = delta_batch(&self.schema, self.epoch, ops);
        let (current, changes) = put_parquet(&self.committer, &self.schema, &key, &batch).await;
        let files = self.committer.files();
        let (delete_files, remove) = match self.deletes {
            DeleteEncoding::Position => {
                let file = write_position_deletes(files, &self.schema.table, deletes).await;
                (file.unwrap().into_iter().collect(), Remove::Nothing)
            }
            DeleteEncoding::Vector => {
                let current = &self.pair.current;
                let head = current.head_id(Branch::Main).unwrap();
                let before = live_deletes(files, &current.metadata, head).await.unwrap();
                let table = &self.schema.table;
                let vectors =
                    write_deletion_vectors(files, table, &deletes, &before).await.unwrap();
                (vectors.delete_files, Remove::Deletes(vectors.replaced))
            }
        };
        FlushChange {
            stamp: stamp(CommitKind::Flush, self.epoch.0),
            branch: Branch::Main,
            current_files: vec![current],
            delete_files,
            remove,
            changes_files: vec![changes],
        }
    }

    /// Writes and commits the next epoch.
    pub(crate) async fn flush(&mut self, ops: &[Op]) {
        let change = self.prepare(ops).await;
        self.commit(change).await;
    }

    pub(crate) async fn commit(&mut self, change: FlushChange) {
        let outcome = self.committer.commit_flush(&self.pair, change).await.unwrap();
        self.pair = outcome.into_pair().expect("both tables commit");
    }
}

/// The committed table of an outcome.
pub(crate) fn committed(outcome: CommitOutcome) -> cdc_iceberg::Table {
    match outcome {
        CommitOutcome::Committed(table) => table,
        other => panic!("not committed: {other:?}"),
    }
}

pub(crate) fn segment(schema: &TableSchema) -> String {
    schema.table.key_segment()
}

/// Writes a Parquet file and returns its entries for `t` and for `t__changes`.
async fn put_parquet(
    committer: &Committer,
    schema: &TableSchema,
    key: &str,
    batch: &RecordBatch,
) -> (DataFile, DataFile) {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    let metadata = writer.close().unwrap();
    let size = bytes.len() as u64;
    let location = committer.files().location().uri(key);
    committer.files().write_new(&location, bytes.into()).await.unwrap();
    let entry = |iceberg_schema| {
        data_file_from_parquet(&location, size, &metadata, &iceberg_schema).unwrap()
    };
    (entry(current_schema(schema).unwrap()), entry(changes_schema(schema).unwrap()))
}

fn delta_batch(schema: &TableSchema, epoch: Epoch, ops: &[Op]) -> RecordBatch {
    let arrow = delta_arrow_schema(schema);
    let ids: Vec<i64> = ops
        .iter()
        .map(|op| match op {
            Op::Upsert(id, _) | Op::Delete(id) => *id,
        })
        .collect();
    let names: Vec<Option<String>> = ops
        .iter()
        .map(|op| match op {
            Op::Upsert(_, name) => Some(name.clone()),
            Op::Delete(_) => None,
        })
        .collect();
    let user = user_batch(&base_arrow_schema(schema), &ids, &names);
    let mut columns = user.columns().to_vec();
    let count = ops.len();
    let numbers = |start: i64, step: i64| -> ArrayRef {
        let values = (0..count).map(|row| start + step * i64::try_from(row).unwrap());
        Arc::new(Int64Array::from_iter_values(values))
    };
    let epoch = epoch.0.cast_signed();
    let mut unchanged = ListBuilder::new(StringBuilder::new());
    let list_field = arrow.field_with_name(meta::TOAST_UNCHANGED.name).unwrap().data_type().clone();
    if let arrow::datatypes::DataType::List(element) = list_field {
        unchanged = unchanged.with_field(element);
    }
    (0..count).for_each(|_| unchanged.append(true));
    columns.push(Arc::new(StringArray::from_iter_values(ops.iter().map(|op| match op {
        Op::Upsert(..) => "U",
        Op::Delete(_) => "D",
    }))));
    columns.push(numbers(epoch, 0));
    columns.push(numbers(1000 * epoch, 1));
    columns.push(numbers(1000 * (epoch + 1), 0));
    let micros = vec![1_700_000_000_123_456_i64; count];
    columns.push(Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")));
    columns.push(numbers(0, 1));
    columns.push(numbers(700 + epoch, 0));
    columns.push(Arc::new(unchanged.finish()));
    RecordBatch::try_new(arrow, columns).unwrap()
}

/// Rows with every type; a row without a name is a delete row and has its key only.
fn user_batch(arrow: &SchemaRef, ids: &[i64], names: &[Option<String>]) -> RecordBatch {
    let live: Vec<Option<i64>> =
        ids.iter().zip(names).map(|(id, name)| name.as_ref().map(|_| *id)).collect();
    let cell = |column: &str| -> ArrayRef {
        let field = arrow.field_with_name(column).unwrap();
        let live = || live.iter().copied();
        match column {
            "id" => Arc::new(Int64Array::from(ids.to_vec())),
            "name" => Arc::new(StringArray::from_iter(names.iter())),
            "amount" | "wide" => {
                let values = live().map(|id| id.map(|id| i128::from(id) * 101 - 50));
                Arc::new(
                    Decimal128Array::from_iter(values).with_data_type(field.data_type().clone()),
                )
            }
            "flag" => Arc::new(BooleanArray::from_iter(live().map(|id| id.map(|id| id % 2 == 0)))),
            "small" => Arc::new(Int32Array::from_iter(
                live().map(|id| id.map(|id| i32::try_from(id).unwrap() - 7)),
            )),
            "single" => Arc::new(Float32Array::from_iter(
                live().map(|id| id.map(|id| if id % 5 == 0 { f32::NAN } else { id as f32 / 4.0 })),
            )),
            "double" => {
                Arc::new(Float64Array::from_iter(live().map(|id| id.map(|id| id as f64 / 8.0))))
            }
            "day" => Arc::new(Date32Array::from_iter(
                live().map(|id| id.map(|id| i32::try_from(id).unwrap() - 100)),
            )),
            "at" => Arc::new(Time64MicrosecondArray::from_iter(
                live().map(|id| id.map(|id| id * 1_000_001)),
            )),
            "local" => Arc::new(TimestampMicrosecondArray::from_iter(
                live().map(|id| id.map(|id| id * 86_400_000_001)),
            )),
            "instant" => Arc::new(
                TimestampMicrosecondArray::from_iter(
                    live().map(|id| id.map(|id| id * 3_600_000_001)),
                )
                .with_timezone("UTC"),
            ),
            "ref" => {
                let values = live()
                    .map(|id| id.map(|id| Uuid::from_u64_pair(id.cast_unsigned(), 9).into_bytes()));
                Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 16).unwrap())
            }
            "raw" => Arc::new(BinaryArray::from_iter(
                live().map(|id| id.map(|id| id.to_be_bytes().to_vec())),
            )),
            "tags" => {
                let arrow::datatypes::DataType::List(element) = field.data_type() else {
                    unreachable!()
                };
                let mut lists =
                    ListBuilder::new(StringBuilder::new()).with_field(Arc::clone(element));
                for id in live() {
                    match id {
                        Some(id) => {
                            (0..id % 3)
                                .for_each(|tag| lists.values().append_value(format!("t{tag}")));
                            if id % 4 == 0 {
                                lists.values().append_null();
                            }
                            lists.append(true);
                        }
                        None => lists.append(false),
                    }
                }
                Arc::new(lists.finish())
            }
            _ => new_null_array(field.data_type(), ids.len()),
        }
    };
    let columns = arrow.fields().iter().map(|field| cell(field.name())).collect();
    RecordBatch::try_new(Arc::clone(arrow), columns).unwrap()
}

/// A sample in memory, with a catalog in memory.
pub(crate) async fn in_memory() -> Sample {
    in_memory_with(Arc::new(cdc_iceberg::MemoryCatalog::new())).await
}

/// A sample in memory over a given catalog: two base files of ten rows each.
pub(crate) async fn in_memory_with(catalog: Arc<dyn Catalog>) -> Sample {
    let objects = Arc::new(object_store::memory::InMemory::new());
    Sample::create(objects, LakeLocation::from_uri("mem://lake"), catalog, 10).await
}

/// An upsert with a text that tells the id.
pub(crate) fn upsert(id: i64) -> Op {
    Op::Upsert(id, format!("new {id}"))
}
