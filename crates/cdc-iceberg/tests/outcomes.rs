//! How commits end when replies are lost, others commit, or a newer daemon owns the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use cdc_core::ErrorKind;
use cdc_iceberg::{
    Branch, Catalog, CommitKind, CommitOutcome, CreateOutcome, Error, MemoryCatalog, Result,
    SwapOutcome, TableChange, TableIdent,
};

use crate::sample::{Op, committed, in_memory, in_memory_with, stamp, upsert};

/// What a [`Lossy`] catalog does to the next swaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Applies the swap and loses the reply.
    Reply,
    /// Loses the request.
    Request,
    /// Applies the swap and reports a conflict, as an SDK that retried by itself.
    RepliesConflict,
}

/// A catalog that loses a number of requests or replies.
#[derive(Debug)]
struct Lossy {
    inner: MemoryCatalog,
    loss: Loss,
    left: AtomicU32,
}

impl Lossy {
    fn new(loss: Loss) -> Arc<Self> {
        Arc::new(Self { inner: MemoryCatalog::new(), loss, left: AtomicU32::new(0) })
    }
}

#[async_trait]
impl Catalog for Lossy {
    async fn ensure_namespace(&self, namespace: &str) -> Result<()> {
        self.inner.ensure_namespace(namespace).await
    }
    async fn pointer(&self, ident: &TableIdent) -> Result<Option<String>> {
        self.inner.pointer(ident).await
    }
    async fn create(&self, ident: &TableIdent, metadata_location: &str) -> Result<CreateOutcome> {
        self.inner.create(ident, metadata_location).await
    }
    async fn swap(&self, ident: &TableIdent, expected: &str, new: &str) -> Result<SwapOutcome> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            return self.inner.swap(ident, expected, new).await;
        }
        if self.loss != Loss::Request {
            let applied = self.inner.swap(ident, expected, new).await?;
            assert!(matches!(applied, SwapOutcome::Swapped));
        }
        Ok(match self.loss {
            Loss::RepliesConflict => SwapOutcome::Conflict,
            Loss::Reply | Loss::Request => {
                SwapOutcome::Unknown(Error::Cancelled { what: "the catalog's reply" })
            }
        })
    }
    async fn list(&self, namespace: &str) -> Result<Vec<TableIdent>> {
        self.inner.list(namespace).await
    }
    async fn drop_table(&self, ident: &TableIdent) -> Result<bool> {
        self.inner.drop_table(ident).await
    }
}

fn append(epoch: u64) -> TableChange {
    TableChange::append(stamp(CommitKind::Flush, epoch), Branch::Main, Vec::new())
}

#[tokio::test]
async fn lost_replies_make_one_snapshot_per_batch() {
    for loss in [Loss::Reply, Loss::RepliesConflict] {
        let catalog = Lossy::new(loss);
        let mut sample = in_memory_with(catalog.clone()).await;
        // one reply is lost on each of the two tables
        catalog.left.store(2, Ordering::SeqCst);
        sample.flush(&[upsert(3), Op::Delete(12)]).await;
        sample.flush(&[upsert(4)]).await;
        for table in [&sample.pair.current, &sample.pair.changes] {
            assert_eq!(table.metadata.snapshots().len(), 3, "{loss:?}");
        }
        assert_eq!(crate::reading::rows(&sample, &sample.pair.current).await, sample.rows);
    }
}

#[tokio::test]
async fn lost_requests_are_tried_again_on_the_same_base() {
    let catalog = Lossy::new(Loss::Request);
    let mut sample = in_memory_with(catalog.clone()).await;
    catalog.left.store(2, Ordering::SeqCst);
    sample.flush(&[upsert(3)]).await;
    assert_eq!(sample.pair.current.metadata.snapshots().len(), 2);
}

#[tokio::test]
async fn unknown_commits_are_resolved_later_without_a_second_snapshot() {
    let catalog = Lossy::new(Loss::Request);
    let sample = in_memory_with(catalog.clone()).await;
    catalog.left.store(u32::MAX, Ordering::SeqCst);
    let table = &sample.pair.changes;
    let outcome = sample.committer.commit(table, &append(1)).await.unwrap();
    let CommitOutcome::Unknown(unresolved) = outcome else { panic!("{outcome:?}") };

    catalog.left.store(0, Ordering::SeqCst);
    let first = committed(sample.committer.resolve(&unresolved).await.unwrap());
    let second = committed(sample.committer.resolve(&unresolved).await.unwrap());
    assert_eq!(first.metadata_location, second.metadata_location);
    assert_eq!(second.metadata.snapshots().len(), 2);
}

#[tokio::test]
async fn an_unknown_commit_is_found_below_what_others_put_on_top() {
    let catalog = Lossy::new(Loss::Reply);
    let sample = in_memory_with(catalog.clone()).await;
    let table = &sample.pair.changes;
    let change = append(1);
    let mine = committed(sample.committer.commit(table, &change).await.unwrap());
    let top = committed(sample.committer.commit(&mine, &append(2)).await.unwrap());

    // the same batch again, from a process that never saw the reply
    let outcome = sample.committer.commit(table, &change).await.unwrap();
    assert_eq!(committed(outcome).metadata_location, top.metadata_location);
}

#[tokio::test]
async fn a_conflict_tells_what_the_table_is_now() {
    let sample = in_memory().await;
    let table = &sample.pair.changes;
    let other = committed(sample.committer.commit(table, &append(1)).await.unwrap());
    let outcome = sample.committer.commit(table, &append(2)).await.unwrap();
    let CommitOutcome::NotCommitted(conflict) = outcome else { panic!("{outcome:?}") };
    assert_eq!(conflict.current.metadata_location, other.metadata_location);
    let rebased = sample.committer.commit(&conflict.current, &append(2)).await.unwrap();
    assert_eq!(committed(rebased).metadata.snapshots().len(), 3);
}

#[tokio::test]
async fn a_replayed_batch_is_skipped() {
    let mut sample = in_memory().await;
    let change = sample.prepare(&[upsert(3)]).await;
    sample.commit(change.clone()).await;
    let location = sample.pair.current.metadata_location.clone();
    // a new process names the replayed batch anew, but it reaches no further
    let mut replayed = change;
    replayed.stamp.batch_id = uuid::Uuid::new_v4();
    sample.commit(replayed).await;
    assert_eq!(sample.pair.current.metadata_location, location);
}

#[tokio::test]
async fn an_older_generation_cannot_commit() {
    let sample = in_memory().await;
    let raised = sample.committer.raise_generation(&sample.pair.changes, 2).await.unwrap();
    let table = committed(raised);
    assert_eq!(table.metadata.snapshots().len(), 1, "no snapshot for a property");
    let fenced = sample.committer.commit(&table, &append(1)).await.unwrap_err();
    assert!(matches!(fenced, Error::Fenced { found: 2, ours: 1, .. }));
    assert_eq!(fenced.kind(), ErrorKind::Conflict);

    // a resumed zombie still holds the old metadata: its swap fails
    let outcome = sample.committer.commit(&sample.pair.changes, &append(1)).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::NotCommitted(_)));
}

#[tokio::test]
async fn creating_a_table_twice_is_refused() {
    let sample = in_memory().await;
    let spec = crate::sample::spec(&sample.schema);
    let content = cdc_iceberg::InitialContent {
        stamp: stamp(CommitKind::Init, 0),
        branch: Branch::Main,
        base_files: Vec::new(),
    };
    let refused = sample.committer.create_tables(&spec, &content).await.unwrap_err();
    assert!(matches!(refused, Error::TableExists(_)), "{refused:?}");
}
