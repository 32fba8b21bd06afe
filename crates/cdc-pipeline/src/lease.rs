//! The lease on a state directory: an operating-system lock, so that a killed daemon frees it without
//! help. Across machines generation and compare-and-swap fence; this keeps two processes apart on one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cdc_core::{Clock, SystemClock, rfc3339};
use fs4::fs_std::FileExt;

use crate::Error;

/// Held while a process writes to the lake; dropping it frees the lock.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// What a holder writes who has the lease for a moment only.
const BRIEFLY: &str = "for a moment";
/// How often a lease that is held for a moment is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

impl Lease {
    /// Takes the lease of a state directory, or fails naming who holds it.
    pub fn take(state_dir: &Path) -> Result<Lease, Error> {
        Lease::take_as(state_dir, "")
    }

    /// The same for a moment: a daemon that is started meanwhile waits.
    pub(crate) fn take_briefly(state_dir: &Path) -> Result<Lease, Error> {
        Lease::take_as(state_dir, BRIEFLY)
    }

    /// Takes the lease, and waits for somebody who has it for a moment, at most for `patience`.
    pub(crate) async fn take_after(state_dir: &Path, patience: Duration) -> Result<Lease, Error> {
        let deadline = Instant::now() + patience;
        loop {
            match Lease::take(state_dir) {
                Err(Error::Leased { holder, .. })
                    if holder.ends_with(BRIEFLY) && Instant::now() < deadline =>
                {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                taken => return taken,
            }
        }
    }

    fn take_as(state_dir: &Path, purpose: &str) -> Result<Lease, Error> {
        let path = lock_path(state_dir);
        let mut file = open(&path)?;
        let locked = file.try_lock_exclusive().map_err(|source| Error::state(&path, source))?;
        if !locked {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(|source| Error::state(&path, source))?;
            return Err(Error::Leased { path, holder: holder.trim().to_owned() });
        }
        let write = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            let (host, pid) = (host(), std::process::id());
            let line = format!("host {host}, pid {pid}, since {}", rfc3339(SystemClock.now()));
            writeln!(file, "{}", format!("{line} {purpose}").trim_end())?;
            file.sync_data()
        };
        let mut write = write;
        write().map_err(|source| Error::state(&path, source))?;
        Ok(Lease { _file: file })
    }

    /// Whether some process holds the lease now.
    pub fn is_held(state_dir: &Path) -> bool {
        let path = lock_path(state_dir);
        path.exists() && matches!(open(&path).map(|file| file.try_lock_exclusive()), Ok(Ok(false)))
    }
}

/// The name of this machine, as far as the system tells.
pub(crate) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "unknown".to_owned())
}

fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("daemon.lock")
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|source| Error::state(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lease_is_refused_naming_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let lease = Lease::take(dir.path()).unwrap();
        assert!(Lease::is_held(dir.path()));
        let error = Lease::take(dir.path()).unwrap_err().to_string();
        let holder = format!("host {}, pid {}, since 20", host(), std::process::id());
        assert!(error.contains(&holder), "{error}");
        drop(lease);
        assert!(!Lease::is_held(dir.path()));
        Lease::take(dir.path()).unwrap();
    }
}
