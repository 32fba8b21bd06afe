//! Since when an object is known to have no reference: the table `orphan` of `<state>/state.db`,
//! times in microseconds since 1970. Losing it only starts the grace time anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, params};

use crate::Error;
use crate::state_db;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS orphan (
    key TEXT PRIMARY KEY,
    first_seen INTEGER NOT NULL,
    last_sweep INTEGER NOT NULL
) STRICT, WITHOUT ROWID;";

/// The objects without a reference, each since its first sight. Every call blocks.
pub(super) struct Sightings {
    path: PathBuf,
    connection: Connection,
    sweep: i64,
}

impl Sightings {
    /// Opens the table for one sweep.
    pub(super) fn open(state_dir: &Path, sweep: DateTime<Utc>) -> Result<Sightings, Error> {
        let (path, connection) = state_db::open(state_dir, SCHEMA)?;
        Ok(Sightings { path, connection, sweep: sweep.timestamp_micros() })
    }

    /// Notes objects that have no reference now, and gives those of them that were seen so for
    /// the first time at or before `due`.
    pub(super) fn note(
        &mut self,
        keys: &[String],
        due: DateTime<Utc>,
    ) -> Result<Vec<String>, Error> {
        let (sweep, due) = (self.sweep, due.timestamp_micros());
        self.run(|connection| {
            let transaction = connection.transaction()?;
            let mut ripe = Vec::new();
            {
                let mut note = transaction.prepare(
                    "INSERT INTO orphan (key, first_seen, last_sweep) VALUES (?1, ?2, ?2)
                     ON CONFLICT (key) DO UPDATE SET last_sweep = ?2
                     RETURNING first_seen",
                )?;
                for key in keys {
                    let first: i64 = note.query_row(params![key, sweep], |row| row.get(0))?;
                    if first <= due {
                        ripe.push(key.clone());
                    }
                }
            }
            transaction.commit()?;
            Ok(ripe)
        })
    }

    /// Forgets the objects below a prefix that this sweep did not see: they are gone, or have a
    /// reference again.
    pub(super) fn forget_unseen(&mut self, prefix: &str) -> Result<(), Error> {
        let sweep = self.sweep;
        // `0` is the character behind `/`, so the range is the directory
        let (from, to) = (format!("{prefix}/"), format!("{prefix}0"));
        self.run(|connection| {
            connection.execute(
                "DELETE FROM orphan WHERE key >= ?1 AND key < ?2 AND last_sweep <> ?3",
                params![from, to, sweep],
            )
        })
        .map(drop)
    }

    /// Forgets objects that were removed.
    pub(super) fn removed(&mut self, keys: &[String]) -> Result<(), Error> {
        self.run(|connection| {
            let transaction = connection.transaction()?;
            for key in keys {
                transaction.execute("DELETE FROM orphan WHERE key = ?1", [key])?;
            }
            transaction.commit()
        })
    }

    fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let worked = work(&mut self.connection);
        worked.map_err(|source| Error::StateDatabase { path: self.path.clone(), source })
    }
}

/// The latest first sight at which an object may go.
pub(super) fn due(now: DateTime<Utc>, grace: Duration) -> DateTime<Utc> {
    let grace = TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(grace).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-06-01T{text}Z").parse().unwrap()
    }

    #[test]
    fn an_object_is_due_only_after_it_was_without_reference_for_the_grace_time() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ["t/a".to_owned(), "t/b".to_owned(), "t2/c".to_owned()];
        let grace = Duration::from_secs(3600);
        let sweep = |now: &str, keys: &[String], prefix: &str| {
            let mut sightings = Sightings::open(dir.path(), at(now)).unwrap();
            let ripe = sightings.note(keys, due(at(now), grace)).unwrap();
            sightings.forget_unseen(prefix).unwrap();
            ripe
        };
        assert!(sweep("10:00:00", &keys, "t").is_empty());
        assert!(sweep("10:59:59", &keys[..1], "t").is_empty(), "b has a reference meanwhile");
        assert_eq!(sweep("11:00:00", &keys[..2], "t"), ["t/a"], "b's time starts anew");
        assert_eq!(sweep("11:00:01", &keys[2..], "t2"), ["t2/c"]);
    }
}
