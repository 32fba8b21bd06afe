//! The copy of one table beside the stream: its own snapshot, base files, the commit to the Iceberg
//! tables and the key index. Until the ingest loop takes it over no manifest names it.

use std::sync::Arc;

use cdc_core::{Epoch, Lsn, SourceTable, TableName, TableSchema};
use cdc_governance::decide;
use cdc_iceberg::TableIdent;
use cdc_manifest::{Manifest, layout};
use cdc_sink::DeltaWriter;
use cdc_wal::{
    Control, CopyJob, CopyPlanOptions, CopyTable, PublicationState, SlotSnapshot, SlotSpec, Source,
};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::copies::Line;
use super::{CopyEvent, Handover, Planned, form};
use crate::Error;
use crate::commit::CommittedTable;
use crate::copy::{Base, CopySettings, CopyTarget, InitProgress, RUN_BYTES_MAX, copy_tables};
use crate::lake::Lake;
use crate::open_lane::LaneOpener;
use crate::recover::iceberg_idents;
use crate::settings::{LakeSettings, ReplicationSettings};

/// Heap bytes of one COPY job, when there are several workers.
const COPY_JOB_BYTES: u64 = 256 * 1024 * 1024;

/// What the sessions of a copy sort at once, all together: this part of the byte budget.
const SORT_PART: usize = 8;
/// Lower bound of the bytes that one of them sorts at once.
const RUN_BYTES_MIN: usize = 1024 * 1024;

/// What copies need besides their orders.
pub(crate) struct CopyContext {
    pub(crate) source: Source,
    pub(crate) lake: Lake,
    pub(crate) settings: LakeSettings,
    pub(crate) replication: ReplicationSettings,
    pub(crate) opener: LaneOpener,
    pub(crate) lake_id: String,
    /// Iceberg namespace.
    pub(crate) namespace: String,
    pub(crate) generation: u64,
    pub(crate) workers: usize,
}

impl CopyContext {
    /// Bytes that one session of a copy sorts at once.
    fn run_bytes_max(&self) -> usize {
        let share = self.opener.buffer_bytes_max / SORT_PART / self.workers.max(1);
        share.clamp(RUN_BYTES_MIN, RUN_BYTES_MAX)
    }
}

/// A table to copy.
pub(super) struct CopyOrder {
    pub(super) table: TableName,
    /// What the lake has of it; `None` if it has nothing.
    pub(super) known: Option<Known>,
    /// The epoch that names the base directory.
    pub(super) epoch: Epoch,
}

/// A table that the lake has already, followed or not.
pub(super) struct Known {
    pub(super) schema: TableSchema,
    /// `pg_class.oid` of the table that the schema is of.
    pub(super) source_oid: Option<u32>,
    pub(super) current: TableIdent,
    pub(super) changes: TableIdent,
}

/// A copied table.
pub(crate) struct Copied {
    pub(crate) handover: Handover,
    /// The encode side of its lane.
    pub(crate) writer: DeltaWriter,
}

impl CopyOrder {
    /// The order for a table as the manifest has it.
    pub(super) fn of(table: &TableName, manifest: &Manifest) -> Result<CopyOrder, Error> {
        let schema = manifest.last_schema(table)?;
        let entry = manifest.tables.get(table).filter(|entry| entry.iceberg_table.is_some());
        let known = match (schema, entry) {
            (Some(schema), Some(entry)) => {
                let (current, changes) = iceberg_idents(table, entry)?;
                Some(Known { schema, source_oid: entry.source_oid, current, changes })
            }
            _ => None,
        };
        Ok(CopyOrder { table: table.clone(), known, epoch: manifest.epoch })
    }
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

/// Copies a table and commits the copy.
pub(super) async fn run(
    context: &CopyContext,
    order: CopyOrder,
    line: &Line,
) -> Result<Copied, Error> {
    let control = context.source.connect().await?;
    let found = find(context, &control, &order.table).await?;
    let publication = publish_source(context, &control, &found.source).await?;
    let known = match &order.known {
        Some(known) => Some(super::publish::load(context, &order.table, known).await?),
        None => None,
    };
    let schema = form::schema(
        &found.source,
        &context.replication,
        known.as_ref(),
        publication.publishes_generated,
    )?;
    let schema = Arc::new(schema);
    let received = defer(&found.source, &schema, line).await?;
    let mut spec = SlotSpec::new(format!("pgcdc_copy_{}", Uuid::new_v4().simple()));
    (spec.temporary, spec.tables) = (true, vec![found.source.oid]);
    let slot = context.source.create_slot(&spec).await?;
    let lsn = slot.consistent_point;
    if lsn <= received {
        // the stream comes from another server than the rows would
        return Err(Error::SnapshotBehind { table: order.table, lsn, received });
    }
    line.tell(CopyEvent::Begun(lsn)).await;
    // the snapshot's session has a lock on the table: what it is now, it stays until it is copied
    let again = find(context, &control, &order.table).await?;
    if !is_same(&again.source, &found.source) {
        let detail = "it changed while its copy began".to_owned();
        return Err(Error::SchemaChanged { table: order.table, detail });
    }
    let columns: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
    let options = CopyPlanOptions { workers: context.workers, target_bytes: COPY_JOB_BYTES };
    let wanted = [CopyTable { table: &found.source, columns: &columns }];
    let jobs = control.plan_copy(&wanted, options).await?;
    control.close().await;
    let base = Base { epoch: order.epoch, attempt: free_attempt(context, &order).await? };
    let copied = copy_rows(context, &schema, &slot, base, jobs).await?;
    if let Err(error) = slot.lease.release().await {
        tracing::warn!(error = cdc_core::chain(&error), "snapshot session ended early");
    }
    let published = super::publish::Copy {
        table: &order.table,
        epoch: order.epoch,
        lsn,
        schema: &schema,
        files: &copied.files,
    };
    let pair = published.commit(context, known).await?;
    let branch = context.lake.branch;
    let committed = CommittedTable { schema: Arc::clone(&schema), pair, branch, ahead: None };
    let (writer, _) = context.opener.open(&committed, &schema, order.epoch.next()).await?;
    let handover = Handover {
        base_path: layout::base_dir(&order.table, base.epoch, base.attempt),
        base_epoch: base.epoch,
        table: order.table,
        oid: found.source.oid,
        tags: found.tags,
        committed,
        lsn,
        lossy: copied.lossy.into_iter().collect(),
    };
    Ok(Copied { handover, writer })
}

/// All rows that the snapshot has, in base files.
async fn copy_rows(
    context: &CopyContext,
    schema: &Arc<TableSchema>,
    slot: &SlotSnapshot,
    base: Base,
    jobs: Vec<CopyJob>,
) -> Result<crate::copy::Copied, Error> {
    let settings = CopySettings {
        source: &context.source,
        snapshot: &slot.snapshot_name,
        store: &context.lake.store,
        workers: context.workers,
        run_bytes_max: context.run_bytes_max(),
        base,
        spill_dir: &crate::spool::directory(&context.settings.state_dir)?,
        policy: context.replication.types.policy.unrepresentable,
        compression: context.settings.compression,
        progress: &Unwatched,
        stop: CancellationToken::new(),
    };
    let table = &schema.table;
    let targets = [(table.clone(), CopyTarget::new(Arc::clone(schema)))].into();
    let mut copied = copy_tables(&settings, &targets, jobs).await?;
    Ok(copied.remove(table).unwrap_or_default())
}

/// Has the ingest loop defer the table's changes, and waits until it does; gives how far the stream had
/// been received by then. A slot that is made later begins behind every transaction that the loop had
/// taken, so each transaction of the table is in the snapshot or among the deferred ones.
async fn defer(source: &SourceTable, schema: &Arc<TableSchema>, line: &Line) -> Result<Lsn, Error> {
    let (go, deferred) = oneshot::channel();
    let planned = Planned { oid: source.oid, schema: Arc::clone(schema), go };
    line.tell(CopyEvent::Planned(planned)).await;
    deferred.await.map_err(|_| Error::StreamEnded)
}

/// A table as the source has it, with the tags that the configuration gives it.
struct Found {
    source: SourceTable,
    tags: Vec<String>,
}

async fn find(context: &CopyContext, control: &Control, table: &TableName) -> Result<Found, Error> {
    let discovered = control.discover(&context.replication.schemas).await?;
    let decisions = decide(&discovered, &context.replication.rules);
    let found = discovered.into_iter().zip(decisions).find(|(found, _)| found.name == *table);
    let refused = |reason: String, hint: &str| Error::TableRefused {
        table: table.clone(),
        reason,
        hint: hint.to_owned(),
    };
    let Some((source, decision)) = found else {
        let hint = "`pgcdc discover` lists the tables; see `source.postgres.schemas`";
        return Err(refused("it is not on the source".into(), hint));
    };
    match decision.excluded {
        None => Ok(Found { source, tags: decision.tags }),
        Some(reason) => {
            let hint = "`pgcdc discover` tells of all tables; what `tables` says is read at the start of the daemon";
            Err(refused(reason, hint))
        }
    }
}

/// Whether two looks found the same table, its size aside.
fn is_same(one: &SourceTable, other: &SourceTable) -> bool {
    one.oid == other.oid
        && one.columns == other.columns
        && one.primary_key == other.primary_key
        && one.replica_identity == other.replica_identity
}

/// Sees to it that the publication has the table, as a whole.
async fn publish_source(
    context: &CopyContext,
    control: &Control,
    source: &SourceTable,
) -> Result<PublicationState, Error> {
    let name = &context.replication.publication;
    let refused = |reason: String, hint: String| Error::TableRefused {
        table: source.name.clone(),
        reason,
        hint,
    };
    let Some(state) = control.publication(name).await? else {
        let hint = "make it again, or run `pgcdc teardown` and `pgcdc init`".to_owned();
        return Err(refused(format!("there is no publication {name}"), hint));
    };
    if state.partial.contains(&source.name) {
        let hint = "publish it without row filter and column list".to_owned();
        return Err(refused(format!("publication {name} has only a part of it"), hint));
    }
    let wanted = cdc_wal::compare(&state, std::slice::from_ref(source));
    if wanted.via_root_off || !wanted.missing_actions.is_empty() {
        let reason = format!("publication {name} does not send all of it");
        return Err(refused(reason, wanted.remedy(name)));
    }
    if wanted.missing.is_empty() {
        return Ok(state);
    }
    control.add_to_publication(name, source).await.map_err(|failed| Error::NotPublished {
        table: source.name.clone(),
        publication: name.clone(),
        source: Box::new(failed),
    })?;
    tracing::info!(table = %source.name, publication = name, "table published");
    Ok(state)
}

/// The first attempt at a base of this epoch whose directory is empty: objects never change under
/// a name, and an earlier copy may have died.
async fn free_attempt(context: &CopyContext, order: &CopyOrder) -> Result<u32, Error> {
    let store = context.lake.store.store();
    let mut attempt = 0;
    loop {
        let directory = layout::base_dir(&order.table, order.epoch, attempt);
        let prefix = ObjectPath::from(directory.trim_end_matches('/'));
        let location = || context.lake.store.location().uri(&directory);
        match store.list(Some(&prefix)).try_next().await {
            Ok(Some(_)) => attempt += 1,
            Ok(None) => return Ok(attempt),
            Err(source) => return Err(Error::Objects { location: location(), source }),
        }
    }
}
