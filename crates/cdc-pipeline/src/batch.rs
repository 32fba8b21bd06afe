//! What has gathered since the last flush, and when it becomes an epoch. Pure: time comes in.

use std::time::Duration;

use cdc_core::Lsn;
use tokio::time::Instant;

use crate::settings::FlushSettings;

/// Whole transactions in commit order since the last flush.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Exclusive lower bound: the cut before.
    pub lsn_from: Lsn,
    /// End LSN of the last whole transaction.
    pub lsn_to: Lsn,
    /// Commit time of that transaction, microseconds since 1970.
    pub commit_micros: i64,
    /// Rows of whole transactions and of the open one.
    pub rows: u64,
    /// Bytes of the same, as they arrived.
    pub bytes: usize,
    /// When the first of them came.
    opened_at: Option<Instant>,
    /// Whether a commit is needed although there may be no rows: a table has stopped, or changed.
    must_commit: bool,
}

impl Batch {
    /// An empty batch behind a cut.
    pub(crate) fn after(cut: Lsn) -> Batch {
        Batch {
            lsn_from: cut,
            lsn_to: cut,
            commit_micros: 0,
            rows: 0,
            bytes: 0,
            opened_at: None,
            must_commit: false,
        }
    }

    /// Counts a change.
    pub(crate) fn add(&mut self, now: Instant) {
        self.rows += 1;
        self.opened_at.get_or_insert(now);
    }

    /// Takes out the rows of a table that has stopped; the next commit, due at once, tells so.
    pub(crate) fn stop_table(&mut self, rows: u64, now: Instant) {
        self.rows = self.rows.saturating_sub(rows);
        self.must_commit = true;
        self.opened_at.get_or_insert(now);
    }

    /// A table has another schema: the next commit, due at once, tells so.
    pub(crate) fn change_schema(&mut self, now: Instant) {
        self.must_commit = true;
        self.opened_at.get_or_insert(now);
    }

    /// Takes in a copied table with the changes behind its copy; the next commit, due at once, tells
    /// so. Nothing is to come any more below `lsn`, the position of the copy.
    pub(crate) fn adopt(&mut self, lsn: Lsn, rows: u64, now: Instant) {
        self.rows += rows;
        self.lsn_to = self.lsn_to.max(lsn);
        self.must_commit = true;
        self.opened_at.get_or_insert(now);
    }

    /// Notes the end of a transaction.
    pub(crate) fn commit(&mut self, end_lsn: Lsn, commit_micros: i64) {
        self.lsn_to = end_lsn;
        self.commit_micros = commit_micros;
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0 && !self.must_commit
    }

    /// When the batch is to be flushed; `None` while it is empty. The caller waits for a commit
    /// boundary and for the flush before.
    pub(crate) fn due(
        &self,
        settings: &FlushSettings,
        last_began: Option<Instant>,
    ) -> Option<Instant> {
        let opened_at = self.opened_at?;
        let full = self.rows >= settings.max_rows || self.bytes >= settings.max_bytes;
        let due = if full || self.must_commit { opened_at } else { opened_at + settings.interval };
        let earliest = last_began.map(|began| began + settings.min_interval);
        Some(earliest.map_or(due, |earliest| earliest.max(due)))
    }
}

/// Delay before a reconnect: 1 s doubling to 30 s, with up to a fifth taken off by `jitter` (0–1).
pub(crate) fn reconnect_delay(attempt: u32, jitter: f64) -> Duration {
    let seconds = f64::from(2u32.saturating_pow(attempt.min(10)).min(30));
    Duration::from_secs_f64(seconds * (1.0 - 0.2 * jitter.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> FlushSettings {
        FlushSettings {
            interval: Duration::from_secs(10),
            min_interval: Duration::from_millis(100),
            max_rows: 3,
            max_bytes: 1000,
            parallel_workers: 1,
            drain_timeout: Duration::from_secs(30),
            schema_reconcile_interval: None,
        }
    }

    #[test]
    fn batch_is_due_by_time_rows_and_bytes() {
        let start = Instant::now();
        let mut batch = Batch::after(Lsn(7));
        assert_eq!(batch.due(&settings(), None), None);
        batch.add(start);
        assert_eq!(batch.due(&settings(), None), Some(start + Duration::from_secs(10)));
        batch.bytes = 1000;
        assert_eq!(batch.due(&settings(), None), Some(start));
        let mut batch = Batch::after(Lsn(7));
        for _ in 0..3 {
            batch.add(start);
        }
        assert_eq!(batch.due(&settings(), None), Some(start));
        let earliest = start + Duration::from_millis(100);
        assert_eq!(batch.due(&settings(), Some(start)), Some(earliest));
    }

    #[test]
    fn a_stopped_table_is_due_at_once_with_or_without_rows() {
        let start = Instant::now();
        let mut batch = Batch::after(Lsn(7));
        batch.add(start);
        batch.add(start);
        batch.stop_table(2, start + Duration::from_secs(1));
        assert_eq!(batch.rows, 0);
        assert!(!batch.is_empty());
        assert_eq!(batch.due(&settings(), None), Some(start));
    }

    #[test]
    fn an_adopted_table_is_due_at_once_and_cuts_behind_its_copy() {
        let start = Instant::now();
        for (cut, lsn, expected) in [(7, 9, 9), (12, 9, 12)] {
            let mut batch = Batch::after(Lsn(cut));
            batch.adopt(Lsn(lsn), 2, start);
            assert_eq!((batch.lsn_to, batch.rows), (Lsn(expected), 2));
            assert_eq!(batch.due(&settings(), None), Some(start));
        }
    }

    #[test]
    fn reconnect_delay_doubles_to_its_bound() {
        let delays: Vec<u64> = (0..7).map(|n| reconnect_delay(n, 0.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        assert!(reconnect_delay(3, 1.0) < Duration::from_secs(8));
    }
}
