//! Whole objects of a lake by URI: the one place where Iceberg locations meet the object store.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cdc_core::{ErrorKind, LakeLocation};
use iceberg::spec::TableMetadata;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::manifest_cache::ManifestCache;
use crate::{Error, Result};

/// Puts of one new object while it is not known to stand.
const PUTS_MAX: u32 = 6;
/// Delay before the second put; doubles.
const PUT_DELAY: Duration = Duration::from_millis(25);

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

    /// Reads a part of an object.
    pub(crate) async fn read_part(&self, uri: &str, part: Range<u64>) -> Result<Bytes> {
        let path = self.path(uri)?;
        let read = self.objects.get_range(&path, part).await;
        read.map_err(|source| Error::Read { location: uri.to_owned(), source })
    }

    /// Writes a new object; a name that is taken by something else is an error.
    ///
    /// A put without an answer is looked for and, if it is not there, sent again, a bounded number
    /// of times: the name is fresh and the put conditional, so it can only meet itself.
    ///
    /// # Errors
    /// [`Error::Write`]; [`Error::Undecided`] if the store contradicts itself to the end.
    pub async fn write_new(&self, uri: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(uri)?;
        let mut tries = 0;
        loop {
            let error = match self.put_new(uri, &path, &bytes).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            tries += 1;
            if error.kind() != ErrorKind::Transient || tries >= PUTS_MAX {
                return Err(error);
            }
            tokio::time::sleep(PUT_DELAY * (1 << tries)).await;
        }
    }

    async fn put_new(&self, uri: &str, path: &Path, bytes: &Bytes) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let source = match self.objects.put_opts(path, bytes.clone().into(), options).await {
            Ok(_) => return Ok(()),
            Err(source) => source,
        };
        let is_taken = matches!(source, object_store::Error::AlreadyExists { .. });
        let error = Error::Write { location: uri.to_owned(), source };
        if !is_taken && error.kind() != ErrorKind::Transient {
            return Err(error);
        }
        match self.read(uri).await {
            Ok(found) if found == *bytes => Ok(()),
            Err(read) if is_taken && read.kind() == ErrorKind::NotFound => {
                // two requests met, and neither won
                Err(Error::Undecided { location: uri.to_owned(), source: Box::new(error) })
            }
            Err(read) if is_taken => Err(read),
            Ok(_) | Err(_) => Err(error),
        }
    }

    /// Reads a table's metadata file; no catalog is asked.
    pub async fn load_metadata(&self, metadata_location: &str) -> Result<TableMetadata> {
        let bytes = self.read(metadata_location).await?;
        serde_json::from_slice(&bytes).map_err(Error::format(metadata_location, "metadata file"))
    }
}
