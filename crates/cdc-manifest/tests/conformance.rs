//! The contract of a lake's store, run against every store: compare-and-swap with three outcomes,
//! versions, durable multipart uploads, listing.

use bytes::Bytes;
use cdc_manifest::{LakeStore, ObjectVersion, Revalidated, Swap};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::failing::{Failure, failing};
use crate::lake::{filesystem, memory};
use crate::weed::{self, Weed};

async fn run(lake: &LakeStore) {
    create_succeeds_once(lake).await;
    update_needs_the_current_version(lake).await;
    every_write_has_a_version_of_its_own(lake).await;
    one_of_many_writers_wins(lake).await;
    revalidation_tells_changes(lake).await;
    uploads_appear_when_complete(lake).await;
    objects_are_created_once_in_any_size(lake).await;
    a_write_in_doubt_is_found_out(lake).await;
    lake.probe_cas().await.unwrap();
    only_objects_are_listed(lake).await;
}

async fn swap(lake: &LakeStore, key: &str, text: &str, at: Option<&ObjectVersion>) -> Swap {
    lake.swap(key, Bytes::from(text.to_owned()), at).await.unwrap()
}

async fn store(
    lake: &LakeStore,
    key: &str,
    text: &str,
    at: Option<&ObjectVersion>,
) -> ObjectVersion {
    match swap(lake, key, text, at).await {
        Swap::Stored(version) => version,
        other => panic!("{key}: {other:?}"),
    }
}

async fn content(lake: &LakeStore, key: &str) -> (String, ObjectVersion) {
    let (bytes, version) = lake.load_versioned(key).await.unwrap().unwrap();
    (String::from_utf8(bytes.to_vec()).unwrap(), version)
}

async fn create_succeeds_once(lake: &LakeStore) {
    assert!(lake.load_versioned("a/once").await.unwrap().is_none());
    let version = store(lake, "a/once", "1", None).await;
    assert!(matches!(swap(lake, "a/once", "2", None).await, Swap::Conflict));
    assert_eq!(content(lake, "a/once").await, ("1".to_owned(), version));
}

async fn update_needs_the_current_version(lake: &LakeStore) {
    let first = store(lake, "cas", "1", None).await;
    let second = store(lake, "cas", "2", Some(&first)).await;
    assert!(matches!(swap(lake, "cas", "3", Some(&first)).await, Swap::Conflict));
    assert_eq!(content(lake, "cas").await, ("2".to_owned(), second.clone()));
    assert!(matches!(swap(lake, "never-written", "1", Some(&second)).await, Swap::Conflict));
}

/// On S3 the version follows from the content, so only other content has another.
async fn every_write_has_a_version_of_its_own(lake: &LakeStore) {
    let mut version = store(lake, "versions", "x", None).await;
    let mut seen = vec![version.clone()];
    for write in 0..50 {
        version = store(lake, "versions", &format!("x{write}"), Some(&version)).await;
        assert!(!seen.contains(&version));
        seen.push(version.clone());
    }
}

async fn one_of_many_writers_wins(lake: &LakeStore) {
    let first = store(lake, "race", "start", None).await;
    let writers = (0..16).map(|writer| {
        let (lake, first) = (lake.clone(), first.clone());
        tokio::spawn(async move {
            let text = format!("writer {writer}");
            let won = matches!(swap(&lake, "race", &text, Some(&first)).await, Swap::Stored(_));
            won.then_some(text)
        })
    });
    let outcomes = futures::future::try_join_all(writers).await.unwrap();
    let winners: Vec<String> = outcomes.into_iter().flatten().collect();
    assert_eq!(winners, [content(lake, "race").await.0]);
}

async fn revalidation_tells_changes(lake: &LakeStore) {
    let first = store(lake, "fresh", "1", None).await;
    let unchanged = lake.revalidate("fresh", &first).await.unwrap();
    assert!(matches!(unchanged, Revalidated::Unchanged));
    let second = store(lake, "fresh", "2", Some(&first)).await;
    match lake.revalidate("fresh", &first).await.unwrap() {
        Revalidated::Changed(bytes, version) => {
            assert_eq!((bytes.as_ref(), version), (b"2".as_slice(), second.clone()));
        }
        other => panic!("{other:?}"),
    }
    lake.store().delete(&Path::from("fresh")).await.unwrap();
    let gone = lake.revalidate("fresh", &second).await.unwrap();
    assert!(matches!(gone, Revalidated::Missing));
}

async fn uploads_appear_when_complete(lake: &LakeStore) {
    let path = Path::from("deep/down/upload");
    let mut upload = lake.store().put_multipart(&path).await.unwrap();
    // S3 wants 5 MiB in every part but the last
    let parts = [vec![b'a'; 5 << 20], vec![b'b'; 10]];
    for part in &parts {
        upload.put_part(PutPayload::from(part.clone())).await.unwrap();
    }
    assert!(lake.load_versioned("deep/down/upload").await.unwrap().is_none());
    upload.complete().await.unwrap();
    let (bytes, _) = lake.load_versioned("deep/down/upload").await.unwrap().unwrap();
    assert!(bytes == parts.concat());

    let mut aborted = lake.store().put_multipart(&Path::from("aborted")).await.unwrap();
    aborted.put_part(PutPayload::from_static(b"x")).await.unwrap();
    aborted.abort().await.unwrap();
    assert!(lake.load_versioned("aborted").await.unwrap().is_none());
}

/// A part more than one part, one byte, nothing.
const SIZES: [usize; 3] = [(8 << 20) + (5 << 20) + 3, 1, 0];

async fn objects_are_created_once_in_any_size(lake: &LakeStore) {
    for size in SIZES {
        let key = format!("deep/size-{size}");
        let content: Bytes = (0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        let write = |content: Bytes| {
            let bytes = content.clone();
            let read = move |start: u64, length: usize| {
                let start = usize::try_from(start).unwrap();
                Ok(bytes.slice(start..start + length))
            };
            lake.create(&key, content.len() as u64, read)
        };
        write(content.clone()).await.unwrap();
        let (found, _) = lake.load_versioned(&key).await.unwrap().unwrap();
        assert!(found == content, "{key}");
        // as after a lost answer
        write(content.clone()).await.unwrap();
        let mut other = content.to_vec();
        match other.last_mut() {
            Some(last) => *last ^= 1,
            None => other.push(1),
        }
        let taken = write(other.into()).await.unwrap_err();
        assert!(matches!(taken, cdc_manifest::Error::NameTaken { .. }), "{taken:?}");
        lake.store().delete(&Path::from(key.as_str())).await.unwrap();
    }
}

/// One failure is found out; a store that never says anything else leaves doubt, and no harm.
async fn a_write_in_doubt_is_found_out(lake: &LakeStore) {
    use Failure::*;
    for failure in [ConflictBefore, ConflictAfter, LostAfter, LostBefore] {
        let key = format!("deep/doubt-{failure:?}");
        let first = match failing(lake, failure, 1).swap(&key, "1".into(), None).await.unwrap() {
            Swap::Stored(version) => version,
            other => panic!("{failure:?}: {other:?}"),
        };
        let flaky = failing(lake, failure, 2);
        let second = flaky.swap(&key, "2".into(), Some(&first)).await.unwrap();
        assert!(matches!(second, Swap::Stored(_)), "{failure:?}: {second:?}");
        // somebody else's version stands there, whatever the store says
        let late = failing(lake, failure, 1).swap(&key, "3".into(), Some(&first)).await;
        assert!(matches!(late.unwrap_or(Swap::Conflict), Swap::Conflict), "{failure:?}");
        assert_eq!(content(lake, &key).await.0, "2");
        let never = failing(lake, failure, usize::MAX);
        let (_, version) = content(lake, &key).await;
        let outcome = never.swap(&key, "4".into(), Some(&version)).await.unwrap();
        match failure {
            ConflictAfter | LostAfter => assert!(matches!(outcome, Swap::Stored(_))),
            ConflictBefore | LostBefore => assert!(matches!(outcome, Swap::Unknown(_))),
        }
        lake.store().delete(&Path::from(key)).await.unwrap();
    }
}

async fn only_objects_are_listed(lake: &LakeStore) {
    let upload = lake.store().put_multipart(&Path::from("unfinished")).await.unwrap();
    let mut keys: Vec<String> = lake
        .store()
        .list(None)
        .map_ok(|object| object.location.to_string())
        .try_collect()
        .await
        .unwrap();
    keys.sort_unstable();
    assert_eq!(keys, ["a/once", "cas", "deep/down/upload", "race", "versions"]);
    let listed = lake.store().list_with_delimiter(None).await.unwrap();
    assert_eq!(listed.objects.len(), 3);
    assert_eq!(listed.common_prefixes, [Path::from("a"), Path::from("deep")]);
    drop(upload);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_system_conforms() {
    let (_dir, lake) = filesystem();
    run(&lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    run(&memory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_conforms() {
    if weed::runs_without_credentials("conformance::s3_conforms") {
        return;
    }
    let weed = Weed::shared();
    run(&weed.lake("conformance").await).await;
}

#[tokio::test]
async fn the_same_content_twice_has_two_versions_on_the_file_system() {
    let (_dir, lake) = filesystem();
    let mut version = store(&lake, "same", "x", None).await;
    for _ in 0..50 {
        let next = store(&lake, "same", "x", Some(&version)).await;
        assert_ne!(next, version);
        version = next;
    }
}

/// A store that writes whatever the precondition.
#[derive(Debug)]
struct Careless(object_store::memory::InMemory);

impl std::fmt::Display for Careless {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Careless")
    }
}

#[async_trait::async_trait]
impl object_store::ObjectStore for Careless {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        _opts: object_store::PutOptions,
    ) -> object_store::Result<object_store::PutResult> {
        self.0.put(location, payload).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: object_store::PutMultipartOptions,
    ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: object_store::GetOptions,
    ) -> object_store::Result<object_store::GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: futures::stream::BoxStream<'static, object_store::Result<Path>>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(
        &self,
        prefix: Option<&Path>,
    ) -> futures::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&Path>,
    ) -> object_store::Result<object_store::ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: object_store::CopyOptions,
    ) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_store_that_ignores_preconditions_is_refused() {
    let store = std::sync::Arc::new(Careless(object_store::memory::InMemory::new()));
    let lake = LakeStore::new(store, cdc_core::LakeLocation::from_uri("s3://careless"));
    let error = lake.probe_cas().await.unwrap_err();
    assert_eq!(error.kind(), cdc_core::ErrorKind::Invalid);
    assert!(error.to_string().contains("s3://careless"), "{error}");
    let left: Vec<_> = lake.store().list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
