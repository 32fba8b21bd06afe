//! What a commit leaves behind: one snapshot, the right entries, numbers and summary.

use std::collections::BTreeMap;

use cdc_iceberg::{
    Branch, CommitKind, PositionDeletes, Remove, Stamp, Table, TableChange, TableMetadata,
    write_position_deletes,
};
use iceberg::spec::{
    DataContentType, FormatVersion, Manifest, ManifestContentType, ManifestFile, ManifestList,
    ManifestStatus, Operation, Snapshot,
};

use crate::sample::{Op, Sample, committed, in_memory, stamp, upsert};

async fn manifests(sample: &Sample, metadata: &TableMetadata, at: &Snapshot) -> Vec<ManifestFile> {
    let bytes = sample.committer.files().read(at.manifest_list()).await.unwrap();
    let list = ManifestList::parse_with_version(&bytes, metadata.format_version()).unwrap();
    list.entries().to_vec()
}

/// (content, status, sequence number as written, rows) of every entry.
async fn entries(
    sample: &Sample,
    manifest: &ManifestFile,
) -> Vec<(DataContentType, ManifestStatus, Option<i64>, u64)> {
    let bytes = sample.committer.files().read(&manifest.manifest_path).await.unwrap();
    let parsed = Manifest::parse_avro(&bytes).unwrap();
    let entries = parsed.entries().iter();
    entries.map(|e| (e.content_type(), e.status, e.sequence_number, e.record_count())).collect()
}

fn head(table: &Table) -> &Snapshot {
    table.head(Branch::Main).expect("the table has a snapshot")
}

fn summary<'a>(snapshot: &'a Snapshot, key: &str) -> Option<&'a str> {
    snapshot.summary().additional_properties.get(key).map(String::as_str)
}

#[tokio::test]
async fn each_flush_is_one_snapshot_on_each_table() {
    let mut sample = in_memory().await;
    for round in 0..3 {
        sample.flush(&[upsert(round), Op::Delete(15 + round)]).await;
    }
    for table in [&sample.pair.current, &sample.pair.changes] {
        assert_eq!(table.metadata.snapshots().len(), 1 + 3);
        assert_eq!(table.metadata.last_sequence_number(), 4);
        assert_eq!(table.metadata.format_version(), FormatVersion::V2);
        let name = table.metadata_location.rsplit('/').next().unwrap();
        assert!(name.starts_with("00003-") && name.ends_with(".metadata.json"), "{name}");
        let reloaded = sample.committer.load(&table.ident).await.unwrap();
        assert_eq!(*reloaded.metadata, *table.metadata);
    }
    let changes = &sample.pair.changes.metadata_location;
    assert!(changes.contains("/changes_metadata/"), "{changes}");
    let location = sample.pair.current.metadata.location();
    assert_eq!(location, "mem://lake/public.Order!20Items");
    assert_eq!(location, sample.pair.changes.metadata.location());
}

#[tokio::test]
async fn deletes_share_the_sequence_number_of_the_file_they_come_with() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3), upsert(3), Op::Delete(12)]).await;
    let table = &sample.pair.current;
    let manifests = manifests(&sample, &table.metadata, head(table)).await;
    let found: Vec<_> =
        manifests.iter().map(|m| (m.content, m.sequence_number, m.min_sequence_number)).collect();
    let (data, deletes) = (ManifestContentType::Data, ManifestContentType::Deletes);
    assert_eq!(found, [(data, 2, 2), (deletes, 2, 2), (data, 1, 1)]);

    let added = ManifestStatus::Added;
    // numbers of new entries are inherited, so that a manifest need not be rewritten for a retry
    assert_eq!(entries(&sample, &manifests[0]).await, [(DataContentType::Data, added, None, 3)]);
    assert_eq!(
        entries(&sample, &manifests[1]).await,
        // row 3 of the base, its first new version, row 12 of the base, the delete row itself
        [(DataContentType::PositionDeletes, added, None, 4)]
    );
}

#[tokio::test]
async fn changelog_names_the_same_files_and_has_no_deletes() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3), Op::Delete(12)]).await;
    sample.flush(&[Op::Delete(3)]).await;
    let table = &sample.pair.changes;
    let manifests = manifests(&sample, &table.metadata, head(table)).await;
    assert!(manifests.iter().all(|m| m.content == ManifestContentType::Data));
    assert_eq!(manifests.len(), 2);
    assert_eq!(head(table).summary().operation, Operation::Append);
    assert_eq!(summary(head(table), "total-records"), Some("3"));

    let current = crate::reading::data_locations(&sample, &sample.pair.current).await;
    let changes = crate::reading::data_locations(&sample, table).await;
    assert!(changes.iter().all(|location| current.contains(location)));
    assert_eq!(current.len(), changes.len() + 2, "and the two base files");
}

#[tokio::test]
async fn summary_tells_the_batch_and_carries_totals() {
    let mut sample = in_memory().await;
    let mut change = sample.prepare(&[upsert(3), upsert(3), Op::Delete(12)]).await;
    change.stamp = Stamp { batch_id: uuid::Uuid::from_u128(7), ..change.stamp };
    let written = change.stamp.clone();
    sample.commit(change).await;
    sample.flush(&[upsert(50)]).await;

    let table = &sample.pair.current;
    let flush = table.find_batch(Branch::Main, uuid::Uuid::from_u128(7)).unwrap();
    assert_eq!(Stamp::of(flush), Some(written));
    assert_eq!(flush.summary().operation, Operation::Overwrite);
    let expected = BTreeMap::from([
        ("pgcdc.kind", "flush"),
        ("pgcdc.epoch", "1"),
        ("pgcdc.lsn-from", "0/3E8"),
        ("pgcdc.lsn-to", "0/7D0"),
        ("pgcdc.commit-ts", "2023-11-14T22:13:20.123456Z"),
        ("pgcdc.batch-id", "00000000-0000-0000-0000-000000000007"),
        ("pgcdc.generation", "1"),
        ("added-data-files", "1"),
        ("added-records", "3"),
        ("added-delete-files", "1"),
        ("added-position-deletes", "4"),
        ("total-data-files", "3"),
        ("total-delete-files", "1"),
        ("total-records", "23"),
        ("total-position-deletes", "4"),
        ("total-equality-deletes", "0"),
    ]);
    for (key, value) in expected {
        assert_eq!(summary(flush, key), Some(value), "{key}");
    }
    // an insert alone supersedes nothing
    assert_eq!(head(table).summary().operation, Operation::Append);
    assert_eq!(summary(head(table), "total-delete-files"), Some("1"));
    assert_eq!(summary(head(table), "added-delete-files"), None);
}

#[tokio::test]
async fn truncate_takes_everything_and_keeps_what_comes_after() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3), Op::Delete(12)]).await;
    let mut change = sample.prepare(&[upsert(900)]).await;
    change.remove = Remove::Everything;
    sample.commit(change).await;
    sample.rows.retain(|id, _| *id == 900);

    let table = sample.pair.current.clone();
    assert_eq!(summary(head(&table), "deleted-data-files"), Some("3"));
    assert_eq!(summary(head(&table), "removed-delete-files"), Some("1"));
    assert_eq!(summary(head(&table), "total-records"), Some("1"));
    assert_eq!(summary(head(&table), "total-position-deletes"), Some("0"));
    let carried = manifests(&sample, &table.metadata, head(&table)).await;
    for manifest in &carried[1..] {
        let entries = entries(&sample, manifest).await;
        assert!(entries.iter().all(|(_, status, sequence, _)| {
            *status == ManifestStatus::Deleted && sequence.is_some()
        }));
    }
    assert_eq!(crate::reading::rows(&sample, &table).await, sample.rows);

    sample.flush(&[upsert(901)]).await;
    let table = &sample.pair.current;
    let kept = manifests(&sample, &table.metadata, head(table)).await;
    assert_eq!(kept.len(), 2, "manifests without live entries are left behind");
    assert_eq!(crate::reading::rows(&sample, table).await, sample.rows);
}

#[tokio::test]
async fn replacing_files_keeps_the_others_and_the_lsn() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3)]).await;
    let table = sample.pair.current.clone();
    let first = crate::reading::data_locations(&sample, &table).await;
    let base = first.iter().find(|location| location.ends_with("part-00001.parquet")).unwrap();
    let change = TableChange {
        remove: Remove::Files([base.clone().into()].into()),
        ..TableChange::append(stamp(CommitKind::Compact, 0), Branch::Main, Vec::new())
    };
    let table = committed(sample.committer.commit(&table, &change).await.unwrap());
    sample.rows.retain(|id, _| *id < 10);
    assert_eq!(crate::reading::rows(&sample, &table).await, sample.rows);
    assert_eq!(head(&table).summary().operation, Operation::Replace);
    // a commit never states less than the table covers
    assert_eq!(table.newest_lsn_to(Branch::Main), Some(cdc_core::Lsn(2000)));
}

#[tokio::test]
async fn nothing_to_delete_writes_no_file() {
    let sample = in_memory().await;
    let files = sample.committer.files();
    let table = &sample.schema.table;
    let written = write_position_deletes(files, table, PositionDeletes::new()).await.unwrap();
    assert_eq!(written, None);
}

#[tokio::test]
async fn small_manifests_are_merged_with_the_numbers_they_have() {
    let mut sample = in_memory().await;
    let mut counts = Vec::new();
    for round in 0..40 {
        sample.flush(&[upsert(round % 7), Op::Delete(50 + round), upsert(51 + round)]).await;
        let table = &sample.pair.current;
        counts.push(manifests(&sample, &table.metadata, head(table)).await.len());
    }
    assert!(counts.iter().all(|count| *count <= 2 * 33), "{counts:?}");
    assert!(counts[39] < counts[30], "{counts:?}");
    let table = sample.pair.current.clone();
    let all = manifests(&sample, &table.metadata, head(&table)).await;
    let merged: Vec<_> = all.iter().filter(|m| m.existing_files_count > Some(30)).collect();
    assert_eq!(merged.len(), 2, "one of data files, one of delete files");
    for manifest in merged {
        let entries = entries(&sample, manifest).await;
        assert!(entries.iter().all(|entry| entry.1 == ManifestStatus::Existing));
        let mut numbers: Vec<i64> = entries.iter().map(|entry| entry.2.unwrap()).collect();
        assert_eq!(numbers.iter().min(), Some(&manifest.min_sequence_number));
        assert!(*numbers.iter().max().unwrap() < manifest.sequence_number);
        numbers.dedup();
        assert!(numbers.len() > 30, "each flush keeps its own number");
    }
    assert_eq!(crate::reading::rows(&sample, &table).await, sample.rows);
}
