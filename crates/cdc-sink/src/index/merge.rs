//! Merging neighbouring runs into one, in one pass over each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::cursor::Cursor;
use super::record::{Entry, Record};
use super::run::{Run, RunDir};
use crate::Result;

/// What happens to a removal whose record is not among the merged runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removals {
    /// Kept: the record is in an older run.
    Keep,
    /// Dropped: there is no older run.
    Drop,
}

/// Writes one run from neighbouring ones, oldest first. A record and its removal vanish together.
pub(super) fn merge(dir: &mut RunDir, runs: &[Run], removals: Removals) -> Result<Run> {
    let mut cursors: Vec<Cursor<'_>> = runs.iter().map(Cursor::new).collect();
    let mut heads = BinaryHeap::with_capacity(cursors.len());
    for (age, cursor) in cursors.iter_mut().enumerate() {
        cursor.start()?;
        heads.extend(cursor.entry().map(|entry| Reverse(Head::of(entry, age))));
    }
    dir.write(Merged { cursors, heads, removals })
}

/// The entry of one cursor; of equal records the oldest run's comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    record: Record,
    age: usize,
    removed: bool,
}

impl Head {
    fn of(entry: Entry, age: usize) -> Head {
        Head { record: entry.record, age, removed: entry.removed }
    }
}

struct Merged<'r> {
    cursors: Vec<Cursor<'r>>,
    heads: BinaryHeap<Reverse<Head>>,
    removals: Removals,
}

impl Merged<'_> {
    fn pop(&mut self) -> Result<Option<Head>> {
        let Some(Reverse(head)) = self.heads.pop() else { return Ok(None) };
        let cursor = &mut self.cursors[head.age];
        cursor.advance()?;
        self.heads.extend(cursor.entry().map(|entry| Reverse(Head::of(entry, head.age))));
        Ok(Some(head))
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        while let Some(mut newest) = self.pop()? {
            let mut was_added = !newest.removed;
            while self.heads.peek().is_some_and(|Reverse(head)| head.record == newest.record) {
                if let Some(newer) = self.pop()? {
                    was_added |= !newer.removed;
                    newest = newer;
                }
            }
            let vanishes = newest.removed && (was_added || self.removals == Removals::Drop);
            if !vanishes {
                return Ok(Some(Entry { record: newest.record, removed: newest.removed }));
            }
        }
        Ok(None)
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}
