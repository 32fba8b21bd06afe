//! Reading without a catalog: live files, deletes by file, and the rows that remain.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use cdc_iceberg::{Branch, Error, LiveFiles, Table, live_files, load_position_deletes};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::sample::{Op, Sample, in_memory, upsert};

/// Key to name of the rows at main's head.
pub(crate) async fn rows(sample: &Sample, table: &Table) -> BTreeMap<i64, String> {
    rows_at(sample, table, table.head_id(Branch::Main).unwrap()).await
}

/// Key to name of the rows of a snapshot. Two rows with one key are a failure.
pub(crate) async fn rows_at(
    sample: &Sample,
    table: &Table,
    snapshot_id: i64,
) -> BTreeMap<i64, String> {
    let files = sample.committer.files();
    let metadata = files.load_metadata(&table.metadata_location).await.unwrap();
    let live = live_files(files, &metadata, snapshot_id).await.unwrap();
    let deletes = load_position_deletes(files, &live).await.unwrap();
    let mut rows = BTreeMap::new();
    for file in &live.data_files {
        let deleted = deletes.get(&file.location).map_or(&[][..], Vec::as_slice);
        let bytes = files.read(&file.location).await.unwrap();
        let mut position = 0_u64;
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
            let names = batch.column_by_name("name").unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                if deleted.binary_search(&position).is_err() {
                    let before = rows.insert(ids.value(row), names.value(row).to_owned());
                    assert_eq!(before, None, "key {} twice", ids.value(row));
                }
                position += 1;
            }
        }
        assert_eq!(position, file.record_count);
    }
    rows
}

pub(crate) async fn data_locations(sample: &Sample, table: &Table) -> BTreeSet<String> {
    let live = live(sample, table).await;
    live.data_files.into_iter().map(|file| file.location).collect()
}

async fn live(sample: &Sample, table: &Table) -> LiveFiles {
    let head = table.head_id(Branch::Main).unwrap();
    live_files(sample.committer.files(), &table.metadata, head).await.unwrap()
}

#[tokio::test]
async fn current_state_equals_the_model_after_many_flushes() {
    let mut sample = in_memory().await;
    for round in 0..12 {
        let ops = [upsert(round), Op::Delete(round + 8), upsert(100 + round), upsert(100)];
        sample.flush(&ops).await;
        assert_eq!(rows(&sample, &sample.pair.current).await, sample.rows);
    }
    let changes = live(&sample, &sample.pair.changes).await;
    assert_eq!(changes.record_count(), sample.change_rows as u64);
    assert!(changes.delete_files.is_empty());
}

#[tokio::test]
async fn an_old_snapshot_shows_what_it_showed() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3)]).await;
    let (then, at) = (sample.rows.clone(), sample.pair.current.head_id(Branch::Main).unwrap());
    sample.flush(&[Op::Delete(3), Op::Delete(4)]).await;
    assert_eq!(rows_at(&sample, &sample.pair.current, at).await, then);
}

#[tokio::test]
async fn deletes_are_matched_to_their_files() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3)]).await;
    sample.flush(&[upsert(13), Op::Delete(14)]).await;
    let live = live(&sample, &sample.pair.current).await;
    let touching = |end: &str| {
        let file = live.data_files.iter().find(|file| file.location.ends_with(end)).unwrap();
        live.deletes_of(file).map(|delete| delete.sequence_number).collect::<Vec<_>>()
    };
    // the first flush names one file only; the second a range from the base file to its delta
    assert_eq!(touching("part-00000.parquet"), [2]);
    assert_eq!(touching("part-00001.parquet"), [3]);
    assert_eq!(touching("epoch=000002.parquet"), [3]);
    assert_eq!(
        live.delete_files[0].referenced.as_deref(),
        Some(live.data_files[0].location.as_str())
    );
    assert_eq!(live.delete_files[1].referenced, None);
}

#[tokio::test]
async fn an_unknown_snapshot_is_not_found() {
    let sample = in_memory().await;
    let missing = live_files(sample.committer.files(), &sample.pair.current.metadata, 42).await;
    assert!(matches!(missing, Err(Error::NoSnapshot { snapshot_id: 42, .. })));
}
