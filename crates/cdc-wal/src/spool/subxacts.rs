//! Where in a transaction's text each subtransaction begins, so that an abort can cut it off.
//!
//! Everything behind the first frame of a subtransaction that aborts belongs to it or to a
//! subtransaction inside it: others were over before it began or began after it ended.

use std::collections::BTreeMap;

/// First offsets by transaction id.
#[derive(Debug, Default)]
pub(super) struct Subxacts {
    /// Ids and offsets, both ascending. Ids are handed out in order, so nearly all are here.
    xids: Vec<u32>,
    offsets: Vec<u64>,
    /// A subtransaction that wrote for the first time after one inside it did has a lower id than
    /// that, and so has any behind the turn of the id counter.
    late: BTreeMap<u32, u64>,
}

impl Subxacts {
    /// Notes that a subtransaction has a frame at `offset`; only the first counts.
    pub(super) fn note(&mut self, xid: u32, offset: u64) {
        match self.xids.last() {
            Some(last) if *last == xid => {}
            Some(last) if *last > xid => {
                if self.xids.binary_search(&xid).is_err() {
                    self.late.entry(xid).or_insert(offset);
                }
            }
            _ => {
                self.xids.push(xid);
                self.offsets.push(offset);
            }
        }
    }

    /// Where a subtransaction begins; `None` if it has no frame here.
    pub(super) fn offset_of(&self, xid: u32) -> Option<u64> {
        match self.xids.binary_search(&xid) {
            Ok(at) => self.offsets.get(at).copied(),
            Err(_) => self.late.get(&xid).copied(),
        }
    }

    /// Forgets all subtransactions that begin at or behind `offset`.
    pub(super) fn cut(&mut self, offset: u64) {
        let keep = self.offsets.partition_point(|at| *at < offset);
        self.xids.truncate(keep);
        self.offsets.truncate(keep);
        self.late.retain(|_, at| *at < offset);
    }

    /// Bytes of memory held, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        self.xids.len() * 12 + self.late.len() * 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_frame_counts_and_a_cut_forgets_what_follows() {
        let mut subxacts = Subxacts::default();
        for (xid, offset) in [(11, 0), (12, 10), (11, 20), (10, 30), (13, 40), (10, 50)] {
            subxacts.note(xid, offset);
        }
        let offsets = |subxacts: &Subxacts| [10, 11, 12, 13, 14].map(|xid| subxacts.offset_of(xid));
        assert_eq!(offsets(&subxacts), [Some(30), Some(0), Some(10), Some(40), None]);
        subxacts.cut(30);
        assert_eq!(offsets(&subxacts), [None, Some(0), Some(10), None, None]);
        subxacts.note(13, 35);
        assert_eq!(subxacts.offset_of(13), Some(35));
    }
}
