//! A change of an index that was prepared beside it: rows that a rewrite moves from one file to
//! another. One run of additions and removals, taken over in one step once the rewrite is committed.

use std::path::{Path, PathBuf};

use super::key_index::lookup;
use super::merge::{self, Removals};
use super::record::Entry;
use super::run::{Run, RunDir, io};
use super::{FileRef, IdentityHasher, IndexOptions, Lookups, Position, Record};
use crate::Result;

/// Runs merged at once; so many files are open and buffers held.
const FAN_IN_MAX: usize = 32;

/// Gathers where rows are and where they were, in bounded memory and any order. Dropping it leaves
/// nothing behind.
#[derive(Debug)]
pub struct IndexPatchBuilder {
    dir: PatchDir,
    runs: RunDir,
    options: IndexOptions,
    hasher: IdentityHasher,
    chunk: Vec<Entry>,
    /// Runs by how many merges are behind them.
    levels: Vec<Vec<Run>>,
}

/// The prepared change. Its directory goes with it.
#[derive(Debug)]
pub struct IndexPatch {
    dir: PatchDir,
    hasher: IdentityHasher,
    run: Option<Run>,
}

/// A directory that is removed with its last owner.
#[derive(Debug)]
struct PatchDir(PathBuf);

impl Drop for PatchDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "a prepared index change stays");
        }
    }
}

impl IndexPatchBuilder {
    /// Starts a change in `dir`, which is made and holds nothing else. `hasher` is that of the
    /// index that is to take it over.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn create(dir: &Path, options: IndexOptions, hasher: IdentityHasher) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|source| io("create", dir, source))?;
        Ok(Self {
            dir: PatchDir(dir.to_owned()),
            runs: RunDir::new(dir, 0, options.fence_bytes_max),
            options,
            hasher,
            chunk: Vec::new(),
            levels: Vec::new(),
        })
    }

    /// The hasher of the identities.
    pub fn hasher(&self) -> IdentityHasher {
        self.hasher
    }

    /// A row is at this place.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn add(&mut self, hash: u128, file: FileRef, row: u32) -> Result<()> {
        self.push(hash, Position { file, row }, false)
    }

    /// A row is at this place no longer.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn remove(&mut self, hash: u128, file: FileRef, row: u32) -> Result<()> {
        self.push(hash, Position { file, row }, true)
    }

    fn push(&mut self, hash: u128, position: Position, removed: bool) -> Result<()> {
        self.chunk.push(Entry { record: Record { hash, position }, removed });
        if self.chunk.len() >= self.options.sort_records_max { self.spill() } else { Ok(()) }
    }

    /// Completes the change.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::IndexDamaged`](crate::Error::IndexDamaged).
    pub fn finish(mut self) -> Result<IndexPatch> {
        self.spill()?;
        let mut runs: Vec<Run> = self.levels.drain(..).flatten().collect();
        while runs.len() > 1 {
            let rest = runs.split_off(runs.len().min(FAN_IN_MAX));
            let merged = self.merge(runs)?;
            runs = rest;
            runs.push(merged);
        }
        let IndexPatchBuilder { dir, hasher, .. } = self;
        Ok(IndexPatch { dir, hasher, run: runs.pop() })
    }

    fn spill(&mut self) -> Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let mut entries = std::mem::take(&mut self.chunk);
        entries.sort_unstable();
        entries.dedup();
        let mut run = self.runs.write(entries.drain(..).map(Ok))?;
        self.chunk = entries;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(run);
            if self.levels[level].len() < FAN_IN_MAX {
                break;
            }
            let full = std::mem::take(&mut self.levels[level]);
            run = self.merge(full)?;
        }
        Ok(())
    }

    /// The records that go are in the index, so their removals are kept.
    fn merge(&mut self, runs: Vec<Run>) -> Result<Run> {
        let merged = merge::merge(&mut self.runs, &runs, Removals::Keep)?;
        self.runs.remove(runs);
        Ok(merged)
    }
}

impl IndexPatch {
    /// The hasher of the identities.
    pub fn hasher(&self) -> IdentityHasher {
        self.hasher
    }

    /// Where the rows of these identities are now, at most `positions_max` of each.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::IndexDamaged`](crate::Error::IndexDamaged).
    pub fn lookup_many(&self, hashes: &[u128], positions_max: usize) -> Result<Lookups> {
        lookup(self.run.iter(), hashes, positions_max)
    }

    /// The run, whose file the taker moves away before this change goes.
    pub(super) fn into_run(self) -> (Option<Run>, impl Sized) {
        (self.run, self.dir)
    }
}
