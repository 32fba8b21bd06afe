//! A store in front of another one that measures its writes; everything else passes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    UploadPart,
};

use crate::meters::Meters;

/// The store behind, and where its writes are counted.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) meters: Meters,
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Notes a write that has ended. A precondition that does not hold is an answer, not a failure.
fn note<T>(meters: &Meters, began: Instant, outcome: Result<T>) -> Result<T> {
    meters.sink_latency.observe(began.elapsed().as_secs_f64());
    match &outcome {
        Ok(_)
        | Err(
            Error::Precondition { .. } | Error::AlreadyExists { .. } | Error::NotModified { .. },
        ) => {}
        Err(_) => {
            meters.sink_errors.inc();
        }
    }
    outcome
}

#[async_trait]
impl ObjectStore for MeteredStore {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let began = Instant::now();
        note(&self.meters, began, self.inner.put_opts(at, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let began = Instant::now();
        let begun = self.inner.put_multipart_opts(at, opts).await;
        let inner = note(&self.meters, began, begun)?;
        Ok(Box::new(MeteredUpload { inner, meters: self.meters.clone() }))
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

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

/// An upload whose parts are writes of their own.
#[derive(Debug)]
struct MeteredUpload {
    inner: Box<dyn MultipartUpload>,
    meters: Meters,
}

#[async_trait]
impl MultipartUpload for MeteredUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, meters) = (self.inner.put_part(data), self.meters.clone());
        let began = Instant::now();
        async move { note(&meters, began, part.await) }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let began = Instant::now();
        note(&self.meters, began, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
