//! The table `control_request` of `<state>/state.db`. Every call blocks; a caller on the runtime goes
//! through `spawn_blocking`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::request::Command;
use crate::Error;
use crate::state_db::{self, failed};

/// How long answered requests are kept, for whoever looks into the file.
const ANSWERED_KEPT: TimeDelta = TimeDelta::days(1);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS control_request (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    command TEXT NOT NULL,
    args TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'taken', 'done', 'failed')),
    result TEXT,
    created_at TEXT NOT NULL
) STRICT;";

/// The requests, in a file that only its owner may read.
pub(crate) struct ControlStore {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// A request as the server takes it; a command of another version cannot be read.
pub(crate) struct Taken {
    pub(crate) id: i64,
    pub(crate) command: Result<Command, String>,
}

impl ControlStore {
    /// Opens the file and makes it and the table if they are missing.
    pub(crate) fn open(state_dir: &Path) -> Result<ControlStore, Error> {
        let (path, connection) = state_db::open(state_dir, SCHEMA)?;
        Ok(ControlStore { connection: Mutex::new(connection), path })
    }

    /// Adds a request and gives its number.
    pub(crate) fn submit(&self, command: &Command, now: DateTime<Utc>) -> Result<i64, Error> {
        let (name, args) = to_columns(command)?;
        self.run(|connection| {
            let old = cdc_core::rfc3339(now - ANSWERED_KEPT);
            connection.execute(
                "DELETE FROM control_request
                 WHERE status IN ('done', 'failed') AND created_at < ?1",
                [old],
            )?;
            connection.execute(
                "INSERT INTO control_request (command, args, status, created_at)
                 VALUES (?1, ?2, 'pending', ?3)",
                params![name, args, cdc_core::rfc3339(now)],
            )?;
            Ok(connection.last_insert_rowid())
        })
    }

    /// Takes the oldest request that waits.
    pub(crate) fn take(&self) -> Result<Option<Taken>, Error> {
        self.run(|connection| {
            connection
                .query_row(
                    "UPDATE control_request SET status = 'taken'
                     WHERE id = (SELECT min(id) FROM control_request WHERE status = 'pending')
                     RETURNING id, command, args",
                    [],
                    |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)),
                )
                .optional()
        })
        .map(|found| {
            found.map(|(id, name, args)| Taken { id, command: from_columns(&name, &args) })
        })
    }

    /// Answers a request.
    pub(crate) fn answer(&self, id: i64, answer: &Result<Value, String>) -> Result<(), Error> {
        let (status, result) = match answer {
            Ok(value) => ("done", value.clone()),
            Err(reason) => ("failed", json!({ "error": reason })),
        };
        self.run(|connection| {
            connection.execute(
                "UPDATE control_request SET status = ?2, result = ?3 WHERE id = ?1",
                params![id, status, result.to_string()],
            )
        })
        .map(drop)
    }

    /// The answer to a request, once there is one.
    pub(crate) fn answered(&self, id: i64) -> Result<Option<Result<Value, String>>, Error> {
        let row: Option<(String, Option<String>)> = self.run(|connection| {
            connection
                .query_row(
                    "SELECT status, result FROM control_request WHERE id = ?1",
                    [id],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()
        })?;
        let Some((status, result)) = row else {
            return Ok(Some(Err("the request is gone from state.db".to_owned())));
        };
        let result: Value =
            result.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(match status.as_str() {
            "done" => Some(Ok(result)),
            "failed" => Some(Err(result["error"].as_str().unwrap_or("no reason given").to_owned())),
            _ => None,
        })
    }

    /// Ends what nobody waits for or nobody can answer any more: one request, or all.
    pub(crate) fn withdraw(&self, id: Option<i64>, reason: &str) -> Result<(), Error> {
        let result = json!({ "error": reason }).to_string();
        self.run(|connection| {
            connection.execute(
                "UPDATE control_request SET status = 'failed', result = ?2
                 WHERE status IN ('pending', 'taken') AND (?1 IS NULL OR id = ?1)",
                params![id, result],
            )
        })
        .map(drop)
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        work(&self.lock()).map_err(|source| failed(&self.path, source))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // every statement stands alone, so a panic elsewhere leaves nothing half done
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_columns(command: &Command) -> Result<(String, String), Error> {
    let whole = serde_json::to_value(command).map_err(|source| Error::Request { source })?;
    let name = whole["command"].as_str().unwrap_or_default().to_owned();
    Ok((name, whole["args"].to_string()))
}

fn from_columns(name: &str, args: &str) -> Result<Command, String> {
    let args: Value = serde_json::from_str(args).map_err(|error| error.to_string())?;
    let whole = json!({ "command": name, "args": args });
    serde_json::from_value(whole).map_err(|error| format!("command `{name}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::TableOrder;
    use crate::table_ops::TableAction;
    use cdc_core::Lsn;

    fn store() -> (tempfile::TempDir, ControlStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ControlStore::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn requests_are_taken_once_in_order_and_answered() {
        let (dir, daemon) = store();
        let client = ControlStore::open(dir.path()).unwrap();
        let hold = client.submit(&Command::Hold { max_millis: 7 }, Utc::now()).unwrap();
        let cut = Command::Cut { hold, lsn: Lsn(0x1_0000_0002) };
        let second = client.submit(&cut, Utc::now()).unwrap();
        assert_eq!(client.answered(hold).unwrap(), None);

        let taken = daemon.take().unwrap().unwrap();
        assert_eq!((taken.id, taken.command), (hold, Ok(Command::Hold { max_millis: 7 })));
        daemon.answer(hold, &Ok(json!({"received": "0/7"}))).unwrap();
        assert_eq!(client.answered(hold).unwrap(), Some(Ok(json!({"received": "0/7"}))));

        assert_eq!(daemon.take().unwrap().unwrap().command, Ok(cut));
        assert!(daemon.take().unwrap().is_none());
        daemon.answer(second, &Err("no".into())).unwrap();
        assert_eq!(client.answered(second).unwrap(), Some(Err("no".into())));
    }

    #[test]
    fn a_table_order_reads_as_the_documentation_has_it() {
        let order = TableOrder { table: "public.t".into(), action: TableAction::Resync };
        let (name, args) = to_columns(&Command::Table(order.clone())).unwrap();
        let args: Value = serde_json::from_str(&args).unwrap();
        assert_eq!(name, "table");
        assert_eq!(args, json!({ "table": "public.t", "action": "resync" }));
        assert_eq!(from_columns(&name, &args.to_string()), Ok(Command::Table(order)));
    }

    #[test]
    fn a_withdrawn_request_is_not_taken_and_an_unknown_command_is_refused() {
        let (_dir, store) = store();
        let id = store.submit(&Command::Release { hold: 1 }, Utc::now()).unwrap();
        store.withdraw(Some(id), "nobody waits").unwrap();
        assert!(store.take().unwrap().is_none());
        assert_eq!(store.answered(id).unwrap(), Some(Err("nobody waits".into())));
        store
            .run(|connection| {
                connection.execute(
                    "INSERT INTO control_request (command, args, status, created_at)
                     VALUES ('fly', '{}', 'pending', '')",
                    [],
                )
            })
            .unwrap();
        assert!(store.take().unwrap().unwrap().command.unwrap_err().contains("fly"));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, store) = store();
        store.submit(&Command::Release { hold: 1 }, Utc::now()).unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn old_answers_go_with_the_next_request() {
        let (_dir, store) = store();
        let long_ago = Utc::now() - TimeDelta::days(2);
        let old = store.submit(&Command::Release { hold: 1 }, long_ago).unwrap();
        store.answer(old, &Ok(Value::Null)).unwrap();
        store.submit(&Command::Release { hold: 2 }, Utc::now()).unwrap();
        let gone = store.answered(old).unwrap();
        assert!(matches!(gone, Some(Err(reason)) if reason.contains("gone")));
    }
}
