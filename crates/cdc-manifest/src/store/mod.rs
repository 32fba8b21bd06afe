//! The lake's object store: opened from the configuration, with versioned reads, compare-and-swap
//! and uploads in parts on top of `object_store`.

mod create;
mod durable;
mod failpoints;
mod probe;
mod refusal;
mod remote;
mod removal;
mod swap;
mod temp;
mod unfinished;
mod upload;

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cdc_core::{LakeLocation, StorageSpec, Transfer};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;

pub use durable::DurableFs;
pub(crate) use refusal::Refusal;
pub use swap::{ObjectVersion, Revalidated, Swap};
use unfinished::Unfinished;

use crate::{Error, Result};

/// The lake's root: one store for every crate, and the absolute location of its keys.
///
/// Writes through it are durable when they return: on the file system each object is written beside
/// its place, synced and renamed.
#[derive(Clone, Debug)]
pub struct LakeStore {
    store: Arc<dyn ObjectStore>,
    location: LakeLocation,
    root: Option<PathBuf>,
    transfer: Transfer,
    /// One permit for each part or whole object on its way, whoever sends it.
    upload_slots: Arc<Semaphore>,
    unfinished: Arc<Unfinished>,
}

impl LakeStore {
    /// Opens a lake for writing: creates the directory, checks that it can be written, removes
    /// temporary files that killed processes left. Blocks; call it at start.
    ///
    /// # Errors
    /// [`Error::Directory`] naming the path; [`Error::Storage`] and [`Error::Credentials`] for what
    /// can be told without talking to the store.
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
            remote => Self::without_directory(remote),
        }
    }

    /// Opens a lake for reading: its directory must exist and is not changed.
    ///
    /// # Errors
    /// [`Error::Directory`] naming the path; [`Error::Storage`] and [`Error::Credentials`] for what
    /// can be told without talking to the store.
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
            remote => Self::without_directory(remote),
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
        let lake = LakeStore::new(Arc::new(store), location);
        Ok(LakeStore { root: Some(root), ..lake })
    }

    fn without_directory(spec: &StorageSpec) -> Result<LakeStore> {
        let (store, transfer): (Arc<dyn ObjectStore>, _) = match spec {
            StorageSpec::S3(s3) => (remote::s3(s3)?, s3.transfer),
            StorageSpec::Gcs(gcs) => (remote::gcs(gcs)?, gcs.transfer),
            StorageSpec::Azure(azure) => (remote::azure(azure)?, azure.transfer),
            StorageSpec::Memory | StorageSpec::Filesystem { .. } => {
                (Arc::new(object_store::memory::InMemory::new()), Transfer::default())
            }
        };
        let location =
            spec.remote_root().unwrap_or_else(|| LakeLocation::from_uri("memory://lake"));
        Ok(LakeStore::new(store, location).with_transfer(transfer))
    }

    /// A lake over any store, such as one that injects faults.
    pub fn new(store: Arc<dyn ObjectStore>, location: LakeLocation) -> LakeStore {
        let transfer = Transfer::default();
        let upload_slots = Arc::new(Semaphore::new(transfer.upload_concurrency as usize));
        let unfinished = Arc::default();
        LakeStore { store, location, root: None, transfer, upload_slots, unfinished }
    }

    /// The same with other bounds of its uploads.
    pub fn with_transfer(self, transfer: Transfer) -> LakeStore {
        let slots = transfer.upload_concurrency.max(1) as usize;
        LakeStore { transfer, upload_slots: Arc::new(Semaphore::new(slots)), ..self }
    }

    /// The same over another store in front of its own, such as one that measures it.
    pub fn behind(
        self,
        front: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
    ) -> LakeStore {
        LakeStore { store: front(Arc::clone(&self.store)), ..self }
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
