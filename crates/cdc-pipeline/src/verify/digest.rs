//! The multiset of a table's rows as 64 counts and sums: equal multisets give equal digests whatever
//! the order, and a difference shows in the buckets of the rows that differ.
//!
//! A row is the text of its values, each with a mark for NULL and its length, so that no two rows
//! have the same bytes. Its 128-bit hash is added to the sum of the bucket that its identity falls
//! into: a changed row is found in one bucket, on both sides.

use std::hash::Hasher;

use siphasher::sip::SipHasher13 as KeySip;
use siphasher::sip128::{Hasher128, SipHasher13 as RowSip};

/// Parts of a table that are told apart.
pub(crate) const BUCKETS: usize = 64;

/// Key of the row hash: fixed, so that a checksum means the same in every run.
const ROW_KEY: (u64, u64) = (0x7067_6364_6320_726f, 0x7720_6861_7368_2031);
/// Key of the bucket hash.
const BUCKET_KEY: (u64, u64) = (0x7067_6364_6320_6275, 0x636b_6574_2068_2031);

const NULL: u8 = 0;
const VALUE: u8 = 1;

/// Rows and hash sum of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// How many rows.
    pub(crate) rows: u64,
    /// The sum of their hashes, modulo 2^128.
    pub(crate) sum: u128,
}

/// A multiset of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    buckets: Vec<Bucket>,
}

impl Digest {
    /// No rows.
    pub(crate) fn new() -> Digest {
        Digest { buckets: vec![Bucket::default(); BUCKETS] }
    }

    /// Adds the rows of another digest.
    pub(crate) fn merge(&mut self, other: &Digest) {
        for (own, added) in self.buckets.iter_mut().zip(&other.buckets) {
            own.rows += added.rows;
            own.sum = own.sum.wrapping_add(added.sum);
        }
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.rows).sum()
    }

    /// The hash of all rows.
    pub(crate) fn checksum(&self) -> u128 {
        self.buckets.iter().fold(0, |sum, bucket| sum.wrapping_add(bucket.sum))
    }

    /// The buckets in which two digests differ, with both contents.
    pub(crate) fn differences<'a>(
        &'a self,
        other: &'a Digest,
    ) -> impl Iterator<Item = (usize, Bucket, Bucket)> + 'a {
        let pairs = self.buckets.iter().zip(&other.buckets).enumerate();
        pairs.filter(|(_, (own, other))| own != other).map(|(at, (own, other))| (at, *own, *other))
    }
}

/// Puts rows together, value by value, and adds them to a digest.
pub(crate) struct RowHasher {
    digest: Digest,
    /// Columns of the identity; empty if the whole row is the identity.
    identity: Vec<usize>,
    row: Vec<u8>,
    /// Where each value of the row ends.
    ends: Vec<usize>,
}

impl RowHasher {
    /// No rows; `identity` gives the columns that choose the bucket.
    pub(crate) fn new(identity: Vec<usize>) -> RowHasher {
        RowHasher { digest: Digest::new(), identity, row: Vec::new(), ends: Vec::new() }
    }

    /// Adds a value to the row: `write` appends its text, or says that it is NULL by `false` and
    /// appends nothing.
    pub(crate) fn value(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        const MARK: usize = 1 + size_of::<u64>();
        let start = self.row.len();
        self.row.extend_from_slice(&[0; MARK]);
        if write(&mut self.row) {
            let length = (self.row.len() - start - MARK) as u64;
            self.row[start] = VALUE;
            self.row[start + 1..start + MARK].copy_from_slice(&length.to_le_bytes());
        } else {
            self.row.truncate(start);
            self.row.push(NULL);
        }
        self.ends.push(self.row.len());
    }

    /// Ends the row.
    pub(crate) fn end_row(&mut self) {
        let mut hasher = RowSip::new_with_keys(ROW_KEY.0, ROW_KEY.1);
        hasher.write(&self.row);
        let hash = hasher.finish128().as_u128();
        let at = self.bucket(hash);
        let bucket = &mut self.digest.buckets[at];
        bucket.rows += 1;
        bucket.sum = bucket.sum.wrapping_add(hash);
        self.row.clear();
        self.ends.clear();
    }

    fn bucket(&self, row_hash: u128) -> usize {
        let hash = if self.identity.is_empty() {
            row_hash as u64
        } else {
            let mut hasher = KeySip::new_with_keys(BUCKET_KEY.0, BUCKET_KEY.1);
            for column in &self.identity {
                let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
                hasher.write(&self.row[start..self.ends[*column]]);
            }
            hasher.finish()
        };
        (hash % BUCKETS as u64) as usize
    }

    /// The rows so far.
    pub(crate) fn finish(self) -> Digest {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(rows: &[[Option<&str>; 2]]) -> Digest {
        let mut hasher = RowHasher::new(vec![0]);
        for row in rows {
            for value in row {
                hasher.value(|out| {
                    value.map(|text| out.extend_from_slice(text.as_bytes())).is_some()
                });
            }
            hasher.end_row();
        }
        hasher.finish()
    }

    const ONE: [Option<&str>; 2] = [Some("1"), Some("a")];
    const TWO: [Option<&str>; 2] = [Some("2"), None];

    #[test]
    fn order_and_parts_do_not_matter() {
        let whole = digest(&[ONE, TWO, ONE]);
        let mut merged = digest(&[TWO]);
        merged.merge(&digest(&[ONE, ONE]));
        assert_eq!(whole, merged);
        assert_eq!((whole.rows(), whole.checksum()), (3, merged.checksum()));
        assert_eq!(whole.differences(&merged).count(), 0);
    }

    #[test]
    fn a_changed_row_differs_in_the_bucket_of_its_key_only() {
        let (before, after) = (digest(&[ONE, TWO]), digest(&[ONE, [Some("2"), Some("")]]));
        let differences: Vec<_> = before.differences(&after).collect();
        assert_eq!(differences.len(), 1);
        assert_eq!((differences[0].1.rows, differences[0].2.rows), (1, 1));
    }

    #[test]
    fn rows_of_other_values_differ() {
        let rows = [
            [Some("1"), Some("")],
            [Some("1"), None],
            [Some(""), Some("1")],
            [None, Some("1")],
            [Some("11"), Some("")],
            [Some("1"), Some("1")],
        ];
        for (at, one) in rows.iter().enumerate() {
            for other in &rows[..at] {
                assert_ne!(digest(&[*one]).checksum(), digest(&[*other]).checksum());
            }
        }
        assert_ne!(digest(&[ONE]), digest(&[ONE, ONE]));
    }
}
