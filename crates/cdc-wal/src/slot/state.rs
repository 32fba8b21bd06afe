//! A slot as `pg_replication_slots` shows it
//! (<https://www.postgresql.org/docs/current/view-pg-replication-slots.html>).

use cdc_core::Lsn;

use crate::control::{Control, get, parse_lsn};
use crate::error::{Error, Result};

/// What became of the WAL that a slot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Kept beyond `max_wal_size`, by the slot or by `wal_keep_size`.
    Extended,
    /// To be removed at the next checkpoint unless the slot advances.
    Unreserved,
    /// Removed: the slot is of no use any more.
    Lost,
    /// Not reported.
    Unknown,
}

impl WalStatus {
    /// The word that the server uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Extended => "extended",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }

    fn parse(text: Option<&str>) -> Self {
        [Self::Reserved, Self::Extended, Self::Unreserved, Self::Lost]
            .into_iter()
            .find(|status| text == Some(status.as_str()))
            .unwrap_or(Self::Unknown)
    }
}

/// A slot as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Whether a session reads it.
    pub active: bool,
    /// That session's backend process.
    pub active_pid: Option<i32>,
    /// `pgoutput` for ours; empty for a physical slot.
    pub plugin: String,
    /// Database, `None` for a physical slot.
    pub database: Option<String>,
    /// Whether it ends with the session that made it.
    pub temporary: bool,
    /// Changes of transactions that end before this are never sent again.
    pub confirmed_flush: Lsn,
    /// The oldest WAL that it keeps.
    pub restart_lsn: Lsn,
    /// What became of that WAL.
    pub wal_status: WalStatus,
    /// Bytes of WAL that it keeps on the server's disk.
    pub retained_bytes: u64,
    /// Why it was invalidated, in the server's words (PostgreSQL 17+; `wal_removed` and such).
    pub invalidation_reason: Option<String>,
    /// Whether it is synchronised to standbys (PostgreSQL 17+).
    pub failover: bool,
}

impl SlotState {
    /// Whether the WAL it needs is gone, so that only a new snapshot helps.
    pub fn is_lost(&self) -> bool {
        self.wal_status == WalStatus::Lost || self.invalidation_reason.is_some()
    }
}

/// Columns that older servers lack are read through the row's JSON form.
const STATE: &str = "\
SELECT s.active, s.active_pid, coalesce(s.plugin::text, ''), s.database::text, s.temporary, \
  s.confirmed_flush_lsn::text, s.restart_lsn::text, s.wal_status, \
  greatest((CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
    ELSE pg_catalog.pg_current_wal_lsn() END) - s.restart_lsn, 0)::int8, \
  coalesce(pg_catalog.to_jsonb(s)->>'invalidation_reason', \
    CASE WHEN pg_catalog.to_jsonb(s)->>'conflicting' = 'true' THEN 'conflicting' END), \
  coalesce((pg_catalog.to_jsonb(s)->>'failover')::bool, false) \
FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1";

impl Control {
    /// A slot as it is now, `None` if it does not exist.
    pub async fn slot(&self, name: &str) -> Result<Option<SlotState>> {
        let rows = self.query(&format!("read replication slot {name}"), STATE, &[&name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (confirmed, restart): (Option<String>, Option<String>) = (get(row, 5)?, get(row, 6)?);
        let wal_status: Option<String> = get(row, 7)?;
        let retained: Option<i64> = get(row, 8)?;
        Ok(Some(SlotState {
            active: get(row, 0)?,
            active_pid: get(row, 1)?,
            plugin: get(row, 2)?,
            database: get(row, 3)?,
            temporary: get(row, 4)?,
            confirmed_flush: parse_lsn(confirmed.as_deref())?,
            restart_lsn: parse_lsn(restart.as_deref())?,
            wal_status: WalStatus::parse(wal_status.as_deref()),
            retained_bytes: u64::try_from(retained.unwrap_or(0)).unwrap_or(0),
            invalidation_reason: get(row, 9)?,
            failover: get(row, 10)?,
        }))
    }

    /// Drops a slot; `false` if there was none.
    ///
    /// # Errors
    /// [`Error::SlotBusy`] if a session reads it.
    pub async fn drop_slot(&self, name: &str) -> Result<bool> {
        let Some(state) = self.slot(name).await? else { return Ok(false) };
        if state.active {
            let pid = state.active_pid.unwrap_or(0);
            return Err(Error::SlotBusy { slot: name.to_owned(), pid });
        }
        let sql = "SELECT pg_catalog.pg_drop_replication_slot($1)";
        self.query(&format!("drop replication slot {name}"), sql, &[&name]).await?;
        Ok(true)
    }
}
