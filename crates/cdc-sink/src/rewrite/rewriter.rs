//! The rewrite itself, from inputs to uploaded base files.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use cdc_core::{Epoch, Identity, TableName, TableSchema};
use cdc_iceberg::{RowSet, base_arrow_schema};
use cdc_manifest::LakeStore;
use parquet::file::metadata::ParquetMetaData;

use super::chain::{Chain, ChainPlace, ChainWriter};
use super::input::{InputReader, LiveBatch, RawBatch, RewriteInput, Target};
use super::merge::Merge;
use crate::base::sort::Sorter;
use crate::delta::identity_columns;
use crate::encoding::FileCompression;
use crate::index::{FileRef, IdentityHasher, IndexOptions, IndexPatch, IndexPatchBuilder};
use crate::{
    BaseOptions, BaseStep, BaseTarget, BaseWriter, Constants, EncodedFile, Error, PartNumbers,
    Result,
};

/// Chains merged at once.
const FAN_IN_MAX: usize = 16;
/// The run that is sorted, as a part of the memory.
const RUN_PART: usize = 4;
/// Least bytes of a run.
const RUN_BYTES_MIN: usize = 1 << 20;
/// Batches merged before whoever waits is asked again.
const BATCHES_A_STEP: usize = 8;

/// How a rewrite is done.
#[derive(Clone, Debug)]
pub struct RewriteOptions {
    /// Compression of the new files.
    pub compression: FileCompression,
    /// Compressed bytes after which a file ends.
    pub file_bytes_max: u64,
    /// Bytes of memory for sorting, merging and encoding, besides one row group of an input.
    pub memory_bytes_max: usize,
    /// Where rows wait until they are merged, and files until they are uploaded.
    pub spill_dir: PathBuf,
    /// Where the change of the index is prepared: a directory that does not exist yet, on the file
    /// system of the index.
    pub patch_dir: PathBuf,
}

/// What is rewritten.
#[derive(Clone, Debug)]
pub struct RewriteSpec {
    /// Schema of the new files.
    pub schema: Arc<TableSchema>,
    /// What rows have in columns that their files lack; NULL without.
    pub constants: Constants,
    /// The files, in the order of their names: base files then come in order.
    pub inputs: Vec<RewriteInput>,
    /// Epoch that the directory of the new files is named for.
    pub epoch: Epoch,
    /// Which directory of the epoch, from 0.
    pub attempt: u32,
    /// The hasher of the index that will be told; a new one if there is no index.
    pub hasher: IdentityHasher,
}

/// A new file, in the lake.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Key in the lake.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub rows: u64,
    /// Footer.
    pub metadata: Arc<ParquetMetaData>,
}

/// The outcome of a rewrite.
#[derive(Debug)]
pub struct Rewritten {
    /// The new files, by key.
    pub files: Vec<NewFile>,
    /// Rows in them.
    pub rows: u64,
    /// Where each identity went, and from where.
    pub patch: IndexPatch,
    /// Whether the patch tells of every old place: not if a file has a name that pgcdc did not
    /// choose, which only the index itself can number.
    pub is_patch_whole: bool,
}

/// Rewrites the live rows of the inputs into sorted base files and uploads those. Sorting, merging
/// and encoding run on the runtime's blocking threads, a bounded piece at a time. `is_stopped` is
/// asked in between.
///
/// `None` if it was stopped: what it has uploaded by then nobody refers to. Dropping the future
/// stops it too.
///
/// # Errors
/// Errors of reading, sorting, encoding and uploading.
pub async fn rewrite(
    lake: &LakeStore,
    mut spec: RewriteSpec,
    options: RewriteOptions,
    is_stopped: impl Fn() -> bool,
) -> Result<Option<Rewritten>> {
    let inputs = std::mem::take(&mut spec.inputs);
    let table = spec.schema.table.clone();
    let target = Arc::new(Target {
        arrow_schema: base_arrow_schema(&spec.schema),
        schema: Arc::clone(&spec.schema),
        constants: std::mem::take(&mut spec.constants),
    });
    let columns = Arc::clone(&target);
    let mut rewriter = blocking(&table, move || Rewriter::new(spec, columns, options)).await?;
    let mut files = Vec::new();
    for RewriteInput { location, deleted } in inputs {
        let mut reader = InputReader::open(lake, &target, &location).await?;
        let file = FileRef::of_key(&table, reader.key());
        let deleted = Arc::new(deleted);
        while let Some(raw) = reader.next().await? {
            if is_stopped() {
                return Ok(None);
            }
            let deleted = Arc::clone(&deleted);
            let taking = move || {
                rewriter.take(file, &raw, &deleted)?;
                Ok(rewriter)
            };
            rewriter = blocking(&table, taking).await?;
            upload(lake, &mut rewriter, &mut files).await?;
        }
    }
    let mut is_over = false;
    while !is_over {
        if is_stopped() {
            return Ok(None);
        }
        let stepping = move || {
            let is_over = rewriter.step()?;
            Ok((rewriter, is_over))
        };
        (rewriter, is_over) = blocking(&table, stepping).await?;
        upload(lake, &mut rewriter, &mut files).await?;
    }
    files.sort_by(|one, other| one.key.cmp(&other.key));
    let rows = files.iter().map(|file| file.rows).sum();
    let Rewriter { patch, is_patch_whole, .. } = rewriter;
    let patch = blocking(&table, move || patch.finish()).await?;
    Ok(Some(Rewritten { files, rows, patch, is_patch_whole }))
}

/// Uploads what is complete.
async fn upload(lake: &LakeStore, rewriter: &mut Rewriter, files: &mut Vec<NewFile>) -> Result<()> {
    for file in std::mem::take(&mut rewriter.complete) {
        file.upload(lake).await?;
        let size = file.body.size();
        files.push(NewFile { key: file.key, size, rows: file.rows, metadata: file.metadata });
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    table: &TableName,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|_| Error::State {
        table: table.clone(),
        operation: "rewriting files",
        state: "its thread stopped",
    })?
}

struct Rewriter {
    table: TableName,
    target: Arc<Target>,
    identity: Vec<usize>,
    hasher: IdentityHasher,
    /// `None` for a table without a key, whose rows keep their order, and while a merge has it.
    sorter: Option<Sorter>,
    place: ChainPlace,
    run_bytes_max: usize,
    run: Vec<RecordBatch>,
    run_bytes: usize,
    open: Option<ChainWriter>,
    chains: Vec<Chain>,
    phase: Phase,
    writer: Option<BaseWriter>,
    patch: IndexPatchBuilder,
    is_patch_whole: bool,
    /// Files that are not uploaded yet.
    complete: Vec<EncodedFile>,
}

/// What is done once all rows have come.
enum Phase {
    /// They are still coming.
    Gathering,
    /// Some chains become one, because there are too many.
    Narrowing(Box<(Merge, ChainWriter)>),
    /// The chains become files.
    Merging(Box<Merge>),
    /// The last file ends.
    Ending,
}

impl Rewriter {
    fn new(spec: RewriteSpec, columns: Arc<Target>, options: RewriteOptions) -> Result<Self> {
        let RewriteSpec { schema, epoch, attempt, hasher, .. } = spec;
        let table = schema.table.clone();
        let arrow_schema = &columns.arrow_schema;
        let identity = identity_columns(&schema);
        let sorted_by = match schema.identity {
            Identity::Full => Vec::new(),
            _ => identity.clone(),
        };
        let types: Vec<DataType> =
            sorted_by.iter().map(|at| arrow_schema.field(*at).data_type().clone()).collect();
        let sorter = Sorter::new(sorted_by, &types).map_err(|source| Error::Arrow {
            table: table.clone(),
            operation: "sort by the identity",
            source,
        })?;
        let parts = PartNumbers::new();
        let target = BaseTarget { schema, epoch, attempt, parts, hasher: Some(hasher) };
        let run_bytes_max = (options.memory_bytes_max / RUN_PART).max(RUN_BYTES_MIN);
        let base = BaseOptions {
            compression: options.compression,
            file_bytes_max: options.file_bytes_max,
            // rows come sorted, so a run is only as large as a check of that is worth
            run_bytes_max: RUN_BYTES_MIN,
            group_bytes_max: run_bytes_max.min(BaseOptions::default().group_bytes_max),
            spill_dir: Some(options.spill_dir.clone()),
            ..BaseOptions::default()
        };
        Ok(Self {
            place: ChainPlace {
                table: table.clone(),
                schema: Arc::clone(arrow_schema),
                dir: options.spill_dir,
            },
            table,
            target: columns,
            identity,
            hasher,
            sorter,
            run_bytes_max,
            run: Vec::new(),
            run_bytes: 0,
            open: None,
            chains: Vec::new(),
            phase: Phase::Gathering,
            writer: Some(BaseWriter::new(target, base)?),
            patch: IndexPatchBuilder::create(&options.patch_dir, IndexOptions::default(), hasher)?,
            is_patch_whole: true,
            complete: Vec::new(),
        })
    }

    /// Takes the live ones of some rows of a file.
    fn take(&mut self, file: Option<FileRef>, raw: &RawBatch, deleted: &RowSet) -> Result<()> {
        let LiveBatch { batch, rows } = raw.live(&self.target, deleted)?;
        self.is_patch_whole &= file.is_some();
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some(file) = file {
            for (hash, row) in self.hashes(&batch)?.into_iter().zip(rows) {
                self.patch.remove(hash, file, row)?;
            }
        }
        if self.sorter.is_none() {
            return self.write(batch);
        }
        self.run_bytes += batch.get_array_memory_size();
        self.run.push(batch);
        if self.run_bytes >= self.run_bytes_max { self.spill_run() } else { Ok(()) }
    }

    fn hashes(&self, batch: &RecordBatch) -> Result<Vec<u128>> {
        let columns: Vec<ArrayRef> =
            self.identity.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        if columns.is_empty() {
            return Ok(vec![0; batch.num_rows()]);
        }
        self.hasher.hash_rows(&columns)
    }

    /// Sorts what has gathered and adds it to a chain.
    fn spill_run(&mut self) -> Result<()> {
        self.run_bytes = 0;
        let run = std::mem::take(&mut self.run);
        let Some(sorter) = &self.sorter else { return Ok(()) };
        let sorted = sorter.sort(run).map_err(|source| self.sort_error(source))?;
        let Some(sorted) = sorted else { return Ok(()) };
        if self.open.as_ref().is_some_and(|open| !open.takes(&sorted.first)) {
            self.end_chain()?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.place.begin()?,
        };
        open.run(sorted)?;
        self.open = Some(open);
        Ok(())
    }

    fn end_chain(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.chains.push(open.finish()?);
        }
        Ok(())
    }

    /// Does a bounded piece of what is to be done once all rows have come, and says whether it was
    /// the last.
    fn step(&mut self) -> Result<bool> {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ending) {
            Phase::Gathering if self.chains.is_empty() && self.open.is_none() => {
                // all rows are in memory
                self.write_run()?;
                Phase::Ending
            }
            Phase::Gathering => {
                self.spill_run()?;
                self.end_chain()?;
                self.next_merge()?
            }
            Phase::Narrowing(mut pair) => {
                let (merge, chain) = &mut *pair;
                let mut is_over = false;
                for _ in 0..BATCHES_A_STEP {
                    match merge.next()? {
                        Some(batch) => chain.batch(&batch)?,
                        None => {
                            is_over = true;
                            break;
                        }
                    }
                }
                if is_over {
                    let (merge, chain) = *pair;
                    self.chains.push(chain.finish()?);
                    self.sorter = Some(merge.into_sorter());
                    self.next_merge()?
                } else {
                    Phase::Narrowing(pair)
                }
            }
            Phase::Merging(mut merge) => {
                let mut is_over = false;
                for _ in 0..BATCHES_A_STEP {
                    match merge.next()? {
                        Some(batch) => self.write(batch)?,
                        None => {
                            is_over = true;
                            break;
                        }
                    }
                }
                if is_over { Phase::Ending } else { Phase::Merging(merge) }
            }
            Phase::Ending => {
                if let Some(writer) = self.writer.take() {
                    let last = writer.finish()?;
                    self.note(last)?;
                }
                return Ok(true);
            }
        };
        Ok(false)
    }

    /// Merges some chains into one while there are too many, else all of them into files.
    fn next_merge(&mut self) -> Result<Phase> {
        let Some(sorter) = self.sorter.take() else { return Ok(Phase::Ending) };
        if self.chains.len() > FAN_IN_MAX {
            let first: Vec<Chain> = self.chains.drain(..FAN_IN_MAX).collect();
            let merge = Merge::new(self.place.clone(), sorter, &first)?;
            return Ok(Phase::Narrowing(Box::new((merge, self.place.begin()?))));
        }
        let chains = std::mem::take(&mut self.chains);
        Ok(Phase::Merging(Box::new(Merge::new(self.place.clone(), sorter, &chains)?)))
    }

    fn write_run(&mut self) -> Result<()> {
        let run = std::mem::take(&mut self.run);
        let Some(sorter) = &self.sorter else { return Ok(()) };
        let sorted = sorter.sort(run).map_err(|source| self.sort_error(source))?;
        sorted.into_iter().flat_map(|run| run.batches).try_for_each(|batch| self.write(batch))
    }

    fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let step = writer.append(batch)?;
        self.note(step)
    }

    /// Notes which files are complete and where their rows are.
    fn note(&mut self, step: BaseStep) -> Result<()> {
        for rows in &step.indexed {
            for (row, hash) in (rows.first_row..).zip(&rows.hashes) {
                self.patch.add(*hash, rows.file, row)?;
            }
        }
        self.complete.extend(step.files);
        Ok(())
    }

    fn sort_error(&self, source: arrow::error::ArrowError) -> Error {
        let table = self.table.clone();
        Error::Arrow { table, operation: "sort by the identity", source }
    }
}
