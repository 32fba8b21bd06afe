//! Wall-clock time as a value handed in, and its two text forms.

use chrono::{DateTime, SecondsFormat, Utc};

/// Where a component reads the time of day. The simulation has its own.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> DateTime<Utc>;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// RFC 3339 in UTC with as many fractional digits as needed: `2026-05-04T12:00:21.104Z`.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// RFC 3339 in UTC with nine fractional digits, so that names sort by time.
pub fn rfc3339_nanos(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// Microseconds since 1970 of a replication-protocol timestamp (microseconds since 2000-01-01).
pub fn pg_micros_to_unix(pg_micros: i64) -> i64 {
    pg_micros.saturating_add(PG_EPOCH_MICROS)
}

/// The opposite of [`pg_micros_to_unix`].
pub fn unix_micros_to_pg(unix_micros: i64) -> i64 {
    unix_micros.saturating_sub(PG_EPOCH_MICROS)
}

/// From 1970-01-01 to 2000-01-01.
const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;
