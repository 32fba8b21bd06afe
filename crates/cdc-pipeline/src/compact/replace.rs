//! The replace commit, by the owner of the commits and between two flushes.
//!
//! ```text
//! past retention: manifest.json (from where on the changelog is complete) ─> changelog
//! are the inputs still there? ─> deletes since, remapped ─> t: new files in, old files out
//! ─> manifest.json by CAS: the snapshots of both
//! ```
//! What may fail before the commit only drops the rewrite. From the commit on, an error ends the
//! session: the next one begins with the tables as they are.

use std::collections::BTreeSet;

use cdc_core::{TableName, failpoint};
use cdc_iceberg::{
    CommitKind, DataFile, DeleteEncoding, DeleteFile, DeletionVectors, EntryRef, LiveFiles,
    PositionDeletes, Remove, TableChange, live_files, load_deleted_rows, write_deletion_vectors,
    write_position_deletes,
};
use cdc_manifest::Manifest;
use cdc_sink::index::{IndexPatch, Record};
use cdc_sink::index_identity;

use super::prepare::{Prepared, Rewrite};
use super::remap::remap;
use crate::Error;
use crate::commit::{CommitState, note_schema, point_at};

/// Rows deleted beside one rewrite that are looked up in the new files, at most. Each takes about 150
/// bytes meanwhile.
const REMAPPED_ROWS_MAX: u64 = 500_000;

/// Where the rows of a table went, for its key index.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) table: TableName,
    /// The change of the index; `None` if it has to be rebuilt.
    pub(crate) patch: Option<IndexPatch>,
    /// Rows of the new files that are not live.
    pub(crate) removed: Vec<Record>,
}

/// What became of a table.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) table: TableName,
    /// The rewrite that was committed, if one was.
    pub(crate) compacted: Option<Compacted>,
    /// Changelog rows past retention that were let go.
    pub(crate) purged: u64,
    /// Why the rewrite was not committed.
    pub(crate) dropped: Option<String>,
    pub(crate) moved: Option<Moved>,
}

/// What was committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compacted {
    pub(crate) epoch: u64,
    pub(crate) is_complete: bool,
    pub(crate) deltas: u64,
    pub(crate) applied: u64,
    pub(crate) rows: u64,
    pub(crate) files_in: usize,
    pub(crate) files_out: usize,
}

/// A rewrite that fits the table as it is.
struct Fitted {
    change: TableChange,
    patch: Option<IndexPatch>,
    removed: Vec<Record>,
    directory: String,
    compacted: Compacted,
}

impl CommitState {
    /// Commits what was prepared for a table.
    pub(crate) async fn finish_table(
        &mut self,
        table: &TableName,
        prepared: Prepared,
        retention_text: &str,
    ) -> Result<Finished, Error> {
        let Prepared { rewrite, purge } = prepared;
        let mut finished = Finished {
            table: table.clone(),
            compacted: None,
            purged: 0,
            dropped: None,
            moved: None,
        };
        self.check_generation().await?;
        self.fence_tables(std::iter::once(table)).await?;
        self.kept.refresh(&self.lake).await;
        if let Some(plan) = purge {
            self.purge(table, &plan).await?;
            finished.purged = plan.rows;
        }
        let mut next = self.manifest.value.clone();
        if let Some(rewrite) = rewrite {
            match self.fit(table, rewrite).await {
                Ok(fitted) => {
                    self.replace(table, &fitted.change).await?;
                    self.note_base(table, &fitted, &mut next);
                    finished.compacted = Some(fitted.compacted);
                    finished.moved = Some(Moved {
                        table: table.clone(),
                        patch: fitted.patch,
                        removed: fitted.removed,
                    });
                }
                Err(reason) => finished.dropped = Some(reason),
            }
        }
        if finished.compacted.is_none() && finished.purged == 0 {
            return Ok(finished);
        }
        if let (Some(entry), Some(committed)) = (next.tables.get_mut(table), self.tables.get(table))
        {
            point_at(entry, &committed.pair, self.lake.branch);
            entry.row_count = committed.pair.current.live_rows(self.lake.branch);
            note_schema(&mut next, &committed.schema);
        }
        let now = self.lake.clock.now();
        next.updated_at = now;
        next.compaction.last_compacted_at = now;
        next.compaction.tombstone_retention = Some(retention_text.to_owned());
        if failpoint("c5") {
            return Err(Error::StreamEnded);
        }
        self.swap_manifest(next).await?;
        Ok(finished)
    }

    async fn replace(&mut self, table: &TableName, change: &TableChange) -> Result<(), Error> {
        let Some(committed) = self.tables.get(table) else { return Ok(()) };
        if failpoint("c3") {
            return Err(Error::OutcomeUnknown { table: table.clone() });
        }
        let outcome = self.lake.tables.commit(&committed.pair.current, change).await;
        let current = self.settle(table, outcome).await?;
        if failpoint("c4") {
            return Err(Error::OutcomeUnknown { table: table.clone() });
        }
        if let Some(committed) = self.tables.get_mut(table) {
            committed.pair.current = current;
        }
        Ok(())
    }

    fn note_base(&self, table: &TableName, fitted: &Fitted, next: &mut Manifest) {
        let Compacted { is_complete, .. } = fitted.compacted;
        let Some(entry) = next.tables.get_mut(table).filter(|_| is_complete) else { return };
        entry.base_epoch = cdc_core::Epoch(fitted.compacted.epoch);
        entry.base_path = Some(fitted.directory.clone());
    }

    /// Makes the commit of a rewrite for the table as it is now, or says why it does not fit.
    async fn fit(&self, table: &TableName, rewrite: Rewrite) -> Result<Fitted, String> {
        let told = |error: Error| cdc_core::chain(&error);
        let gone = || "its files were replaced meanwhile".to_owned();
        let committed = self.tables.get(table).ok_or_else(gone)?;
        if index_identity(&rewrite.schema) != index_identity(&committed.schema) {
            return Err("its rows are told apart otherwise since".to_owned());
        }
        let current = &committed.pair.current;
        let head = committed.head_id().ok_or_else(gone)?;
        let files = self.lake.tables.files();
        let wrong = || Error::iceberg(table);
        let live =
            live_files(files, &current.metadata, head).await.map_err(wrong()).map_err(told)?;
        let present: BTreeSet<&str> =
            live.data_files.iter().map(|file| file.location.as_str()).collect();
        let deletes: BTreeSet<EntryRef> = live.delete_files.iter().map(DeleteFile::id).collect();
        if !rewrite.inputs.iter().all(|input| present.contains(input.as_str()))
            || !rewrite.spent_deletes.is_subset(&deletes)
        {
            return Err(gone());
        }
        let since = self.deletes_since(&rewrite, &live);
        let rows = load_deleted_rows(files, &live.data_files, &since).await;
        let mut rows = rows.map_err(wrong()).map_err(told)?;
        // a vector says all that it ever said, also what the rewrite has left out already
        for (file, known) in &rewrite.known {
            if let Some(rows) = rows.by_file.get_mut(file) {
                rows.subtract(known);
            }
        }
        let moved = rows.by_file.iter().filter(|(location, _)| rewrite.inputs.contains(*location));
        let moved: u64 = moved.map(|(_, rows)| rows.len()).sum();
        if moved > REMAPPED_ROWS_MAX {
            return Err(format!("{moved} of its rows were deleted meanwhile"));
        }
        let (store, schema) = (&self.lake.store, &committed.schema);
        let Rewrite { patch, inputs, spent_deletes, .. } = rewrite;
        let remapped = remap(store, table, schema, &inputs, patch, &rows).await.map_err(told)?;
        let remapped =
            remapped.ok_or_else(|| "a row deleted meanwhile is not in the new files".to_owned())?;
        let again = self.deletes_again(table, remapped.deletes, live, &inputs).await;
        let DeletionVectors { delete_files: again, replaced } =
            again.map_err(wrong()).map_err(told)?;
        let compacted = Compacted {
            epoch: rewrite.epoch.0,
            is_complete: rewrite.is_complete,
            deltas: rewrite.deltas,
            applied: rewrite.applied,
            rows: rewrite.rows,
            files_in: inputs.len(),
            files_out: rewrite.data_files.len(),
        };
        let mut removed_files = replaced;
        removed_files.extend(inputs.into_iter().map(EntryRef::from));
        removed_files.extend(spent_deletes);
        if self.lake.deletes == DeleteEncoding::Position {
            removed_files.extend(since.iter().map(DeleteFile::id));
        }
        let delete_files: Vec<DataFile> = rewrite.delete_files.into_iter().chain(again).collect();
        let change = TableChange {
            encoding: self.lake.deletes,
            remove: Remove::Files(removed_files),
            retention: self.kept.of_current(table, &self.manifest.value),
            ..TableChange::row_delta(
                self.standing_stamp(current, CommitKind::Compact),
                self.lake.branch,
                rewrite.data_files,
                delete_files,
            )
        };
        Ok(Fitted {
            change,
            patch: Some(remapped.patch).filter(|_| rewrite.is_patch_whole),
            removed: remapped.removed,
            directory: rewrite.directory,
            compacted,
        })
    }

    /// The deletes that are younger than a rewrite and may name rows of its inputs. Position delete
    /// files name rows of many files and are all replaced; a vector of a file that stays stays too.
    fn deletes_since(&self, rewrite: &Rewrite, live: &LiveFiles) -> Vec<DeleteFile> {
        let is_moved = |delete: &DeleteFile| match (&delete.referenced, delete.is_vector()) {
            (Some(file), true) => rewrite.inputs.contains(file),
            _ => true,
        };
        let younger = live
            .delete_files
            .iter()
            .filter(|delete| delete.sequence_number > rewrite.from_sequence);
        younger.filter(|delete| is_moved(delete)).cloned().collect()
    }

    /// Writes what is deleted after the replacement and was not before, given the files that are live
    /// before it.
    async fn deletes_again(
        &self,
        table: &TableName,
        deletes: PositionDeletes,
        mut live: LiveFiles,
        inputs: &BTreeSet<String>,
    ) -> cdc_iceberg::Result<DeletionVectors> {
        let files = self.lake.tables.files();
        if self.lake.deletes == DeleteEncoding::Position {
            let file = write_position_deletes(files, table, deletes).await?;
            let delete_files = file.into_iter().collect();
            return Ok(DeletionVectors { delete_files, replaced: BTreeSet::new() });
        }
        let is_input = |file: Option<&String>| file.is_some_and(|file| inputs.contains(file));
        live.data_files.retain(|file| !inputs.contains(&file.location));
        live.delete_files.retain(|delete| !is_input(delete.referenced.as_ref()));
        write_deletion_vectors(files, table, &deletes, &live).await
    }
}
