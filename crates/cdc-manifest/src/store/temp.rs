//! Temporary files beside the objects they become, and their removal after a kill.
//!
//! A writer holds an OS lock on its temporary file until it is renamed. The lock goes with the
//! process, whichever way it ends, so a file that can be locked belongs to nobody. Age and process
//! ids would not tell: a container's daemon has the same id after every restart.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// What temporary files start with. Readers that list directories skip names with a dot in front.
const PREFIX: &str = ".pgcdc-tmp-";
/// What they and the lock file end with: `object_store` never lists or addresses such names.
const SUFFIX: &str = "#0";
/// The file whose lock orders conditional writes.
const LOCK_NAME: &str = ".pgcdc-lock#0";
/// Attempts to get a temporary file that no clean-up took in the moment before it was locked.
const CREATE_ATTEMPTS_MAX: u32 = 16;

/// A locked temporary file; removed when dropped unless it was put in place.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    path: Option<PathBuf>,
}

impl TempFile {
    /// Creates a temporary file in an existing directory.
    pub(super) fn create_in(directory: &Path) -> io::Result<TempFile> {
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let name =
                format!("{PREFIX}{}-{}{SUFFIX}", std::process::id(), uuid::Uuid::new_v4().simple());
            let path = directory.join(name);
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            let temp = TempFile { file, path: Some(path) };
            if temp.file.try_lock().is_ok() && temp.is_linked()? {
                return Ok(temp);
            }
        }
        Err(io::Error::other("every temporary file was removed before it could be locked"))
    }

    /// Whether the name still leads to this file: a clean-up may have come before the lock.
    fn is_linked(&self) -> io::Result<bool> {
        match &self.path {
            Some(path) => path.try_exists(),
            None => Ok(false),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Renames the file over `target` and makes the name durable.
    pub(super) fn rename_to(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            std::fs::rename(path, target)?;
            self.path = None;
        }
        sync_parent(target)
    }

    /// Gives the file the name `target`, failing with `AlreadyExists` if that is taken.
    pub(super) fn link_to(self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            std::fs::hard_link(path, target)?;
        }
        drop(self);
        sync_parent(target)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, "a temporary file stays until the next start");
        }
    }
}

/// Takes the lake's lock; it is released when the file is dropped.
pub(super) fn lock(root: &Path) -> io::Result<File> {
    let path = root.join(LOCK_NAME);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Makes the directory entry of `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

#[cfg(unix)]
pub(super) fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened for syncing.
#[cfg(not(unix))]
pub(super) fn sync_dir(_directory: &Path) -> io::Result<()> {
    Ok(())
}

/// Creates the directory and its parents up to `root`, each entry durable.
pub(super) fn create_dirs(root: &Path, directory: &Path) -> io::Result<()> {
    if directory == root || directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        create_dirs(root, parent)?;
    }
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_parent(directory),
    }
}

/// Proves that files can be made in the directory.
pub(super) fn check_writable(root: &Path) -> io::Result<()> {
    TempFile::create_in(root).map(drop)
}

/// Removes the temporary files of dead processes below `root` and counts them. What cannot be read
/// or removed is left: it is never listed and costs only space.
pub(super) fn remove_abandoned(root: &Path) -> usize {
    let mut removed = 0;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(file_type) = entry.file_type() else { continue };
            if file_type.is_dir() {
                directories.push(entry.path());
            } else if is_temporary(&entry.file_name()) && remove_if_abandoned(&entry.path()) {
                removed += 1;
            }
        }
    }
    removed
}

fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
}

fn remove_if_abandoned(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(path) else { return false };
    file.try_lock().is_ok() && std::fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("public.orders/deltas");
        create_dirs(dir.path(), &below).unwrap();
        let held = TempFile::create_in(&below).unwrap();
        let abandoned = below.join(format!("{PREFIX}1-x{SUFFIX}"));
        std::fs::write(&abandoned, "x").unwrap();
        std::fs::write(below.join("epoch=000001.parquet"), "x").unwrap();

        assert_eq!(remove_abandoned(dir.path()), 1);
        assert!(!abandoned.exists());
        held.rename_to(&below.join("epoch=000002.parquet")).unwrap();
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 2);
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(TempFile::create_in(dir.path()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
