//! Rows of a data file by number, one bit each, so that a file with many deleted rows costs an
//! eighth of a byte a row whatever their number.

/// Bits in a word.
const WORD: u64 = 64;

/// A set of row numbers, counted from 0 in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    words: Vec<u64>,
    len: u64,
}

impl RowSet {
    /// Adds a row; false if it was there.
    pub fn insert(&mut self, row: u64) -> bool {
        let Ok(word) = usize::try_from(row / WORD) else { return false };
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (row % WORD);
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += u64::from(is_new);
        is_new
    }

    /// Whether a row is in it.
    pub fn contains(&self, row: u64) -> bool {
        let word = usize::try_from(row / WORD).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (row % WORD)) != 0)
    }

    /// Takes the rows of another set out.
    pub fn subtract(&mut self, other: &RowSet) {
        for (word, others) in self.words.iter_mut().zip(&other.words) {
            self.len -= u64::from((*word & others).count_ones());
            *word &= !others;
        }
    }

    /// Rows in it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let numbered = (0..).zip(&self.words);
        numbered.flat_map(|(word, bits)| Ones { bits: *bits, start: word * WORD })
    }
}

impl Extend<u64> for RowSet {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, rows: I) {
        for row in rows {
            self.insert(row);
        }
    }
}

impl FromIterator<u64> for RowSet {
    fn from_iter<I: IntoIterator<Item = u64>>(rows: I) -> Self {
        let mut set = RowSet::default();
        set.extend(rows);
        set
    }
}

/// The rows of one word.
struct Ones {
    bits: u64,
    start: u64,
}

impl Iterator for Ones {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.bits == 0 {
            return None;
        }
        let at = u64::from(self.bits.trailing_zeros());
        self.bits &= self.bits - 1;
        Some(self.start + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_ascending_and_once() {
        let rows = [700, 0, 63, 64, 0, 700, 65];
        let set: RowSet = rows.into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 65, 700]);
        assert_eq!(set.len(), 5);
        assert!(set.contains(64) && !set.contains(66) && !set.contains(1 << 40));
        assert!(RowSet::default().is_empty());
    }

    #[test]
    fn what_is_subtracted_is_gone_and_counted_once() {
        let mut set: RowSet = [1, 64, 65, 200].into_iter().collect();
        set.subtract(&[1, 2, 65].into_iter().collect());
        assert_eq!((set.iter().collect::<Vec<_>>(), set.len()), (vec![64, 200], 2));
        set.subtract(&[64, 200, 9000].into_iter().collect());
        assert!(set.is_empty());
    }
}
