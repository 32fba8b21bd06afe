//! The commit of an epoch: Iceberg tables, then the manifest, then the refs. The only place that
//! makes a [`FlushReceipt`], so nothing can be confirmed that did not pass through it.
//!
//! ```text
//! deltas ─> t (row delta) ─> t__changes (append) ─┐  per table, side by side
//!                                                 └> manifest.json by CAS ─> refs ─> FlushReceipt
//! ```
//! Every step may be repeated with the same batch: a table that covers the batch is left alone, and
//! a manifest that already names it counts as committed. A manifest that somebody else wrote in
//! between is merged with, see [`Manifest::merge`]; one of a higher generation ends this daemon.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Epoch, Lsn, TableName, TableSchema, failpoint};
use cdc_iceberg::{
    Branch, CommitKind, CommitOutcome, DataFile, Stamp, Table, TableChange, TablePair,
    changes_schema, current_schema, data_file_from_parquet,
};
use cdc_manifest::{Manifest, TableEntry, Versioned};
use cdc_sink::{DeltaOutput, EncodedFile};
use chrono::{DateTime, TimeZone, Utc};
use futures::{FutureExt, StreamExt, stream};
use uuid::Uuid;

use crate::control::VerifiedRecord;
use crate::deletes::Encoded;
use crate::fence::{Fence, fenced};
use crate::lake::Lake;
use crate::meters::StopWatch;
use crate::quarantine::Stop;
use crate::refs::advance_refs;
use crate::settings::RefSettings;
use crate::table_ops::{Handover, StateChange};
use crate::upkeep::Kept;
use crate::{Error, quarantine};

/// Proof that everything up to an LSN is in the committed manifest.
#[derive(Debug)]
pub(crate) struct FlushReceipt {
    covered_lsn: Lsn,
    epoch: Epoch,
}

impl FlushReceipt {
    /// The position that may be confirmed.
    pub(crate) fn covered_lsn(&self) -> Lsn {
        self.covered_lsn
    }

    /// The newest epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// The name of a batch; the same over all its tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchName {
    /// Stable over retries.
    pub(crate) id: Uuid,
    /// The epoch it becomes.
    pub(crate) epoch: Epoch,
    /// Exclusive lower end.
    pub(crate) lsn_from: Lsn,
    /// End LSN of its last transaction.
    pub(crate) lsn_to: Lsn,
    /// Commit time of that, microseconds since 1970.
    pub(crate) commit_micros: i64,
}

impl BatchName {
    fn commit_ts(&self) -> DateTime<Utc> {
        Utc.timestamp_micros(self.commit_micros).single().unwrap_or_default()
    }
}

/// A table as last committed.
#[derive(Clone, Debug)]
pub(crate) struct CommittedTable {
    /// Its schema.
    pub(crate) schema: Arc<TableSchema>,
    /// Its Iceberg tables.
    pub(crate) pair: TablePair,
    /// The branch of theirs that commits go to.
    pub(crate) branch: Branch,
    /// A later schema that a crash left in the tables before anything was committed under it.
    pub(crate) ahead: Option<Arc<TableSchema>>,
}

impl CommittedTable {
    /// The snapshot of the current state.
    pub(crate) fn head_id(&self) -> Option<i64> {
        self.pair.current.head_id(self.branch)
    }

    /// Whether the newest snapshot brought no rows, but a schema.
    fn shows_schema_only(&self) -> bool {
        let head = self.pair.current.head(self.branch);
        let stamp = head.and_then(|snapshot| Stamp::of(snapshot));
        stamp.is_some_and(|stamp| stamp.kind == CommitKind::Schema)
    }

    /// The position up to which the table has everything.
    pub(crate) fn covered(&self) -> Lsn {
        self.pair.current.newest_lsn_to(self.branch).unwrap_or(Lsn::ZERO)
    }
}

/// What an epoch brings.
#[derive(Debug, Default)]
pub(crate) struct EpochContent {
    /// The tables with rows.
    pub(crate) deltas: Vec<DeltaOutput>,
    /// The schemas that tables have from the end of this epoch on, where they are new. Files of the
    /// epoch may be of any schema between the last one and this.
    pub(crate) evolved: Vec<Arc<TableSchema>>,
    /// What the source's files are, where that is to be noted.
    pub(crate) filenodes: Vec<(TableName, Option<u64>)>,
    /// The tables that stop.
    pub(crate) stops: Vec<Stop>,
    /// Copied tables that are followed from this cut on.
    pub(crate) handovers: Vec<Handover>,
    /// The tables that change their state behind this epoch.
    pub(crate) changes: Vec<StateChange>,
}

impl EpochContent {
    /// The tables that are committed to, each once.
    fn tables(&self) -> impl Iterator<Item = &TableName> {
        let has_rows = |table: &TableName| self.deltas.iter().any(|delta| delta.table == *table);
        let bare = self.evolved.iter().map(|schema| &schema.table);
        let with_rows = self.deltas.iter().map(|delta| &delta.table);
        with_rows.chain(bare.filter(move |table| !has_rows(table)))
    }
}

/// The committed state of the lake, and the one who moves it.
pub(crate) struct CommitState {
    pub(crate) lake: Lake,
    pub(crate) fence: Fence,
    pub(crate) manifest: Versioned<Manifest>,
    pub(crate) tables: BTreeMap<TableName, CommittedTable>,
    pub(crate) refs: RefSettings,
    /// Which snapshots stay when a table is committed to.
    pub(crate) kept: Kept,
    pub(crate) parallel_workers: usize,
}

impl CommitState {
    /// Commits an epoch. Nothing of it is lost by an error: call it again with the same arguments.
    pub(crate) async fn commit(
        &mut self,
        name: &BatchName,
        content: &EpochContent,
    ) -> Result<FlushReceipt, Error> {
        let mut watch = StopWatch::start();
        self.check_generation().await?;
        self.fence_tables(content.tables()).await?;
        let meters = self.lake.meters.clone();
        self.kept.refresh(&self.lake).await;
        meters.stage("fence", watch.lap());
        self.evolve_tables(name, content).await?;
        let this = &*self;
        let publishing: Vec<_> =
            content.deltas.iter().map(|delta| this.publish(name, delta).boxed()).collect();
        let published = self.side_by_side(publishing).await;
        self.keep(published)?;
        if self.manifest.value.batch_id != name.id.to_string() {
            let next = self.next_manifest(name, content);
            if failpoint("s13") {
                return Err(Error::StreamEnded);
            }
            self.swap_manifest(next).await?;
        }
        self.forget_excluded();
        meters.stage("commit", watch.lap());
        self.kept.note(&self.manifest.value);
        advance_refs(&self.lake, &self.manifest.value, self.refs).await;
        meters.stage("refs", watch.lap());
        Ok(self.receipt())
    }

    /// The written tables whose schema the manifest does not have yet.
    pub(crate) fn ahead_in_schema(&self) -> Vec<TableName> {
        let manifest = &self.manifest.value;
        let is_written =
            |table: &TableName| manifest.tables.get(table).is_some_and(TableEntry::is_written);
        let is_ahead = |(table, committed): &(&TableName, &CommittedTable)| {
            let version = manifest.schemas.get(*table).map(|schema| schema.version);
            is_written(table) && version.is_some_and(|version| version < committed.schema.version)
        };
        self.tables.iter().filter(is_ahead).map(|(table, _)| table.clone()).collect()
    }

    /// Tables that are not followed any more are not committed to.
    pub(crate) fn forget_excluded(&mut self) {
        let known = &self.manifest.value.tables;
        self.tables.retain(|table, _| known.get(table).is_some_and(TableEntry::is_active));
    }

    /// Raises the covered position without an epoch: nothing of ours was committed up to `lsn`.
    pub(crate) async fn cover(&mut self, lsn: Lsn) -> Result<FlushReceipt, Error> {
        if lsn > self.manifest.value.covered_lsn {
            let mut next = self.manifest.value.clone();
            let now = self.lake.clock.now();
            (next.covered_lsn, next.covered_at, next.updated_at) = (lsn, now, now);
            self.swap_manifest(next).await?;
        }
        Ok(self.receipt())
    }

    /// Notes which tables were found equal to their source. What is covered stays as it is.
    pub(crate) async fn record(
        &mut self,
        verified: &VerifiedRecord,
    ) -> Result<FlushReceipt, Error> {
        let mut next = self.manifest.value.clone();
        note_verified(&mut next, verified);
        next.updated_at = self.lake.clock.now();
        self.swap_manifest(next).await?;
        Ok(self.receipt())
    }

    /// Notes that the source goes on on another timeline, which holds everything that is held here.
    pub(crate) async fn set_timeline(&mut self, timeline: u32) -> Result<(), Error> {
        let mut next = self.manifest.value.clone();
        next.source.timeline = timeline;
        next.updated_at = self.lake.clock.now();
        self.swap_manifest(next).await
    }

    /// Runs work on several tables side by side, each to its end: what one did is not undone by
    /// the failure of another.
    pub(crate) async fn side_by_side<T>(
        &self,
        work: Vec<futures::future::BoxFuture<'_, Result<T, Error>>>,
    ) -> Vec<Result<T, Error>> {
        stream::iter(work).buffer_unordered(self.parallel_workers.max(1)).collect().await
    }

    /// Takes note of what was committed to tables; the first error of the others comes after that.
    pub(crate) fn keep(
        &mut self,
        published: Vec<Result<(TableName, TablePair), Error>>,
    ) -> Result<(), Error> {
        let mut failed = None;
        for outcome in published {
            match outcome {
                Ok((table, pair)) => {
                    if let Some(committed) = self.tables.get_mut(&table) {
                        committed.pair = pair;
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The proof of what is in the manifest.
    pub(crate) fn receipt(&self) -> FlushReceipt {
        let manifest = &self.manifest.value;
        FlushReceipt { covered_lsn: manifest.covered_lsn, epoch: manifest.epoch }
    }

    async fn publish(
        &self,
        name: &BatchName,
        output: &DeltaOutput,
    ) -> Result<(TableName, TablePair), Error> {
        let table = &output.table;
        let committed = self.tables.get(table).ok_or_else(|| Error::BadManifest {
            detail: format!("table {table} has changes but no entry"),
        })?;
        let stamp = self.stamp(name, output);
        let wrong = || Error::iceberg(table);
        let (current_files, changes_files) = self.data_files(&output.files).map_err(wrong())?;
        let covered = committed.pair.current.newest_lsn_to(self.lake.branch);
        let is_covered = covered.is_some_and(|covered| covered >= stamp.lsn_to);
        let current = if is_covered {
            committed.pair.current.clone()
        } else {
            let on = &committed.pair.current;
            let Encoded { delete_files, remove } =
                self.lake.encode_deletes(on, output).await.map_err(wrong())?;
            let change = TableChange {
                stamp: stamp.clone(),
                branch: self.lake.branch,
                data_files: current_files,
                delete_files,
                encoding: self.lake.deletes,
                remove,
                retention: self.kept.of_current(table, &self.manifest.value),
                schema: None,
            };
            let outcome = self.lake.tables.commit(on, &change).await;
            let current = self.settle(table, outcome).await?;
            self.count_expired(table, &committed.pair.current, &current);
            current
        };
        // the changelog follows the table, never leads it: recovery completes it from the table
        let change = TableChange {
            retention: self.kept.of_changes(table, &self.manifest.value),
            ..TableChange::append(stamp, self.lake.branch, changes_files)
        };
        let outcome =
            self.lake.tables.commit_unless_covered(&committed.pair.changes, &change).await;
        let changes = self.settle(table, outcome).await?;
        if failpoint("s12") {
            return Err(Error::OutcomeUnknown { table: table.clone() });
        }
        Ok((table.clone(), TablePair { current, changes }))
    }

    /// Counts the snapshots that a commit forgot.
    fn count_expired(
        &self,
        table: &TableName,
        before: &cdc_iceberg::Table,
        after: &cdc_iceberg::Table,
    ) {
        let Some(label) = self.lake.meters.of(table) else { return };
        let forgotten = before
            .metadata
            .snapshots()
            .filter(|snapshot| after.metadata.snapshot_by_id(snapshot.snapshot_id()).is_none());
        let expired = self.lake.meters.snapshots_expired.get_or_create(&label);
        expired.inc_by(forgotten.count() as u64);
    }

    /// Waits for certainty: an unknown outcome is read back before anything else happens.
    pub(crate) async fn settle(
        &self,
        table: &TableName,
        outcome: cdc_iceberg::Result<CommitOutcome>,
    ) -> Result<cdc_iceberg::Table, Error> {
        let mut outcome = outcome.map_err(Error::iceberg(table))?;
        loop {
            match outcome {
                CommitOutcome::Committed(committed) => return Ok(committed),
                CommitOutcome::NotCommitted(conflict) => {
                    let (found, ours) = (conflict.current, self.fence.generation);
                    return Err(match found.generation() {
                        Some(higher) if higher > ours => fenced(&self.lake, higher, ours).await,
                        _ => Error::ForeignCommit { table: table.clone(), found: Box::new(found) },
                    });
                }
                CommitOutcome::Unknown(unresolved) => {
                    let resolved = self.lake.tables.resolve(&unresolved).await;
                    outcome = resolved.map_err(Error::iceberg(table))?;
                    if matches!(outcome, CommitOutcome::Unknown(_)) {
                        return Err(Error::OutcomeUnknown { table: table.clone() });
                    }
                    self.lake.meters.resolved(matches!(outcome, CommitOutcome::Committed(_)));
                }
            }
        }
    }

    fn stamp(&self, name: &BatchName, output: &DeltaOutput) -> Stamp {
        let kind = if output.truncate { CommitKind::Truncate } else { CommitKind::Flush };
        self.stamp_of(name, kind)
    }

    /// The stamp of a commit that changes no row of an Iceberg table: it stands where the table stands.
    pub(crate) fn standing_stamp(&self, table: &Table, kind: CommitKind) -> Stamp {
        let branch = self.lake.branch;
        let before = table.head(branch).and_then(|snapshot| Stamp::of(snapshot));
        let covered = table.newest_lsn_to(branch).unwrap_or(Lsn::ZERO);
        Stamp {
            kind,
            epoch: before.as_ref().map_or(self.manifest.value.epoch, |stamp| stamp.epoch),
            lsn_from: covered,
            lsn_to: covered,
            commit_ts: before.and_then(|stamp| stamp.commit_ts),
            batch_id: Uuid::now_v7(),
            generation: self.fence.generation,
        }
    }

    pub(crate) fn stamp_of(&self, name: &BatchName, kind: CommitKind) -> Stamp {
        Stamp {
            kind,
            epoch: name.epoch,
            lsn_from: name.lsn_from,
            lsn_to: name.lsn_to,
            commit_ts: Some(name.commit_ts()),
            batch_id: name.id,
            generation: self.fence.generation,
        }
    }

    /// The manifest entries of the files, for `t` and for `t__changes`.
    fn data_files(
        &self,
        files: &[EncodedFile],
    ) -> cdc_iceberg::Result<(Vec<DataFile>, Vec<DataFile>)> {
        let describe = |file: &EncodedFile, schema| {
            let location = self.lake.store.location().uri(&file.key);
            data_file_from_parquet(&location, file.body.size(), &file.metadata, &schema)
        };
        // an epoch in which a table changed has files of several schemas
        let current = files.iter().map(|file| describe(file, current_schema(&file.schema)?));
        let changes = files.iter().map(|file| describe(file, changes_schema(&file.schema)?));
        Ok((current.collect::<Result<_, _>>()?, changes.collect::<Result<_, _>>()?))
    }

    fn next_manifest(&self, name: &BatchName, content: &EpochContent) -> Manifest {
        let mut next = self.manifest.value.clone();
        let (now, branch) = (self.lake.clock.now(), self.lake.branch);
        next.epoch = name.epoch;
        next.commit_lsn = name.lsn_to;
        next.commit_ts = name.commit_ts();
        next.covered_lsn = next.covered_lsn.max(name.lsn_to);
        next.covered_at = now;
        next.batch_id = name.id.to_string();
        next.updated_at = now;
        // not only the tables of this batch: after a crash some stand ahead of the manifest
        for (table, committed) in &self.tables {
            // what a copy left in a table that is not written is nobody's before it is taken over
            if !next.tables.get(table).is_some_and(TableEntry::is_written) {
                continue;
            }
            note_schema(&mut next, &committed.schema);
            let Some(entry) = next.tables.get_mut(table) else { continue };
            let metadata_location = Some(&committed.pair.current.metadata_location);
            let is_named = entry.metadata_location.as_ref() == metadata_location
                && entry.changes_snapshot_id == committed.pair.changes.head_id(branch);
            if is_named {
                continue;
            }
            let covered = committed.pair.current.newest_lsn_to(branch);
            // a compaction that a crash kept from the manifest brought no change, nor does a schema
            if covered > entry.lsn_to && !committed.shows_schema_only() {
                entry.latest_delta_epoch = name.epoch;
            }
            entry.lsn_to = covered;
            entry.row_count = committed.pair.current.live_rows(branch);
            point_at(entry, &committed.pair, branch);
        }
        for delta in &content.deltas {
            for column in next.mark_lossy(&delta.table, delta.lossy.keys()) {
                tracing::warn!(table = %delta.table, column, "values replaced as declared");
            }
        }
        for (table, filenode) in &content.filenodes {
            if let Some(entry) = next.tables.get_mut(table) {
                entry.source_filenode = *filenode;
            }
        }
        for handover in &content.handovers {
            if let Some(committed) = self.tables.get(&handover.table) {
                handover.record(&mut next, committed, name);
            }
        }
        quarantine::record(&mut next, &content.stops, &self.manifest.value);
        for change in &content.changes {
            change.record(&mut next, name.lsn_to, name.epoch);
        }
        next
    }
}

/// Enters the schema of a table where the manifest has another one.
pub(crate) fn note_schema(next: &mut Manifest, schema: &TableSchema) {
    let version = next.schemas.get(&schema.table).map(|known| known.version);
    if version.is_some_and(|version| version != schema.version) {
        next.set_schema(schema);
    }
}

/// Names the newest snapshots of a pair in a table's entry.
pub(crate) fn point_at(entry: &mut TableEntry, pair: &TablePair, branch: Branch) {
    entry.iceberg_table = Some(pair.current.ident.to_string());
    entry.metadata_location = Some(pair.current.metadata_location.clone());
    entry.snapshot_id = pair.current.head_id(branch);
    entry.delete_mode = Some(pair.current.delete_encoding().to_string());
    entry.changes_iceberg_table = Some(pair.changes.ident.to_string());
    entry.changes_metadata_location = Some(pair.changes.metadata_location.clone());
    entry.changes_snapshot_id = pair.changes.head_id(branch);
}

/// Writes a record into the entries of its tables; a newer one stays.
pub(crate) fn note_verified(manifest: &mut Manifest, verified: &VerifiedRecord) {
    for (table, entry) in &mut manifest.tables {
        let is_newer = entry.verified_through.is_none_or(|through| through < verified.lsn);
        if is_newer && verified.tables.contains(&table.to_string()) {
            entry.verified_through = Some(verified.lsn);
            entry.verified_at = Some(verified.at);
        }
    }
}
