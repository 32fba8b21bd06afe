//! An object store on a directory whose writes survive a power cut, with compare-and-swap.
//!
//! ```text
//! put:  temporary file beside the target -> write -> fsync -> rename (or link, if it must be new)
//!       -> fsync directory
//! swap: the same, with the lake's lock held from the comparison of the version to the rename
//! ```
//! Reading and listing are `object_store`'s `LocalFileSystem`; its own writes are not synced and it
//! has no conditional update.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UpdateVersion,
};

use super::temp::{self, TempFile};
use super::upload::DurableUpload;

/// The name in errors of the store.
const STORE: &str = "DurableFs";
/// Deletes in flight at once.
const DELETES_MAX: usize = 10;

/// An object store on a directory; cheap to clone. Writers in several processes may share it.
///
/// Overwriting an object that others update conditionally is the caller's mistake: only an
/// overwrite of an existing object is ordered with conditional updates.
#[derive(Clone, Debug)]
pub struct DurableFs {
    inner: LocalFileSystem,
    root: Arc<FsPath>,
}

impl DurableFs {
    /// A store rooted at an existing directory.
    ///
    /// # Errors
    /// When the directory does not exist.
    pub fn new(root: &FsPath) -> Result<DurableFs> {
        let root = root.canonicalize().map_err(|error| generic(root, error))?;
        let inner = LocalFileSystem::new_with_prefix(&root)?;
        Ok(DurableFs { inner, root: root.into() })
    }

    fn target(&self, location: &Path) -> Result<Target> {
        let path = self.inner.path_to_filesystem(location)?;
        Ok(Target { root: self.root.clone(), path })
    }
}

/// Where an object goes. Its methods block.
#[derive(Clone, Debug)]
pub(super) struct Target {
    root: Arc<FsPath>,
    path: PathBuf,
}

impl Target {
    /// A temporary file beside the object, its directory created.
    pub(super) fn temp(&self) -> Result<TempFile> {
        let directory = self.path.parent().unwrap_or(&self.root);
        let create = || match TempFile::create_in(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                temp::create_dirs(&self.root, directory)?;
                TempFile::create_in(directory)
            }
            created => created,
        };
        create().map_err(|error| generic(&self.path, error))
    }

    fn put(&self, payload: &PutPayload, mode: &PutMode) -> Result<PutResult> {
        let temp = self.temp()?;
        let write = || payload.iter().try_for_each(|chunk| temp.file().write_all(chunk));
        write().map_err(|error| generic(&self.path, error))?;
        self.place(temp, mode)
    }

    /// Syncs a written temporary file and gives it the object's name.
    pub(super) fn place(&self, temp: TempFile, mode: &PutMode) -> Result<PutResult> {
        let failed = |error| generic(&self.path, error);
        match mode {
            PutMode::Create => self.create(temp),
            PutMode::Update(expected) => self.update(temp, expected),
            PutMode::Overwrite => {
                let exists = self.path.try_exists().map_err(failed)?;
                let lock = exists.then(|| temp::lock(&self.root)).transpose().map_err(failed)?;
                let current = exists.then(|| self.current()).transpose()?.flatten();
                self.replace(temp, current.as_ref(), lock)
            }
        }
    }

    fn create(&self, temp: TempFile) -> Result<PutResult> {
        let failed = |error| generic(&self.path, error);
        temp.file().sync_all().map_err(failed)?;
        let e_tag = Some(e_tag(&temp.file().metadata().map_err(failed)?));
        match temp.link_to(&self.path) {
            Ok(()) => Ok(PutResult { e_tag, version: None }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: self.text(), source: error.into() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn update(&self, temp: TempFile, expected: &UpdateVersion) -> Result<PutResult> {
        let failed = |error| generic(&self.path, error);
        temp.file().sync_all().map_err(failed)?;
        let lock = temp::lock(&self.root).map_err(failed)?;
        let current = self.current()?;
        let found = current.as_ref().map(e_tag);
        if found.is_none() || found != expected.e_tag {
            let source = format!("the object is at {found:?}, not at {:?}", expected.e_tag).into();
            return Err(Error::Precondition { path: self.text(), source });
        }
        self.replace(temp, current.as_ref(), Some(lock))
    }

    /// Renames over the object. The version is inode, time and size, and a file system may give the
    /// inode of the object before last again within one tick of its clock: so time always advances.
    fn replace(
        &self,
        temp: TempFile,
        current: Option<&Metadata>,
        lock: Option<File>,
    ) -> Result<PutResult> {
        let failed = |error| generic(&self.path, error);
        let written = temp.file().metadata().and_then(|new| new.modified()).map_err(failed)?;
        let modified = match current.map(Metadata::modified).transpose().map_err(failed)? {
            Some(before) => written.max(before + Duration::from_micros(1)),
            None => written,
        };
        temp.file().set_modified(modified).map_err(failed)?;
        temp.file().sync_all().map_err(failed)?;
        let e_tag = Some(e_tag(&temp.file().metadata().map_err(failed)?));
        temp.rename_to(&self.path).map_err(failed)?;
        drop(lock);
        Ok(PutResult { e_tag, version: None })
    }

    fn current(&self) -> Result<Option<Metadata>> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(generic(&self.path, error)),
        }
    }

    fn create_parents(&self) -> Result<()> {
        let directory = self.path.parent().unwrap_or(&self.root);
        temp::create_dirs(&self.root, directory).map_err(|error| generic(&self.path, error))
    }

    fn sync(&self) -> Result<()> {
        temp::sync_parent(&self.path).map_err(|error| generic(&self.path, error))
    }

    fn text(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

/// The entity tag that `LocalFileSystem` computes in reading, from the same three facts.
fn e_tag(metadata: &Metadata) -> String {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0u64;
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .unwrap_or_default()
        .as_micros();
    format!("{inode:x}-{modified:x}-{size:x}", size = metadata.len())
}

/// An I/O error as the store's error, with the path in front.
pub(super) fn generic(path: &FsPath, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::PermissionDenied {
            path: path.to_string_lossy().into_owned(),
            source: error.into(),
        },
        kind => {
            let source = io::Error::new(kind, format!("{}: {error}", path.display()));
            Error::Generic { store: STORE, source: source.into() }
        }
    }
}

/// Runs blocking work beside the async tasks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

impl fmt::Display for DurableFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.root.display())
    }
}

fn refuse_attributes(is_empty: bool) -> Result<()> {
    if is_empty {
        return Ok(());
    }
    let operation = "attributes of an object".to_owned();
    Err(Error::NotImplemented { operation, implementer: STORE.to_owned() })
}

#[async_trait]
impl ObjectStore for DurableFs {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        refuse_attributes(opts.attributes.is_empty())?;
        let target = self.target(location)?;
        blocking(move || target.put(&payload, &opts.mode)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        refuse_attributes(opts.attributes.is_empty())?;
        let target = self.target(location)?;
        let upload = blocking(move || Ok(DurableUpload::new(target.temp()?, target))).await?;
        Ok(Box::new(upload))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                let target = store.target(&location)?;
                blocking(move || match std::fs::remove_file(&target.path) {
                    Ok(()) => target.sync(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        Err(Error::NotFound { path: target.text(), source: error.into() })
                    }
                    Err(error) => Err(generic(&target.path, error)),
                })
                .await?;
                Ok(location)
            }
        };
        locations.map(delete).buffered(DELETES_MAX).boxed()
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
        let target = self.target(to)?;
        let parents = target.clone();
        blocking(move || parents.create_parents()).await?;
        self.inner.copy_opts(from, to, options).await?;
        blocking(move || target.sync()).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let (source, target) = (self.target(from)?, self.target(to)?);
        let parents = target.clone();
        blocking(move || parents.create_parents()).await?;
        self.inner.rename_opts(from, to, options).await?;
        blocking(move || target.sync().and_then(|()| source.sync())).await
    }
}
