//! Ranges that a table's changelog lacks, and the state that opens them.
//!
//! A gap is opened when a table stops being written, and is stretched by every manifest that follows
//! until the table is followed again: what its changes were meanwhile is nowhere in the lake.

use cdc_core::{Epoch, Lsn};
use serde::{Deserialize, Serialize};

use super::{Manifest, TableEntry, TableState, TableStatus};
use crate::json::Extra;
use crate::wire;

/// The reason of the gap before the oldest change that is kept.
const PAST_RETENTION: &str = "past changelog.retention";

/// The reason of the gap before a table was followed for the first time.
const NOT_FOLLOWED: &str = "not followed before";

/// A range missing from a table's changelog.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Start, exclusive.
    #[serde(with = "wire::text")]
    pub lsn_from: Lsn,
    /// End, inclusive. It moves while the table is not written.
    #[serde(with = "wire::text")]
    pub lsn_to: Lsn,
    /// Why, in words.
    pub reason: String,
    /// Newest epoch that has all changes of the table before the gap.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::epoch_option")]
    pub epoch_from: Option<Epoch>,
    /// Newest epoch that lacks some. Changes asked for since this one are complete.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wire::epoch_option")]
    pub epoch_to: Option<Epoch>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Gap {
    /// Whether changes of the epochs above `since` up to `until` would be incomplete. A gap that
    /// does not say which epochs it lies in may lie in any.
    pub fn is_between(&self, since: Epoch, until: Epoch) -> bool {
        self.epoch_from.is_none_or(|from| from < until) && self.epoch_to.is_none_or(|to| since < to)
    }
}

impl TableEntry {
    /// Whether changes of the table are written.
    pub fn is_written(&self) -> bool {
        self.is_active() && self.state == Some(TableState::Streaming)
    }

    /// Stops the table at `lsn_from`, the position up to which all its changes are in epoch
    /// `epoch_from` or before. A table that is stopped already keeps its first reason.
    pub fn quarantine(&mut self, reason: &str, lsn_from: Lsn, epoch_from: Epoch) {
        if self.is_written() {
            self.stop(TableState::Quarantined, reason, lsn_from, epoch_from);
        }
    }

    /// The same for whatever reason. A table that is stopped already has its gap, and changes state
    /// and reason only.
    pub fn stop(&mut self, state: TableState, reason: &str, lsn_from: Lsn, epoch_from: Epoch) {
        if self.is_written() {
            self.gaps.push(Gap {
                lsn_from,
                lsn_to: lsn_from,
                reason: reason.to_owned(),
                epoch_from: Some(epoch_from),
                epoch_to: Some(epoch_from),
                extra: Extra::new(),
            });
        }
        self.state = Some(state);
        self.reason = Some(reason.to_owned());
    }

    /// Stops following the table at `lsn_from`. What names its files and columns stays in the entry,
    /// so that it can be followed again under the same field ids.
    pub fn exclude(&mut self, reason: &str, lsn_from: Lsn, epoch_from: Epoch) {
        self.stop(TableState::Paused, reason, lsn_from, epoch_from);
        (self.status, self.state) = (TableStatus::Excluded, None);
    }

    /// The table is followed for the first time from `lsn_to` on, behind the first copy of the others
    /// at `lsn_from`: it has no changes of before.
    pub fn begin_changes(&mut self, lsn_from: Lsn, lsn_to: Lsn, epoch_to: Epoch) {
        self.gaps.push(Gap {
            lsn_from,
            lsn_to: lsn_from.max(lsn_to),
            reason: NOT_FOLLOWED.to_owned(),
            epoch_from: Some(Epoch(0)),
            epoch_to: Some(epoch_to),
            extra: Extra::new(),
        });
    }

    /// The changelog is complete again behind `lsn_to`. Epoch `epoch_to` is the first with the new
    /// rows, so whoever has an older one lacks changes.
    pub fn close_gap(&mut self, lsn_to: Lsn, epoch_to: Epoch) {
        if let Some(open) = self.gaps.last_mut() {
            open.lsn_to = open.lsn_from.max(lsn_to);
            open.epoch_to = open.epoch_to.max(Some(epoch_to));
        }
    }

    /// Notes that the changelog begins behind `lsn_to` and `epoch_to`: what was before is past its
    /// retention. There is one such gap, the first of all.
    pub fn expire_changes(&mut self, lsn_from: Lsn, lsn_to: Lsn, epoch_to: Epoch) {
        let gap = Gap {
            lsn_from,
            lsn_to,
            reason: PAST_RETENTION.to_owned(),
            epoch_from: Some(Epoch(0)),
            epoch_to: Some(epoch_to),
            extra: Extra::new(),
        };
        match self.gaps.first_mut().filter(|first| first.reason == PAST_RETENTION) {
            Some(first) => *first = gap,
            None => self.gaps.insert(0, gap),
        }
    }

    /// The newest gap that changes of the epochs above `since` up to `until` would run across.
    pub fn gap_between(&self, since: Epoch, until: Epoch) -> Option<&Gap> {
        self.gaps.iter().rev().find(|gap| gap.is_between(since, until))
    }
}

impl Manifest {
    /// Stretches the gaps of tables that are not written up to what this manifest covers.
    pub fn stretch_gaps(&mut self) {
        for entry in self.tables.values_mut().filter(|entry| entry.is_active()) {
            if entry.is_written() {
                continue;
            }
            if let Some(open) = entry.gaps.last_mut() {
                open.lsn_to = open.lsn_to.max(self.covered_lsn);
                open.epoch_to = open.epoch_to.max(Some(self.epoch));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streaming() -> TableEntry {
        TableEntry { state: Some(TableState::Streaming), ..TableEntry::default() }
    }

    #[test]
    fn a_second_stop_keeps_the_first_reason_and_gap() {
        let mut entry = streaming();
        entry.quarantine("first", Lsn(10), Epoch(3));
        entry.quarantine("second", Lsn(20), Epoch(4));
        assert_eq!(entry.state, Some(TableState::Quarantined));
        assert_eq!(entry.reason.as_deref(), Some("first"));
        assert_eq!(entry.gaps.len(), 1);
        assert_eq!((entry.gaps[0].lsn_from, entry.gaps[0].epoch_from), (Lsn(10), Some(Epoch(3))));
    }

    #[test]
    fn a_table_that_is_stopped_for_another_reason_keeps_its_gap() {
        let mut entry = streaming();
        entry.quarantine("first", Lsn(10), Epoch(3));
        entry.stop(TableState::Resyncing, "resync", Lsn(20), Epoch(5));
        assert_eq!(
            (entry.state, entry.reason.as_deref()),
            (Some(TableState::Resyncing), Some("resync"))
        );
        entry.exclude("removed", Lsn(30), Epoch(6));
        assert!(!entry.is_active() && entry.state.is_none());
        assert_eq!((entry.gaps.len(), entry.gaps[0].lsn_from), (1, Lsn(10)));
        entry.close_gap(Lsn(40), Epoch(8));
        assert_eq!((entry.gaps[0].lsn_to, entry.gaps[0].epoch_to), (Lsn(40), Some(Epoch(8))));
    }

    #[test]
    fn expired_changes_are_one_gap_before_all_others() {
        let mut entry = streaming();
        entry.expire_changes(Lsn(1), Lsn(5), Epoch(2));
        entry.quarantine("why", Lsn(10), Epoch(3));
        entry.expire_changes(Lsn(1), Lsn(7), Epoch(3));
        assert_eq!(entry.gaps.len(), 2);
        assert_eq!((entry.gaps[0].lsn_to, entry.gaps[0].epoch_to), (Lsn(7), Some(Epoch(3))));
        assert_eq!(entry.gaps[1].reason, "why");
        assert!(entry.gap_between(Epoch(0), Epoch(9)).is_some());
    }

    #[test]
    fn changes_are_incomplete_exactly_where_epochs_overlap() {
        let mut entry = streaming();
        entry.quarantine("why", Lsn(10), Epoch(3));
        entry.gaps[0].epoch_to = Some(Epoch(6));
        let cases = [
            ((0, 3), false),
            ((2, 3), false),
            ((0, 4), true),
            ((3, 4), true),
            ((5, 9), true),
            ((6, 9), false),
            ((7, 7), false),
        ];
        for ((since, until), expected) in cases {
            let found = entry.gap_between(Epoch(since), Epoch(until)).is_some();
            assert_eq!(found, expected, "{since}..{until}");
        }
        (entry.gaps[0].epoch_from, entry.gaps[0].epoch_to) = (None, None);
        assert!(entry.gap_between(Epoch(7), Epoch(7)).is_some());
    }
}
