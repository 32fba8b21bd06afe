//! The index as its callers see it: open, look up, apply, commit.

use std::path::Path;

use super::cursor::Cursor;
use super::merge::{self, Removals};
use super::record::Entry;
use super::run::{Run, RunDir};
use super::stamp::{IndexFile, RunEntry};
use super::{FileRef, IdentityHasher, IndexPatch, IndexStamp, Position, Record};
use crate::Result;

/// Bounds of one index.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// Memory for the fences of one run, in bytes; beyond it fences get sparser and a lookup reads
    /// a few blocks more.
    pub fence_bytes_max: usize,
    /// Records sorted in memory at once by a rebuild, of 32 bytes each.
    pub sort_records_max: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self { fence_bytes_max: 4 << 20, sort_records_max: 1 << 20 }
    }
}

/// Each run has at least this many times the records of all newer ones together.
const SIZE_RATIO: u64 = 4;
/// Runs applied since the last commit; more are merged at once.
const UNCOMMITTED_RUNS_MAX: usize = 16;

/// What [`KeyIndex::open`] found.
#[derive(Debug)]
pub enum Opened {
    /// The index, right for the stamp asked for.
    Ready(KeyIndex),
    /// A sound index that is right for another stamp. Apply what happened since and commit, or
    /// rebuild.
    Stale(KeyIndex),
    /// No index that can be read; rebuild it with [`IndexBuilder`](super::IndexBuilder).
    Absent,
}

/// Identity hash to positions of live rows, on local disk. Synchronous: call it from blocking
/// threads. One writer; the directory belongs to it.
///
/// A set of records. Each record is added once and removed once at most; [`KeyIndex::rollback`]
/// exists so that a retried flush need not add twice.
#[derive(Debug)]
pub struct KeyIndex {
    dir: RunDir,
    options: IndexOptions,
    hash_key: [u8; 16],
    stamp: IndexStamp,
    /// Oldest first; those from `committed` on are not named in index.json yet.
    runs: Vec<Run>,
    committed: usize,
    /// The first so many runs count no more since [`KeyIndex::truncate`].
    hidden: usize,
    foreign: Vec<String>,
}

/// The positions found for each hash asked for, in the order of the question.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    ranges: Vec<(usize, usize)>,
    positions: Vec<Position>,
}

impl Lookups {
    /// The live positions under the `index`-th hash, ordered; empty if the identity is unknown.
    pub fn get(&self, index: usize) -> &[Position] {
        let (from, to) = self.ranges.get(index).copied().unwrap_or_default();
        &self.positions[from..to]
    }

    /// Number of hashes asked for.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The answers in the order of the question.
    pub fn iter(&self) -> impl Iterator<Item = &[Position]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl KeyIndex {
    /// Opens the index in `dir` and removes run files that it does not name: those of an apply that
    /// was never committed.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the directory cannot be read or cleaned.
    pub fn open(dir: &Path, expected: &IndexStamp, options: IndexOptions) -> Result<Opened> {
        let Some(file) = IndexFile::load(dir) else { return Ok(Opened::Absent) };
        let (Some(hash_key), Some(stamp)) = (file.key(), file.stamp()) else {
            return Ok(Opened::Absent);
        };
        let mut run_dir = RunDir::new(dir, file.next_run(), options.fence_bytes_max);
        run_dir.remove_others(file.runs.iter().map(|run| run.number))?;
        let mut runs = Vec::with_capacity(file.runs.len());
        for entry in &file.runs {
            match run_dir.open(entry) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    tracing::warn!(error = %cdc_core::chain(&error), "the key index is damaged");
                    return Ok(Opened::Absent);
                }
            }
        }
        let committed = runs.len();
        let foreign = file.foreign;
        let index = KeyIndex {
            dir: run_dir,
            options,
            hash_key,
            stamp,
            runs,
            committed,
            hidden: 0,
            foreign,
        };
        let is_ready = index.stamp == *expected;
        Ok(if is_ready { Opened::Ready(index) } else { Opened::Stale(index) })
    }

    pub(super) fn create(
        dir: RunDir,
        options: IndexOptions,
        hash_key: [u8; 16],
        stamp: IndexStamp,
        runs: Vec<Run>,
        foreign: Vec<String>,
    ) -> Result<KeyIndex> {
        let committed = runs.len();
        let index = KeyIndex { dir, options, hash_key, stamp, runs, committed, hidden: 0, foreign };
        index.store(&index.stamp, index.runs.iter().map(Run::entry).collect())?;
        Ok(index)
    }

    /// The hasher of the index that is in `dir`, if there is one that can be read.
    pub fn hasher_in(dir: &Path) -> Option<IdentityHasher> {
        Some(IdentityHasher::new(IndexFile::load(dir)?.key()?))
    }

    /// The state of the table for which the index was committed.
    pub fn stamp(&self) -> &IndexStamp {
        &self.stamp
    }

    /// The hasher with this index's key.
    pub fn hasher(&self) -> IdentityHasher {
        IdentityHasher::new(self.hash_key)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Records on disk, removals included.
    pub fn records(&self) -> u64 {
        self.runs.iter().map(Run::records).sum()
    }

    /// Runs on disk.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Memory held for fences, in bytes.
    pub fn fence_bytes(&self) -> usize {
        self.runs.iter().map(Run::fence_bytes).sum()
    }

    /// The live positions under each hash, at most `positions_max` of each; applied records count
    /// from the moment of [`KeyIndex::apply`]. Any order, repetitions allowed. Several positions
    /// under one hash occur only where the identity is the whole row.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); [`Error::IndexDamaged`](crate::Error::IndexDamaged), after
    /// which only a rebuild helps.
    pub fn lookup_many(&self, hashes: &[u128], positions_max: usize) -> Result<Lookups> {
        lookup(self.runs[self.hidden..].iter().rev(), hashes, positions_max)
    }

    /// Takes over a change that was prepared for this index: visible to lookups at once, lost at a
    /// restart unless [`KeyIndex::commit`] follows. False, with nothing changed, if the change was
    /// made with another hash key, for an index that was rebuilt since.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::IndexDamaged`](crate::Error::IndexDamaged); roll
    /// back then.
    pub fn adopt(&mut self, patch: IndexPatch) -> Result<bool> {
        if patch.hasher() != self.hasher() {
            return Ok(false);
        }
        let (run, _dir) = patch.into_run();
        if let Some(run) = run {
            let run = self.dir.adopt(run)?;
            self.runs.push(run);
        }
        Ok(true)
    }

    /// Adds and removes records. A record in both is removed. Visible to lookups at once, lost at
    /// a restart unless [`KeyIndex::commit`] follows.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::IndexDamaged`](crate::Error::IndexDamaged); roll
    /// back before trying again.
    pub fn apply(&mut self, adds: Vec<Record>, removes: Vec<Record>) -> Result<()> {
        if adds.is_empty() && removes.is_empty() {
            return Ok(());
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(adds.len() + removes.len());
        entries.extend(adds.into_iter().map(|record| Entry { record, removed: false }));
        entries.extend(removes.into_iter().map(|record| Entry { record, removed: true }));
        entries.sort_unstable_by(|a, b| a.record.cmp(&b.record).then(b.removed.cmp(&a.removed)));
        entries.dedup_by_key(|entry| entry.record);
        let run = self.dir.write(entries.into_iter().map(Ok))?;
        self.runs.push(run);
        if self.runs.len() - self.committed > UNCOMMITTED_RUNS_MAX {
            let merged = self.merged(self.committed)?;
            let replaced = self.runs.split_off(self.committed);
            self.runs.extend(merged);
            self.dir.remove(replaced);
        }
        Ok(())
    }

    /// Forgets what was applied since the last commit.
    pub fn rollback(&mut self) {
        let dropped = self.runs.split_off(self.committed);
        self.dir.remove(dropped);
        self.hidden = 0;
    }

    /// Forgets all records: the table was emptied. Takes effect for lookups at once and for good
    /// with [`KeyIndex::commit`]; [`KeyIndex::rollback`] undoes it.
    pub fn truncate(&mut self) {
        self.rollback();
        self.hidden = self.committed;
    }

    /// Makes what was applied permanent, as the state of `stamp`, merging runs that have become
    /// small beside newer ones. The index is never synced: after a power cut a check finds what is
    /// missing and it is rebuilt.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::IndexDamaged`](crate::Error::IndexDamaged); nothing
    /// is committed then and what was applied is still there.
    pub fn commit(&mut self, stamp: IndexStamp) -> Result<()> {
        let start = self.merge_start().unwrap_or(self.runs.len());
        let merged = self.merged(start)?;
        let kept = &self.runs[self.hidden..start];
        let runs = kept.iter().chain(&merged).map(Run::entry).collect();
        if let Err(error) = self.store(&stamp, runs) {
            self.dir.remove(merged);
            return Err(error);
        }
        let replaced = self.runs.split_off(start);
        self.runs.extend(merged);
        let emptied: Vec<Run> = self.runs.drain(..std::mem::take(&mut self.hidden)).collect();
        self.committed = self.runs.len();
        self.stamp = stamp;
        self.dir.remove(replaced);
        self.dir.remove(emptied);
        Ok(())
    }

    /// The reference of a file whose name pgcdc did not choose; the same for the same location.
    pub fn foreign_file(&mut self, location: &str) -> Option<FileRef> {
        intern(&mut self.foreign, location)
    }

    /// The location of such a file.
    pub fn foreign_location(&self, file: FileRef) -> Option<&str> {
        self.foreign.get(file.foreign_number()?).map(String::as_str)
    }

    /// The first run of those that are too small beside the newer ones, if there are any.
    fn merge_start(&self) -> Option<usize> {
        let mut start = self.runs.len().checked_sub(1).filter(|last| *last >= self.hidden)?;
        let mut newer = self.runs[start].records();
        while start > self.hidden && self.runs[start - 1].records() < SIZE_RATIO * newer {
            start -= 1;
            newer += self.runs[start].records();
        }
        (start + 1 < self.runs.len()).then_some(start)
    }

    /// The runs from `start` on as one; none if there are none.
    fn merged(&mut self, start: usize) -> Result<Option<Run>> {
        if start == self.runs.len() {
            return Ok(None);
        }
        let removals = if start == self.hidden { Removals::Drop } else { Removals::Keep };
        merge::merge(&mut self.dir, &self.runs[start..], removals).map(Some)
    }

    fn store(&self, stamp: &IndexStamp, runs: Vec<RunEntry>) -> Result<()> {
        let (next_run, foreign) = (self.dir.next_number(), self.foreign.clone());
        IndexFile::new(self.hash_key, stamp, next_run, runs, foreign).store(self.dir.path())
    }

    /// The bounds in force.
    pub fn options(&self) -> IndexOptions {
        self.options
    }
}

/// The live positions under each hash in these runs, newest first.
pub(super) fn lookup<'r>(
    newest_first: impl Iterator<Item = &'r Run>,
    hashes: &[u128],
    positions_max: usize,
) -> Result<Lookups> {
    let mut order: Vec<usize> = (0..hashes.len()).collect();
    order.sort_unstable_by_key(|&index| hashes[index]);
    let mut cursors: Vec<Cursor<'_>> = newest_first.map(Cursor::new).collect();
    let mut found =
        Lookups { ranges: vec![(0, 0); hashes.len()], positions: Vec::with_capacity(hashes.len()) };
    let mut last: Option<(u128, (usize, usize))> = None;
    for index in order {
        let hash = hashes[index];
        let range = match last {
            Some((same, range)) if same == hash => range,
            _ => {
                let from = found.positions.len();
                live_positions(&mut cursors, hash, positions_max, &mut found.positions)?;
                (from, found.positions.len())
            }
        };
        last = Some((hash, range));
        found.ranges[index] = range;
    }
    Ok(found)
}

/// Appends the live positions under `hash`. Cursors are newest first: of equal records the newest
/// decides.
fn live_positions(
    cursors: &mut [Cursor<'_>],
    hash: u128,
    positions_max: usize,
    out: &mut Vec<Position>,
) -> Result<()> {
    for cursor in cursors.iter_mut() {
        cursor.seek(hash)?;
    }
    let full = out.len().saturating_add(positions_max);
    while out.len() < full {
        let mut next: Option<Entry> = None;
        for cursor in cursors.iter() {
            if let Some(entry) = cursor.entry().filter(|entry| entry.record.hash == hash)
                && next.is_none_or(|first| entry.record < first.record)
            {
                next = Some(entry);
            }
        }
        let Some(decided) = next else { break };
        if !decided.removed {
            out.push(decided.record.position);
        }
        for cursor in cursors.iter_mut() {
            if cursor.entry().is_some_and(|entry| entry.record == decided.record) {
                cursor.advance()?;
            }
        }
    }
    Ok(())
}

/// The number of a location in the list, added if it is new.
pub(super) fn intern(foreign: &mut Vec<String>, location: &str) -> Option<FileRef> {
    let number = match foreign.iter().position(|known| known == location) {
        Some(number) => number,
        None => {
            foreign.push(location.to_owned());
            foreign.len() - 1
        }
    };
    FileRef::foreign(number)
}
