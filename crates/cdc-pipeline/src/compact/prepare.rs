//! The part of a compaction that holds nobody up: from one snapshot of a table to new files in the
//! lake and a change of the key index, both of which nothing refers to yet.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use cdc_core::{Epoch, TableName, TableSchema, failpoint};
use cdc_iceberg::{
    DataFile, DeleteEncoding, DeleteFile, DeletedRows, EntryRef, LiveFile, LiveFiles,
    PositionDeletes, RowSet, current_schema, data_file_from_parquet, live_files, load_deleted_rows,
    write_position_deletes,
};
use cdc_manifest::layout;
use cdc_sink::index::{IdentityHasher, IndexPatch};
use cdc_sink::{
    Constants, FileCompression, RewriteInput, RewriteOptions, RewriteSpec, Rewritten, rewrite,
};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::select::{Thresholds, Wanted, select};
use crate::Error;
use crate::commit::CommittedTable;
use crate::lake::Lake;
use crate::meters::level;
use crate::upkeep::{PurgePlan, plan_purge};

/// What is to be done with a table.
pub(crate) struct Job {
    pub(crate) lake: Lake,
    pub(crate) table: TableName,
    /// The table as it was committed when the job began.
    pub(crate) committed: CommittedTable,
    /// The schema of the new files.
    pub(crate) schema: Arc<TableSchema>,
    /// What rows have in columns of it that their files lack.
    pub(crate) constants: Constants,
    /// Newest epoch with changes of the table, at that moment.
    pub(crate) latest_epoch: Epoch,
    /// What is wanted of its files, if anything.
    pub(crate) wanted: Option<Wanted>,
    pub(crate) thresholds: Thresholds,
    /// Changes before this are past retention.
    pub(crate) cutoff: Option<DateTime<Utc>>,
    pub(crate) compression: FileCompression,
    pub(crate) memory_bytes_max: usize,
    pub(crate) state_dir: PathBuf,
    /// The hasher of the table's key index, if it has one.
    pub(crate) hasher: Option<IdentityHasher>,
    /// Free directories that are left out: somebody who was stopped may still write to the first.
    pub(crate) attempts_skipped: u32,
    pub(crate) stop: CancellationToken,
}

/// What the owner of the commits has to do for a table; `None` of both is nothing.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) purge: Option<PurgePlan>,
}

/// New files, and what they stand for.
#[derive(Debug)]
pub(crate) struct Rewrite {
    /// Sequence number of the snapshot that was read: deletes above it are not in the new files.
    pub(crate) from_sequence: i64,
    /// Locations of the files whose live rows are in the new ones.
    pub(crate) inputs: BTreeSet<String>,
    /// Rows of the inputs that are not in the new files.
    pub(crate) known: BTreeMap<String, RowSet>,
    /// Delete files that are needed no longer once the inputs are gone.
    pub(crate) spent_deletes: BTreeSet<EntryRef>,
    pub(crate) data_files: Vec<DataFile>,
    /// What the spent delete files said of files that stay.
    pub(crate) delete_files: Vec<DataFile>,
    /// The schema of the new files.
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) patch: IndexPatch,
    pub(crate) is_patch_whole: bool,
    /// The directory of the new files, with a trailing slash.
    pub(crate) directory: String,
    pub(crate) epoch: Epoch,
    pub(crate) is_complete: bool,
    /// Delta files among the inputs.
    pub(crate) deltas: u64,
    /// Changes in those.
    pub(crate) applied: u64,
    pub(crate) rows: u64,
}

impl Job {
    /// Does it; `None` if it was stopped.
    pub(crate) async fn run(self) -> Result<Option<Prepared>, Error> {
        let purge = match self.cutoff {
            Some(cutoff) => {
                plan_purge(&self.lake, &self.table, &self.committed.pair, cutoff).await?
            }
            None => None,
        };
        let (Some(head), Some(wanted)) = (self.committed.head_id(), self.wanted) else {
            return Ok(Some(Prepared { rewrite: None, purge }));
        };
        let wrong = || Error::iceberg(&self.table);
        let files = self.lake.tables.files();
        let metadata = &self.committed.pair.current.metadata;
        let live = live_files(files, metadata, head).await.map_err(wrong())?;
        let deleted = load_deleted_rows(files, &live.data_files, &live.delete_files).await;
        let deleted = deleted.map_err(wrong())?;
        self.measure(&live, &deleted);
        if failpoint("c1") {
            return Err(self.failed());
        }
        let Some((inputs, kept)) = select(&live, &deleted, wanted) else {
            return Ok(Some(Prepared { rewrite: None, purge }));
        };
        let from_sequence =
            metadata.snapshot_by_id(head).map_or(0, |snapshot| snapshot.sequence_number());
        let rewritten = self.rewrite(inputs, kept, live, deleted, from_sequence).await?;
        if failpoint("c2") {
            return Err(self.failed());
        }
        Ok(rewritten.map(|rewrite| Prepared { rewrite: Some(rewrite), purge }))
    }

    async fn rewrite(
        &self,
        inputs: Vec<LiveFile>,
        kept: Vec<LiveFile>,
        live: LiveFiles,
        mut deleted: DeletedRows,
        from_sequence: i64,
    ) -> Result<Option<Rewrite>, Error> {
        let attempt = self.free_attempt().await?;
        let directory = layout::base_dir(&self.table, self.latest_epoch, attempt);
        let names: BTreeSet<String> = inputs.iter().map(|file| file.location.clone()).collect();
        let deltas = self.lake.store.location().uri(&layout::table_dir(&self.table));
        let deltas = format!("{deltas}/deltas/");
        let of_deltas = inputs.iter().filter(|file| file.location.starts_with(&deltas));
        let (delta_count, applied) =
            of_deltas.fold((0, 0), |(count, rows), file| (count + 1, rows + file.record_count));
        let delete_files = self.consolidate(&kept, &deleted).await?;
        let spent_deletes: BTreeSet<EntryRef> = match self.lake.deletes {
            DeleteEncoding::Position => live
                .delete_files
                .iter()
                .map(DeleteFile::id)
                .filter(|delete| !delete_files.stays.contains(delete))
                .collect(),
            // a vector goes with its data file, and others are found out by the commit
            DeleteEncoding::Vector => BTreeSet::new(),
        };
        let of_inputs = deleted.by_file.iter().filter(|(file, _)| names.contains(*file));
        let known = of_inputs.map(|(file, rows)| (file.clone(), rows.clone())).collect();
        let take = |file: LiveFile| RewriteInput {
            deleted: deleted.by_file.remove(&file.location).unwrap_or_default(),
            location: file.location,
        };
        let inputs: Vec<RewriteInput> = inputs.into_iter().map(take).collect();
        let Some(rewritten) = self.rewrite_files(inputs, attempt).await? else { return Ok(None) };
        let schema = current_schema(&self.schema).map_err(Error::iceberg(&self.table))?;
        let location = self.lake.store.location();
        let data_files = rewritten
            .files
            .iter()
            .map(|file| {
                data_file_from_parquet(&location.uri(&file.key), file.size, &file.metadata, &schema)
            })
            .collect::<Result<_, _>>()
            .map_err(Error::iceberg(&self.table))?;
        Ok(Some(Rewrite {
            from_sequence,
            inputs: names,
            known,
            spent_deletes,
            data_files,
            delete_files: delete_files.new,
            schema: Arc::clone(&self.schema),
            patch: rewritten.patch,
            is_patch_whole: rewritten.is_patch_whole,
            directory,
            epoch: self.latest_epoch,
            is_complete: self.wanted == Some(Wanted::Complete),
            deltas: delta_count,
            applied,
            rows: rewritten.rows,
        }))
    }

    async fn rewrite_files(
        &self,
        inputs: Vec<RewriteInput>,
        attempt: u32,
    ) -> Result<Option<Rewritten>, Error> {
        let temporary = self.state_dir.join("tmp");
        let spill_dir = crate::spool::directory(&self.state_dir)?;
        crate::lake::create_state_dir(&temporary)?;
        let options = RewriteOptions {
            compression: self.compression,
            file_bytes_max: self.thresholds.target_file_bytes,
            memory_bytes_max: self.memory_bytes_max,
            spill_dir,
            patch_dir: temporary.join(format!("{PATCH_PREFIX}{}", Uuid::new_v4().simple())),
        };
        let spec = RewriteSpec {
            schema: Arc::clone(&self.schema),
            constants: self.constants.clone(),
            inputs,
            epoch: self.latest_epoch,
            attempt,
            hasher: self.hasher.unwrap_or_else(IdentityHasher::random),
        };
        Ok(rewrite(&self.lake.store, spec, options, || self.stop.is_cancelled()).await?)
    }

    /// The first directory of the epoch in which nothing is, behind those that are left out: what an
    /// attempt that died left there keeps its name.
    async fn free_attempt(&self) -> Result<u32, Error> {
        let mut skipped = 0;
        for attempt in 0.. {
            let directory = layout::base_dir(&self.table, self.latest_epoch, attempt);
            let location = || self.lake.store.location().uri(&directory);
            let failed = |source| Error::Objects { location: location(), source };
            let path = Path::parse(directory.trim_end_matches('/'))
                .map_err(|error| failed(error.into()))?;
            let mut listed = self.lake.store.store().list(Some(&path));
            let is_named = self.latest_epoch == Epoch(0) && attempt == 0;
            if !is_named && listed.try_next().await.map_err(failed)?.is_none() {
                if skipped == self.attempts_skipped {
                    return Ok(attempt);
                }
                skipped += 1;
            }
        }
        Err(self.failed())
    }

    /// Deletes of files that stay, each in a delete file of its own, so that a reader of one data
    /// file reads no other's deletes. One that is so already stays, and vectors always are.
    async fn consolidate(
        &self,
        kept: &[LiveFile],
        deleted: &DeletedRows,
    ) -> Result<Consolidated, Error> {
        let mut consolidated = Consolidated::default();
        if self.lake.deletes == DeleteEncoding::Vector {
            return Ok(consolidated);
        }
        let mut naming: BTreeMap<&str, Vec<&EntryRef>> = BTreeMap::new();
        for (delete, files) in &deleted.named_by {
            for file in files {
                naming.entry(file).or_default().push(delete);
            }
        }
        for file in kept {
            let Some(rows) = deleted.by_file.get(&file.location) else { continue };
            if let Some([only]) = naming.get(file.location.as_str()).map(Vec::as_slice)
                && deleted.named_by.get(*only).is_some_and(|files| files.len() == 1)
            {
                consolidated.stays.insert((*only).clone());
                continue;
            }
            let mut deletes = PositionDeletes::new();
            deletes.extend(&file.location, rows.iter());
            let written =
                write_position_deletes(self.lake.tables.files(), &self.table, deletes).await;
            consolidated.new.extend(written.map_err(Error::iceberg(&self.table))?);
        }
        Ok(consolidated)
    }

    fn measure(&self, live: &LiveFiles, deleted: &DeletedRows) {
        let meters = &self.lake.meters;
        let Some(label) = meters.of(&self.table) else { return };
        let small =
            live.data_files.iter().filter(|file| self.thresholds.is_small(file.size)).count();
        let rows: u64 = live.data_files.iter().map(|file| deleted.count(&file.location)).sum();
        meters.small_files.get_or_create(&label).set(level(small));
        meters.live_delete_rows.get_or_create(&label).set(level(rows));
    }

    fn failed(&self) -> Error {
        Error::OutcomeUnknown { table: self.table.clone() }
    }
}

/// What a directory below `<state>/tmp` begins with that holds a change of a key index.
pub(crate) const PATCH_PREFIX: &str = "compact-";

#[derive(Default)]
struct Consolidated {
    new: Vec<DataFile>,
    /// Delete files that stay as they are.
    stays: BTreeSet<EntryRef>,
}
