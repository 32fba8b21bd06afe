//! Where the live rows of the uncommitted files are, by identity hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use cdc_core::Epoch;

use crate::index::{FileRef, Position, Record};

/// A map by identity hash.
pub(super) type ByHash<V> = HashMap<u128, V, BuildHasherDefault<TakeLow>>;

/// Rows of this epoch that no later change has superseded. 24 bytes a row besides the table's slack.
#[derive(Default)]
pub(super) struct LiveRows {
    newest: HashMap<[u64; 2], OpenRow, BuildHasherDefault<TakeLow>>,
    /// The next older live row of the same identity, only where the identity is the whole row.
    older: HashMap<OpenRow, OpenRow>,
}

/// A row of an uncommitted file: part in the high half, row in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OpenRow(u64);

impl OpenRow {
    pub(super) fn new(part: u32, row: u32) -> Self {
        Self(u64::from(part) << 32 | u64::from(row))
    }

    pub(super) fn part(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn row(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }

    /// The row as readers name it; `None` beyond the parts that a file reference can hold.
    pub(super) fn position(self, epoch: Epoch) -> Option<Position> {
        Some(Position { file: FileRef::delta(epoch, self.part())?, row: self.row() })
    }
}

impl LiveRows {
    pub(super) fn len(&self) -> usize {
        self.newest.len() + self.older.len()
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.newest.capacity() * 25 + self.older.capacity() * 17
    }

    pub(super) fn insert(&mut self, hash: u128, row: OpenRow) {
        if let Some(older) = self.newest.insert(split(hash), row) {
            self.older.insert(row, older);
        }
    }

    /// Takes the newest live row of this identity out.
    pub(super) fn remove(&mut self, hash: u128) -> Option<OpenRow> {
        if self.older.is_empty() {
            return self.newest.remove(&split(hash));
        }
        let newest = self.newest.get_mut(&split(hash))?;
        let row = *newest;
        match self.older.remove(&row) {
            Some(older) => *newest = older,
            None => {
                self.newest.remove(&split(hash));
            }
        }
        Some(row)
    }

    /// Takes all rows out.
    pub(super) fn drain(&mut self) -> Vec<(u128, OpenRow)> {
        let mut older = std::mem::take(&mut self.older);
        let newest = std::mem::take(&mut self.newest);
        let mut rows = Vec::with_capacity(newest.len() + older.len());
        for (hash, mut row) in newest {
            rows.push((join(hash), row));
            while let Some(next) = older.remove(&row) {
                rows.push((join(hash), next));
                row = next;
            }
        }
        rows
    }

    /// Takes all rows out as records of the index.
    pub(super) fn drain_records(&mut self, epoch: Epoch) -> Vec<Record> {
        let record =
            |(hash, row): (u128, OpenRow)| Some(Record { hash, position: row.position(epoch)? });
        self.drain().into_iter().filter_map(record).collect()
    }
}

fn split(hash: u128) -> [u64; 2] {
    [(hash >> 64) as u64, hash as u64]
}

fn join([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// Keys are keyed hashes already, so their last word is as good as a hash of them.
#[derive(Default)]
pub(super) struct TakeLow(u64);

impl Hasher for TakeLow {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.as_chunks::<8>().0 {
            self.0 = u64::from_ne_bytes(*chunk);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    /// The length of the array says nothing.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_removed_one_by_one() {
        let mut live = LiveRows::default();
        for row in 0..3 {
            live.insert(7, OpenRow::new(0, row));
        }
        live.insert(8, OpenRow::new(1, 0));
        assert_eq!(live.len(), 4);
        assert_eq!(live.remove(7), Some(OpenRow::new(0, 2)));
        assert_eq!(live.remove(7), Some(OpenRow::new(0, 1)));
        assert_eq!(live.drain().len(), 2);
        assert_eq!(live.remove(7), None);
    }
}
