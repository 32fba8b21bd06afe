//! Questions that the daemon and `status` ask while a stream runs.

use std::time::Duration;

use cdc_core::Lsn;

use super::facts::parse_lsn;
use super::{Control, get};
use crate::error::Result;

/// The prefix of the logical messages that this crate writes.
const MESSAGE_PREFIX: &str = "pgcdc";

/// The transaction that has been open longest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestTransaction {
    /// Backend process, 0 for a prepared transaction.
    pub pid: i32,
    /// Role, empty if hidden.
    pub user: String,
    /// `application_name`, or the identifier of a prepared transaction.
    pub application: String,
    /// How long it has been open, if that may be seen.
    pub age: Option<Duration>,
}

/// How far a slot is behind the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotLag {
    /// End of the WAL.
    pub current: Lsn,
    /// Bytes between the confirmed position and the end of the WAL.
    pub lag_bytes: u64,
    /// Bytes of WAL that the slot keeps on the server's disk.
    pub retained_bytes: u64,
}

const OLDEST: &str = "\
SELECT * FROM ( \
  SELECT a.pid, coalesce(a.usename::text, '') AS role, \
    coalesce(a.application_name, '') AS application, \
    extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::float8 AS age \
  FROM pg_catalog.pg_stat_activity a \
  WHERE a.xact_start IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
    AND a.backend_type IN ('client backend', 'background worker') \
  UNION ALL \
  SELECT 0, p.owner::text, p.gid, \
    extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared)::float8 \
  FROM pg_catalog.pg_prepared_xacts p) t \
ORDER BY t.age DESC LIMIT 1";

/// A transaction that has written holds a lock on its own number, which every role may see.
const OLDEST_WRITER: &str = "\
SELECT coalesce(l.pid, 0), coalesce(a.usename::text, p.owner::text, ''), \
  coalesce(p.gid, a.application_name, ''), \
  extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8 \
FROM pg_catalog.pg_locks l \
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = l.transactionid \
WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted \
ORDER BY pg_catalog.age(l.transactionid) DESC LIMIT 1";

impl Control {
    /// The transaction open longest, this session's own aside; `None` if there is none to see.
    /// Without `pg_read_all_stats` only those of the own role and prepared ones are seen.
    pub async fn oldest_transaction(&self) -> Result<Option<OldestTransaction>> {
        self.oldest(OLDEST).await
    }

    /// The oldest transaction that has written: the one that the creation of a slot waits for.
    pub async fn oldest_writer(&self) -> Result<Option<OldestTransaction>> {
        self.oldest(OLDEST_WRITER).await
    }

    async fn oldest(&self, sql: &str) -> Result<Option<OldestTransaction>> {
        let rows = self.query("find the oldest transaction", sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let age: Option<f64> = get(row, 3)?;
        Ok(Some(OldestTransaction {
            pid: get(row, 0)?,
            user: get(row, 1)?,
            application: get(row, 2)?,
            age: age.and_then(|age| Duration::try_from_secs_f64(age.max(0.0)).ok()),
        }))
    }

    /// How far a slot is behind, `None` if there is no such slot.
    pub async fn slot_lag(&self, slot: &str) -> Result<Option<SlotLag>> {
        let sql = "WITH wal AS (SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
                     THEN pg_catalog.pg_last_wal_replay_lsn() \
                     ELSE pg_catalog.pg_current_wal_lsn() END AS lsn) \
                   SELECT wal.lsn::text, \
                     greatest(wal.lsn - s.confirmed_flush_lsn, 0)::int8, \
                     greatest(wal.lsn - s.restart_lsn, 0)::int8 \
                   FROM wal, pg_catalog.pg_replication_slots s WHERE s.slot_name = $1";
        let rows = self.query("read the lag of the slot", sql, &[&slot]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let current: Option<String> = get(row, 0)?;
        let bytes = |column| -> Result<u64> {
            let bytes: Option<i64> = get(row, column)?;
            Ok(u64::try_from(bytes.unwrap_or(0)).unwrap_or(0))
        };
        Ok(Some(SlotLag {
            current: parse_lsn(current.as_deref())?,
            lag_bytes: bytes(1)?,
            retained_bytes: bytes(2)?,
        }))
    }

    /// Commits a transaction that holds nothing but a logical message, so that the slot of an idle
    /// database has something to advance over; needs no table. Gives the position behind the
    /// message; the commit is behind that.
    pub async fn heartbeat(&self) -> Result<Lsn> {
        let sql = "SELECT pg_catalog.pg_logical_emit_message(true, $1, ''::text)::text";
        let row = self.query_one("write a heartbeat message", sql, &[&MESSAGE_PREFIX]).await?;
        let text: Option<String> = get(&row, 0)?;
        parse_lsn(text.as_deref())
    }
}
