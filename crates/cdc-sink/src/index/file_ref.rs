//! A data file as one number, from which its key follows without a dictionary.

use cdc_core::{Epoch, TableName};
use cdc_manifest::layout;

const KIND_SHIFT: u32 = 61;
const DELTA: u64 = 0;
const BASE: u64 = 1;
const FOREIGN: u64 = 2;

const DELTA_PART_BITS: u32 = 21;
const BASE_PART_BITS: u32 = 17;
const BASE_ATTEMPT_BITS: u32 = 8;
const BODY_BITS: u32 = 61;

/// A data file of one table in 63 bits: kind (2), then epoch and part of a delta file (40, 21),
/// epoch, attempt and part of a base file (36, 8, 17), or the number of a file whose name pgcdc
/// did not choose (61).
///
/// Ordered by kind, epoch and part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileRef(pub(super) u64);

impl FileRef {
    /// The delta file of [`layout::delta_key`]; `None` beyond 2⁴⁰ epochs or 2²¹ parts.
    pub fn delta(epoch: Epoch, part: u32) -> Option<FileRef> {
        let epoch = field(epoch.0, BODY_BITS - DELTA_PART_BITS)?;
        let part = field(part.into(), DELTA_PART_BITS)?;
        Some(Self::of(DELTA, epoch << DELTA_PART_BITS | part))
    }

    /// The base file of [`layout::base_key`]; `None` beyond 2³⁶ epochs, 255 attempts or 2¹⁷ parts.
    pub fn base(epoch: Epoch, attempt: u32, part: u32) -> Option<FileRef> {
        let epoch = field(epoch.0, BODY_BITS - BASE_ATTEMPT_BITS - BASE_PART_BITS)?;
        let attempt = field(attempt.into(), BASE_ATTEMPT_BITS)?;
        let part = field(part.into(), BASE_PART_BITS)?;
        let body = (epoch << BASE_ATTEMPT_BITS | attempt) << BASE_PART_BITS | part;
        Some(Self::of(BASE, body))
    }

    /// The file of this number in the index's list of foreign files.
    pub(super) fn foreign(number: usize) -> Option<FileRef> {
        Some(Self::of(FOREIGN, field(u64::try_from(number).ok()?, BODY_BITS)?))
    }

    fn of(kind: u64, body: u64) -> FileRef {
        FileRef(kind << KIND_SHIFT | body)
    }

    fn kind(self) -> u64 {
        self.0 >> KIND_SHIFT
    }

    fn body(self) -> u64 {
        self.0 & ((1 << KIND_SHIFT) - 1)
    }

    /// The file's key; `None` for a foreign file, whose location
    /// [`KeyIndex::foreign_location`](super::KeyIndex::foreign_location) knows.
    pub fn key(self, table: &TableName) -> Option<String> {
        let body = self.body();
        match self.kind() {
            DELTA => {
                let (epoch, part) = (body >> DELTA_PART_BITS, low(body, DELTA_PART_BITS));
                Some(layout::delta_key(table, Epoch(epoch), part))
            }
            BASE => {
                let part = low(body, BASE_PART_BITS);
                let attempt = low(body >> BASE_PART_BITS, BASE_ATTEMPT_BITS);
                let epoch = Epoch(body >> (BASE_PART_BITS + BASE_ATTEMPT_BITS));
                Some(layout::base_key(table, epoch, attempt, part))
            }
            _ => None,
        }
    }

    /// The reference of a key of this table, the inverse of [`FileRef::key`]; `None` for a key that
    /// pgcdc would not have chosen.
    pub fn of_key(table: &TableName, key: &str) -> Option<FileRef> {
        let below = key.strip_prefix(&layout::table_dir(table))?;
        let found = if let Some(name) = below.strip_prefix("/deltas/epoch=") {
            let (epoch, part) = numbered(name.strip_suffix(".parquet")?)?;
            FileRef::delta(epoch, part)?
        } else {
            let (directory, name) = below.strip_prefix("/base/base_")?.split_once('/')?;
            let (epoch, attempt) = numbered(directory)?;
            let part = name.strip_prefix("part-")?.strip_suffix(".parquet")?;
            FileRef::base(epoch, attempt, part.parse().ok()?)?
        };
        // any other spelling of the numbers is another file
        (found.key(table)? == key).then_some(found)
    }

    /// The number of a foreign file.
    pub(super) fn foreign_number(self) -> Option<usize> {
        (self.kind() == FOREIGN).then(|| usize::try_from(self.body()).ok())?
    }
}

/// `000012` or `000012-03`.
fn numbered(text: &str) -> Option<(Epoch, u32)> {
    let (epoch, suffix) = match text.split_once('-') {
        Some((epoch, suffix)) => (epoch, suffix.parse().ok()?),
        None => (text, 0),
    };
    Some((Epoch(epoch.parse().ok()?), suffix))
}

fn field(value: u64, bits: u32) -> Option<u64> {
    (value < 1 << bits).then_some(value)
}

/// The lowest bits, of which a field has fewer than 32.
fn low(value: u64, bits: u32) -> u32 {
    (value & ((1 << bits) - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_references_are_inverse() {
        let table = TableName::new("public", "Order Items");
        let references = [
            FileRef::delta(Epoch(1), 0),
            FileRef::delta(Epoch(12_345_678), 101),
            FileRef::delta(Epoch((1 << 40) - 1), (1 << 21) - 1),
            FileRef::base(Epoch(0), 0, 0),
            FileRef::base(Epoch(7), 2, 99_999),
            FileRef::base(Epoch((1 << 36) - 1), 255, (1 << 17) - 1),
        ];
        for reference in references {
            let reference = reference.unwrap();
            let key = reference.key(&table).unwrap();
            assert_eq!(FileRef::of_key(&table, &key), Some(reference), "{key}");
        }
        assert_eq!(FileRef::foreign(7).unwrap().foreign_number(), Some(7));
    }

    #[test]
    fn what_does_not_fit_or_is_named_otherwise_has_no_reference() {
        let table = TableName::new("public", "t");
        assert_eq!(FileRef::delta(Epoch(1 << 40), 0), None);
        assert_eq!(FileRef::base(Epoch(1), 256, 0), None);
        for key in [
            "public.t/deltas/epoch=1.parquet",
            "public.t/deltas/epoch=000001-00.parquet",
            "public.t2/deltas/epoch=000001.parquet",
            "public.t/data/00000-0-x.parquet",
        ] {
            assert_eq!(FileRef::of_key(&table, key), None, "{key}");
        }
    }
}
