//! The rewrite itself, from inputs to uploaded base files.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use cdc_core::{Epoch, Identity, TableSchema};
use cdc_iceberg::base_arrow_schema;
use cdc_manifest::LakeStore;
use parquet::file::metadata::ParquetMetaData;

use super::chain::{Chain, ChainPlace, ChainWriter};
use super::input::{InputReader, LiveBatch, RewriteInput};
use super::merge::Merge;
use crate::base::sort::Sorter;
use crate::delta::identity_columns;
use crate::encoding::FileCompression;
use crate::index::{FileRef, IdentityHasher, IndexOptions, IndexPatch, IndexPatchBuilder};
use crate::{BaseOptions, BaseStep, BaseTarget, BaseWriter, Error, PartNumbers, Result};

/// Chains merged at once.
const FAN_IN_MAX: usize = 16;
/// The run that is sorted, as a part of the memory.
const RUN_PART: usize = 4;
/// Least bytes of a run.
const RUN_BYTES_MIN: usize = 1 << 20;

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

/// Rewrites the live rows of the inputs into sorted base files and uploads those. Blocks; `runtime`
/// does the reading and writing of the lake. `is_stopped` is asked between batches.
///
/// `None` if it was stopped: what it has uploaded by then nobody refers to.
///
/// # Errors
/// Errors of reading, sorting, encoding and uploading.
pub fn rewrite(
    lake: &LakeStore,
    runtime: &tokio::runtime::Handle,
    spec: RewriteSpec,
    options: &RewriteOptions,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<Rewritten>> {
    let mut rewriter = Rewriter::new(lake, runtime, &spec, options)?;
    for input in &spec.inputs {
        if !rewriter.take(input, is_stopped)? {
            return Ok(None);
        }
    }
    rewriter.finish(is_stopped)
}

struct Rewriter<'a> {
    lake: &'a LakeStore,
    runtime: &'a tokio::runtime::Handle,
    spec: &'a RewriteSpec,
    arrow_schema: SchemaRef,
    identity: Vec<usize>,
    /// `None` for a table without a key, whose rows keep their order.
    sorter: Option<Sorter>,
    place: ChainPlace,
    run_bytes_max: usize,
    run: Vec<RecordBatch>,
    run_bytes: usize,
    open: Option<ChainWriter>,
    chains: Vec<Chain>,
    writer: BaseWriter,
    patch: IndexPatchBuilder,
    is_patch_whole: bool,
    files: Vec<NewFile>,
}

impl<'a> Rewriter<'a> {
    fn new(
        lake: &'a LakeStore,
        runtime: &'a tokio::runtime::Handle,
        spec: &'a RewriteSpec,
        options: &RewriteOptions,
    ) -> Result<Self> {
        let schema = &spec.schema;
        let arrow_schema = base_arrow_schema(schema);
        let identity = identity_columns(schema);
        let sorted_by = match schema.identity {
            Identity::Full => Vec::new(),
            _ => identity.clone(),
        };
        let types: Vec<DataType> =
            sorted_by.iter().map(|at| arrow_schema.field(*at).data_type().clone()).collect();
        let sorter = Sorter::new(sorted_by, &types).map_err(|source| Error::Arrow {
            table: schema.table.clone(),
            operation: "sort by the identity",
            source,
        })?;
        let target = BaseTarget {
            schema: Arc::clone(schema),
            epoch: spec.epoch,
            attempt: spec.attempt,
            parts: PartNumbers::new(),
            hasher: Some(spec.hasher),
        };
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
            lake,
            runtime,
            spec,
            identity,
            sorter,
            place: ChainPlace {
                table: schema.table.clone(),
                schema: Arc::clone(&arrow_schema),
                dir: options.spill_dir.clone(),
            },
            arrow_schema,
            run_bytes_max,
            run: Vec::new(),
            run_bytes: 0,
            open: None,
            chains: Vec::new(),
            writer: BaseWriter::new(target, base)?,
            patch: IndexPatchBuilder::create(
                &options.patch_dir,
                IndexOptions::default(),
                spec.hasher,
            )?,
            is_patch_whole: true,
            files: Vec::new(),
        })
    }

    /// Takes the live rows of an input; false if it was stopped.
    fn take(&mut self, input: &RewriteInput, is_stopped: &dyn Fn() -> bool) -> Result<bool> {
        let spec = self.spec;
        let arrow_schema = Arc::clone(&self.arrow_schema);
        let mut reader =
            InputReader::open(self.lake, self.runtime, &spec.schema, &arrow_schema, input)?;
        let key = self.lake.location().key(&input.location).unwrap_or_default();
        let file = FileRef::of_key(&spec.schema.table, key);
        self.is_patch_whole &= file.is_some();
        while let Some(LiveBatch { batch, rows }) = reader.next()? {
            if is_stopped() {
                return Ok(false);
            }
            if let Some(file) = file {
                for (hash, row) in self.hashes(&batch)?.into_iter().zip(rows) {
                    self.patch.remove(hash, file, row)?;
                }
            }
            self.gather(batch)?;
        }
        Ok(true)
    }

    fn hashes(&self, batch: &RecordBatch) -> Result<Vec<u128>> {
        let columns: Vec<ArrayRef> =
            self.identity.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        if columns.is_empty() {
            return Ok(vec![0; batch.num_rows()]);
        }
        self.spec.hasher.hash_rows(&columns)
    }

    fn gather(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if self.sorter.is_none() {
            return self.write(batch);
        }
        self.run_bytes += batch.get_array_memory_size();
        self.run.push(batch);
        if self.run_bytes >= self.run_bytes_max { self.spill_run() } else { Ok(()) }
    }

    /// Sorts what has gathered and adds it to a chain.
    fn spill_run(&mut self) -> Result<()> {
        self.run_bytes = 0;
        let run = std::mem::take(&mut self.run);
        let Some(sorter) = &self.sorter else { return Ok(()) };
        let Some(sorted) = sorter.sort(run).map_err(|source| self.sort_error(source))? else {
            return Ok(());
        };
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

    fn finish(mut self, is_stopped: &dyn Fn() -> bool) -> Result<Option<Rewritten>> {
        if self.chains.is_empty() && self.open.is_none() {
            // all rows are in memory: the writer sorts them
            self.write_run()?;
        } else {
            self.spill_run()?;
            self.end_chain()?;
            if !self.merge(is_stopped)? {
                return Ok(None);
            }
        }
        let Rewriter { lake, runtime, writer, mut patch, is_patch_whole, mut files, .. } = self;
        let step = writer.finish()?;
        deliver(lake, runtime, step, &mut patch, &mut files)?;
        files.sort_by(|one, other| one.key.cmp(&other.key));
        let rows = files.iter().map(|file| file.rows).sum();
        Ok(Some(Rewritten { files, rows, patch: patch.finish()?, is_patch_whole }))
    }

    fn write_run(&mut self) -> Result<()> {
        let run = std::mem::take(&mut self.run);
        let Some(sorter) = &self.sorter else { return Ok(()) };
        let sorted = sorter.sort(run).map_err(|source| self.sort_error(source))?;
        sorted.into_iter().flat_map(|run| run.batches).try_for_each(|batch| self.write(batch))
    }

    /// Merges the chains into the files; false if it was stopped.
    fn merge(&mut self, is_stopped: &dyn Fn() -> bool) -> Result<bool> {
        let Some(sorter) = self.sorter.take() else { return Ok(true) };
        while self.chains.len() > FAN_IN_MAX {
            let first: Vec<Chain> = self.chains.drain(..FAN_IN_MAX).collect();
            let mut merge = Merge::new(&self.place, &sorter, &first)?;
            let mut chain = self.place.begin()?;
            while let Some(batch) = merge.next()? {
                if is_stopped() {
                    return Ok(false);
                }
                chain.batch(&batch)?;
            }
            self.chains.push(chain.finish()?);
        }
        let chains = std::mem::take(&mut self.chains);
        let place = self.place.clone();
        let mut merge = Merge::new(&place, &sorter, &chains)?;
        while let Some(batch) = merge.next()? {
            if is_stopped() {
                return Ok(false);
            }
            self.write(batch)?;
        }
        Ok(true)
    }

    fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let step = self.writer.append(batch)?;
        deliver(self.lake, self.runtime, step, &mut self.patch, &mut self.files)
    }

    fn sort_error(&self, source: arrow::error::ArrowError) -> Error {
        let table = self.spec.schema.table.clone();
        Error::Arrow { table, operation: "sort by the identity", source }
    }
}

/// Uploads what is complete and notes where its rows are.
fn deliver(
    lake: &LakeStore,
    runtime: &tokio::runtime::Handle,
    step: BaseStep,
    patch: &mut IndexPatchBuilder,
    files: &mut Vec<NewFile>,
) -> Result<()> {
    for rows in &step.indexed {
        for (row, hash) in (rows.first_row..).zip(&rows.hashes) {
            patch.add(*hash, rows.file, row)?;
        }
    }
    for file in step.files {
        runtime.block_on(file.upload(lake))?;
        let size = file.body.size();
        files.push(NewFile { key: file.key, size, rows: file.rows, metadata: file.metadata });
    }
    Ok(())
}
