//! What a server says about itself, in one query.

use cdc_core::Lsn;
use tokio_postgres::Row;

use super::{Control, Provider, get};
use crate::error::{Error, Result};

/// How the session reaches the server, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TLS, with the protocol version, such as `TLSv1.3`.
    Tls(String),
    /// A Unix socket.
    UnixSocket,
    /// TCP without TLS within one machine.
    Loopback,
    /// TCP without TLS over a network.
    Plain,
}

/// What a server says about itself.
#[derive(Clone, Debug)]
pub struct SourceFacts {
    /// Such as 150018.
    pub server_version_num: u32,
    /// `version()` up to the first `(`, such as `PostgreSQL 15.18`.
    pub version_text: String,
    /// Database of the session.
    pub database: String,
    /// Role of the session.
    pub user: String,
    /// Identifies the cluster; a restored or recreated one has another.
    pub system_identifier: u64,
    /// The timeline being written, in recovery the one being replayed.
    pub timeline: u32,
    /// Who runs it: the configured provider, else the detected one.
    pub provider: Provider,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// `logical` is needed.
    pub wal_level: String,
    /// End of the WAL written, in recovery of that replayed.
    pub current_lsn: Lsn,
    /// Such as `UTF8`.
    pub server_encoding: String,
    /// How the session reaches it.
    pub transport: Transport,
}

const FACTS: &str = "\
SELECT pg_catalog.version(), pg_catalog.current_database()::text, current_user::text, \
  pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'), \
  pg_catalog.getdatabaseencoding()::text, \
  (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
    ELSE pg_catalog.pg_current_wal_lsn() END)::text, \
  (SELECT s.version FROM pg_catalog.pg_stat_ssl s \
    WHERE s.pid = pg_catalog.pg_backend_pid() AND s.ssl), \
  pg_catalog.inet_client_addr() IS NULL, \
  coalesce(pg_catalog.inet_client_addr() <<= '127.0.0.0/8' \
    OR pg_catalog.inet_client_addr() = '::1', false), \
  EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = 'aurora_version'), \
  EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name LIKE 'rds.%') \
    OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_superuser')";

/// On a primary the timeline is part of the name of the segment being written; the last checkpoint
/// may still be of the timeline before a promotion.
const TIMELINE: &str = "\
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() \
    THEN (SELECT timeline_id::int8 FROM pg_catalog.pg_control_checkpoint()) \
    ELSE ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))\
::bit(32)::int8 END";

impl Control {
    /// What the server says about itself now.
    pub async fn facts(&self) -> Result<SourceFacts> {
        let row = self.query_one("read the facts of the server", FACTS, &[]).await?;
        let (system_identifier, timeline) = self.identity().await?;
        let version: String = get(&row, 0)?;
        let current_lsn: Option<String> = get(&row, 6)?;
        Ok(SourceFacts {
            server_version_num: self.server_version_num(),
            version_text: version.split('(').next().unwrap_or_default().trim_end().to_owned(),
            database: get(&row, 1)?,
            user: get(&row, 2)?,
            system_identifier,
            timeline,
            provider: self.named_provider.unwrap_or(detect(get(&row, 10)?, get(&row, 11)?)),
            in_recovery: get(&row, 3)?,
            wal_level: get(&row, 4)?,
            current_lsn: parse_lsn(current_lsn.as_deref())?,
            server_encoding: get(&row, 5)?,
            transport: transport(&row)?,
        })
    }

    /// System identifier and timeline, from functions that every role may call by default.
    async fn identity(&self) -> Result<(u64, u32)> {
        let context = "identify the system";
        let sql = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
        let system: i64 = get(&self.query_one(context, sql, &[]).await?, 0)?;
        let timeline: i64 = get(&self.query_one(context, TIMELINE, &[]).await?, 0)?;
        let timeline = u32::try_from(timeline)
            .map_err(|_| Error::protocol(format!("timeline {timeline} is out of range")))?;
        Ok((system.cast_unsigned(), timeline))
    }

    /// The server's clock, microseconds since 1970, to compare with ours.
    pub async fn server_micros(&self) -> Result<i64> {
        let sql = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::int8";
        get(&self.query_one("read the server's clock", sql, &[]).await?, 0)
    }

    /// End of the WAL written, in recovery of that replayed.
    pub async fn current_lsn(&self) -> Result<Lsn> {
        let sql = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
                     THEN pg_catalog.pg_last_wal_replay_lsn() \
                     ELSE pg_catalog.pg_current_wal_lsn() END)::text";
        let row = self.query_one("read the wal position", sql, &[]).await?;
        let text: Option<String> = get(&row, 0)?;
        parse_lsn(text.as_deref())
    }
}

fn detect(aurora: bool, rds: bool) -> Provider {
    match (aurora, rds) {
        (true, _) => Provider::Aurora,
        (false, true) => Provider::Rds,
        (false, false) => Provider::SelfManaged,
    }
}

fn transport(row: &Row) -> Result<Transport> {
    let tls: Option<String> = get(row, 7)?;
    Ok(match (tls, get(row, 8)?, get(row, 9)?) {
        (Some(version), _, _) => Transport::Tls(version),
        (None, true, _) => Transport::UnixSocket,
        (None, false, true) => Transport::Loopback,
        (None, false, false) => Transport::Plain,
    })
}

/// An LSN of an answer; SQL NULL is "no position".
pub(crate) fn parse_lsn(text: Option<&str>) -> Result<Lsn> {
    match text {
        Some(text) => text.parse().map_err(|error| Error::protocol(format!("{error}"))),
        None => Ok(Lsn::ZERO),
    }
}
