//! Building an index from the live rows of a table, in bounded memory and any order.

use std::path::Path;

use super::key_index::intern;
use super::merge::{self, Removals};
use super::record::Entry;
use super::run::{Run, RunDir, io};
use super::stamp::IndexFile;
use super::{FileRef, IdentityHasher, IndexOptions, IndexStamp, KeyIndex, Position, Record};
use crate::Result;

/// Runs merged at once; so many files are open and buffers held.
const FAN_IN_MAX: usize = 32;

/// Takes live rows and makes an index of them. The index that was in the directory is gone from the
/// moment the builder is made; dropping it leaves none.
#[derive(Debug)]
pub struct IndexBuilder {
    dir: RunDir,
    options: IndexOptions,
    hash_key: [u8; 16],
    chunk: Vec<Entry>,
    /// Runs by how many merges are behind them.
    levels: Vec<Vec<Run>>,
    foreign: Vec<String>,
}

impl IndexBuilder {
    /// Starts an index in `dir`, which is created if missing and holds nothing else.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn create(dir: &Path, options: IndexOptions) -> Result<IndexBuilder> {
        std::fs::create_dir_all(dir).map_err(|source| io("create", dir, source))?;
        IndexFile::remove(dir)?;
        let mut run_dir = RunDir::new(dir, 0, options.fence_bytes_max);
        run_dir.remove_others(std::iter::empty())?;
        Ok(IndexBuilder {
            dir: run_dir,
            options,
            hash_key: uuid::Uuid::new_v4().into_bytes(),
            chunk: Vec::new(),
            levels: Vec::new(),
            foreign: Vec::new(),
        })
    }

    /// The hasher with the new index's key.
    pub fn hasher(&self) -> IdentityHasher {
        IdentityHasher::new(self.hash_key)
    }

    /// The reference of a file whose name pgcdc did not choose; the same for the same location.
    pub fn foreign_file(&mut self, location: &str) -> Option<FileRef> {
        intern(&mut self.foreign, location)
    }

    /// Adds one live row.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn push(&mut self, hash: u128, file: FileRef, row: u32) -> Result<()> {
        let record = Record { hash, position: Position { file, row } };
        self.chunk.push(Entry { record, removed: false });
        if self.chunk.len() >= self.options.sort_records_max { self.spill() } else { Ok(()) }
    }

    /// Makes the index, as the state of `stamp`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn finish(mut self, stamp: IndexStamp) -> Result<KeyIndex> {
        self.spill()?;
        let mut runs: Vec<Run> = self.levels.drain(..).flatten().collect();
        while runs.len() > 1 {
            let rest = runs.split_off(runs.len().min(FAN_IN_MAX));
            let merged = self.merge(runs)?;
            runs = rest;
            runs.push(merged);
        }
        let IndexBuilder { dir, options, hash_key, foreign, .. } = self;
        KeyIndex::create(dir, options, hash_key, stamp, runs, foreign)
    }

    /// Sorts what has gathered into a run, and merges runs when there are too many of a size.
    fn spill(&mut self) -> Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let mut entries = std::mem::take(&mut self.chunk);
        entries.sort_unstable();
        entries.dedup();
        let mut run = self.dir.write(entries.drain(..).map(Ok))?;
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

    fn merge(&mut self, runs: Vec<Run>) -> Result<Run> {
        let merged = merge::merge(&mut self.dir, &runs, Removals::Drop)?;
        self.dir.remove(runs);
        Ok(merged)
    }
}
