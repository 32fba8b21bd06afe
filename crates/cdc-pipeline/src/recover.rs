//! From durable files to a committed state: what a daemon starts from after any end of the last one.
//!
//! A crash between the Iceberg commits and the manifest leaves tables that stand ahead of it. They
//! are taken as they are; the stream replays from the manifest, each table leaves out what it covers,
//! and the first new cut is not below the furthest of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Lsn, TableName, TableSchema};
use cdc_iceberg::{
    Branch, CommitKind, CommitOutcome, DataFile, Stamp, TableChange, TableIdent, TablePair,
    ancestry, live_files,
};
use cdc_manifest::{Manifest, TableEntry, Versioned, parse_schema_record};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Error;
use crate::commit::{CommitState, CommittedTable};
use crate::fence::Fence;
use crate::lake::Lake;
use crate::settings::RefSettings;
use crate::upkeep::Kept;

/// Tables loaded at once.
const LOADS_MAX: usize = 8;

/// A cut that the first epoch of a session must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CatchUp {
    /// The furthest position that some table has.
    pub(crate) lsn: Lsn,
    /// When the transaction there was committed, microseconds since 1970.
    pub(crate) commit_micros: i64,
}

/// Loads the tables that a manifest follows, as the catalog has them now. Writes nothing.
pub(crate) async fn committed_state(
    lake: Lake,
    fence: Fence,
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
            this.check_encoding(&table, &pair.current)?;
            let committed = with_schema(&table, &entry, schema, pair, this.branch)?;
            Ok::<_, Error>((table, committed))
        })
        .buffer_unordered(LOADS_MAX)
        .try_collect()
        .await?;
    let kept = Kept::newest(refs.snapshots_kept);
    Ok(CommitState { lake, fence, manifest, tables, refs, kept, parallel_workers })
}

/// The table under the schema that its rows end with. One that a crash left ahead of the manifest may
/// have a later schema than that; without rows under it, it is kept for the ids that it gave. A schema
/// for which all rows were written anew came with those.
fn with_schema(
    table: &TableName,
    entry: &TableEntry,
    schema: TableSchema,
    pair: TablePair,
    branch: Branch,
) -> Result<CommittedTable, Error> {
    let parse = |text: &str| parse_schema_record(table, text);
    let filled = pair.current.filled_record().map(parse).transpose()?;
    let schema = filled.filter(|filled| filled.version > schema.version).unwrap_or(schema);
    let record = pair.current.schema_record().map(parse).transpose()?;
    let later = record.filter(|later| later.version > schema.version);
    let has_more = pair.current.newest_lsn_to(branch) > entry.lsn_to;
    let (schema, ahead) = match later {
        Some(later) if has_more => (later, None),
        later => (schema, later.map(Arc::new)),
    };
    Ok(CommittedTable { schema: Arc::new(schema), pair, branch, ahead })
}

/// The furthest position that some table reached beyond the manifest, on whichever branch: what
/// waits on `staging` is held too, also where it is about to become `main`.
pub(crate) fn furthest_beyond(state: &CommitState) -> Option<CatchUp> {
    let branches = [Branch::Main, Branch::Staging];
    let heads = state.tables.values().flat_map(|table| branches.map(|branch| (table, branch)));
    let reached = heads.filter_map(|(table, branch)| {
        let current = &table.pair.current;
        let lsn = current.newest_lsn_to(branch)?;
        let at = ancestry(&current.metadata, current.head_id(branch))
            .filter_map(|snapshot| Stamp::of(snapshot))
            .take_while(|stamp| stamp.lsn_to == lsn)
            .find_map(|stamp| stamp.commit_ts);
        Some(CatchUp { lsn, commit_micros: at.map_or(0, |at| at.timestamp_micros()) })
    });
    let furthest = reached.max_by_key(|reached| reached.lsn)?;
    (furthest.lsn > state.manifest.value.commit_lsn).then_some(furthest)
}

/// Completes each changelog that a crash left behind its table.
pub(crate) async fn complete_changelogs(state: &mut CommitState) -> Result<(), Error> {
    let (lake, branch) = (&state.lake, state.lake.branch);
    let pairs =
        state.tables.iter().map(|(table, committed)| (table.clone(), committed.pair.clone()));
    let completing: Vec<_> = pairs
        .filter(|(_, pair)| pair.changes.newest_lsn_to(branch) < pair.current.newest_lsn_to(branch))
        .collect();
    let completed: Vec<(TableName, TablePair)> = stream::iter(completing)
        .map(|(table, pair)| async move {
            let pair = complete_changelog(lake, &table, pair).await?;
            Ok::<_, Error>((table, pair))
        })
        .buffer_unordered(LOADS_MAX)
        .try_collect()
        .await?;
    for (table, pair) in completed {
        if let Some(committed) = state.tables.get_mut(&table) {
            committed.pair = pair;
        }
    }
    Ok(())
}

/// Gives each changelog the schema of its table where a crash came between the two.
pub(crate) async fn complete_fills(state: &mut CommitState) -> Result<(), Error> {
    for table in state.ahead_in_schema() {
        let Some(schema) = state.tables.get(&table).map(|table| Arc::clone(&table.schema)) else {
            continue;
        };
        let changes = state.evolve_changelog(&schema).await?;
        tracing::info!(%table, version = schema.version, "older rows are filled already");
        if let Some(committed) = state.tables.get_mut(&table) {
            committed.pair.changes = changes;
        }
    }
    Ok(())
}

/// The names of a table's two Iceberg tables.
pub(crate) fn iceberg_idents(
    table: &TableName,
    entry: &TableEntry,
) -> Result<(TableIdent, TableIdent), Error> {
    let ident = |name: &Option<String>| TableIdent::parse(name.as_deref()?);
    let idents = ident(&entry.iceberg_table).zip(ident(&entry.changes_iceberg_table));
    idents
        .ok_or_else(|| Error::BadManifest { detail: format!("table {table} has no iceberg_table") })
}

async fn load_pair(lake: &Lake, table: &TableName, entry: &TableEntry) -> Result<TablePair, Error> {
    let (current, changes) = iceberg_idents(table, entry)?;
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
    let reached = pair.changes.newest_lsn_to(lake.branch).unwrap_or(Lsn::ZERO);
    let metadata = &pair.current.metadata;
    let missing: Vec<_> = ancestry(metadata, pair.current.head_id(lake.branch))
        .filter_map(|snapshot| Some((snapshot, Stamp::of(snapshot)?)))
        .take_while(|(_, stamp)| stamp.lsn_to > reached)
        // a rewrite adds files with rows that are in the changelog already
        .filter(|(_, stamp)| !matches!(stamp.kind, CommitKind::Compact | CommitKind::Fill))
        .collect();
    for (snapshot, stamp) in missing.into_iter().rev() {
        let files = lake.tables.files();
        let live = live_files(files, metadata, snapshot.snapshot_id()).await.map_err(wrong())?;
        // the files that this commit added have its sequence number; the rows of a copy are no changes
        let is_copy = matches!(stamp.kind, CommitKind::Add | CommitKind::Resync);
        let files: Vec<DataFile> = live
            .data_files
            .into_iter()
            .filter(|file| !is_copy && file.sequence_number == snapshot.sequence_number())
            .map(|file| file.file)
            .collect();
        tracing::info!(%table, epoch = stamp.epoch.0, files = files.len(), "changelog completed");
        let change = TableChange::append(stamp, lake.branch, files);
        match lake.tables.commit(&pair.changes, &change).await.map_err(wrong())? {
            CommitOutcome::Committed(changes) => pair.changes = changes,
            CommitOutcome::NotCommitted(_) => {
                return Err(Error::TableMoved { table: table.clone() });
            }
            CommitOutcome::Unknown(_) => {
                return Err(Error::OutcomeUnknown { table: table.clone() });
            }
        }
    }
    Ok(pair)
}
