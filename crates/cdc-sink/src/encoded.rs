//! A finished Parquet file and how it gets into the lake.

use std::sync::Arc;

use cdc_core::TableSchema;
use cdc_manifest::LakeStore;
use parquet::file::metadata::ParquetMetaData;

use crate::body::Body;
use crate::index::FileRef;
use crate::{Error, Result};

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
    /// harmless: an object of the same content under this key is an earlier try of this very file.
    ///
    /// # Errors
    /// [`Error::Upload`].
    pub async fn upload(&self, lake: &LakeStore) -> Result<()> {
        let body = self.body.clone();
        let read = move |start, length| body.range(start, length).map_err(std::io::Error::other);
        let created = lake.create(&self.key, self.body.size(), read).await;
        created.map_err(|source| Error::Upload { key: self.key.clone(), source: Box::new(source) })
    }
}
