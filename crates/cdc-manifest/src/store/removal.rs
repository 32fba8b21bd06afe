//! Removals that are asked for again when their answer is lost.
//!
//! S3 removes many objects with one POST, which `object_store` does not repeat once it was sent: a
//! POST in general may not be done twice. A removal may.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectStore, Result};

use super::refusal::{is_refusal, named};

/// Objects that are removed at once; S3 takes no more.
const AT_ONCE_MAX: usize = 1000;
/// How often the same objects are asked for.
const TRIES_MAX: u32 = 5;
/// The pause before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// Removes objects from a store across the network.
pub(super) fn remove_all<T: ObjectStore>(
    client: Arc<T>,
    locations: BoxStream<'static, Result<Path>>,
) -> BoxStream<'static, Result<Path>> {
    let removed = locations.try_chunks(AT_ONCE_MAX).then(move |chunk| {
        let client = Arc::clone(&client);
        async move {
            match chunk {
                Ok(chunk) => remove(&*client, chunk).await,
                Err(error) => vec![Err(error.1)],
            }
        }
    });
    removed.flat_map(stream::iter).boxed()
}

async fn remove(client: &impl ObjectStore, mut left: Vec<Path>) -> Vec<Result<Path>> {
    let mut results = Vec::new();
    for attempt in 0..TRIES_MAX {
        if attempt > 0 {
            tokio::time::sleep(PAUSE * 2u32.pow(attempt - 1)).await;
        }
        let asked = stream::iter(left.clone().into_iter().map(Ok)).boxed();
        let mut errors = Vec::new();
        let mut answers = client.delete_stream(asked).map(|answer| answer.map_err(named));
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(path) => {
                    left.retain(|waiting| *waiting != path);
                    results.push(Ok(path));
                }
                // the try before this one did it
                Err(Error::NotFound { .. }) if attempt > 0 => {}
                Err(error) => errors.push(error),
            }
        }
        let may_pass = |error: &Error| matches!(error, Error::Generic { .. }) && !is_refusal(error);
        if attempt + 1 == TRIES_MAX || !errors.iter().all(may_pass) || errors.is_empty() {
            results.extend(errors.into_iter().map(Err));
            break;
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
        ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    };

    use super::*;

    /// Removes what it is asked for, and loses the answer the first `lost` times.
    #[derive(Debug)]
    struct Forgetful {
        inner: Arc<InMemory>,
        lost: AtomicU32,
    }

    impl fmt::Display for Forgetful {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("forgetful")
        }
    }

    #[async_trait]
    impl ObjectStore for Forgetful {
        fn delete_stream(
            &self,
            locations: BoxStream<'static, Result<Path>>,
        ) -> BoxStream<'static, Result<Path>> {
            let is_lost =
                self.lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            let answers = self.inner.delete_stream(locations);
            if is_lost.is_err() {
                return answers;
            }
            let lost = || Error::Generic { store: "forgetful", source: "reset".into() };
            stream::once(async move {
                answers.collect::<Vec<_>>().await;
                Err(lost())
            })
            .boxed()
        }

        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            opts: PutOptions,
        ) -> Result<PutResult> {
            self.inner.put_opts(location, payload, opts).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            opts: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, opts).await
        }

        async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
            self.inner.get_opts(location, options).await
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

    #[tokio::test(start_paused = true)]
    async fn a_removal_whose_answer_is_lost_is_asked_for_again() -> Result<()> {
        for (lost, is_well) in [(0, true), (TRIES_MAX - 1, true), (TRIES_MAX, false)] {
            let inner = Arc::new(InMemory::new());
            for key in ["a", "b"] {
                inner.put(&Path::from(key), PutPayload::from_static(b"x")).await?;
            }
            let client = Arc::new(Forgetful { inner: Arc::clone(&inner), lost: lost.into() });
            let wanted = stream::iter(["a", "b"].map(|key| Ok(Path::from(key)))).boxed();
            let answers: Vec<_> = remove_all(client, wanted).collect().await;
            assert_eq!(answers.iter().all(Result::is_ok), is_well, "{lost} lost");
            assert!(inner.list(None).next().await.is_none());
        }
        Ok(())
    }
}
