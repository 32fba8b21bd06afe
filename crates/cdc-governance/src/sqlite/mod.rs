//! The embedded backend: one SQLite file, `governance.db`, which is intent and enforcement in one.
//!
//! ```text
//! acl set -> BEGIN IMMEDIATE -> row, history, audit record, policy version -> COMMIT
//!                                                                               |
//! PolicyEngine of any process  <- policy version, read again at each poll  <----+
//! ```

mod change;
mod file;
mod read;
mod schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdc_core::{Clock, rfc3339_nanos};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, TransactionBehavior};

use crate::audit::{Head, follow};
use crate::{
    AuditLine, ChainReport, Drift, EmergencyGrant, EmergencyRequest, Enforced, EnforcementPlane,
    Error, Grant, GrantRecord, GrantTerms, Intent, IntentRegistry, PostureCheck, Provenance,
    Registered, Registration, Resource, ResourceId, ResourceState, ResourceVersion, Result,
    SyncReport, TagChange, Taxonomy,
};
use change::Change;
use file::RegistryFile;

/// How long a statement waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_millis(5000);
/// The writer of the registry's audit chain.
const WRITER_ID: &str = "registry";
/// Records that are verified at a time.
const AUDIT_PAGE: usize = 1000;

/// What the configuration says about the registry.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Which tags exist.
    pub taxonomy: Taxonomy,
    /// The longest emergency grant.
    pub break_glass_ttl_max: TimeDelta,
}

/// The registry in a SQLite file. Clones share one connection; each process has its own, and sees
/// what the others committed.
#[derive(Clone)]
pub struct SqliteRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    file: RegistryFile,
    connection: Mutex<Connection>,
    options: RegistryOptions,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for SqliteRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteRegistry").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// What can go wrong inside a transaction.
enum Fault {
    Sql(rusqlite::Error),
    Json(serde_json::Error),
    Row(String),
    Refused(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Fault {
        Fault::Json(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Refused(error)
    }
}

impl Fault {
    fn at(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Fault::Sql(source) => Error::Registry { path, source },
            Fault::Json(error) => {
                let source = rusqlite::Error::ToSqlConversionFailure(error.into());
                Error::Registry { path, source }
            }
            Fault::Row(what) => Error::RegistryRow { path, what },
            Fault::Refused(error) => error,
        }
    }
}

impl SqliteRegistry {
    /// The file's name in a state directory.
    pub const FILE_NAME: &str = "governance.db";

    /// Opens the file; makes it, its directory's permissions left alone, if it is missing. Blocks.
    ///
    /// # Errors
    /// [`Error::RegistryNewer`] for a file of a later version, [`Error::RegistryFile`] for one that
    /// others may open, [`Error::TagInUse`] if the taxonomy lost a tag that something uses.
    pub fn open(path: &Path, options: RegistryOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let file = RegistryFile::prepare(path)?;
        let connect = || -> Result<Connection, Fault> {
            let mut connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            bring_up_to_date(&mut connection, path)?;
            take_taxonomy(&mut connection, &options.taxonomy, clock.now())?;
            Ok(connection)
        };
        let connection = Mutex::new(connect().map_err(|fault| fault.at(path))?);
        Ok(Self { shared: Arc::new(Shared { file, connection, options, clock }) })
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.shared.file.path().to_owned()
    }

    /// Runs `work` on a blocking thread, on the file that was opened.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &mut Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || {
            shared.file.check()?;
            // a transaction that a panic left open was rolled back when it was dropped
            let mut connection = shared.connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&shared, &mut connection).map_err(|fault| fault.at(shared.file.path()))
        });
        task.await.map_err(|source| Error::Interrupted { source })?
    }

    /// Runs `work` as one change.
    async fn change<T: Send + 'static>(
        &self,
        by: Provenance,
        work: impl FnOnce(&mut Change<'_>, &Shared) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        self.blocking(move |shared, connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut change = Change::begin(&tx, &by, &shared.options.taxonomy, shared.clock.now())?;
            change.end_expired()?;
            let value = work(&mut change, shared)?;
            change.finish()?;
            tx.commit()?;
            Ok(value)
        })
        .await
    }
}

fn bring_up_to_date(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (found, known) = (schema::version(&tx)?, schema::VERSION);
    if found > known {
        let path = path.to_owned();
        return Err(Error::RegistryNewer { path, found, known }.into());
    }
    schema::migrate(&tx, found)?;
    Ok(tx.commit()?)
}

/// Writes the taxonomy if it is not the one that is there, and refuses to lose what is in use.
fn take_taxonomy(
    connection: &mut Connection,
    taxonomy: &Taxonomy,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    if stored_taxonomy(connection)? == pairs(taxonomy) {
        return Ok(());
    }
    let wanted = pairs(taxonomy);
    for (key, value, user) in read::used_tags(connection)? {
        if !wanted.contains(&(key.clone(), value.clone())) {
            return Err(Error::TagInUse { key, value, user }.into());
        }
    }
    let by = change::opener();
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut change = Change::begin(&tx, &by, taxonomy, now)?;
    change.replace_taxonomy()?;
    change.finish()?;
    Ok(tx.commit()?)
}

fn pairs(taxonomy: &Taxonomy) -> Vec<(String, String)> {
    taxonomy.pairs().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn stored_taxonomy(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut statement =
        connection.prepare("SELECT key, value FROM tag_taxonomy ORDER BY key, value")?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

#[async_trait]
impl IntentRegistry for SqliteRegistry {
    async fn policy_version(&self) -> Result<u64> {
        self.blocking(|_, connection| read::policy_version(connection)).await
    }

    async fn load(&self) -> Result<Intent> {
        self.blocking(|_, connection| read::intent(connection)).await
    }

    async fn advance_time(&self, reached: DateTime<Utc>) -> Result<()> {
        self.blocking(move |_, connection| {
            let sql = "UPDATE meta SET time_high_water = ?1 WHERE time_high_water < ?1";
            connection.execute(sql, [rfc3339_nanos(reached)])?;
            Ok(())
        })
        .await
    }

    async fn register(&self, registration: Registration, by: Provenance) -> Result<Registered> {
        self.change(by, move |change, _| change.register(&registration)).await
    }

    async fn set(&self, change: TagChange, by: Provenance) -> Result<Resource> {
        self.change(by, move |tx, _| tx.set(&change)).await
    }

    async fn set_state(
        &self,
        resource: ResourceId,
        state: ResourceState,
        by: Provenance,
    ) -> Result<Resource> {
        self.change(by, move |change, _| change.set_state(&resource, state)).await
    }

    async fn get(&self, resource: &ResourceId) -> Result<Option<Resource>> {
        let id = resource.clone();
        self.blocking(move |_, connection| read::resource(connection, &id)).await
    }

    async fn list(&self, after: Option<ResourceId>, limit: usize) -> Result<Vec<Resource>> {
        self.blocking(move |_, connection| read::resources(connection, after.as_ref(), limit)).await
    }

    async fn history(&self, resource: &ResourceId) -> Result<Vec<ResourceVersion>> {
        let id = resource.clone();
        self.blocking(move |_, connection| read::history(connection, &id)).await
    }

    async fn grant(&self, terms: GrantTerms, by: Provenance) -> Result<Grant> {
        self.change(by, move |change, _| change.grant(terms)).await
    }

    async fn revoke(&self, id: String, by: Provenance) -> Result<()> {
        self.change(by, move |change, _| change.revoke(&id)).await
    }

    async fn grants(&self) -> Result<Vec<GrantRecord>> {
        self.blocking(|_, connection| read::grants(connection)).await
    }

    async fn break_glass(
        &self,
        request: EmergencyRequest,
        by: Provenance,
    ) -> Result<EmergencyGrant> {
        self.change(by, move |change, shared| {
            change.break_glass(request, shared.options.break_glass_ttl_max)
        })
        .await
    }

    async fn end_break_glass(&self, id: String, by: Provenance) -> Result<()> {
        self.change(by, move |change, _| change.end_break_glass(&id)).await
    }

    async fn emergency_grants(&self) -> Result<Vec<EmergencyGrant>> {
        self.change(change::sweeper(), |_, _| Ok(())).await?;
        self.blocking(|_, connection| read::emergencies(connection)).await
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditLine>> {
        self.blocking(move |_, connection| read::audit(connection, after, limit)).await
    }

    async fn verify_audit(&self) -> Result<ChainReport> {
        self.blocking(|shared, connection| {
            let mut head = Head::default();
            loop {
                let page = read::audit(connection, head.seq, AUDIT_PAGE)?;
                if page.is_empty() {
                    return Ok(ChainReport { records: head.seq, head: head.hash });
                }
                for line in page {
                    head = follow(&line.line, &head).ok_or_else(|| Error::BrokenChain {
                        path: shared.file.path().to_owned(),
                        line: Some(head.seq + 1),
                    })?;
                }
            }
        })
        .await
    }
}

/// The rows are the truth themselves, so nothing can drift from them.
#[async_trait]
impl EnforcementPlane for SqliteRegistry {
    async fn read(&self) -> Result<Enforced> {
        Ok(Enforced::default())
    }

    async fn diff(&self) -> Result<Vec<Drift>> {
        // clean, but only if it can be read
        self.policy_version().await.map(|_| Vec::new())
    }

    async fn sync(&self) -> Result<SyncReport> {
        self.policy_version().await.map(|_| SyncReport::default())
    }

    async fn preflight(&self) -> Result<Vec<PostureCheck>> {
        let version = self.policy_version().await?;
        let chain = self.verify_audit().await;
        let audit = match &chain {
            Ok(report) => format!("{} records, each follows from the one before", report.records),
            Err(error) => error.to_string(),
        };
        Ok(vec![
            PostureCheck {
                check: "registry",
                passed: true,
                detail: format!("readable by its owner alone, policy version {version}"),
            },
            PostureCheck { check: "audit chain", passed: chain.is_ok(), detail: audit },
        ])
    }
}
