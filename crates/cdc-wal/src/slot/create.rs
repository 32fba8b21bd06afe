//! A slot and the snapshot at its consistent point.
//!
//! `CREATE_REPLICATION_SLOT … EXPORT_SNAPSHOT` would give a snapshot that dies at the next command
//! of its session. So the slot is created inside a transaction that uses its snapshot, and that
//! transaction exports it: it lives until the lease is released, whatever else the session runs.

use std::collections::BTreeMap;
use std::time::Duration;

use cdc_core::{Lsn, TableName, quote_ident};

use crate::control::{Control, OldestTransaction, Source, get};
use crate::error::{Error, Result};
use crate::session::{self, Backend, Session};

/// The first server with options in parentheses.
const OPTION_LIST_FROM: u32 = 150_000;
/// The first server with failover slots.
const FAILOVER_FROM: u32 = 170_000;
/// How long beyond its lock timeout the server may take before the creation is given up.
const GRACE: Duration = Duration::from_secs(15);

/// The slot to create.
#[derive(Clone, Debug)]
pub struct SlotSpec {
    /// Name: lower-case letters, digits and underscores.
    pub name: String,
    /// Whether standbys shall have it too; without effect before PostgreSQL 17.
    pub failover: bool,
    /// Whether it ends with the lease, as for a table added later or for `verify`.
    pub temporary: bool,
    /// How long to wait for each transaction that has written and is still open.
    pub wait: Duration,
    /// Bound of the whole creation; without one it is twice `wait` and a grace, for several
    /// transactions may be waited for one after the other.
    pub limit: Option<Duration>,
    /// OIDs of the tables and partition roots that will be copied; see [`SnapshotLease`].
    pub tables: Vec<u32>,
}

impl SlotSpec {
    /// A permanent slot.
    pub fn new(name: impl Into<String>) -> Self {
        let wait = Duration::from_secs(60);
        Self {
            name: name.into(),
            failover: false,
            temporary: false,
            wait,
            limit: None,
            tables: Vec::new(),
        }
    }
}

/// A new slot and the snapshot that goes with it: the slot's changes begin where the snapshot ends.
#[derive(Debug)]
pub struct SlotSnapshot {
    /// Slot.
    pub slot: String,
    /// Transactions that ended up to here are in the snapshot, later ones in the stream.
    pub consistent_point: Lsn,
    /// For [`Source::open_snapshot`].
    pub snapshot_name: String,
    /// Identifies the cluster.
    pub system_identifier: u64,
    /// The timeline of the consistent point.
    pub timeline: u32,
    /// Keeps the snapshot.
    pub lease: SnapshotLease,
}

/// Keeps an exported snapshot, and the source's old row versions with it: release it when the last
/// row has been copied. Dropping it cuts the connection, which releases it too.
///
/// It also holds ACCESS SHARE locks on [`SlotSpec::tables`]. A table that is rewritten (ALTER TABLE
/// … TYPE, TRUNCATE) looks empty to an older snapshot, and a rewrite leaves no changes in the
/// stream: without the locks its rows would silently be missing.
#[derive(Debug)]
pub struct SnapshotLease {
    session: Session,
}

impl SnapshotLease {
    /// Whether the server still holds the snapshot.
    ///
    /// # Errors
    /// The connection's error if it does not.
    pub async fn check(&mut self) -> Result<()> {
        self.session.query("keep the snapshot", "SELECT 1").await.map(drop)
    }

    /// Ends the transaction. A temporary slot ends with it.
    pub async fn release(mut self) -> Result<()> {
        self.session.query("release the snapshot", "COMMIT").await.map(drop)
    }
}

impl Source {
    /// Creates a slot and exports the snapshot of its consistent point. The publication must exist
    /// already: the server looks it up as of each change.
    ///
    /// # Errors
    /// [`Error::SlotExists`]; [`Error::SlotBlocked`] if a transaction that has written stayed open
    /// too long, naming it; [`Error::TableRewritten`]. No slot is left behind by an error.
    pub async fn create_slot(&self, spec: &SlotSpec) -> Result<SlotSnapshot> {
        let control = self.connect().await?;
        let mut session = session::connect(self.connector(), Backend::WalSender).await?;
        let pid = prepare(&mut session, spec).await?;
        let storage = storage(&control, &spec.tables).await?;
        let creation = create(session, spec, control.server_version_num());
        let created = match tokio::time::timeout(bound(spec), creation).await {
            Ok(created) => created,
            Err(_) => {
                terminate(&control, pid).await?;
                return Err(blocked(&control, spec).await);
            }
        };
        let failed = match created {
            Ok(mut snapshot) => match hold(&control, &mut snapshot.lease, spec, &storage).await {
                Ok(()) => {
                    control.close().await;
                    return Ok(snapshot);
                }
                Err(error) => {
                    snapshot.lease.release().await?;
                    if !spec.temporary {
                        control.drop_slot(&spec.name).await?;
                    }
                    return Err(error);
                }
            },
            Err(error) => error,
        };
        match sqlstate(&failed) {
            Some("42710") => Err(Error::SlotExists { slot: spec.name.clone() }),
            Some("55P03") => Err(blocked(&control, spec).await),
            _ => Err(failed),
        }
    }
}

fn bound(spec: &SlotSpec) -> Duration {
    spec.limit.unwrap_or_else(|| spec.wait.saturating_mul(2).saturating_add(GRACE))
}

fn sqlstate(error: &Error) -> Option<&str> {
    match error {
        Error::Server { message, .. } => Some(&message.sqlstate),
        _ => None,
    }
}

/// Lets the session wait and idle as long as it must; gives its backend process.
async fn prepare(session: &mut Session, spec: &SlotSpec) -> Result<i32> {
    let context = "prepare the snapshot session";
    let settings = format!(
        "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
         SET lock_timeout = {}; SELECT pg_catalog.pg_backend_pid()",
        spec.wait.as_millis().clamp(1, 86_400_000)
    );
    let rows = session.query(context, &settings).await?;
    let pid = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    pid.ok_or_else(|| Error::protocol("the server does not tell its process number"))
}

async fn create(mut session: Session, spec: &SlotSpec, version: u32) -> Result<SlotSnapshot> {
    let system = session.query("identify the system", "IDENTIFY_SYSTEM").await?;
    let system_identifier = field(&system, 0, "system identifier")?;
    let timeline = field(&system, 1, "timeline")?;
    if version >= FAILOVER_FROM {
        session.query("lift the transaction timeout", "SET transaction_timeout = 0").await?;
    }
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    session.query("begin the snapshot", begin).await?;
    let context = format!("create replication slot {}", spec.name);
    let slot = session.query(&context, &create_sql(spec, version)).await?;
    let consistent_point = field(&slot, 1, "consistent point")?;
    let exported =
        session.query("export the snapshot", "SELECT pg_catalog.pg_export_snapshot()").await?;
    Ok(SlotSnapshot {
        slot: spec.name.clone(),
        consistent_point,
        snapshot_name: field(&exported, 0, "snapshot name")?,
        system_identifier,
        timeline,
        lease: SnapshotLease { session },
    })
}

fn create_sql(spec: &SlotSpec, version: u32) -> String {
    let kind = if spec.temporary { " TEMPORARY" } else { "" };
    let options = match spec.failover && !spec.temporary && version >= FAILOVER_FROM {
        _ if version < OPTION_LIST_FROM => "USE_SNAPSHOT",
        true => "(SNAPSHOT 'use', FAILOVER)",
        false => "(SNAPSHOT 'use')",
    };
    let name = quote_ident(&spec.name);
    format!("CREATE_REPLICATION_SLOT {name}{kind} LOGICAL pgoutput {options}")
}

/// A field of the first row of an answer.
fn field<T: std::str::FromStr>(rows: &[Vec<Option<String>>], at: usize, what: &str) -> Result<T> {
    let text = rows.first().and_then(|row| row.get(at)?.as_deref());
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::protocol(format!("the server does not tell the {what}")))
}

/// Locks the tables against a rewrite, and looks whether one came first.
async fn hold(
    control: &Control,
    lease: &mut SnapshotLease,
    spec: &SlotSpec,
    before: &Storage,
) -> Result<()> {
    if before.is_empty() {
        return Ok(());
    }
    let names: Vec<String> =
        before.values().map(|(name, _)| format!("ONLY {}", name.to_sql())).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
    lease.session.query("lock the tables against a rewrite", &lock).await?;
    let after = storage(control, &spec.tables).await?;
    match before.iter().find(|(oid, mark)| after.get(oid) != Some(mark)) {
        Some((_, (table, _))) => Err(Error::TableRewritten { table: table.clone() }),
        None => Ok(()),
    }
}

/// Name and file of each relation that holds rows of the tables, by OID.
type Storage = BTreeMap<u32, (TableName, u32)>;

async fn storage(control: &Control, tables: &[u32]) -> Result<Storage> {
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, \
                 coalesce(pg_catalog.pg_relation_filenode(c.oid), 0::oid) \
               FROM unnest($1::oid[]) w(oid) \
               JOIN pg_catalog.pg_class r ON r.oid = w.oid \
               CROSS JOIN LATERAL (SELECT w.oid AS relid \
                 UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(w.oid) t \
                   WHERE r.relkind = 'p') member \
               JOIN pg_catalog.pg_class c ON c.oid = member.relid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
    let rows = control.query("read where the tables are stored", sql, &[&tables]).await?;
    let read = |row: &tokio_postgres::Row| -> Result<(u32, (TableName, u32))> {
        let name = TableName::new(get::<String>(row, 1)?, get::<String>(row, 2)?);
        Ok((get(row, 0)?, (name, get(row, 3)?)))
    };
    rows.iter().map(read).collect()
}

/// Ends a walsender that waits; a cut connection alone would leave it waiting.
async fn terminate(control: &Control, pid: i32) -> Result<()> {
    let sql = "SELECT pg_catalog.pg_terminate_backend($1)";
    control.query("end the waiting session", sql, &[&pid]).await.map(drop)
}

async fn blocked(control: &Control, spec: &SlotSpec) -> Error {
    let blocker = match control.oldest_writer().await {
        Ok(Some(OldestTransaction { pid: 0, application, .. })) => {
            format!("the prepared transaction {application}")
        }
        Ok(Some(found)) => format!("the transaction of process {}", found.pid),
        Ok(None) | Err(_) => "a transaction that has ended since".to_owned(),
    };
    Error::SlotBlocked { slot: spec.name.clone(), waited: spec.wait, blocker }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_32_the_slot_uses_its_snapshot_in_each_servers_syntax() {
        let permanent = SlotSpec { failover: true, ..SlotSpec::new("s") };
        let temporary = SlotSpec { temporary: true, ..permanent.clone() };
        let cases = [
            (&permanent, 140_000, "LOGICAL pgoutput USE_SNAPSHOT"),
            (&permanent, 160_000, "LOGICAL pgoutput (SNAPSHOT 'use')"),
            (&permanent, 170_000, "LOGICAL pgoutput (SNAPSHOT 'use', FAILOVER)"),
            (&temporary, 170_000, "TEMPORARY LOGICAL pgoutput (SNAPSHOT 'use')"),
        ];
        for (spec, version, expected) in cases {
            let expected = format!("CREATE_REPLICATION_SLOT \"s\" {expected}");
            assert_eq!(create_sql(spec, version), expected);
        }
    }
}
