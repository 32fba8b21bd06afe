//! A store that fails in the ways that leave a writer in doubt, over any other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cdc_core::LakeLocation;
use cdc_manifest::LakeStore;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What becomes of a conditional put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing is written, and a conflict is reported: two requests met (S3's 409).
    ConflictBefore,
    /// It is written, and a conflict is reported: the client sent it again.
    ConflictAfter,
    /// It is written, and no answer comes.
    LostAfter,
    /// Nothing is written, and no answer comes.
    LostBefore,
}

/// Fails the first conditional puts.
#[derive(Debug)]
pub(crate) struct Failing {
    inner: Arc<dyn ObjectStore>,
    failure: Failure,
    left: AtomicUsize,
}

/// The lake with its first conditional puts failing.
pub(crate) fn failing(lake: &LakeStore, failure: Failure, times: usize) -> LakeStore {
    let inner = Arc::clone(lake.store());
    let store = Failing { inner, failure, left: AtomicUsize::new(times) };
    LakeStore::new(Arc::new(store), LakeLocation::from_uri(lake.location().root()))
}

impl Failing {
    fn error(&self, path: &Path, mode: &PutMode) -> Error {
        let path = path.to_string();
        match (self.failure, mode) {
            (Failure::ConflictAfter, PutMode::Update(_)) => {
                Error::Precondition { path, source: "412".into() }
            }
            // a 409 of either kind, and a 412 of a creation, come out as this
            (Failure::ConflictBefore | Failure::ConflictAfter, _) => {
                Error::AlreadyExists { path, source: "409".into() }
            }
            _ => Error::Generic { store: "Failing", source: "no answer".into() },
        }
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failing")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let take = |left: usize| left.checked_sub(1);
        let is_plain = opts.mode == PutMode::Overwrite;
        if is_plain || self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let error = self.error(location, &opts.mode);
        if matches!(self.failure, Failure::ConflictAfter | Failure::LostAfter) {
            self.inner.put_opts(location, payload, opts).await?;
        }
        Err(error)
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
