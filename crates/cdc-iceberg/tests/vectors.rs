//! Tables with deletion vectors: from the first commit on, and after position delete files.

use std::collections::BTreeSet;

use cdc_iceberg::{
    Branch, CommitKind, DeleteEncoding, Error, LiveFiles, OfSnapshots, Remove, Table, TableChange,
    live_deletes, live_files, load_deleted_rows, referenced_files,
};

use crate::reading::{data_locations, rows, rows_at};
use crate::sample::{Op, Sample, committed, in_memory, stamp, upsert};

async fn live(sample: &Sample, table: &Table) -> LiveFiles {
    let head = table.head_id(Branch::Main).unwrap();
    live_files(sample.committer.files(), &table.metadata, head).await.unwrap()
}

/// Each data file has at most one vector, and nothing else deletes.
fn assert_vectors_only(live: &LiveFiles) {
    assert!(live.delete_files.iter().all(cdc_iceberg::DeleteFile::is_vector));
    let named: BTreeSet<&str> =
        live.delete_files.iter().filter_map(|delete| delete.referenced.as_deref()).collect();
    assert_eq!(named.len(), live.delete_files.len(), "one vector per data file");
}

async fn with_vectors() -> Sample {
    let mut sample = in_memory().await;
    sample.deletes = DeleteEncoding::Vector;
    sample
}

#[tokio::test]
async fn current_state_equals_the_model_after_many_flushes_with_vectors() {
    let mut sample = with_vectors().await;
    for round in 0..40 {
        let ops =
            [upsert(round % 25), Op::Delete(round % 15 + 3), upsert(100 + round), upsert(100)];
        sample.flush(&ops).await;
        assert_eq!(rows(&sample, &sample.pair.current).await, sample.rows, "round {round}");
        let live = live(&sample, &sample.pair.current).await;
        assert_vectors_only(&live);
        let live_rows = sample.pair.current.live_rows(Branch::Main);
        assert_eq!(live_rows, Some(sample.rows.len() as u64), "round {round}");
    }
    assert_eq!(sample.pair.current.delete_encoding(), DeleteEncoding::Vector);
    assert_eq!(sample.pair.changes.delete_encoding(), DeleteEncoding::Position, "never deletes");
}

#[tokio::test]
async fn the_first_vector_takes_over_all_position_deletes() {
    let mut sample = in_memory().await;
    for round in 0..5 {
        sample.flush(&[upsert(round), Op::Delete(round + 10)]).await;
    }
    let before = sample.pair.current.head_id(Branch::Main).unwrap();
    let then = sample.rows.clone();
    assert_eq!(sample.pair.current.delete_encoding(), DeleteEncoding::Position);
    sample.deletes = DeleteEncoding::Vector;
    sample.flush(&[upsert(0)]).await;
    let table = sample.pair.current.clone();
    assert_eq!(table.delete_encoding(), DeleteEncoding::Vector);
    let files = live(&sample, &table).await;
    assert_vectors_only(&files);
    assert_eq!(rows(&sample, &table).await, sample.rows);
    assert_eq!(rows_at(&sample, &table, before).await, then, "the older snapshot as it was");
    assert_eq!(table.live_rows(Branch::Main), Some(sample.rows.len() as u64));
    let counts = &table.head(Branch::Main).unwrap().summary().additional_properties;
    assert_eq!(counts["removed-position-delete-files"], "5");
    assert_eq!(counts["added-dvs"], files.delete_files.len().to_string());
}

#[tokio::test]
async fn the_format_never_goes_back() {
    let mut sample = with_vectors().await;
    sample.flush(&[upsert(1)]).await;
    sample.deletes = DeleteEncoding::Position;
    let change = sample.prepare(&[upsert(2)]).await;
    let refused = sample.committer.commit_flush(&sample.pair, change).await;
    assert!(matches!(refused, Err(Error::EncodingRefused { .. })), "{refused:?}");
}

#[tokio::test]
async fn every_data_file_has_row_ids_of_its_own() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(1)]).await;
    sample.deletes = DeleteEncoding::Vector;
    for round in 0..40 {
        sample.flush(&[upsert(round % 20), upsert(round % 20 + 50)]).await;
    }
    let table = &sample.pair.current;
    let mut taken = 0;
    for snapshot in table.metadata.snapshots() {
        taken += snapshot.added_rows_count().unwrap_or(0);
    }
    let head = table.head(Branch::Main).unwrap();
    let end = head.first_row_id().unwrap() + head.added_rows_count().unwrap();
    assert_eq!(table.metadata.next_row_id(), end);
    assert!(taken >= live(&sample, table).await.record_count(), "{taken}");
    // merged manifests carry the ids that their entries had
    let carried = live(&sample, table).await;
    let mut ranges: Vec<(i64, i64)> = carried
        .data_files
        .iter()
        .filter_map(|file| Some((file.file.first_row_id()?, file.record_count.cast_signed())))
        .collect();
    ranges.sort_unstable();
    assert!(ranges.len() > 20, "32 small manifests were merged");
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{ranges:?}");
}

#[tokio::test]
async fn a_vector_leaves_with_its_data_file() {
    let mut sample = with_vectors().await;
    sample.flush(&[upsert(3), upsert(12)]).await;
    let table = sample.pair.current.clone();
    let all = data_locations(&sample, &table).await;
    let base = all.iter().find(|location| location.ends_with("part-00001.parquet")).unwrap();
    let change = TableChange {
        remove: Remove::Files([base.clone().into()].into()),
        ..TableChange::append(stamp(CommitKind::Compact, 0), Branch::Main, Vec::new())
    };
    let table = committed(sample.committer.commit(&table, &change).await.unwrap());
    let live = live(&sample, &table).await;
    assert_eq!(live.delete_files.len(), 1);
    assert!(live.delete_files[0].referenced.as_ref().unwrap().ends_with("part-00000.parquet"));
    sample.rows.retain(|id, _| *id < 10 || *id == 12);
    assert_eq!(rows(&sample, &table).await, sample.rows);
}

#[tokio::test]
async fn each_vector_has_a_file_of_its_own_which_is_referenced() {
    let mut sample = with_vectors().await;
    sample.flush(&[upsert(3), upsert(12)]).await;
    let table = &sample.pair.current;
    let files = sample.committer.files();
    let live = live(&sample, table).await;
    assert_eq!(live.delete_files.len(), 2);
    assert_ne!(live.delete_files[0].location, live.delete_files[1].location);
    let deleted = load_deleted_rows(files, &live.data_files, &live.delete_files).await.unwrap();
    assert!(deleted.named_by.values().all(|named| named.len() == 1));
    let head = table.head_id(Branch::Main).unwrap();
    let referenced =
        referenced_files(files, &table.metadata, OfSnapshots::One(head)).await.unwrap();
    assert!(live.delete_files.iter().all(|vector| referenced.contains(&vector.location)));
    let alone = live_deletes(files, &table.metadata, head).await.unwrap();
    assert!(alone.data_files.is_empty() && alone.delete_files.len() == 2);
}

#[tokio::test]
async fn nothing_is_left_of_vectors_after_everything_is_removed() {
    let mut sample = with_vectors().await;
    sample.flush(&[upsert(3), Op::Delete(12)]).await;
    let mut change = sample.prepare(&[upsert(900)]).await;
    (change.remove, change.delete_files) = (Remove::Everything, Vec::new());
    sample.commit(change).await;
    sample.rows.retain(|id, _| *id == 900);
    assert_eq!(rows(&sample, &sample.pair.current).await, sample.rows);
    assert!(live(&sample, &sample.pair.current).await.delete_files.is_empty());
}
