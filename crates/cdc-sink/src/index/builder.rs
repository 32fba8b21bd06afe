//! Building an index from the live rows of a table, in bounded memory and any order.

use std::path::Path;

use super::key_index::intern;
use super::merge::Removals;
use super::record::Entry;
use super::run::{RunDir, io};
use super::sorter::RunSorter;
use super::stamp::IndexFile;
use super::{FileRef, IdentityHasher, IndexOptions, IndexStamp, KeyIndex, Position, Record};
use crate::Result;

/// Takes live rows and makes an index of them. The index that was in the directory is gone from the
/// moment the builder is made; dropping it leaves none.
#[derive(Debug)]
pub struct IndexBuilder {
    sorter: RunSorter,
    options: IndexOptions,
    hash_key: [u8; 16],
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
            sorter: RunSorter::new(run_dir, options.sort_records_max, Removals::Drop),
            options,
            hash_key: uuid::Uuid::new_v4().into_bytes(),
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
        self.sorter.push(Entry { record, removed: false })
    }

    /// Makes the index, as the state of `stamp`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn finish(self, stamp: IndexStamp) -> Result<KeyIndex> {
        let IndexBuilder { sorter, options, hash_key, foreign } = self;
        let (dir, run) = sorter.finish()?;
        KeyIndex::create(dir, options, hash_key, stamp, run.into_iter().collect(), foreign)
    }
}
