//! Staging and main: where commits go under manual promotion, how main follows, and which
//! snapshots a table forgets.

use cdc_iceberg::{
    Branch, OfSnapshots, Retention, TableChange, live_files, load_deleted_rows, referenced_files,
};

use crate::reading::{rows, rows_at};
use crate::sample::{committed, in_memory, upsert};

#[tokio::test]
async fn staged_commits_stay_off_main_until_promoted() {
    let mut sample = in_memory().await;
    let before = sample.rows.clone();
    for id in [3, 4] {
        let mut change = sample.prepare(&[upsert(id)]).await;
        change.branch = Branch::Staging;
        sample.commit(change).await;
    }
    let table = &sample.pair.current;
    assert_eq!(rows(&sample, table).await, before);
    let staged = table.head_id(Branch::Staging).unwrap();
    assert_eq!(rows_at(&sample, table, staged).await, sample.rows);
    assert_eq!(table.newest_lsn_to(Branch::Staging), Some(cdc_core::Lsn(3000)));
    assert_eq!(table.newest_lsn_to(Branch::Main), Some(cdc_core::Lsn(1000)));

    let promoted = sample.committer.set_branch(table, Branch::Main, staged).await.unwrap();
    let table = committed(promoted);
    assert_eq!(rows(&sample, &table).await, sample.rows);
    assert_eq!(table.metadata.snapshots().len(), 3, "promotion adds no snapshot");

    let again = sample.committer.set_branch(&table, Branch::Main, staged).await.unwrap();
    assert_eq!(committed(again).metadata_location, table.metadata_location);
}

#[tokio::test]
async fn a_branch_cannot_point_to_an_unknown_snapshot() {
    let sample = in_memory().await;
    let refused = sample.committer.set_branch(&sample.pair.current, Branch::Main, 42).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn expiry_keeps_the_newest_the_pinned_and_the_branch_heads() {
    let mut sample = in_memory().await;
    let mut ids = vec![sample.pair.current.head_id(Branch::Main).unwrap()];
    for id in 0..6 {
        sample.flush(&[upsert(id)]).await;
        ids.push(sample.pair.current.head_id(Branch::Main).unwrap());
    }
    let mut change = sample.prepare(&[upsert(7)]).await;
    change.branch = Branch::Staging;
    sample.commit(change).await;
    let staged = sample.pair.current.head_id(Branch::Staging).unwrap();
    // main goes back, so that its head is older than what staging keeps
    let main = sample.committer.set_branch(&sample.pair.current, Branch::Main, ids[3]).await;
    let table = committed(main.unwrap());

    let retention = Retention { keep: 2, pinned: [ids[1]].into() };
    let expired = sample.committer.expire(&table, &retention).await.unwrap();
    assert_eq!(expired.removed, 8 - 5);
    let table = committed(expired.outcome);
    let mut left: Vec<i64> = table.metadata.snapshots().map(|s| s.snapshot_id()).collect();
    let mut expected = vec![ids[1], ids[2], ids[3], ids[6], staged];
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(rows_at(&sample, &table, staged).await, sample.rows);

    let again = sample.committer.expire(&table, &retention).await.unwrap();
    assert_eq!(again.removed, 0);
    assert_eq!(committed(again.outcome).metadata_location, table.metadata_location);
}

#[tokio::test]
async fn a_commit_forgets_in_the_same_step_and_keeps_exactly_what_it_was_told() {
    let mut sample = in_memory().await;
    let mut ids = vec![sample.pair.current.head_id(Branch::Main).unwrap()];
    for id in 0..12 {
        let pinned = ids.iter().step_by(6).copied().take(2).collect();
        let change = sample.prepare(&[upsert(id)]).await;
        let change = TableChange::row_delta(
            change.stamp,
            change.branch,
            change.current_files,
            change.delete_files,
        );
        let change = change.keeping(Retention { keep: 3, pinned });
        let outcome = sample.committer.commit(&sample.pair.current, &change).await.unwrap();
        sample.pair.current = committed(outcome);
        ids.push(sample.pair.current.head_id(Branch::Main).unwrap());
    }
    let table = &sample.pair.current;
    let mut left: Vec<i64> = table.metadata.snapshots().map(|s| s.snapshot_id()).collect();
    let mut expected = vec![ids[0], ids[6], ids[10], ids[11], ids[12]];
    left.sort_unstable();
    expected.sort_unstable();
    assert_eq!(left, expected);
    assert_eq!(rows(&sample, table).await, sample.rows);
    assert_eq!(table.newest_lsn_to(Branch::Main), Some(cdc_core::Lsn(13_000)));
}

#[tokio::test]
async fn what_a_kept_snapshot_reads_is_referenced_and_nothing_else_is() {
    let mut sample = in_memory().await;
    for id in 0..4 {
        sample.flush(&[upsert(id)]).await;
    }
    let table = &sample.pair.current;
    let files = sample.committer.files();
    let all = referenced_files(files, &table.metadata, OfSnapshots::All).await.unwrap();
    let head = table.head_id(Branch::Main).unwrap();
    let one = referenced_files(files, &table.metadata, OfSnapshots::One(head)).await.unwrap();
    assert!(one.is_subset(&all));
    let live = live_files(files, &table.metadata, head).await.unwrap();
    for file in &live.data_files {
        assert!(one.contains(&file.location), "{}", file.location);
    }
    for file in &live.delete_files {
        assert!(one.contains(&file.location), "{}", file.location);
    }
    let lists = |set: &std::collections::HashSet<String>| {
        set.iter().filter(|location| location.contains("/snap-")).count()
    };
    assert_eq!((lists(&one), lists(&all)), (1, 5));
    let metadata_files = all.iter().filter(|location| location.ends_with(".metadata.json"));
    assert_eq!(metadata_files.count(), 4, "those before the current one");
}

#[tokio::test]
async fn deleted_rows_are_found_by_file_and_by_who_names_them() {
    let mut sample = in_memory().await;
    sample.flush(&[upsert(3), upsert(12)]).await;
    sample.flush(&[upsert(3)]).await;
    let table = &sample.pair.current;
    let files = sample.committer.files();
    let live =
        live_files(files, &table.metadata, table.head_id(Branch::Main).unwrap()).await.unwrap();
    let deleted = load_deleted_rows(files, &live.data_files, &live.delete_files).await.unwrap();
    let counts: Vec<u64> =
        live.data_files.iter().map(|file| deleted.count(&file.location)).collect();
    assert_eq!(counts, [1, 1, 1, 0]);
    let named: Vec<usize> =
        live.delete_files.iter().map(|delete| deleted.named_by[&delete.id()].len()).collect();
    assert_eq!(named, [2, 1]);
}
