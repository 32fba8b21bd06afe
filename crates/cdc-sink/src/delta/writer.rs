//! The writer that owns a table's key index and lives across epochs.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use cdc_core::{Epoch, Identity, TableName, TableSchema, failpoint};
use cdc_manifest::LakeStore;

use super::carry::{self, Carried, Places};
use super::file::{DeltaFile, DeltaOptions};
use super::live::OpenRow;
use super::output::{DeltaOutput, OpCounts};
use super::track::{Tracker, index_identity};
use crate::chunk::Chunk;
use crate::fetch::Fetcher;
use crate::index::{FileRef, IndexPatch, IndexStamp, KeyIndex, Position, Record};
use crate::{Error, Result};

/// What a writer works with.
pub struct DeltaContext {
    /// Table.
    pub table: TableName,
    /// The lake whose files it reads unchanged values from.
    pub lake: LakeStore,
    /// The runtime that does the reading; the writer itself is called from blocking threads.
    pub runtime: tokio::runtime::Handle,
}

/// Makes delta files of one table's chunks, with the deletes that they imply.
///
/// Synchronous and single-owner; all calls but the getters may block and belong on blocking
/// threads. After an error the epoch must be given up with [`DeltaWriter::abandon`].
///
/// Memory: the row group in progress (at most [`DeltaOptions::group_bytes_max`] twice, as arrays and
/// in the encoder), the compressed row groups up to [`DeltaOptions::staged_bytes_max`] where there
/// is a spill directory, the identities of [`DeltaOptions::tracked_rows_max`] rows, and 4 bytes for
/// each superseded row.
pub struct DeltaWriter {
    index: KeyIndex,
    fetcher: Fetcher,
    table: TableName,
    options: Arc<DeltaOptions>,
    state: State,
}

enum State {
    Idle,
    Open(Box<OpenEpoch>),
    Finished,
    Failed,
}

struct OpenEpoch {
    epoch: Epoch,
    next_part: u32,
    /// In order of parts; the last one takes rows.
    files: Vec<DeltaFile>,
    tracker: Tracker,
    counts: OpCounts,
    lossy: BTreeMap<String, u64>,
    carried: u64,
}

impl DeltaWriter {
    /// A writer over an index that is right for the table as it stands.
    pub fn new(index: KeyIndex, context: DeltaContext, options: DeltaOptions) -> Self {
        let DeltaContext { table, lake, runtime } = context;
        let fetcher = Fetcher::new(lake, runtime, table.clone());
        Self { index, fetcher, table, options: Arc::new(options), state: State::Idle }
    }

    /// The key index.
    pub fn index(&self) -> &KeyIndex {
        &self.index
    }

    /// Gives the index back, for instance to rebuild it. An open epoch is lost.
    pub fn into_index(mut self) -> KeyIndex {
        self.abandon();
        self.index
    }

    /// Puts another index in the place of this one, between epochs.
    ///
    /// # Errors
    /// [`Error::State`] while an epoch is open.
    pub fn replace_index(&mut self, index: KeyIndex) -> Result<()> {
        match self.state {
            State::Idle => {
                self.index = index;
                Ok(())
            }
            _ => Err(self.state_error("replacing the index", "an epoch is open")),
        }
    }

    /// Bytes of memory held by the open epoch.
    pub fn memory_bytes(&self) -> usize {
        let State::Open(open) = &self.state else { return 0 };
        let files: usize = open.files.iter().map(DeltaFile::memory_bytes).sum();
        files + open.tracker.memory_bytes()
    }

    /// Whether an epoch has begun that is neither committed nor abandoned.
    pub fn is_epoch_open(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Begins an epoch. `first_part` is the first free part number of the epoch: 0 unless a crash
    /// left files of it (decision 0007).
    ///
    /// # Errors
    /// [`Error::State`] while an epoch is open or waits for its commit.
    pub fn begin_epoch(&mut self, epoch: Epoch, first_part: u32) -> Result<()> {
        if self.is_epoch_open() {
            return Err(self.state_error("beginning an epoch", "another one is open"));
        }
        self.state = State::Open(Box::new(OpenEpoch {
            epoch,
            next_part: first_part,
            files: Vec::new(),
            tracker: Tracker::new(self.table.clone(), epoch, self.options.tracked_rows_max),
            counts: OpCounts::default(),
            lossy: BTreeMap::new(),
            carried: 0,
        }));
        Ok(())
    }

    /// Encodes a chunk and finds what it supersedes.
    ///
    /// # Errors
    /// [`Error::MissingRow`] or [`Error::MissingValue`] when the lake lacks what the chunk changes;
    /// [`Error::IdentityChanged`] when the schema tells rows by other columns than the index;
    /// errors of the encoder, the store and the index.
    pub fn append(&mut self, chunk: Chunk) -> Result<()> {
        let State::Open(open) = &mut self.state else {
            return Err(self.state_error("appending a chunk", "no epoch is open"));
        };
        let appended = check_identity(&self.index, &chunk.schema)
            .and_then(|()| open.append(&chunk, &self.options, &mut self.index, &mut self.fetcher));
        if appended.is_err() {
            self.state = State::Failed;
        }
        appended
    }

    /// Gives memory back in the middle of an epoch: ends the row group in progress, moves complete
    /// ones to the spill directory and remembered identities to the index. What follows is written
    /// and carried over as before.
    ///
    /// # Errors
    /// As [`DeltaWriter::append`].
    pub fn shrink(&mut self) -> Result<()> {
        let State::Open(open) = &mut self.state else { return Ok(()) };
        let shrunk = open.shrink(&self.options, &mut self.index);
        if shrunk.is_err() {
            self.state = State::Failed;
        }
        shrunk
    }

    /// Completes the files of the epoch. `None` if it has no rows: then nothing is to be committed
    /// and the writer is ready for the next epoch.
    ///
    /// # Errors
    /// [`Error::State`] if no epoch is open or a transaction has not ended; errors of the encoder
    /// and the index.
    pub fn finish_epoch(&mut self) -> Result<Option<DeltaOutput>> {
        match &self.state {
            State::Open(open) if open.files.iter().any(DeltaFile::is_transaction_open) => {
                return Err(self.state_error("finishing an epoch", "a transaction is open"));
            }
            State::Open(_) => {}
            _ => return Err(self.state_error("finishing an epoch", "no epoch is open")),
        }
        let State::Open(open) = std::mem::replace(&mut self.state, State::Failed) else {
            return Ok(None);
        };
        if open.files.is_empty() {
            self.state = State::Idle;
            return Ok(None);
        }
        let output = open.finish(self.table.clone(), &mut self.index)?;
        self.state = State::Finished;
        Ok(Some(output))
    }

    /// The finished epoch is committed: its rows are what later changes refer to.
    ///
    /// # Errors
    /// [`Error::State`] without a finished epoch; errors of the index, after which it must be
    /// rebuilt: the epoch is committed nevertheless.
    pub fn committed(&mut self, stamp: IndexStamp) -> Result<()> {
        if !matches!(self.state, State::Finished) {
            return Err(self.state_error("confirming a commit", "no epoch is finished"));
        }
        if failpoint("s17") {
            return Err(failed("write the key index of", &self.table));
        }
        self.index.commit(stamp)?;
        self.state = State::Idle;
        Ok(())
    }

    /// Moves the index on to a state of the table with the same rows, such as an epoch without
    /// changes here.
    ///
    /// # Errors
    /// [`Error::State`] while an epoch is open; errors of the index.
    pub fn restamp(&mut self, stamp: IndexStamp) -> Result<()> {
        if self.is_epoch_open() {
            return Err(self.state_error("moving the index on", "an epoch is open"));
        }
        self.index.commit(stamp)
    }

    /// Takes over where a rewrite moved rows: those of the patch, less the `removed` ones, which
    /// were deleted meanwhile. [`DeltaWriter::committed`] or [`DeltaWriter::restamp`] makes it
    /// permanent.
    ///
    /// # Errors
    /// [`Error::State`] while an epoch is open, whose deletes name rows where they were, or for a
    /// patch of another index; errors of the index, after which it must be rebuilt.
    pub fn repoint(&mut self, patch: IndexPatch, removed: Vec<Record>) -> Result<()> {
        if matches!(self.state, State::Open(_) | State::Failed) {
            return Err(self.state_error("moving rows", "an epoch is open"));
        }
        if !self.index.adopt(patch)? {
            return Err(self.state_error("moving rows", "they are those of another index"));
        }
        self.index.apply(Vec::new(), removed)
    }

    /// Gives the epoch up, whatever state it is in; the index is as after the last commit.
    pub fn abandon(&mut self) {
        self.state = State::Idle;
        self.index.rollback();
    }

    fn state_error(&self, operation: &'static str, state: &'static str) -> Error {
        Error::State { table: self.table.clone(), operation, state }
    }
}

impl OpenEpoch {
    fn append(
        &mut self,
        chunk: &Chunk,
        options: &Arc<DeltaOptions>,
        index: &mut KeyIndex,
        fetcher: &mut Fetcher,
    ) -> Result<()> {
        self.counts.add(&chunk.ops);
        for (column, count) in &chunk.lossy {
            *self.lossy.entry(column.clone()).or_default() += count;
        }
        if chunk.rows() > 0 {
            self.make_room(&chunk.schema, options)?;
            self.append_rows(chunk, index, fetcher)?;
        }
        if failpoint("s6") {
            return Err(failed("write a temporary file for", &chunk.schema.table));
        }
        self.end_runs(chunk);
        self.spill(options)
    }

    fn finish(self, table: TableName, index: &mut KeyIndex) -> Result<DeltaOutput> {
        let OpenEpoch { epoch, files, tracker, counts, lossy, carried, .. } = self;
        let truncate = tracker.is_truncated();
        let is_unique = files.iter().all(|file| file.schema.identity != Identity::Full);
        let deletes = tracker.finish(is_unique, index)?;
        let located = |file: &FileRef| Some((*file, index.foreign_location(*file)?.to_owned()));
        let foreign = deletes.keys().filter_map(located).collect();
        let files: Result<Vec<_>> = files.into_iter().map(|file| file.finish(epoch)).collect();
        let files = files?;
        Ok(DeltaOutput { table, epoch, files, deletes, foreign, truncate, counts, lossy, carried })
    }

    /// Sees to it that the last file can take rows of this schema.
    fn make_room(&mut self, schema: &Arc<TableSchema>, options: &Arc<DeltaOptions>) -> Result<()> {
        if let Some(last) = self.files.last_mut() {
            let is_same = Arc::ptr_eq(&last.schema, schema) || last.schema == *schema;
            if is_same && last.staged_bytes() < options.file_bytes_max {
                return Ok(());
            }
            last.end_group()?;
        }
        let part = self.next_part;
        let file =
            FileRef::delta(self.epoch, part).ok_or(Error::TooManyFiles { epoch: self.epoch })?;
        self.next_part += 1;
        self.files.push(DeltaFile::new(part, file, Arc::clone(schema), Arc::clone(options)));
        Ok(())
    }

    fn append_rows(
        &mut self,
        chunk: &Chunk,
        index: &mut KeyIndex,
        fetcher: &mut Fetcher,
    ) -> Result<()> {
        let Some((current, earlier)) = self.files.split_last() else { return Ok(()) };
        let start = OpenRow::new(current.part, current.rows());
        let earlier: Vec<(FileRef, u32)> =
            earlier.iter().map(|file| (file.file, file.rows())).collect();
        let first = Position { file: current.file, row: current.rows() };
        let previous = self.tracker.follow(chunk, start, &earlier, index)?;
        if chunk.patches.is_empty() {
            return self.write(chunk.batch.clone(), chunk.batch.get_array_memory_size());
        }
        let carried = carry::sources(chunk, &previous, first)?;
        self.carried += carried.len() as u64;
        self.write_carried(chunk, &carried, index, fetcher)
    }

    /// Writes a chunk in slices, each with the values carried into it.
    fn write_carried(
        &mut self,
        chunk: &Chunk,
        carried: &[Carried],
        index: &KeyIndex,
        fetcher: &mut Fetcher,
    ) -> Result<()> {
        let row_bytes = chunk.batch.get_array_memory_size() / chunk.rows().max(1);
        let mut places = Places { files: &self.files, fetcher, index };
        for slice in places.slices(chunk, carried)? {
            let mut places = Places { files: &self.files, fetcher, index };
            let values = &carried[slice.carried.clone()];
            let raw_bytes = slice.rows.len() * row_bytes + slice.bytes;
            let batch = places.fill(chunk, slice.rows, values)?;
            self.write(batch, raw_bytes)?;
        }
        Ok(())
    }

    fn write(&mut self, batch: RecordBatch, raw_bytes: usize) -> Result<()> {
        match self.files.last_mut() {
            Some(file) => file.write(batch, raw_bytes),
            None => Ok(()),
        }
    }

    /// Hands the chunk's transaction ends to the files. The first may end rows of earlier files.
    fn end_runs(&mut self, chunk: &Chunk) {
        for (at, run) in chunk.runs.iter().enumerate() {
            if at == 0
                && let Some(end_lsn) = run.end_lsn
            {
                let (_, earlier) = match self.files.split_last_mut() {
                    Some(split) => split,
                    None => return,
                };
                earlier.iter_mut().for_each(|file| file.end_transaction(end_lsn));
            }
            if let Some(file) = self.files.last_mut() {
                file.add_run(*run);
            }
        }
    }

    fn shrink(&mut self, options: &DeltaOptions, index: &mut KeyIndex) -> Result<()> {
        let Some(last) = self.files.last_mut() else { return Ok(()) };
        last.end_group()?;
        let is_unique = last.schema.identity != Identity::Full;
        self.tracker.shrink(is_unique, index)?;
        match &options.spill_dir {
            Some(dir) => self.files.iter_mut().try_for_each(|file| file.spill(dir)),
            None => Ok(()),
        }
    }

    fn spill(&mut self, options: &DeltaOptions) -> Result<()> {
        let Some(dir) = &options.spill_dir else { return Ok(()) };
        let held: usize = self.files.iter().map(DeltaFile::staged_memory).sum();
        if held <= options.staged_bytes_max {
            return Ok(());
        }
        self.files.iter_mut().try_for_each(|file| file.spill(dir))
    }
}

/// Refuses rows whose identity the index does not know.
fn check_identity(index: &KeyIndex, schema: &TableSchema) -> Result<()> {
    let wanted = index_identity(schema);
    let indexed = &index.stamp().identity;
    if *indexed == wanted {
        return Ok(());
    }
    let (table, indexed) = (schema.table.clone(), indexed.clone());
    Err(Error::IdentityChanged { table, indexed, wanted })
}

/// The error of local work that a failpoint made fail.
fn failed(operation: &'static str, table: &TableName) -> Error {
    let source = std::io::Error::other("failpoint");
    Error::Io { operation, path: table.to_string(), source }
}
