//! Whole objects of a lake by URI: the one place where Iceberg locations meet the object store.

use std::sync::Arc;

use bytes::Bytes;
use cdc_core::LakeLocation;
use iceberg::spec::TableMetadata;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::manifest_cache::ManifestCache;
use crate::{Error, Result};

/// An object store rooted at the lake's root, and the URI of that root.
///
/// A write is durable when it returns; the store given must guarantee it. Objects written here have
/// fresh names, so a write is conditional on the name being free.
#[derive(Clone, Debug)]
pub struct LakeFiles {
    objects: Arc<dyn ObjectStore>,
    location: LakeLocation,
    manifests: Arc<ManifestCache>,
}

impl LakeFiles {
    /// `objects` has its root where `location` points to.
    pub fn new(objects: Arc<dyn ObjectStore>, location: LakeLocation) -> Self {
        Self { objects, location, manifests: Arc::default() }
    }

    /// The object store.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The lake's root.
    pub fn location(&self) -> &LakeLocation {
        &self.location
    }

    /// The manifests read lately; clones share them.
    pub(crate) fn manifests(&self) -> &ManifestCache {
        &self.manifests
    }

    /// The object path of a URI below the root.
    pub fn path(&self, uri: &str) -> Result<Path> {
        let key = self.location.key(uri).and_then(|key| Path::parse(key).ok());
        key.ok_or_else(|| Error::OutsideLake {
            location: uri.to_owned(),
            root: self.location.root().to_owned(),
        })
    }

    /// Reads a whole object.
    pub async fn read(&self, uri: &str) -> Result<Bytes> {
        let path = self.path(uri)?;
        let read = async { self.objects.get(&path).await?.bytes().await };
        read.await.map_err(|source| Error::Read { location: uri.to_owned(), source })
    }

    /// Writes a new object; a name that is taken is an error.
    pub async fn write_new(&self, uri: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(uri)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&path, bytes.into(), options).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Write { location: uri.to_owned(), source }),
        }
    }

    /// Reads a table's metadata file; no catalog is asked.
    pub async fn load_metadata(&self, metadata_location: &str) -> Result<TableMetadata> {
        let bytes = self.read(metadata_location).await?;
        serde_json::from_slice(&bytes).map_err(Error::format(metadata_location, "metadata file"))
    }
}
