//! A finished Parquet file and how it gets into the lake.

use std::sync::Arc;

use bytes::Bytes;
use cdc_core::TableSchema;
use cdc_manifest::LakeStore;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::file::metadata::ParquetMetaData;

use crate::body::Body;
use crate::index::FileRef;
use crate::{Error, Result};

/// Size above which a file goes up in parts, and size of a part (`storage.upload_part_bytes`).
pub const UPLOAD_PART_BYTES: usize = 8 << 20;

/// A complete Parquet file that is not, or not surely, in the lake yet. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct EncodedFile {
    /// Key in the lake.
    pub key: String,
    /// The same as the key index has it.
    pub file: FileRef,
    /// Content.
    pub body: Body,
    /// The footer with page indexes, for the statistics of the Iceberg manifest.
    pub metadata: Arc<ParquetMetaData>,
    /// Rows.
    pub rows: u64,
    /// Schema of the user columns.
    pub schema: Arc<TableSchema>,
}

impl EncodedFile {
    /// Writes the file under its key. It is durable when this returns, and calling it again is
    /// harmless: an object of the same size under this key is taken for an earlier try of this very
    /// file, since names are chosen free (decision 0007) and by one writer.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::NameTaken`], [`Error::Io`].
    pub async fn upload(&self, lake: &LakeStore) -> Result<()> {
        let path = Path::parse(&self.key).map_err(|source| Error::Store {
            operation: "name",
            key: self.key.clone(),
            source: source.into(),
        })?;
        let uploaded = if self.body.size() > UPLOAD_PART_BYTES as u64 {
            self.upload_parts(lake.store().as_ref(), &path).await
        } else {
            self.upload_whole(lake.store().as_ref(), &path).await
        };
        uploaded.map_err(|failure| match failure {
            Failure::Store(source) => {
                Error::Store { operation: "write", key: self.key.clone(), source }
            }
            Failure::Ours(error) => error,
        })
    }

    async fn upload_whole(&self, store: &dyn ObjectStore, path: &Path) -> Result<(), Failure> {
        let bytes = self.range(0, self.body.size()).await?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match store.put_opts(path, PutPayload::from_bytes(bytes), options).await {
            Err(object_store::Error::AlreadyExists { .. }) => self.compare(store, path).await,
            outcome => outcome.map(drop).map_err(Failure::Store),
        }
    }

    /// Parts have no precondition on every store, so what is there is looked at first.
    async fn upload_parts(&self, store: &dyn ObjectStore, path: &Path) -> Result<(), Failure> {
        match store.head(path).await {
            Ok(_) => return self.compare(store, path).await,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(Failure::Store(source)),
        }
        let mut upload = store.put_multipart(path).await.map_err(Failure::Store)?;
        let sent = self.send_parts(upload.as_mut()).await;
        if sent.is_err() {
            // the store drops unfinished uploads by itself in the end; the first error matters
            let _ = upload.abort().await;
        }
        sent
    }

    async fn send_parts(&self, upload: &mut dyn MultipartUpload) -> Result<(), Failure> {
        let size = self.body.size();
        let mut start = 0;
        while start < size {
            let end = size.min(start + UPLOAD_PART_BYTES as u64);
            let part = PutPayload::from_bytes(self.range(start, end).await?);
            upload.put_part(part).await.map_err(Failure::Store)?;
            start = end;
        }
        upload.complete().await.map(drop).map_err(Failure::Store)
    }

    async fn compare(&self, store: &dyn ObjectStore, path: &Path) -> Result<(), Failure> {
        let found = store.head(path).await.map_err(Failure::Store)?;
        if found.size == self.body.size() {
            return Ok(());
        }
        Err(Failure::Ours(Error::NameTaken { key: self.key.clone() }))
    }

    /// Reads a part of the body, which may lie in a temporary file, on a blocking thread.
    async fn range(&self, start: u64, end: u64) -> Result<Bytes, Failure> {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX);
        let body = self.body.clone();
        let read = tokio::task::spawn_blocking(move || body.range(start, length)).await;
        let stopped = |error: tokio::task::JoinError| Error::Io {
            operation: "read a temporary file for",
            path: self.key.clone(),
            source: error.into(),
        };
        read.map_err(stopped).flatten().map_err(Failure::Ours)
    }
}

enum Failure {
    Store(object_store::Error),
    Ours(Error),
}
