//! Staging and main: where commits go under manual promotion, and how main follows.

use cdc_iceberg::Branch;

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
