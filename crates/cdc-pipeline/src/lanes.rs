//! The lanes: for each table that has changes, a change buffer on the ingest side and a delta writer
//! on the encode side, with at most one encode job at a time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cdc_core::{ChangePosition, Epoch, Lsn, PgType, PgTypeKind, RowChange, TableName, TableSchema};
use cdc_iceberg::Branch;
use cdc_sink::index::IndexStamp;
use cdc_sink::{ChangeBuffer, Chunk, DeltaWriter, index_identity};
use cdc_wal::{Relation, RelationColumn};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Error;
use crate::commit::{CommitState, CommittedTable};
use crate::flush::Part;
use crate::open_lane::LaneOpener;

/// All lanes of a session, found by the relation's OID.
pub(crate) struct Lanes {
    opener: LaneOpener,
    tables: BTreeMap<TableName, CommittedTable>,
    by_oid: HashMap<u32, usize>,
    lanes: Vec<Lane>,
    /// Relations in the publication that the manifest does not follow.
    ignored: HashSet<u32>,
    epoch: Epoch,
}

/// One table.
pub(crate) struct Lane {
    table: TableName,
    buffer: ChangeBuffer,
    writer: Writer,
    /// First free part number of the epoch, where a crash left files of it; 0 from then on.
    first_part: u32,
    /// The epoch was closed and is not committed yet: the writer takes no rows.
    is_closed: bool,
    /// Chunks of the next epoch that wait for that.
    waiting: Vec<Chunk>,
    /// Transactions that committed below are in the table already.
    covered: Lsn,
    /// Whether something came since the last flush.
    has_changes: bool,
}

/// The delta writer, or the job that has it.
enum Writer {
    Idle(Box<DeltaWriter>),
    Busy(JoinHandle<Result<Box<DeltaWriter>, Error>>),
    /// An error took it; the session is over.
    Lost,
}

impl Lanes {
    /// No lane yet: they open as relations are described.
    pub(crate) fn new(opener: LaneOpener, state: &CommitState) -> Lanes {
        Lanes {
            opener,
            tables: state.tables.clone(),
            by_oid: HashMap::new(),
            lanes: Vec::new(),
            ignored: HashSet::new(),
            epoch: state.manifest.value.epoch.next(),
        }
    }

    /// The lane of a relation, or `None` if it is not followed.
    pub(crate) fn of(&mut self, oid: u32) -> Option<&mut Lane> {
        self.by_oid.get(&oid).map(|index| &mut self.lanes[*index])
    }

    /// Takes a relation's description: opens its lane, or checks that the table is still the one
    /// the lake has.
    pub(crate) async fn describe(&mut self, relation: &Relation) -> Result<(), Error> {
        let table = TableName::new(&relation.schema, &relation.name);
        let Some(committed) = self.tables.get(&table) else {
            if self.ignored.insert(relation.oid) {
                tracing::warn!(%table, "table is in the publication but not followed");
            }
            return Ok(());
        };
        check_columns(&committed.schema, relation)?;
        if self.by_oid.contains_key(&relation.oid) {
            return Ok(());
        }
        if self.lanes.iter().any(|lane| lane.table == table) {
            return Err(Error::SchemaChanged {
                table,
                detail: "it was dropped and created again".into(),
            });
        }
        let (writer, first_part) = self.opener.open(&table, committed, self.epoch).await?;
        let covered = committed.pair.current.newest_lsn_to(Branch::Main).unwrap_or(Lsn::ZERO);
        let policy = self.opener.unrepresentable();
        self.by_oid.insert(relation.oid, self.lanes.len());
        self.lanes.push(Lane {
            buffer: ChangeBuffer::new(Arc::clone(&committed.schema), policy),
            table,
            writer: Writer::Idle(Box::new(writer)),
            first_part,
            is_closed: false,
            waiting: Vec::new(),
            covered,
            has_changes: false,
        });
        Ok(())
    }

    /// Ends the open transaction in all lanes.
    pub(crate) fn commit(&mut self, end_lsn: Lsn) {
        for lane in &mut self.lanes {
            lane.buffer.commit(end_lsn);
        }
    }

    /// Closes the epoch of all lanes with changes; each part arrives when its encoder is done.
    pub(crate) async fn close_epoch(&mut self, next: Epoch) -> Result<Vec<Part>, Error> {
        let mut parts = Vec::new();
        for lane in self.lanes.iter_mut().filter(|lane| lane.has_changes) {
            parts.push(lane.close_epoch(self.epoch).await?);
        }
        self.epoch = next;
        Ok(parts)
    }

    /// After a flush that changed `tables`: tells their indexes for which snapshot they are right
    /// now, and lets the lanes that waited for the commit go on with the next epoch.
    pub(crate) async fn reopen(
        &mut self,
        state: &CommitState,
        tables: &[TableName],
    ) -> Result<(), Error> {
        let lake_id = &state.manifest.value.lake_id;
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_closed) {
            let committed = state.tables.get(&lane.table);
            let committed = committed.filter(|_| tables.contains(&lane.table));
            let stamp = committed.map(|committed| index_stamp(lake_id, committed));
            let (epoch, waiting) = (self.epoch, std::mem::take(&mut lane.waiting));
            lane.is_closed = false;
            lane.start(move |writer| {
                if let Some(stamp) = stamp {
                    writer.committed(stamp)?;
                }
                waiting.into_iter().try_for_each(|chunk| append(writer, chunk, epoch, 0))
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until no encode job is at work.
    pub(crate) async fn settle(&mut self) {
        for lane in &mut self.lanes {
            if let Writer::Busy(job) = std::mem::replace(&mut lane.writer, Writer::Lost) {
                // the session is over; its error is known
                let _ = job.await;
            }
        }
    }

    /// The error of a lane whose encoding failed, if one did.
    pub(crate) async fn failure(&mut self) -> Result<(), Error> {
        for lane in &mut self.lanes {
            let writer = lane.take_writer().await?;
            lane.writer = Writer::Idle(writer);
        }
        Ok(())
    }
}

impl Lane {
    pub(crate) fn table(&self) -> &TableName {
        &self.table
    }

    /// Whether the table already has a transaction, by the LSN of its commit record.
    pub(crate) fn covers(&self, final_lsn: Lsn) -> bool {
        final_lsn < self.covered
    }

    /// How many sequence numbers a change would use.
    pub(crate) fn sequence_numbers(&self, change: &RowChange<'_>) -> u64 {
        self.buffer.sequence_numbers(change)
    }

    /// Adds a change and gives how many sequence numbers it used.
    pub(crate) fn push(
        &mut self,
        change: &RowChange<'_>,
        at: &ChangePosition,
        epoch: Epoch,
    ) -> Result<u64, Error> {
        self.has_changes = true;
        Ok(self.buffer.push(change, at, epoch)?)
    }

    /// Whether it is time to seal a chunk.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.is_full()
    }

    /// Hands the gathered rows to the encoder; waits while it is still busy with the last ones.
    /// While the epoch before waits for its commit, so do the rows.
    pub(crate) async fn seal(&mut self, epoch: Epoch) -> Result<(), Error> {
        let chunk = self.buffer.take_chunk()?;
        if self.is_closed {
            self.waiting.push(chunk);
            return Ok(());
        }
        let first_part = self.first_part;
        self.start(move |writer| append(writer, chunk, epoch, first_part)).await
    }

    async fn close_epoch(&mut self, epoch: Epoch) -> Result<Part, Error> {
        self.has_changes = false;
        self.is_closed = true;
        let chunk = if self.buffer.is_empty() { None } else { Some(self.buffer.take_chunk()?) };
        let first_part = std::mem::take(&mut self.first_part);
        let (sender, output) = oneshot::channel();
        self.start(move |writer| {
            if let Some(chunk) = chunk {
                append(writer, chunk, epoch, first_part)?;
            }
            // a receiver that is gone belongs to a session that is over
            let _ = sender.send(writer.finish_epoch()?);
            Ok(())
        })
        .await?;
        Ok(Part { table: self.table.clone(), output })
    }

    /// Starts work on the writer once it is free.
    async fn start(
        &mut self,
        work: impl FnOnce(&mut DeltaWriter) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let mut writer = self.take_writer().await?;
        self.writer = Writer::Busy(tokio::task::spawn_blocking(move || {
            work(&mut writer)?;
            Ok(writer)
        }));
        Ok(())
    }

    async fn take_writer(&mut self) -> Result<Box<DeltaWriter>, Error> {
        match std::mem::replace(&mut self.writer, Writer::Lost) {
            Writer::Idle(writer) => Ok(writer),
            Writer::Busy(job) => {
                job.await.map_err(|source| Error::Worker { task: "encode", source })?
            }
            Writer::Lost => Err(Error::NotEncoded { table: self.table.clone() }),
        }
    }
}

/// Gives a chunk to the writer; the first of an epoch begins it.
fn append(
    writer: &mut DeltaWriter,
    chunk: Chunk,
    epoch: Epoch,
    first_part: u32,
) -> Result<(), Error> {
    if !writer.is_epoch_open() {
        writer.begin_epoch(epoch, first_part)?;
    }
    Ok(writer.append(chunk)?)
}

/// The stamp of an index that is right for a committed table.
pub(crate) fn index_stamp(lake_id: &str, committed: &CommittedTable) -> IndexStamp {
    let current = &committed.pair.current;
    let stamp = current.head(Branch::Main).and_then(|snapshot| cdc_iceberg::Stamp::of(snapshot));
    IndexStamp {
        lake_id: lake_id.to_owned(),
        identity: index_identity(&committed.schema),
        snapshot_id: current.head_id(Branch::Main),
        lsn_to: current.newest_lsn_to(Branch::Main).unwrap_or(Lsn::ZERO),
        epoch: stamp.map_or(Epoch(0), |stamp| stamp.epoch),
    }
}

/// The relation must have exactly the columns of the schema: anything else is a change of the table
/// that the lake does not follow yet, and no row of it is taken.
fn check_columns(schema: &TableSchema, relation: &Relation) -> Result<(), Error> {
    let changed =
        |detail: String| Err(Error::SchemaChanged { table: schema.table.clone(), detail });
    for (index, found) in relation.columns.iter().enumerate() {
        let Some(known) = schema.columns.get(index) else {
            return changed(format!("column {} is new", found.name));
        };
        if known.name != found.name {
            return changed(format!("column {} is now {}", known.name, found.name));
        }
        if !same_type(&known.pg_type, found) {
            return changed(format!("column {} is no longer {}", known.name, known.pg_type.name));
        }
    }
    match schema.columns.get(relation.columns.len()) {
        Some(missing) => changed(format!("column {} is gone", missing.name)),
        None => Ok(()),
    }
}

/// A domain's own modifier is never sent, so only its OID can be compared.
fn same_type(known: &PgType, found: &RelationColumn) -> bool {
    let is_domain = matches!(known.kind, PgTypeKind::Domain(_));
    let typmod = match &known.kind {
        PgTypeKind::Array(element) => element.typmod,
        _ => known.typmod,
    };
    known.oid == found.type_oid && (is_domain || typmod == found.typmod)
}
