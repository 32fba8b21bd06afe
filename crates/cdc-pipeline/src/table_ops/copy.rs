//! The copy of one table beside the stream: its own snapshot, base files, the commit to the Iceberg
//! tables and the key index.

use std::sync::Arc;

use cdc_core::{Epoch, Lsn, SourceTable, TableName, TableSchema};
use cdc_governance::decide;
use cdc_iceberg::{
    CommitKind, CommitOutcome, DataFile, InitialContent, Stamp, TableChange, TablePair, TableSpec,
    current_schema, data_file_from_parquet,
};
use cdc_manifest::layout;
use cdc_sink::DeltaWriter;
use cdc_wal::{CopyPlanOptions, CopyTable, SlotSpec, Source};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{CopyEvent, Handover};
use crate::Error;
use crate::commit::CommittedTable;
use crate::copy::{BaseFile, Base, CopySettings, CopyTarget, InitProgress, copy_tables};
use crate::lake::Lake;
use crate::open_lane::LaneOpener;
use crate::plan::first_schema;
use crate::settings::{LakeSettings, ReplicationSettings};

/// Heap bytes of one COPY job, when there are several workers.
const COPY_JOB_BYTES: u64 = 256 * 1024 * 1024;

/// What copies need besides their orders.
pub(crate) struct CopyContext {
    pub(crate) source: Source,
    pub(crate) lake: Lake,
    pub(crate) settings: LakeSettings,
    pub(crate) replication: ReplicationSettings,
    pub(crate) opener: LaneOpener,
    pub(crate) lake_id: String,
    pub(crate) namespace: String,
    pub(crate) generation: u64,
    pub(crate) parallel_workers: usize,
}

/// Why a table is copied.
#[derive(Clone)]
pub(crate) enum CopyKind {
    /// It was never followed.
    Add,
    /// Its Iceberg tables exist; their rows are replaced.
    Resync(CommittedTable),
}

/// A table to copy.
pub(crate) struct CopyOrder {
    pub(crate) table: TableName,
    pub(crate) kind: CopyKind,
    /// The epoch that names the base directory.
    pub(crate) epoch: Epoch,
}

/// A copied table.
pub(crate) struct Copied {
    pub(crate) handover: Handover,
    /// The encode side of its lane.
    pub(crate) writer: DeltaWriter,
}

/// Nobody watches a copy of the daemon; what it did is in the log.
struct Unwatched;

impl InitProgress for Unwatched {
    fn planned(&self, _tables: &[(TableName, i64)]) {}
    fn rows(&self, _table: &TableName, _rows: u64) {}
    fn done(&self, table: &TableName, rows: u64) {
        tracing::info!(%table, rows, "table copied");
    }
}

/// Copies a table and commits the copy. Until the ingest loop takes it over, no manifest names it.
pub(super) async fn run(
    context: &CopyContext,
    order: CopyOrder,
    events: &mpsc::Sender<CopyEvent>,
) -> Result<Copied, Error> {
    let control = context.source.connect().await?;
    let (source, tags) = find(context, &control, &order.table).await?;
    let publication = control.publication(&context.replication.publication).await?;
    let publishes_generated = publication.is_some_and(|found| found.publishes_generated);
    let schema = Arc::new(schema(context, &source, &order.kind, publishes_generated)?);
    defer(&order.table, &source, &schema, events).await?;
    let mut spec = SlotSpec::new(format!("pgcdc_copy_{}", Uuid::new_v4().simple()));
    (spec.temporary, spec.tables) = (true, vec![source.oid]);
    let slot = context.source.create_slot(&spec).await?;
    // the snapshot holds a lock on the table: what it is now, it stays until the rows are read
    let (again, _) = find(context, &control, &order.table).await?;
    if again.columns != source.columns {
        return Err(Error::SchemaChanged {
            table: order.table,
            detail: "it changed while its copy began".into(),
        });
    }
    let columns: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
    let options =
        CopyPlanOptions { workers: context.parallel_workers, target_bytes: COPY_JOB_BYTES };
    let wanted = [CopyTable { table: &source, columns: &columns }];
    let jobs = control.plan_copy(&wanted, options).await?;
    control.close().await;
    let base = Base { epoch: order.epoch, attempt: free_attempt(context, &order).await? };
    let spill_dir = context.settings.state_dir.join("tmp");
    crate::lake::create_state_dir(&spill_dir)?;
    let settings = CopySettings {
        source: &context.source,
        snapshot: &slot.snapshot_name,
        store: &context.lake.store,
        workers: context.parallel_workers,
        base,
        spill_dir: &spill_dir,
        policy: context.replication.types.policy.unrepresentable,
        compression: context.settings.compression,
        progress: &Unwatched,
        stop: CancellationToken::new(),
    };
    let targets = [(order.table.clone(), CopyTarget::new(Arc::clone(&schema)))].into();
    let mut copied = copy_tables(&settings, &targets, jobs).await?;
    let copied = copied.remove(&order.table).unwrap_or_default();
    slot.lease.release().await?;
    let lsn = slot.consistent_point;
    let pair = publish(context, &order, &schema, &copied.files, lsn).await?;
    let committed = CommittedTable { schema, pair, branch: context.lake.branch };
    let (writer, _) = context.opener.open(&order.table, &committed, order.epoch).await?;
    Ok(Copied {
        handover: Handover {
            base_path: layout::base_dir(&order.table, base.epoch, base.attempt),
            table: order.table,
            oid: source.oid,
            tags,
            committed,
            lsn,
            lossy: copied.lossy.into_iter().collect(),
        },
        writer,
    })
}

/// Has the ingest loop defer the table's changes, and waits until it does: every transaction that
/// the snapshot to come does not see is then among them.
async fn defer(
    table: &TableName,
    source: &SourceTable,
    schema: &Arc<TableSchema>,
    events: &mpsc::Sender<CopyEvent>,
) -> Result<(), Error> {
    let (go, deferred) = oneshot::channel();
    let (table, schema) = (table.clone(), Arc::clone(schema));
    let planned = CopyEvent::Planned { table, oid: source.oid, schema, go };
    events.send(planned).await.map_err(|_| Error::Interrupted)?;
    deferred.await.map_err(|_| Error::Interrupted)
}

/// The table as the source has it, with the tags that the configuration gives it.
async fn find(
    context: &CopyContext,
    control: &cdc_wal::Control,
    table: &TableName,
) -> Result<(SourceTable, Vec<String>), Error> {
    let discovered = control.discover(&context.replication.schemas).await?;
    let decisions = decide(&discovered, &context.replication.rules);
    let found = discovered.into_iter().zip(decisions).find(|(found, _)| found.name == *table);
    let (source, decision) =
        found.ok_or_else(|| Error::UnknownTable { table: table.to_string() })?;
    match decision.excluded {
        None => Ok((source, decision.tags)),
        Some(reason) => Err(Error::TableRefused {
            table: table.clone(),
            reason,
            hint: "change `tables` in the configuration and start the daemon again".into(),
        }),
    }
}

/// The schema of the copy. Columns that the lake knows keep their field ids.
fn schema(
    context: &CopyContext,
    source: &SourceTable,
    kind: &CopyKind,
    publishes_generated: bool,
) -> Result<TableSchema, Error> {
    let fresh = first_schema(source, &context.replication, publishes_generated)?;
    let CopyKind::Resync(known) = kind else { return Ok(fresh) };
    let shape = |schema: &TableSchema| -> Vec<_> {
        let columns = schema.columns.iter();
        columns.map(|c| (c.name.clone(), c.attnum, c.stored.clone())).collect()
    };
    if shape(&fresh) == shape(&known.schema) && fresh.identity == known.schema.identity {
        return Ok((*known.schema).clone());
    }
    Err(Error::SchemaChanged {
        table: source.name.clone(),
        detail: "its columns or its key are not those of the lake any more".into(),
    })
}

/// The first attempt at a base of this epoch whose directory is empty: objects never change under
/// a name, and an earlier copy may have died.
async fn free_attempt(context: &CopyContext, order: &CopyOrder) -> Result<u32, Error> {
    let store = context.lake.store.store();
    let mut attempt = 0;
    loop {
        let directory = layout::base_dir(&order.table, order.epoch, attempt);
        let prefix = ObjectPath::from(directory.trim_end_matches('/'));
        let first = store.list(Some(&prefix)).try_next().await;
        let location = || context.lake.store.location().uri(&directory);
        match first.map_err(|source| Error::Objects { location: location(), source })? {
            Some(_) => attempt += 1,
            None => return Ok(attempt),
        }
    }
}

/// Commits the base files: as new tables, or in the place of all rows of the old ones.
async fn publish(
    context: &CopyContext,
    order: &CopyOrder,
    schema: &TableSchema,
    files: &[BaseFile],
    lsn: Lsn,
) -> Result<TablePair, Error> {
    let wrong = || Error::iceberg(&order.table);
    let columns = current_schema(schema).map_err(wrong())?;
    let describe = |file: &BaseFile| {
        let location = context.lake.store.location().uri(&file.key);
        data_file_from_parquet(&location, file.size, &file.metadata, &columns)
    };
    let base_files: Vec<DataFile> =
        files.iter().map(describe).collect::<Result<_, _>>().map_err(wrong())?;
    let stamp = |kind| Stamp {
        kind,
        epoch: order.epoch,
        lsn_from: Lsn::ZERO,
        lsn_to: lsn,
        commit_ts: Some(context.lake.clock.now()),
        batch_id: Uuid::now_v7(),
        generation: context.generation,
    };
    let (tables, branch) = (&context.lake.tables, context.lake.branch);
    let CopyKind::Resync(known) = &order.kind else {
        let spec = TableSpec {
            schema,
            namespace: &context.namespace,
            naming: context.settings.naming,
            lake_id: &context.lake_id,
            codec: crate::init::codec(context.settings.compression),
            generation: context.generation,
        };
        let content = InitialContent { stamp: stamp(CommitKind::Add), branch, base_files };
        return tables.create_tables(&spec, &content).await.map_err(wrong());
    };
    // as the catalog has them now: an earlier copy may have committed and died
    let stamp = stamp(CommitKind::Resync);
    let current = tables.load(&known.pair.current.ident).await.map_err(wrong())?;
    let raised = tables.raise_generation(&current, context.generation).await;
    let current = settled(&order.table, raised)?;
    let rows = TableChange::replace_all(stamp.clone(), branch, base_files);
    let current = settled(&order.table, tables.commit(&current, &rows).await)?;
    let changes = tables.load(&known.pair.changes.ident).await.map_err(wrong())?;
    let raised = tables.raise_generation(&changes, context.generation).await;
    let changes = settled(&order.table, raised)?;
    let nothing = TableChange::append(stamp, branch, Vec::new());
    let changes = settled(&order.table, tables.commit(&changes, &nothing).await)?;
    Ok(TablePair { current, changes })
}

fn settled(
    table: &TableName,
    outcome: cdc_iceberg::Result<CommitOutcome>,
) -> Result<cdc_iceberg::Table, Error> {
    match outcome.map_err(Error::iceberg(table))? {
        CommitOutcome::Committed(committed) => Ok(committed),
        CommitOutcome::NotCommitted(_) => Err(Error::TableMoved { table: table.clone() }),
        CommitOutcome::Unknown(_) => Err(Error::OutcomeUnknown { table: table.clone() }),
    }
}
