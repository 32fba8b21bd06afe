//! The embedded catalog: one SQLite file with the two tables that pyiceberg's `SqlCatalog` uses, so
//! that pyiceberg opens it as it is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::{Catalog, CreateOutcome, Error, Result, SwapOutcome, TableIdent};

/// The catalog's name in the file's `catalog_name` columns: `SqlCatalog("pgcdc", …)`.
pub const CATALOG_NAME: &str = "pgcdc";

/// How long a statement waits for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_millis(5000);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name)
);
CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000) NOT NULL,
    PRIMARY KEY (catalog_name, namespace, property_key)
);";

/// A catalog in a SQLite file, in WAL mode, readable by its owner only.
#[derive(Clone, Debug)]
pub struct SqliteCatalog {
    path: String,
    connection: Arc<Mutex<Connection>>,
}

impl SqliteCatalog {
    /// The file's name in a state directory.
    pub const FILE_NAME: &str = "catalog.db";

    /// Opens the file and makes it and its tables if they are missing. Blocks; call it at start or
    /// through `spawn_blocking`.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Catalog {
            catalog: CATALOG_NAME.into(),
            operation: "open",
            object: name.clone(),
            transient: false,
            source,
        };
        make_private(path).map_err(|source| failed(source.into()))?;
        let connection = connect(path).map_err(|source| failed(source.into()))?;
        Ok(Self { path: name, connection: Arc::new(Mutex::new(connection)) })
    }

    /// The path of the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Runs `work` in a write transaction on a blocking thread. `work` says whether to commit.
    async fn write<T, F>(&self, call: Call, work: F) -> Result<Written<T>>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<(T, bool)> + Send + 'static,
    {
        self.blocking(move |connection| {
            let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let transaction = begun.map_err(|source| call.failed(source))?;
            let (value, commit) = work(&transaction).map_err(|source| call.failed(source))?;
            if !commit {
                // nothing was changed, so the rollback of the drop cannot lose anything
                return Ok(Written::Done(value));
            }
            match transaction.commit() {
                Ok(()) => Ok(Written::Done(value)),
                Err(source) => Ok(Written::Unknown(call.failed(source))),
            }
        })
        .await
    }

    async fn blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    {
        let connection = Arc::clone(&self.connection);
        let run = move || {
            // a panic inside a transaction rolled it back when it was dropped
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut connection)
        };
        let joined = tokio::task::spawn_blocking(run).await;
        joined.map_err(|_| Error::Cancelled { what: "the SQLite catalog" })?
    }
}

/// The outcome of a write transaction.
enum Written<T> {
    Done(T),
    Unknown(Error),
}

/// What a call was doing, for its errors.
struct Call {
    operation: &'static str,
    object: String,
}

impl Call {
    fn new(operation: &'static str, object: impl ToString) -> Self {
        Self { operation, object: object.to_string() }
    }

    fn failed(&self, source: rusqlite::Error) -> Error {
        let code = source.sqlite_error_code();
        let transient = matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked));
        Error::Catalog {
            catalog: CATALOG_NAME.into(),
            operation: self.operation,
            object: self.object.clone(),
            transient,
            source: Box::new(source),
        }
    }
}

#[async_trait]
impl Catalog for SqliteCatalog {
    async fn ensure_namespace(&self, namespace: &str) -> Result<()> {
        let namespace = namespace.to_owned();
        let call = Call::new("make namespace", &namespace);
        let written = self
            .write(call, move |transaction| {
                transaction.execute(
                    "INSERT INTO iceberg_namespace_properties VALUES (?1, ?2, 'exists', 'true')
                     ON CONFLICT DO NOTHING",
                    params![CATALOG_NAME, namespace],
                )?;
                Ok(((), true))
            })
            .await?;
        match written {
            Written::Done(()) => Ok(()),
            Written::Unknown(error) => Err(error),
        }
    }

    async fn pointer(&self, ident: &TableIdent) -> Result<Option<String>> {
        let ident = ident.clone();
        let call = Call::new("load", &ident);
        self.blocking(move |connection| {
            select_pointer(connection, &ident).map_err(|source| call.failed(source))
        })
        .await
    }

    async fn create(&self, ident: &TableIdent, metadata_location: &str) -> Result<CreateOutcome> {
        let (ident, location) = (ident.clone(), metadata_location.to_owned());
        let namespace = ident.namespace.clone();
        let call = Call::new("create", &ident);
        let written = self
            .write(call, move |transaction| {
                if !namespace_exists(transaction, &ident.namespace)? {
                    return Ok((None, false));
                }
                if let Some(existing) = select_pointer(transaction, &ident)? {
                    return Ok((Some(CreateOutcome::Exists(existing)), false));
                }
                transaction.execute(
                    "INSERT INTO iceberg_tables (catalog_name, table_namespace, table_name,
                         metadata_location, previous_metadata_location, iceberg_type)
                     VALUES (?1, ?2, ?3, ?4, NULL, 'TABLE')",
                    params![CATALOG_NAME, ident.namespace, ident.name, location],
                )?;
                Ok((Some(CreateOutcome::Created), true))
            })
            .await?;
        match written {
            Written::Done(outcome) => outcome.ok_or(Error::NoNamespace(namespace)),
            Written::Unknown(error) => Ok(CreateOutcome::Unknown(error)),
        }
    }

    async fn swap(&self, ident: &TableIdent, expected: &str, new: &str) -> Result<SwapOutcome> {
        let (ident, expected, new) = (ident.clone(), expected.to_owned(), new.to_owned());
        let call = Call::new("commit to", &ident);
        let written = self
            .write(call, move |transaction| {
                let changed = transaction.execute(
                    "UPDATE iceberg_tables
                     SET metadata_location = ?5, previous_metadata_location = ?4
                     WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3
                       AND metadata_location = ?4",
                    params![CATALOG_NAME, ident.namespace, ident.name, expected, new],
                )?;
                Ok((changed == 1, changed == 1))
            })
            .await?;
        Ok(match written {
            Written::Done(true) => SwapOutcome::Swapped,
            Written::Done(false) => SwapOutcome::Conflict,
            Written::Unknown(error) => SwapOutcome::Unknown(error),
        })
    }

    async fn list(&self, namespace: &str) -> Result<Vec<TableIdent>> {
        let namespace = namespace.to_owned();
        let call = Call::new("list", &namespace);
        self.blocking(move |connection| {
            select_tables(connection, &namespace).map_err(|source| call.failed(source))
        })
        .await
    }

    async fn drop_table(&self, ident: &TableIdent) -> Result<bool> {
        let ident = ident.clone();
        let call = Call::new("drop", &ident);
        let written = self
            .write(call, move |transaction| {
                let removed = transaction.execute(
                    "DELETE FROM iceberg_tables
                     WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3",
                    params![CATALOG_NAME, ident.namespace, ident.name],
                )?;
                Ok((removed == 1, true))
            })
            .await?;
        match written {
            Written::Done(removed) => Ok(removed),
            Written::Unknown(error) => Err(error),
        }
    }
}

fn select_pointer(connection: &Connection, ident: &TableIdent) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT metadata_location FROM iceberg_tables
         WHERE catalog_name = ?1 AND table_namespace = ?2 AND table_name = ?3",
    )?;
    let row = params![CATALOG_NAME, ident.namespace, ident.name];
    let pointer = statement.query_row(row, |row| row.get::<_, Option<String>>(0)).optional()?;
    Ok(pointer.flatten())
}

fn select_tables(connection: &Connection, namespace: &str) -> rusqlite::Result<Vec<TableIdent>> {
    let mut statement = connection.prepare_cached(
        "SELECT table_name FROM iceberg_tables
         WHERE catalog_name = ?1 AND table_namespace = ?2
           AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)
         ORDER BY table_name",
    )?;
    let names =
        statement.query_map(params![CATALOG_NAME, namespace], |row| row.get::<_, String>(0))?;
    names.map(|name| Ok(TableIdent::new(namespace, name?))).collect()
}

fn namespace_exists(connection: &Connection, namespace: &str) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT 1 FROM iceberg_namespace_properties WHERE catalog_name = ?1 AND namespace = ?2",
    )?;
    statement.exists(params![CATALOG_NAME, namespace])
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // WAL lets readers of other processes go on while we write; FULL makes a commit durable
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// Makes the file with mode 0600 before SQLite would make it with the process's mask. SQLite gives
/// its `-wal` and `-shm` files the same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        options.mode(0o600);
        let file = options.open(path)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600))
    }
    #[cfg(not(unix))]
    {
        options.open(path).map(drop)
    }
}
