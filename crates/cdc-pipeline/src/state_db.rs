//! `<state>/state.db`: one SQLite file, readable by its owner alone, with a table for each who keeps
//! something there.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use crate::Error;

/// File name below the state directory.
const FILE: &str = "state.db";
/// How long a statement waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_millis(5000);

/// Opens the file, makes it if it is missing, and makes what `schema` creates. Blocks. Gives the path
/// too, for errors.
pub(crate) fn open(state_dir: &Path, schema: &str) -> Result<(PathBuf, Connection), Error> {
    let path = state_dir.join(FILE);
    make_private(&path).map_err(|source| Error::state(&path, source))?;
    let connect = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(&path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(schema)?;
        Ok(connection)
    };
    let connection = connect().map_err(|source| failed(&path, source))?;
    Ok((path, connection))
}

/// The error of a statement.
pub(crate) fn failed(path: &Path, source: rusqlite::Error) -> Error {
    Error::StateDatabase { path: path.to_owned(), source }
}

/// Makes the file if it is missing, and never opens one that is there: a process that closes any handle
/// of a SQLite file loses the locks which its connections hold on it
/// (<https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_>).
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create_new(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    match options.open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
