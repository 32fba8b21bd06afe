//! What a store across the network says no to for good, and what only looks like that.
//!
//! `object_store` tells errors by HTTP status. Two things need the code in the answer's body: a
//! setting that no retry mends, such as a bucket that does not exist, and a refusal that passes,
//! such as a clock that is being set.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::removal::remove_all;

/// A setting that the store refuses; the source of a [`Error::Generic`] of [`Remote`].
#[derive(Debug, thiserror::Error)]
#[error("{what}; hint: {hint}")]
pub(crate) struct Refusal {
    what: &'static str,
    hint: &'static str,
    source: Error,
}

/// Codes and words in answers that stand for a setting, with what to say.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("NoSuchBucket", "the bucket does not exist", BUCKET),
    ("InvalidBucketName", "no bucket can have this name", BUCKET),
    ("The specified bucket does not exist", "the bucket does not exist", BUCKET),
    ("ContainerNotFound", "the container does not exist", "check storage.container"),
    ("AuthorizationHeaderMalformed", "the bucket is in another region", REGION),
    ("IllegalLocationConstraintException", "the bucket is in another region", REGION),
    ("PermanentRedirect", "the bucket is in another region", REGION),
    ("incorrectly configured region", "the bucket is in another region", REGION),
    ("KMS.NotFoundException", "the key for encryption does not exist", KEY),
    ("KMS.DisabledException", "the key for encryption is disabled", KEY),
];
const BUCKET: &str = "check storage.bucket, and create the bucket first";
const REGION: &str = "check storage.region and storage.endpoint";
const KEY: &str = "check storage.encryption.kms_key_id";

/// Refusals that pass by themselves: the clock is being set, the role's token is being renewed.
const PASSING: &[&str] = &["RequestTimeTooSkewed", "ExpiredToken", "TokenRefreshRequired"];

/// Names the error for what the answer's body says it is.
pub(super) fn named(error: Error) -> Error {
    let text = cdc_core::chain(&error);
    if let Some((_, what, hint)) = REFUSALS.iter().find(|(code, ..)| text.contains(code)) {
        let source = Box::new(Refusal { what, hint, source: error });
        return Error::Generic { store: STORE, source };
    }
    let is_refused =
        matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. });
    if is_refused && PASSING.iter().any(|code| text.contains(code)) {
        return Error::Generic { store: STORE, source: Box::new(error) };
    }
    error
}

/// Whether the error is one that [`named`] found to be a setting.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Generic { source, .. } if source.is::<Refusal>())
}

/// The name in errors.
const STORE: &str = "remote";

/// A client whose errors are named.
#[derive(Debug)]
pub(super) struct Remote<T> {
    client: Arc<T>,
}

impl<T: ObjectStore> Remote<T> {
    pub(super) fn new(client: T) -> Self {
        Self { client: Arc::new(client) }
    }
}

impl<T: ObjectStore> fmt::Display for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.client, f)
    }
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for Remote<T> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.client.put_opts(location, payload, opts).await.map_err(named)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.client.put_multipart_opts(location, opts).await.map_err(named)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.client.get_opts(location, options).await.map_err(named)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.client.get_ranges(location, ranges).await.map_err(named)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        remove_all(Arc::clone(&self.client), locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.client.list(prefix).map(|listed| listed.map_err(named)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.client.list_with_offset(prefix, offset);
        listed.map(|listed| listed.map_err(named)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.client.list_with_delimiter(prefix).await.map_err(named)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.client.copy_opts(from, to, options).await.map_err(named)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.client.rename_opts(from, to, options).await.map_err(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!("Server returned non-2xx status code: {text}").into()
    }

    #[test]
    fn a_missing_bucket_is_a_refusal() {
        let found = Error::NotFound {
            path: "manifest.json".into(),
            source: answer("404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"),
        };
        let Error::Generic { source, .. } = named(found) else { panic!("it is named") };
        assert!(source.downcast_ref::<Refusal>().is_some());
        let missing = Error::NotFound {
            path: "manifest.json".into(),
            source: answer("404 Not Found: <Error><Code>NoSuchKey</Code></Error>"),
        };
        assert!(matches!(named(missing), Error::NotFound { .. }));
    }

    #[test]
    fn a_wrong_clock_passes_and_a_wrong_key_does_not() {
        let denied = |code: &str| Error::PermissionDenied {
            path: "manifest.json".into(),
            source: answer(&format!("403 Forbidden: <Code>{code}</Code>")),
        };
        assert!(matches!(named(denied("RequestTimeTooSkewed")), Error::Generic { .. }));
        assert!(matches!(named(denied("AccessDenied")), Error::PermissionDenied { .. }));
    }
}
