//! Refs after flushes, and cuts resolved from them.

use cdc_core::{Epoch, ErrorKind, Lsn};
use cdc_manifest::{
    AdvanceOptions, CutResolver, CutSpec, LakeStore, MAIN, Manifest, ManifestStore, PromotionMode,
    RawRetention, RefsStore, STAGING, Swap, layout,
};
use chrono::TimeDelta;

use crate::lake::{example, filesystem, flushed, memory};

/// Commits the example and four flushes, moving refs after each.
async fn five_flushes(lake: &LakeStore, options: AdvanceOptions) -> Vec<Manifest> {
    let (store, refs) = (ManifestStore::new(lake.clone()), RefsStore::new(lake.clone()));
    assert!(matches!(store.create(&example()).await.unwrap(), Swap::Stored(_)));
    let mut manifests = vec![example()];
    refs.advance(&example(), options).await.unwrap();
    for _ in 0..4 {
        let base = store.require().await.unwrap();
        let next = flushed(&base.value);
        assert!(matches!(store.commit(&base, &next).await.unwrap(), Swap::Stored(_)));
        refs.advance(&next, options).await.unwrap();
        manifests.push(next);
    }
    manifests
}

#[tokio::test]
async fn automatic_promotion_moves_both_branches() {
    let (_dir, lake) = filesystem();
    let options = AdvanceOptions { inline_raw: 2, ..AdvanceOptions::default() };
    let manifests = five_flushes(&lake, options).await;
    let store = RefsStore::new(lake);
    let refs = store.load().await.unwrap();
    assert_eq!(refs.refs[MAIN], refs.refs[STAGING]);
    assert_eq!(refs.refs[MAIN].epoch, manifests[4].epoch);
    let names: Vec<&String> = refs.refs.keys().collect();
    let tag = |manifest: &Manifest| layout::raw_tag_name(manifest.updated_at);
    assert_eq!(names, [MAIN, &tag(&manifests[3]), &tag(&manifests[4]), STAGING]);
    let raw = refs.raw.unwrap();
    assert_eq!(raw.count, 5);
    assert_eq!(raw.oldest, Some(tag(&manifests[0])));
    assert_eq!(raw.newest, Some(tag(&manifests[4])));
    assert_eq!(store.list_raw().await.unwrap().len(), 5);
}

#[tokio::test]
async fn manual_promotion_freezes_main_after_the_first_flush() {
    let lake = memory();
    let options = AdvanceOptions { mode: PromotionMode::Manual, inline_raw: 10 };
    let manifests = five_flushes(&lake, options).await;
    let refs = RefsStore::new(lake.clone()).load().await.unwrap();
    assert_eq!(refs.refs[MAIN].epoch, manifests[0].epoch);
    assert_eq!(refs.refs[STAGING].epoch, manifests[4].epoch);
    let resolver = CutResolver::new(lake, PromotionMode::Manual);
    let main = resolver.resolve(&CutSpec::Main).await.unwrap();
    assert_eq!((main.name.as_str(), main.epoch), (MAIN, manifests[0].epoch));
    let staging = resolver.resolve(&CutSpec::of_ref(STAGING)).await.unwrap();
    assert_eq!(staging.epoch, manifests[4].epoch);
}

#[tokio::test]
async fn raw_tags_are_pruned_to_what_is_kept_and_index_and_inline_tags_follow() {
    let (dir, lake) = filesystem();
    let manifests = five_flushes(&lake, AdvanceOptions::default()).await;
    let store = RefsStore::new(lake.clone());
    let keys = store.list_raw().await.unwrap();
    let bytes = |key: &str| std::fs::read(dir.path().join(key)).unwrap();
    let newest = bytes(&keys[4]);
    let keep = |newest| RawRetention { newest, hourly: 0, daily: 0 };
    for all in [None, Some(5), Some(100)] {
        assert_eq!(store.prune_raw(keep(all)).await.unwrap(), 0);
    }
    assert_eq!(store.list_raw().await.unwrap(), keys);

    assert_eq!(store.prune_raw(keep(Some(3))).await.unwrap(), 2);
    assert_eq!(store.list_raw().await.unwrap(), keys[2..]);
    assert_eq!(bytes(&keys[4]), newest);
    let tag = |at: usize| layout::raw_tag_name(manifests[at].updated_at);
    let refs = store.load().await.unwrap();
    let names: Vec<&String> = refs.refs.keys().collect();
    assert_eq!(names, [MAIN, &tag(2), &tag(3), &tag(4), STAGING]);
    let raw = refs.raw.clone().unwrap();
    assert_eq!((raw.count, raw.oldest, raw.newest), (3, Some(tag(2)), Some(tag(4))));
    assert_eq!(store.prune_raw(keep(Some(3))).await.unwrap(), 0);
    assert_eq!(store.load().await.unwrap(), refs);

    let resolver = CutResolver::new(lake, PromotionMode::Auto);
    let pruned = resolver.resolve(&CutSpec::Named(tag(0))).await.unwrap_err();
    assert_eq!(pruned.kind(), ErrorKind::NotFound);
    let at = resolver.resolve(&CutSpec::Epoch(manifests[2].epoch)).await.unwrap();
    assert_eq!(at.name, tag(2));
}

/// A crash after refs.json was written and before the objects were removed.
#[tokio::test]
async fn tags_that_a_crash_left_behind_are_removed_by_the_next_pruning() {
    let (dir, lake) = filesystem();
    five_flushes(&lake, AdvanceOptions::default()).await;
    let store = RefsStore::new(lake.clone());
    let oldest = store.list_raw().await.unwrap().remove(0);
    let content = std::fs::read(dir.path().join(&oldest)).unwrap();
    let keep = RawRetention { newest: Some(2), hourly: 0, daily: 0 };
    assert_eq!(store.prune_raw(keep).await.unwrap(), 3);
    std::fs::write(dir.path().join(&oldest), content).unwrap();
    // the next flush counts one more, and its pruning looks at the objects
    let manifests = ManifestStore::new(lake);
    let base = manifests.require().await.unwrap();
    let next = flushed(&base.value);
    assert!(matches!(manifests.commit(&base, &next).await.unwrap(), Swap::Stored(_)));
    store.advance(&next, AdvanceOptions::default()).await.unwrap();
    assert_eq!(store.prune_raw(keep).await.unwrap(), 2);
    assert_eq!(store.list_raw().await.unwrap().len(), 2);
    assert_eq!(store.load().await.unwrap().raw.unwrap().count, 2);
}

#[tokio::test]
async fn advancing_twice_changes_nothing() {
    let lake = memory();
    let manifests = five_flushes(&lake, AdvanceOptions::default()).await;
    let store = RefsStore::new(lake);
    let before = store.load().await.unwrap();
    store.advance(&manifests[4], AdvanceOptions::default()).await.unwrap();
    assert_eq!(store.load().await.unwrap(), before);
    // an older manifest comes late
    store.advance(&manifests[2], AdvanceOptions::default()).await.unwrap();
    assert_eq!(store.load().await.unwrap().refs[MAIN], before.refs[MAIN]);
    store.reindex_raw().await.unwrap();
    assert_eq!(store.load().await.unwrap().raw, before.raw);
}

#[tokio::test]
async fn cuts_are_found_by_epoch_lsn_and_time() {
    let (_dir, lake) = filesystem();
    let manifests = five_flushes(&lake, AdvanceOptions::default()).await;
    let resolver = CutResolver::new(lake, PromotionMode::Auto);
    for manifest in &manifests {
        let (lsn, time) = (manifest.commit_lsn, manifest.commit_ts);
        let specs = [
            CutSpec::Epoch(manifest.epoch),
            CutSpec::Lsn(lsn),
            CutSpec::Lsn(Lsn(lsn.0 + 1)),
            CutSpec::AsOf(time),
            CutSpec::AsOf(time + TimeDelta::milliseconds(999)),
            CutSpec::Named(layout::raw_tag_name(manifest.updated_at)),
        ];
        for spec in specs {
            let cut = resolver.resolve(&spec).await.unwrap();
            assert_eq!(cut.epoch, manifest.epoch, "{spec:?}");
            assert_eq!(cut.name, layout::raw_tag_name(manifest.updated_at), "{spec:?}");
            assert!(!cut.is_live);
        }
    }
    let main = resolver.resolve(&CutSpec::Main).await.unwrap();
    assert!(main.is_live);
    let orders = &main.tables[&"public.orders".parse().unwrap()];
    assert_eq!(orders.snapshot_id, Some(4_871_123_094_415_002_113));
    assert!(orders.metadata_location.as_deref().unwrap().ends_with(".metadata.json"));
}

#[tokio::test]
async fn what_is_not_kept_is_not_found() {
    let lake = memory();
    let manifests = five_flushes(&lake, AdvanceOptions::default()).await;
    let resolver = CutResolver::new(lake, PromotionMode::Auto);
    let first = &manifests[0];
    let specs = [
        CutSpec::Epoch(Epoch(99)),
        CutSpec::Epoch(Epoch(1)),
        CutSpec::Lsn(Lsn(first.commit_lsn.0 - 1)),
        CutSpec::AsOf(first.commit_ts - TimeDelta::microseconds(1)),
        CutSpec::Named("feature".into()),
        CutSpec::Named("raw@2020-01-01T00:00:00Z".into()),
        CutSpec::Named("raw@nonsense".into()),
    ];
    for spec in specs {
        let error = resolver.resolve(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{spec:?}: {error}");
    }
}

#[tokio::test]
async fn a_flush_whose_refs_failed_is_found_through_the_manifest() {
    let lake = memory();
    five_flushes(&lake, AdvanceOptions::default()).await;
    let store = ManifestStore::new(lake.clone());
    let base = store.require().await.unwrap();
    let next = flushed(&base.value);
    assert!(matches!(store.commit(&base, &next).await.unwrap(), Swap::Stored(_)));
    let resolver = CutResolver::new(lake, PromotionMode::Auto);
    let cut = resolver.resolve(&CutSpec::Epoch(next.epoch)).await.unwrap();
    assert_eq!((cut.name.as_str(), cut.epoch), (MAIN, next.epoch));
}
