//! A change of an index that was prepared beside it: rows that a rewrite moves from one file to
//! another. One run of additions and removals, taken over in one step once the rewrite is committed.

use std::path::{Path, PathBuf};

use super::key_index::lookup;
use super::merge::Removals;
use super::record::Entry;
use super::run::{Run, RunDir, io};
use super::sorter::RunSorter;
use super::{FileRef, IdentityHasher, IndexOptions, Lookups, Position, Record};
use crate::Result;

/// Gathers where rows are and where they were, in bounded memory and any order. Dropping it leaves
/// nothing behind.
#[derive(Debug)]
pub struct IndexPatchBuilder {
    dir: PatchDir,
    sorter: RunSorter,
    hasher: IdentityHasher,
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
        let runs = RunDir::new(dir, 0, options.fence_bytes_max);
        // the records that go are in the index, so their removals are kept
        let sorter = RunSorter::new(runs, options.sort_records_max, Removals::Keep);
        Ok(Self { dir: PatchDir(dir.to_owned()), sorter, hasher })
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
        self.sorter.push(Entry { record: Record { hash, position }, removed })
    }

    /// Completes the change.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::IndexDamaged`](crate::Error::IndexDamaged).
    pub fn finish(self) -> Result<IndexPatch> {
        let IndexPatchBuilder { dir, sorter, hasher } = self;
        let (_, run) = sorter.finish()?;
        Ok(IndexPatch { dir, hasher, run })
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
