//! From durable files to a committed state: what a daemon starts from after any end of the last one.
//!
//! A crash between the Iceberg commits and the manifest leaves tables that stand ahead of it. They
//! are taken as they are; the stream replays from the manifest, each table leaves out what it covers,
//! and the first new cut is not below the furthest of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Lsn, TableName, TableSchema};
use cdc_iceberg::{
    Branch, CommitOutcome, DataFile, Stamp, TableChange, TablePair, ancestry, live_files,
};
use cdc_manifest::{Manifest, TableEntry, Versioned};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Error;
use crate::commit::{CommitState, CommittedTable};
use crate::lake::Lake;
use crate::settings::RefSettings;

/// Tables loaded at once.
const LOADS_MAX: usize = 8;

/// Loads the tables that a manifest follows, as the catalog has them now.
pub(crate) async fn committed_state(
    lake: Lake,
    manifest: Versioned<Manifest>,
    refs: RefSettings,
    parallel_workers: usize,
) -> Result<CommitState, Error> {
    let loads: Vec<(TableName, TableEntry, TableSchema)> = manifest
        .value
        .active_tables()
        .map(|(table, entry)| {
            let schema = manifest.value.table_schema(table)?;
            Ok((table.clone(), entry.clone(), schema))
        })
        .collect::<Result<_, Error>>()?;
    let this = &lake;
    let tables: BTreeMap<TableName, CommittedTable> = stream::iter(loads)
        .map(|(table, entry, schema)| async move {
            let pair = load_pair(this, &table, &entry).await?;
            let pair = complete_changelog(this, &table, pair).await?;
            Ok::<_, Error>((table, CommittedTable { schema: Arc::new(schema), pair }))
        })
        .buffer_unordered(LOADS_MAX)
        .try_collect()
        .await?;
    Ok(CommitState { lake, manifest, tables, refs, parallel_workers })
}

/// The furthest position that some table reached beyond the manifest.
pub(crate) fn furthest_beyond(state: &CommitState) -> Option<Lsn> {
    let reached =
        state.tables.values().filter_map(|table| table.pair.current.newest_lsn_to(Branch::Main));
    reached.max().filter(|furthest| *furthest > state.manifest.value.commit_lsn)
}

async fn load_pair(lake: &Lake, table: &TableName, entry: &TableEntry) -> Result<TablePair, Error> {
    let ident = |name: &Option<String>| {
        let (namespace, name) = name.as_deref()?.split_once('.')?;
        Some(cdc_iceberg::TableIdent::new(namespace, name))
    };
    let idents = ident(&entry.iceberg_table).zip(ident(&entry.changes_iceberg_table));
    let (current, changes) = idents.ok_or_else(|| Error::BadManifest {
        detail: format!("table {table} has no iceberg_table"),
    })?;
    Ok(TablePair {
        current: lake.tables.load(&current).await.map_err(Error::iceberg(table))?,
        changes: lake.tables.load(&changes).await.map_err(Error::iceberg(table))?,
    })
}

/// Appends to the changelog the delta files of those commits of the table that it lacks: a crash
/// came between the two.
async fn complete_changelog(
    lake: &Lake,
    table: &TableName,
    mut pair: TablePair,
) -> Result<TablePair, Error> {
    let wrong = || Error::iceberg(table);
    let reached = pair.changes.newest_lsn_to(Branch::Main).unwrap_or(Lsn::ZERO);
    let metadata = &pair.current.metadata;
    let missing: Vec<_> = ancestry(metadata, pair.current.head_id(Branch::Main))
        .filter_map(|snapshot| Some((snapshot, Stamp::of(snapshot)?)))
        .take_while(|(_, stamp)| stamp.lsn_to > reached)
        .collect();
    for (snapshot, stamp) in missing.into_iter().rev() {
        let files = lake.tables.files();
        let live = live_files(files, metadata, snapshot.snapshot_id()).await.map_err(wrong())?;
        // the files that this commit added have its sequence number
        let files: Vec<DataFile> = live
            .data_files
            .into_iter()
            .filter(|file| file.sequence_number == snapshot.sequence_number())
            .map(|file| file.file)
            .collect();
        tracing::info!(%table, epoch = stamp.epoch.0, files = files.len(), "changelog completed");
        let change = TableChange::append(stamp, Branch::Main, files);
        match lake.tables.commit(&pair.changes, &change).await.map_err(wrong())? {
            CommitOutcome::Committed(changes) => pair.changes = changes,
            CommitOutcome::NotCommitted(_) => {
                return Err(Error::ForeignCommit { table: table.clone() });
            }
            CommitOutcome::Unknown(_) => {
                return Err(Error::OutcomeUnknown { table: table.clone() });
            }
        }
    }
    Ok(pair)
}
