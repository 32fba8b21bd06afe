//! Staging and main: where commits go under manual promotion, how main follows, and which
//! snapshots a table forgets.

use cdc_iceberg::{Branch, Retention};

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
