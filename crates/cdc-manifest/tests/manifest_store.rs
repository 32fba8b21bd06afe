//! Committing the manifest: three outcomes, and rules that no committed manifest breaks.

use cdc_core::{Epoch, ErrorKind, Lsn};
use cdc_manifest::{Error, LakeStore, Manifest, ManifestStore, StorageSpec, Swap, layout};
use object_store::{ObjectStoreExt, PutPayload};

use crate::lake::{example, filesystem, flushed, memory};

async fn created(lake: LakeStore) -> ManifestStore {
    let store = ManifestStore::new(lake);
    assert!(matches!(store.create(&example()).await.unwrap(), Swap::Stored(_)));
    store
}

#[tokio::test]
async fn a_commit_on_an_old_base_conflicts() {
    let (_dir, lake) = filesystem();
    let store = created(lake).await;
    assert!(matches!(store.create(&flushed(&example())).await.unwrap(), Swap::Conflict));
    let base = store.require().await.unwrap();
    let next = flushed(&base.value);
    assert!(matches!(store.commit(&base, &next).await.unwrap(), Swap::Stored(_)));

    let mut rival = flushed(&base.value);
    rival.batch_id = "rival".into();
    assert!(matches!(store.commit(&base, &rival).await.unwrap(), Swap::Conflict));
    assert_eq!(store.require().await.unwrap().value, next);
}

#[tokio::test]
async fn a_commit_that_had_landed_is_stored() {
    let store = created(memory()).await;
    let base = store.require().await.unwrap();
    let next = flushed(&base.value);
    assert!(matches!(store.commit(&base, &next).await.unwrap(), Swap::Stored(_)));
    // as after a lost answer: the same bytes on the same base
    let Swap::Stored(version) = store.commit(&base, &next).await.unwrap() else { panic!() };
    assert_eq!(store.require().await.unwrap().version, version);
}

#[tokio::test]
async fn reload_reads_only_changes() {
    let (_dir, lake) = filesystem();
    let store = created(lake).await;
    let base = store.require().await.unwrap();
    assert!(store.reload(&base.version).await.unwrap().is_none());
    let next = flushed(&base.value);
    assert!(matches!(store.commit(&base, &next).await.unwrap(), Swap::Stored(_)));
    assert_eq!(store.reload(&base.version).await.unwrap().unwrap().value, next);
}

#[tokio::test]
async fn manifests_that_break_a_rule_are_not_written() {
    let store = created(memory()).await;
    let base = store.require().await.unwrap();
    type Break = fn(&mut Manifest);
    let breaks: [(&str, Break); 11] = [
        ("covered_lsn", |m| m.covered_lsn = Lsn(m.commit_lsn.0 - 1)),
        ("epoch went", |m| m.epoch = Epoch(7)),
        ("epoch went", |m| {
            m.epoch = Epoch(1);
            m.tables.values_mut().for_each(|entry| entry.latest_delta_epoch = Epoch(1));
        }),
        ("commit_lsn", |m| m.commit_lsn = m.source.init_lsn),
        ("generation went", |m| m.generation = 0),
        ("within epoch", |m| m.epoch = Epoch(2)),
        ("lake_id", |m| m.lake_id = "other".into()),
        ("without a schema", |m| m.schemas.clear()),
        ("quarantined without a gap", |m| {
            m.tables.values_mut().for_each(|entry| entry.quarantine("why", Lsn(1), Epoch(1)));
        }),
        ("a gap from", |m| {
            let beyond = Lsn(m.covered_lsn.0 + 1);
            m.tables.values_mut().for_each(|entry| entry.quarantine("why", beyond, Epoch(1)));
        }),
        ("field id 100", |m| {
            let schema = m.schemas.values_mut().next().unwrap();
            schema.columns[1].field_id = schema.columns[0].field_id;
        }),
    ];
    for (rule, change) in breaks {
        let mut next = flushed(&base.value);
        change(&mut next);
        let error = store.commit(&base, &next).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains(rule), "{rule}: {error}");
    }
    assert_eq!(store.require().await.unwrap().value, base.value);
}

#[tokio::test]
async fn a_torn_manifest_names_the_file() {
    let (_dir, lake) = filesystem();
    let store = created(lake.clone()).await;
    for torn in ["", "\0\0\0\0\0\0", "{\"version\": 1, \"lake"] {
        let path = object_store::path::Path::from(layout::MANIFEST_KEY);
        lake.store().put(&path, PutPayload::from(torn.to_owned())).await.unwrap();
        let error = store.load().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().starts_with("manifest.json"), "{error}");
        assert!(error.to_string().contains("hint: "), "{error}");
    }
}

#[tokio::test]
async fn a_missing_lake_is_not_found() {
    let store = ManifestStore::new(memory());
    assert!(store.load().await.unwrap().is_none());
    let error = store.require().await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }));
    assert!(error.to_string().contains("memory://lake"), "{error}");
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    let below = file.join("lake");
    let error = LakeStore::open(&StorageSpec::Filesystem { path: below.clone() }).unwrap_err();
    assert!(error.to_string().contains(below.to_str().unwrap()), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);

    let missing = StorageSpec::Filesystem { path: dir.path().join("missing") };
    assert_eq!(LakeStore::open_read_only(&missing).unwrap_err().kind(), ErrorKind::Invalid);
    assert!(!dir.path().join("missing").exists());
}
