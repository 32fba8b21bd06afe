//! `<state>/spool`: where what is too large for memory waits for its transaction or epoch to end.
//!
//! Everything in it is a file without a name and dies with the process. Where the operating system
//! cannot do without a name for a moment, a crash may leave one behind: it goes at the next start.

use std::path::{Path, PathBuf};

use cdc_wal::SpoolOptions;

use crate::Error;
use crate::lake::create_state_dir;
use crate::settings::{DaemonSettings, Streaming};

/// Memory of transactions in progress, as a part of the byte budget.
const MEMORY_PART: usize = 16;
/// The same at most.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The directory, made if missing.
pub(crate) fn directory(state_dir: &Path) -> Result<PathBuf, Error> {
    let directory = state_dir.join("spool");
    create_state_dir(&directory)?;
    Ok(directory)
}

/// Removes what an earlier process left. The caller holds the lease.
pub(crate) fn clear(state_dir: &Path) -> Result<(), Error> {
    let directory = directory(state_dir)?;
    let wrong = |source| Error::state(&directory, source);
    for entry in std::fs::read_dir(&directory).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_file() {
            std::fs::remove_file(&path).map_err(|source| Error::state(&path, source))?;
        }
    }
    Ok(())
}

/// How the stream keeps transactions in progress; `None` if the server is to keep them.
pub(crate) fn options(settings: &DaemonSettings) -> Result<Option<SpoolOptions>, Error> {
    match settings.replication.streaming {
        Streaming::Off => Ok(None),
        Streaming::Auto => Ok(Some(SpoolOptions {
            directory: directory(&settings.lake.state_dir)?,
            memory_bytes: (settings.buffer_bytes_max / MEMORY_PART).min(MEMORY_BYTES_MAX),
            disk_bytes: settings.spool_bytes_max,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_in_the_spool_is_gone_after_the_next_start() {
        let state = tempfile::tempdir().unwrap();
        let directory = directory(state.path()).unwrap();
        std::fs::write(directory.join(".tmpAbCdEf"), "half a transaction").unwrap();
        clear(state.path()).unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
}
