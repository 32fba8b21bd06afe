//! A lake in memory, a table, and its files read back.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use cdc_core::*;
use cdc_manifest::{LakeStore, StorageSpec};
use cdc_sink::index::{IndexBuilder, IndexOptions, IndexStamp, KeyIndex};
use cdc_sink::{DeltaContext, DeltaOptions, DeltaWriter, index_identity};
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

pub(crate) fn column(at: usize, name: &str, pg_type: PgType, stored: StoredType) -> Column {
    let field_id = FieldId(100 + 2 * at as i32);
    let is_list = matches!(stored, StoredType::List(_));
    Column {
        name: name.to_owned(),
        field_id,
        element_id: is_list.then_some(FieldId(field_id.0 + 1)),
        attnum: at as i16 + 1,
        pg_type,
        stored,
        nullable: true,
        lossy: false,
    }
}

/// `id bigint, body text, n integer`.
pub(crate) fn schema(identity: Identity) -> Arc<TableSchema> {
    let columns = vec![
        column(0, "id", PgType::base(oid::INT8, "bigint"), StoredType::Int64),
        column(1, "body", PgType::base(oid::TEXT, "text"), StoredType::String),
        column(2, "n", PgType::base(oid::INT4, "integer"), StoredType::Int32),
    ];
    Arc::new(TableSchema {
        table: TableName::new("public", "t"),
        version: 1,
        columns,
        identity,
        next_field_id: FieldId(200),
        omitted: Vec::new(),
    })
}

pub(crate) fn by_key() -> Identity {
    Identity::PrimaryKey(vec!["id".to_owned()])
}

pub(crate) fn stamp(schema: &TableSchema, epoch: Epoch) -> IndexStamp {
    IndexStamp {
        lake_id: "lake".into(),
        identity: index_identity(schema),
        snapshot_id: Some(epoch.0 as i64),
        lsn_to: Lsn(epoch.0),
        epoch,
    }
}

pub(crate) fn empty_index(dir: &Path, schema: &TableSchema) -> KeyIndex {
    let builder = IndexBuilder::create(dir, IndexOptions::default()).unwrap();
    builder.finish(stamp(schema, Epoch(0))).unwrap()
}

/// A lake in memory and a runtime to reach it from synchronous code.
pub(crate) struct Lake {
    pub(crate) store: LakeStore,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Lake {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        Self { store: LakeStore::open(&StorageSpec::Memory).unwrap(), runtime: runtime.unwrap() }
    }

    pub(crate) fn writer(
        &self,
        schema: &TableSchema,
        index: KeyIndex,
        options: DeltaOptions,
    ) -> DeltaWriter {
        let context = DeltaContext {
            table: schema.table.clone(),
            lake: self.store.clone(),
            runtime: self.runtime.handle().clone(),
        };
        DeltaWriter::new(index, context, options)
    }

    pub(crate) fn bytes(&self, key: &str) -> Bytes {
        let path = object_store::path::Path::from(key);
        let read = async { self.store.store().get(&path).await?.bytes().await };
        self.runtime.block_on(read).unwrap()
    }

    pub(crate) fn rows(&self, key: &str) -> Vec<RecordBatch> {
        read(self.bytes(key))
    }
}

pub(crate) fn read(bytes: Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}
