//! The commit protocol against a store that loses replies and requests, and against rivals.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cdc_core::{Clock, Epoch, ErrorKind, LakeLocation, Lsn, SystemClock, TableName};
use cdc_iceberg::MemoryCatalog;
use cdc_manifest::{
    CatalogInfo, CompactionInfo, LakeStore, Manifest, RawRetention, SourceInfo, Swap, TableEntry,
    Versioned,
};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use uuid::Uuid;

use crate::Error;
use crate::commit::{BatchName, CommitState, EpochContent};
use crate::control::VerifiedRecord;
use crate::fence::{Breaker, BreakerSettings, Fence, raise_generation};
use crate::lake::{Components, Lake};
use crate::meters::Meters;
use crate::settings::RefSettings;
use crate::upkeep::Kept;

/// What a [`Lossy`] store does to the next writes of manifest.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The write is done, its reply lost.
    Reply,
    /// The request is lost.
    Request,
    /// The write is done and reported as a conflict, as after a retry inside a client library.
    RepliesConflict,
}

#[derive(Debug)]
pub(crate) struct Lossy {
    inner: InMemory,
    loss: Loss,
    left: AtomicU32,
}

impl std::fmt::Display for Lossy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a store that loses writes")
    }
}

fn lost(what: &str) -> object_store::Error {
    object_store::Error::Generic { store: "lossy", source: what.to_owned().into() }
}

#[async_trait]
impl ObjectStore for Lossy {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let is_manifest = at.as_ref() == "manifest.json";
        let count = |n: u32| n.checked_sub(1);
        let loses = is_manifest
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count).is_ok();
        if !loses {
            return self.inner.put_opts(at, payload, opts).await;
        }
        if self.loss != Loss::Request {
            self.inner.put_opts(at, payload, opts).await?;
        }
        match self.loss {
            Loss::Reply | Loss::Request => Err(lost("timed out")),
            Loss::RepliesConflict => {
                let (path, source) = (at.to_string(), "moved".into());
                Err(object_store::Error::Precondition { path, source })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn manifest() -> Manifest {
    let at = SystemClock.now();
    let lsn = Lsn(0x1000);
    Manifest {
        version: cdc_manifest::MANIFEST_VERSION,
        lake_id: "lake".into(),
        source: SourceInfo {
            name: "slot".into(),
            postgres_version: "PostgreSQL 15".into(),
            init_lsn: lsn,
            init_timestamp: at,
            database: "d".into(),
            system_identifier: 7,
            timeline: 1,
            slot: "slot".into(),
            publication: "pub".into(),
            extra: Default::default(),
        },
        epoch: Epoch(0),
        commit_lsn: lsn,
        commit_ts: at,
        covered_lsn: lsn,
        covered_at: at,
        batch_id: "init".into(),
        generation: 0,
        catalog: CatalogInfo {
            kind: "iceberg".into(),
            backend: "sqlite".into(),
            database: "d".into(),
            extra: Default::default(),
        },
        tables: BTreeMap::new(),
        schemas: BTreeMap::new(),
        roles: BTreeMap::new(),
        compaction: CompactionInfo::default(),
        updated_at: at,
        extra: Default::default(),
    }
}

/// A lake whose generation this daemon has raised, over a store that loses `left` manifest writes
/// from now on.
pub(crate) async fn taken_over(loss: Loss, left: u32) -> (CommitState, Arc<Lossy>) {
    let lossy = Arc::new(Lossy { inner: InMemory::new(), loss, left: AtomicU32::new(0) });
    let location = LakeLocation::from_uri("memory://lake");
    let store = LakeStore::new(Arc::clone(&lossy) as Arc<dyn ObjectStore>, location);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let catalog = Arc::new(MemoryCatalog::new());
    let lake = Lake::over(Components { store, catalog, clock }, Meters::default());
    assert!(matches!(lake.manifests.create(&manifest()).await.unwrap(), Swap::Stored(_)));
    let settings = BreakerSettings { threshold: 3, window: Duration::from_secs(60) };
    let breaker = Arc::new(Breaker::new(settings));
    let manifest = lake.manifests.require().await.unwrap();
    let (manifest, fence) = raise_generation(&lake, manifest, &breaker).await.unwrap();
    lossy.left.store(left, Ordering::SeqCst);
    let state = CommitState {
        lake,
        fence,
        manifest,
        tables: BTreeMap::new(),
        refs: RefSettings {
            snapshots_kept: 100,
            inline_raw: 1,
            retention: RawRetention::default(),
        },
        kept: Kept::newest(100),
        parallel_workers: 1,
    };
    (state, lossy)
}

/// The batch of an epoch: epoch `n` ends at LSN `0x1000 (n + 1)`.
pub(crate) fn batch(epoch: u64) -> BatchName {
    BatchName {
        id: Uuid::now_v7(),
        epoch: Epoch(epoch),
        lsn_from: Lsn(0x1000 * epoch),
        lsn_to: Lsn(0x1000 * (epoch + 1)),
        commit_micros: 1,
    }
}

pub(crate) async fn stored(state: &CommitState) -> Manifest {
    state.lake.manifests.require().await.unwrap().value
}

/// Writes the manifest as somebody else does, at once and on what stands there.
async fn rival(state: &CommitState, edit: impl FnOnce(&mut Manifest)) {
    let base: Versioned<Manifest> = state.lake.manifests.require().await.unwrap();
    let mut next = base.value.clone();
    edit(&mut next);
    assert!(matches!(state.lake.manifests.commit(&base, &next).await.unwrap(), Swap::Stored(_)));
}

#[tokio::test]
async fn a_lost_reply_is_read_back_and_the_epoch_is_made_once() {
    for loss in [Loss::Reply, Loss::RepliesConflict, Loss::Request] {
        let (mut state, _) = taken_over(loss, 1).await;
        let receipt = state.commit(&batch(1), &EpochContent::default()).await.unwrap();
        assert_eq!((receipt.epoch(), receipt.covered_lsn()), (Epoch(1), Lsn(0x2000)), "{loss:?}");
        let receipt = state.commit(&batch(2), &EpochContent::default()).await.unwrap();
        assert_eq!(receipt.epoch(), Epoch(2), "{loss:?}");
        assert_eq!(stored(&state).await, state.manifest.value, "{loss:?}");
        assert_eq!(state.fence.breaker.total(), 0, "{loss:?}: our own write is no conflict");
    }
}

#[tokio::test]
async fn an_unknown_outcome_keeps_the_batch_and_its_next_try_ends_it() {
    let (mut state, lossy) = taken_over(Loss::Request, u32::MAX).await;
    let name = batch(1);
    let error = state.commit(&name, &EpochContent::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(stored(&state).await.epoch, Epoch(0));
    lossy.left.store(0, Ordering::SeqCst);
    assert_eq!(state.commit(&name, &EpochContent::default()).await.unwrap().epoch(), Epoch(1));
    assert_eq!(stored(&state).await.batch_id, name.id.to_string());
}

#[tokio::test]
async fn a_batch_that_had_landed_is_not_committed_again_after_others_followed() {
    let (mut state, _) = taken_over(Loss::Request, 0).await;
    let (name, before) = (batch(1), state.manifest.clone());
    state.commit(&name, &EpochContent::default()).await.unwrap();
    rival(&state, |manifest| manifest.roles = [("auditor".into(), Default::default())].into())
        .await;
    // as a process that never saw the reply
    state.manifest = before;
    assert_eq!(state.commit(&name, &EpochContent::default()).await.unwrap().epoch(), Epoch(1));
    let stored = stored(&state).await;
    assert_eq!((stored.epoch, stored.roles.len()), (Epoch(1), 1));
}

#[tokio::test]
async fn what_a_rival_wrote_is_merged_with() {
    let (mut state, _) = taken_over(Loss::Request, 0).await;
    rival(&state, |manifest| {
        manifest.extra.insert("of_a_newer_build".into(), serde_json::json!([1, 2]));
    })
    .await;
    state.commit(&batch(1), &EpochContent::default()).await.unwrap();
    rival(&state, |manifest| manifest.roles = [("auditor".into(), Default::default())].into())
        .await;
    state.cover(Lsn(0x5000)).await.unwrap();
    let stored = stored(&state).await;
    assert_eq!((stored.epoch, stored.covered_lsn), (Epoch(1), Lsn(0x5000)));
    assert_eq!((stored.roles.len(), stored.extra.len()), (1, 1));
    assert_eq!(stored, state.manifest.value);
    assert_eq!(state.fence.breaker.total(), 2);
}

#[tokio::test]
async fn a_record_is_not_lost_to_a_rival_that_covers_as_much() {
    let (mut state, _) = taken_over(Loss::Request, 0).await;
    let table = TableName::new("public", "items");
    rival(&state, |manifest| {
        manifest.tables.insert(table.clone(), TableEntry::excluded(&table, "a test"));
    })
    .await;
    state.manifest = state.lake.manifests.require().await.unwrap();
    rival(&state, |manifest| manifest.roles = [("auditor".into(), Default::default())].into())
        .await;
    let at = SystemClock.now();
    let record = VerifiedRecord { lsn: Lsn(0x1000), at, tables: vec![table.to_string()] };
    state.record(&record).await.unwrap();
    let stored = stored(&state).await;
    assert_eq!(stored.tables[&table].verified_through, Some(Lsn(0x1000)));
    assert_eq!(stored.roles.len(), 1);
}

#[tokio::test]
async fn a_higher_generation_fences_and_nothing_is_written() {
    let (mut state, _) = taken_over(Loss::Request, 0).await;
    rival(&state, |manifest| manifest.generation += 1).await;
    let before = stored(&state).await;
    for attempt in
        [state.commit(&batch(1), &EpochContent::default()).await, state.cover(Lsn(0x5000)).await]
    {
        let error = attempt.unwrap_err();
        assert!(matches!(error, Error::Fenced { found: 2, ours: 1, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    assert_eq!(stored(&state).await, before);
}

#[tokio::test]
async fn an_epoch_of_somebody_else_ends_the_daemon() {
    let (mut state, _) = taken_over(Loss::Request, 0).await;
    rival(&state, |manifest| {
        manifest.epoch = Epoch(1);
        manifest.commit_lsn = Lsn(0x1800);
        manifest.covered_lsn = Lsn(0x1800);
        manifest.batch_id = "somebody else's".into();
    })
    .await;
    let before = stored(&state).await;
    for attempt in
        [state.commit(&batch(1), &EpochContent::default()).await, state.cover(Lsn(0x5000)).await]
    {
        assert!(matches!(attempt.unwrap_err(), Error::ManifestConflict));
    }
    assert_eq!(stored(&state).await, before);
}

#[tokio::test]
async fn every_take_over_has_a_generation_of_its_own() {
    for loss in [Loss::Reply, Loss::RepliesConflict, Loss::Request] {
        let (state, _) = taken_over(loss, 1).await;
        let breaker = Arc::clone(&state.fence.breaker);
        let manifest = state.manifest.clone();
        let (found, Fence { generation, .. }) =
            raise_generation(&state.lake, manifest, &breaker).await.unwrap();
        assert!(generation > 1, "{loss:?}");
        assert_eq!(found.value.generation, generation, "{loss:?}");
        assert_eq!(stored(&state).await, found.value, "{loss:?}");
    }
}
