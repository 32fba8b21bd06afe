//! The file behind the registry: readable by its owner alone, and the same one for as long as it is
//! open. A connection to a file that was removed would go on answering from the past.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The file as it was when it was opened.
#[derive(Debug)]
pub(super) struct RegistryFile {
    path: PathBuf,
    #[cfg(unix)]
    device_and_inode: (u64, u64),
}

impl RegistryFile {
    /// Makes the file if it is missing.
    pub(super) fn prepare(path: &Path) -> Result<RegistryFile> {
        create(path).map_err(|source| unusable(path, "it cannot be made", source))?;
        let found = metadata(path)?;
        Ok(RegistryFile {
            path: path.to_owned(),
            #[cfg(unix)]
            device_and_inode: private_identity(path, &found)?,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still the file that was opened.
    #[cfg(unix)]
    pub(super) fn check(&self) -> Result<()> {
        if identity(&metadata(&self.path)?) == self.device_and_inode {
            return Ok(());
        }
        let source = io::Error::from(io::ErrorKind::NotFound);
        Err(unusable(&self.path, "it was replaced by another file; hint: restart", source))
    }

    /// Whether it is still there.
    #[cfg(not(unix))]
    pub(super) fn check(&self) -> Result<()> {
        metadata(&self.path).map(drop)
    }
}

fn metadata(path: &Path) -> Result<Metadata> {
    path.metadata().map_err(|source| unusable(path, "it is not there", source))
}

fn unusable(path: &Path, reason: &'static str, source: io::Error) -> Error {
    Error::RegistryFile { path: path.to_owned(), reason, source: Some(source) }
}

/// Makes the file if it is missing, and never opens one that is there: a process that closes any
/// handle of a SQLite file loses the locks which its connections hold on it
/// (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>).
fn create(path: &Path) -> io::Result<()> {
    let mut options: OpenOptions = File::options();
    options.create_new(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn identity(found: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

#[cfg(unix)]
fn private_identity(path: &Path, found: &Metadata) -> Result<(u64, u64)> {
    use std::os::unix::fs::PermissionsExt;
    if found.permissions().mode() & 0o077 != 0 {
        let reason = "others may open it; hint: chmod 600";
        return Err(Error::RegistryFile { path: path.to_owned(), reason, source: None });
    }
    Ok(identity(found))
}
