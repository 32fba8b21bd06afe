//! Reads cuts of the lake as an Iceberg reader would: live files less deleted positions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use cdc_core::meta;
use cdc_iceberg::{LakeFiles, LiveFiles, TableMetadata, live_files, load_position_deletes};
use cdc_manifest::LakeStore;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::tables::{Row, Table};
use crate::tape::Logged;

/// Where a manifest says that a table is.
#[derive(Clone, Debug)]
pub(crate) struct TableCut {
    pub(crate) metadata: String,
    pub(crate) snapshot: Option<i64>,
    pub(crate) changes_metadata: String,
    pub(crate) changes_snapshot: Option<i64>,
}

/// The rows of one file, with what a changelog says of them.
type Rows = Arc<Vec<(Row, Option<Logged>)>>;

/// Decoded files by location; a file never changes.
pub(crate) struct Reader {
    files: LakeFiles,
    decoded: HashMap<String, Rows>,
}

impl Reader {
    pub(crate) fn new(lake: LakeStore) -> Reader {
        let files = LakeFiles::new(Arc::clone(lake.store()), lake.location().clone());
        Reader { files, decoded: HashMap::new() }
    }

    /// The rows of `t`.
    pub(crate) async fn rows(
        &mut self,
        table: &Table,
        cut: &TableCut,
    ) -> Result<BTreeMap<Row, u64>, String> {
        let live = self.live(&cut.metadata, cut.snapshot).await?;
        let deleted = load_position_deletes(&self.files, &live).await;
        let deleted = deleted.map_err(|error| cdc_core::chain(&error))?;
        let mut rows: BTreeMap<Row, u64> = BTreeMap::new();
        for file in &live.data_files {
            let decoded = self.decode(table, &file.location, file.size, file.record_count).await?;
            let dead = deleted.get(&file.location);
            for (at, (row, _)) in decoded.iter().enumerate() {
                if dead.is_none_or(|dead| dead.binary_search(&(at as u64)).is_err()) {
                    *rows.entry(row.clone()).or_default() += 1;
                }
            }
        }
        Ok(rows)
    }

    /// The rows of `t__changes` in commit order; within a file they must stand so already.
    pub(crate) async fn log(
        &mut self,
        table: &Table,
        cut: &TableCut,
    ) -> Result<Vec<Logged>, String> {
        let live = self.live(&cut.changes_metadata, cut.changes_snapshot).await?;
        if !live.delete_files.is_empty() {
            return Err("the changelog has deletes".to_owned());
        }
        let mut log = Vec::new();
        for file in &live.data_files {
            let decoded = self.decode(table, &file.location, file.size, file.record_count).await?;
            let entries: Option<Vec<Logged>> =
                decoded.iter().map(|(_, logged)| logged.clone()).collect();
            let entries =
                entries.ok_or_else(|| format!("{} has no metadata columns", file.location))?;
            let is_ordered = entries.is_sorted_by_key(|entry| (entry.commit_lsn, entry.seq));
            if !is_ordered {
                return Err(format!("{} is not in commit order", file.location));
            }
            log.extend(entries);
        }
        log.sort_by_key(|entry| (entry.commit_lsn, entry.seq));
        Ok(log)
    }

    async fn live(&self, metadata: &str, snapshot: Option<i64>) -> Result<LiveFiles, String> {
        let Some(snapshot) = snapshot else { return Ok(LiveFiles::default()) };
        let read = async {
            let metadata: TableMetadata = self.files.load_metadata(metadata).await?;
            live_files(&self.files, &metadata, snapshot).await
        };
        read.await.map_err(|error| cdc_core::chain(&error))
    }

    async fn decode(
        &mut self,
        table: &Table,
        location: &str,
        size: u64,
        rows: u64,
    ) -> Result<Rows, String> {
        if let Some(known) = self.decoded.get(location) {
            return Ok(Arc::clone(known));
        }
        let bytes = self.files.read(location).await.map_err(|error| cdc_core::chain(&error))?;
        if bytes.len() as u64 != size {
            return Err(format!("{location} has {} bytes instead of {size}", bytes.len()));
        }
        let broken = |error: &dyn std::error::Error| format!("{location}: {error}");
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(|builder| builder.with_batch_size(16_384).build())
            .map_err(|error| broken(&error))?;
        let mut decoded = Vec::new();
        for batch in reader {
            decode_batch(table, &batch.map_err(|error| broken(&error))?, &mut decoded)?;
        }
        if decoded.len() as u64 != rows {
            return Err(format!("{location} has {} rows instead of {rows}", decoded.len()));
        }
        let decoded = Arc::new(decoded);
        self.decoded.insert(location.to_owned(), Arc::clone(&decoded));
        Ok(decoded)
    }
}

fn decode_batch(
    table: &Table,
    batch: &RecordBatch,
    out: &mut Vec<(Row, Option<Logged>)>,
) -> Result<(), String> {
    let schema = batch.schema();
    let column = |field_id: i32| {
        let id = field_id.to_string();
        let at = schema
            .fields()
            .iter()
            .position(|field| field.metadata().get(PARQUET_FIELD_ID_META_KEY) == Some(&id));
        at.map(|at| batch.column(at))
    };
    let shape = table.schema();
    let users: Option<Vec<_>> =
        shape.columns.iter().map(|known| column(known.field_id.0)).collect();
    let users = users.ok_or_else(|| format!("{} lacks a column", table.name))?;
    let meta = |known: meta::MetaColumn| column(known.field_id.0);
    for at in 0..batch.num_rows() {
        let row: Row = users.iter().map(|array| cell(array.as_ref(), at)).collect();
        let logged = meta(meta::OP).map(|op| {
            let number =
                |known| meta(known).map_or(0, |array| array.as_primitive::<Int64Type>().value(at));
            let micros = meta(meta::COMMIT_TS)
                .map_or(0, |array| array.as_primitive::<TimestampMicrosecondType>().value(at));
            let unsent = meta(meta::TOAST_UNCHANGED).map(|array| {
                let names = array.as_list::<i32>().value(at);
                (0..names.len()).filter_map(|name| cell(names.as_ref(), name)).collect()
            });
            Logged {
                commit_lsn: number(meta::COMMIT_LSN),
                seq: number(meta::SEQ),
                op: cell(op.as_ref(), at).unwrap_or_default(),
                lsn: number(meta::LSN),
                xid: number(meta::XID),
                micros,
                row: row.clone(),
                unsent: unsent.unwrap_or_default(),
            }
        });
        out.push((row, logged));
    }
    Ok(())
}

fn cell(array: &dyn Array, at: usize) -> Option<String> {
    if array.is_null(at) {
        return None;
    }
    match array.data_type() {
        DataType::Int64 => Some(array.as_primitive::<Int64Type>().value(at).to_string()),
        DataType::Int32 => Some(array.as_primitive::<Int32Type>().value(at).to_string()),
        DataType::Utf8 => Some(array.as_string::<i32>().value(at).to_owned()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(at).to_owned()),
        other => Some(format!("a value of type {other}")),
    }
}
