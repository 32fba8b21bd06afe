//! The lake's object store: opened from the configuration, with versioned reads and
//! compare-and-swap on top of `object_store`.

mod durable;
mod probe;
mod temp;
mod upload;

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cdc_core::LakeLocation;
use object_store::path::Path;
use object_store::{
    GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};

pub use durable::DurableFs;

use crate::{Error, Result};

/// Where the lake is, as the `storage` section of the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageSpec {
    /// A directory of this machine.
    Filesystem {
        /// The root; created if missing.
        path: PathBuf,
    },
    /// The memory of this process, for tests.
    Memory,
    /// Amazon S3 or a compatible service.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// The lake's root: one store for every crate, and the absolute location of its keys.
///
/// Writes through it are durable when they return: on the file system each object is written beside
/// its place, synced and renamed.
#[derive(Clone, Debug)]
pub struct LakeStore {
    store: Arc<dyn ObjectStore>,
    location: LakeLocation,
    root: Option<PathBuf>,
}

/// The version of an object that a conditional write compares: entity tag or generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    e_tag: Option<String>,
    version: Option<String>,
}

/// What a conditional write did.
#[derive(Debug)]
#[must_use = "a conditional write may not have happened"]
pub enum Swap {
    /// The object holds what was written, at this version.
    Stored(ObjectVersion),
    /// The object was not at the expected version. Read it before anything else: a retry inside a
    /// client library reports a write of its own this way.
    Conflict,
    /// The write may or may not happen, now or later. Read the object back; delete nothing.
    Unknown(Error),
}

/// What a revalidation found.
#[derive(Clone, Debug)]
pub enum Revalidated {
    /// The object still has the version asked about.
    Unchanged,
    /// The object has another version.
    Changed(Bytes, ObjectVersion),
    /// The object does not exist.
    Missing,
}

impl LakeStore {
    /// Opens a lake for writing: creates the directory, checks that it can be written, removes
    /// temporary files that killed processes left. Blocks; call it at start.
    ///
    /// # Errors
    /// [`Error::Directory`] naming the path, [`Error::StorageUnavailable`].
    pub fn open(spec: &StorageSpec) -> Result<LakeStore> {
        match spec {
            StorageSpec::Filesystem { path } => {
                let directory =
                    |operation, source| Error::Directory { operation, path: path.clone(), source };
                std::fs::create_dir_all(path).map_err(|source| directory("create", source))?;
                let root = path.canonicalize().map_err(|source| directory("open", source))?;
                temp::check_writable(&root).map_err(|source| directory("write to", source))?;
                let removed = temp::remove_abandoned(&root);
                if removed > 0 {
                    tracing::info!(removed, "removed temporary files of killed processes");
                }
                Self::filesystem(path, root)
            }
            other => Self::without_directory(other),
        }
    }

    /// Opens a lake for reading: its directory must exist and is not changed.
    ///
    /// # Errors
    /// [`Error::Directory`] naming the path, [`Error::StorageUnavailable`].
    pub fn open_read_only(spec: &StorageSpec) -> Result<LakeStore> {
        match spec {
            StorageSpec::Filesystem { path } => {
                let root = path.canonicalize().map_err(|source| Error::Directory {
                    operation: "open",
                    path: path.clone(),
                    source,
                })?;
                Self::filesystem(path, root)
            }
            other => Self::without_directory(other),
        }
    }

    fn filesystem(configured: &FsPath, root: PathBuf) -> Result<LakeStore> {
        let invalid = |detail: &str| Error::Directory {
            operation: "open",
            path: configured.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, detail.to_owned()),
        };
        let text = root.to_str().ok_or_else(|| invalid("the path is not UTF-8"))?;
        let location = LakeLocation::from_directory(&text.replace('\\', "/"));
        let store = DurableFs::new(&root)
            .map_err(|source| Error::object("open", location.root(), source))?;
        Ok(LakeStore { store: Arc::new(store), location, root: Some(root) })
    }

    fn without_directory(spec: &StorageSpec) -> Result<LakeStore> {
        let unavailable = |kind| Err(Error::StorageUnavailable { kind });
        match spec {
            StorageSpec::Memory => Ok(LakeStore::new(
                Arc::new(object_store::memory::InMemory::new()),
                LakeLocation::from_uri("memory://lake"),
            )),
            StorageSpec::S3 => unavailable("s3"),
            StorageSpec::Gcs => unavailable("gcs"),
            StorageSpec::Azure => unavailable("azure"),
            StorageSpec::Filesystem { .. } => unavailable("filesystem"),
        }
    }

    /// A lake over any store, such as one that injects faults.
    pub fn new(store: Arc<dyn ObjectStore>, location: LakeLocation) -> LakeStore {
        LakeStore { store, location, root: None }
    }

    /// The store, rooted at the lake's root.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The absolute location of the root.
    pub fn location(&self) -> &LakeLocation {
        &self.location
    }

    /// The canonical directory, for a lake on the file system.
    pub fn root_dir(&self) -> Option<&FsPath> {
        self.root.as_deref()
    }

    /// Reads an object and its version; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub async fn load_versioned(&self, key: &str) -> Result<Option<(Bytes, ObjectVersion)>> {
        match self.get(key, GetOptions::default()).await? {
            Revalidated::Changed(bytes, version) => Ok(Some((bytes, version))),
            Revalidated::Unchanged | Revalidated::Missing => Ok(None),
        }
    }

    /// Reads an object only if it is no longer at the version known.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub async fn revalidate(&self, key: &str, known: &ObjectVersion) -> Result<Revalidated> {
        let options = GetOptions { if_none_match: known.e_tag.clone(), ..GetOptions::default() };
        self.get(key, options).await
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<Revalidated> {
        let failed = |source| Error::object("read", key, source);
        let found = match self.store.get_opts(&object_path(key)?, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Revalidated::Missing),
            Err(object_store::Error::NotModified { .. }) => return Ok(Revalidated::Unchanged),
            Err(source) => return Err(failed(source)),
        };
        let version =
            ObjectVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        Ok(Revalidated::Changed(found.bytes().await.map_err(failed)?, version))
    }

    /// Writes an object if it is still at `expected`, or, with `None`, if it does not exist.
    ///
    /// # Errors
    /// [`Error::Object`] when the store refused without writing: no permission, no conditional
    /// writes. Everything that may have landed is [`Swap::Unknown`].
    pub async fn swap(
        &self,
        key: &str,
        bytes: Bytes,
        expected: Option<&ObjectVersion>,
    ) -> Result<Swap> {
        use object_store::Error as E;
        let mode = match expected {
            None => PutMode::Create,
            Some(ObjectVersion { e_tag, version }) => {
                PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
            }
        };
        let payload = PutPayload::from_bytes(bytes);
        match self.store.put_opts(&object_path(key)?, payload, PutOptions::from(mode)).await {
            Ok(put) => Ok(Swap::Stored(ObjectVersion { e_tag: put.e_tag, version: put.version })),
            Err(E::AlreadyExists { .. } | E::Precondition { .. } | E::NotFound { .. }) => {
                Ok(Swap::Conflict)
            }
            Err(
                source @ (E::PermissionDenied { .. }
                | E::Unauthenticated { .. }
                | E::NotSupported { .. }
                | E::NotImplemented { .. }
                | E::InvalidPath { .. }),
            ) => Err(Error::object("write", key, source)),
            Err(source) => Ok(Swap::Unknown(Error::object("write", key, source))),
        }
    }

    /// Writes an object whatever was there; durable when it returns.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub async fn overwrite(&self, key: &str, bytes: Bytes) -> Result<()> {
        let put = self.store.put(&object_path(key)?, PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(|source| Error::object("write", key, source))
    }

    /// Proves that the store honours the preconditions of [`LakeStore::swap`].
    ///
    /// # Errors
    /// [`Error::PreconditionIgnored`] if it does not, else what went wrong.
    pub async fn probe_cas(&self) -> Result<()> {
        probe::run(self).await
    }
}

/// The key as a path, taken as it is: our keys need no escaping.
pub(crate) fn object_path(key: &str) -> Result<Path> {
    Path::parse(key).map_err(|source| Error::object("name", key, source.into()))
}
