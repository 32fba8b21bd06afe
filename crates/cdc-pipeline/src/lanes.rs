//! The lanes: for each table that has changes, a change buffer on the ingest side and a delta writer
//! on the encode side, with at most one encode job at a time. A table that an error stops loses its
//! lane; the others do not notice.

mod adopt;
mod schema;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use cdc_core::{ChangePosition, Epoch, Lsn, RowChange, TableName, TableSchema};
use cdc_manifest::TableEntry;
use cdc_sink::index::{IdentityHasher, IndexStamp};
use cdc_sink::{ChangeBuffer, Chunk, DeltaWriter, index_identity};
use cdc_wal::Relation;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use self::adopt::Adopted;
use self::schema::Unsettled;
use crate::Error;
use crate::commit::{CommitState, CommittedTable};
use crate::compact::Moved;
use crate::flush::Part;
use crate::open_lane::LaneOpener;
use crate::quarantine::Stop;
use crate::settings::OnError;

/// A lane that holds less is not worth a row group of its own.
const SHRINK_BYTES_MIN: usize = 1024 * 1024;

/// All lanes of a session, found by the relation's OID.
pub(crate) struct Lanes {
    opener: LaneOpener,
    on_error: OnError,
    tables: BTreeMap<TableName, FollowedTable>,
    by_oid: HashMap<u32, usize>,
    lanes: Vec<Lane>,
    /// Relations of tables that are not written, each with a buffer that stays empty: their changes
    /// count in a transaction as they did before.
    unwritten: HashMap<u32, ChangeBuffer>,
    /// Relations in the publication that the manifest does not follow.
    ignored: HashSet<u32>,
    /// The newest description of each relation: the server gives it once, and a table may be followed
    /// only later.
    described: HashMap<u32, Relation>,
    /// Relations whose next row decides what became of their table.
    unsettled: HashMap<u32, Unsettled>,
    /// Tables that stopped since the last epoch was closed.
    stops: Vec<Stop>,
    /// Encode jobs of dropped lanes; how they end is of no interest.
    dropped: Vec<EncodeJob>,
    /// The table whose rows move at present: no epoch of it may begin.
    held: Option<TableName>,
    epoch: Epoch,
}

/// A table of the manifest.
struct FollowedTable {
    committed: CommittedTable,
    /// Of the changes that come now; ahead of what is committed until the next flush.
    schema: Arc<TableSchema>,
    /// At the start of the session the table had everything below.
    covered: Lsn,
    /// What the source's files were when rows and schema last fitted, and what the manifest says.
    filenode: Option<u64>,
    recorded_filenode: Option<u64>,
    /// `pg_class.oid`, once known.
    oid: Option<u32>,
    is_written: bool,
}

/// One table.
pub(crate) struct Lane {
    table: TableName,
    oid: u32,
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
    /// Changes since the last flush.
    changes: u64,
    /// Those of them that the open transaction made.
    open_changes: u64,
    /// Bytes that the writer held when it was last free.
    writer_bytes: usize,
    /// The hasher of its key index.
    hasher: IdentityHasher,
}

type EncodeJob = JoinHandle<Result<Box<DeltaWriter>, Error>>;

/// The delta writer, or the job that has it.
enum Writer {
    Idle(Box<DeltaWriter>),
    Busy(EncodeJob),
    /// An error took it; the session is over.
    Lost,
}

impl Lanes {
    /// No lane yet: they open as relations are described.
    pub(crate) fn new(opener: LaneOpener, on_error: OnError, state: &CommitState) -> Lanes {
        let manifest = &state.manifest.value;
        let follow = |(table, committed): (&TableName, &CommittedTable)| {
            let entry = manifest.tables.get(table);
            let filenode = entry.and_then(|entry| entry.source_filenode);
            let followed = FollowedTable {
                committed: committed.clone(),
                schema: Arc::clone(&committed.schema),
                covered: committed.covered(),
                filenode,
                recorded_filenode: filenode,
                oid: entry.and_then(|entry| entry.source_oid),
                is_written: entry.is_some_and(TableEntry::is_written),
            };
            (table.clone(), followed)
        };
        Lanes {
            opener,
            on_error,
            tables: state.tables.iter().map(follow).collect(),
            by_oid: HashMap::new(),
            lanes: Vec::new(),
            unwritten: HashMap::new(),
            ignored: HashSet::new(),
            described: HashMap::new(),
            unsettled: HashMap::new(),
            stops: Vec::new(),
            dropped: Vec::new(),
            held: None,
            epoch: manifest.epoch.next(),
        }
    }

    /// The lane of a relation, or `None` if it is not written.
    pub(crate) fn of(&mut self, oid: u32) -> Option<&mut Lane> {
        if !self.unsettled.is_empty() && self.unsettled.contains_key(&oid) {
            return None;
        }
        self.by_oid.get(&oid).map(|index| &mut self.lanes[*index])
    }

    /// The followed table that a relation is: by its OID, which survives a rename, else by name. A
    /// table that stopped under an older name may have the OID too.
    fn owner(&self, relation: &Relation) -> Option<TableName> {
        let has_oid = self.tables.iter().filter(|(_, table)| table.oid == Some(relation.oid));
        match has_oid.max_by_key(|(_, table)| table.is_written) {
            Some((table, _)) => Some(table.clone()),
            None => Some(relation.table()).filter(|table| self.tables.contains_key(table)),
        }
    }

    async fn open(&mut self, table: TableName, oid: u32) -> Result<(), Error> {
        let Some(followed) = self.tables.get(&table) else { return Ok(()) };
        let FollowedTable { committed, schema, .. } = followed;
        let (writer, first_part) = self.opener.open(committed, schema, self.epoch).await?;
        let policy = self.opener.unrepresentable();
        self.by_oid.insert(oid, self.lanes.len());
        self.lanes.push(Lane {
            buffer: ChangeBuffer::new(Arc::clone(schema), policy),
            covered: followed.covered,
            is_closed: self.held.as_ref() == Some(&table),
            hasher: writer.index().hasher(),
            table,
            oid,
            writer: Writer::Idle(Box::new(writer)),
            first_part,
            waiting: Vec::new(),
            changes: 0,
            open_changes: 0,
            writer_bytes: 0,
        });
        Ok(())
    }

    /// Stops a table for an error that is about it alone, and gives the changes since `cut` that are
    /// lost by that. Every other error comes back.
    pub(crate) fn stop(&mut self, table: &TableName, error: Error, cut: Lsn) -> Result<u64, Error> {
        let known = self.tables.get(table).map(|followed| followed.committed.covered());
        let lsn_from = known.map_or(cut, |covered| covered.max(cut));
        let stop = Stop::of(table, error, lsn_from, self.on_error)?;
        self.stops.push(stop);
        Ok(self.drop_lane(table))
    }

    /// The tables that stopped since the last call.
    pub(crate) fn take_stops(&mut self) -> Vec<Stop> {
        std::mem::take(&mut self.stops)
    }

    /// Ends the open transaction in all lanes.
    pub(crate) fn commit(&mut self, end_lsn: Lsn) {
        for lane in &mut self.lanes {
            lane.buffer.commit(end_lsn);
            lane.open_changes = 0;
        }
    }

    /// Closes the epoch of all lanes with changes behind `cut`; each part arrives when its encoder
    /// is done.
    pub(crate) async fn close_epoch(&mut self, next: Epoch, cut: Lsn) -> Result<Vec<Part>, Error> {
        let (mut parts, mut failed) = (Vec::new(), Vec::new());
        for lane in self.lanes.iter_mut().filter(|lane| lane.changes > 0) {
            match lane.close_epoch(self.epoch).await {
                Ok(part) => parts.push(part),
                Err(error) => failed.push((lane.table.clone(), error)),
            }
        }
        for (table, error) in failed {
            self.stop(&table, error, cut)?;
        }
        self.epoch = next;
        Ok(parts)
    }

    /// The hasher of a table's key index, where that is open.
    pub(crate) fn hasher(&self, table: &TableName) -> Option<IdentityHasher> {
        let lane = self.lanes.iter().find(|lane| lane.table == *table);
        match lane {
            Some(lane) => Some(lane.hasher),
            None => self.opener.hasher(table),
        }
    }

    /// Lets no epoch of a table begin until [`Lanes::reopen`]: its rows move. False, with nothing
    /// changed, if one has begun that is not closed, or if the next epoch tells rows apart otherwise.
    pub(crate) fn hold(&mut self, table: &TableName) -> bool {
        let committed =
            self.tables.get(table).map(|followed| Arc::clone(&followed.committed.schema));
        if committed.is_some_and(|committed| self.needs_reindex(table, &committed)) {
            return false;
        }
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.table == *table) {
            if lane.changes > 0 && !lane.is_closed {
                return false;
            }
            lane.is_closed = true;
        }
        self.held = Some(table.clone());
        true
    }

    /// After a flush that changed `tables`, and a compaction that moved rows: tells the indexes for
    /// which snapshot they are right now, and lets the lanes that waited for the commit go on with
    /// the next epoch.
    pub(crate) async fn reopen(
        &mut self,
        state: &CommitState,
        tables: &[TableName],
        moved: Option<Moved>,
    ) -> Result<(), Error> {
        self.held = None;
        if let Some(moved) = moved {
            self.follow_moved(state, tables, moved).await?;
        }
        self.note_committed(state);
        let lake_id = &state.manifest.value.lake_id;
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_closed) {
            let committed = state.tables.get(&lane.table);
            let committed = committed.filter(|_| tables.contains(&lane.table));
            let stamp =
                committed.map(|committed| index_stamp(lake_id, committed, &committed.schema));
            lane.go_on(self.epoch, move |writer| match stamp {
                Some(stamp) => Ok(writer.committed(stamp)?),
                None => Ok(()),
            })
            .await?;
        }
        Ok(())
    }

    /// Tells the index of a table where its rows went; one that cannot be told is rebuilt.
    async fn follow_moved(
        &mut self,
        state: &CommitState,
        tables: &[TableName],
        moved: Moved,
    ) -> Result<(), Error> {
        let lake_id = &state.manifest.value.lake_id;
        let Some(committed) = state.tables.get(&moved.table) else { return Ok(()) };
        let stamp = index_stamp(lake_id, committed, &committed.schema);
        let Some(followed) = self.tables.get_mut(&moved.table) else { return Ok(()) };
        let before = index_stamp(lake_id, &followed.committed, &followed.committed.schema);
        followed.committed = committed.clone();
        let schema = Arc::clone(&followed.schema);
        let has_flushed = tables.contains(&moved.table);
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.table == moved.table) else {
            return self.opener.repoint(before, stamp, moved).await;
        };
        let Moved { patch, removed, .. } = moved;
        match patch.filter(|patch| patch.hasher() == lane.hasher) {
            Some(patch) => {
                lane.go_on(self.epoch, move |writer| {
                    writer.repoint(patch, removed)?;
                    let told =
                        if has_flushed { writer.committed(stamp) } else { writer.restamp(stamp) };
                    Ok(told?)
                })
                .await
            }
            None => {
                // the old index must be closed before the new one is made in its place
                drop(lane.take_writer().await?);
                let (writer, first_part) = self.opener.open(committed, &schema, self.epoch).await?;
                lane.hasher = writer.index().hasher();
                lane.first_part = first_part;
                lane.writer = Writer::Idle(Box::new(writer));
                lane.go_on(self.epoch, |_| Ok(())).await
            }
        }
    }

    /// While buffers and writers hold more than `bytes_max`, has the biggest of them give up what it
    /// can. Lanes that wait for a commit cannot; intake stops before they grow far.
    pub(crate) async fn shrink_to(&mut self, bytes_max: usize) -> Result<(), Error> {
        let epoch = self.epoch;
        let mut held: usize = self.lanes.iter().map(Lane::memory_bytes).sum();
        while held > bytes_max {
            let open = self.lanes.iter_mut().filter(|lane| !lane.is_closed);
            let biggest = open.max_by_key(|lane| lane.memory_bytes());
            let Some(lane) = biggest.filter(|lane| lane.memory_bytes() >= SHRINK_BYTES_MIN) else {
                break;
            };
            held -= lane.memory_bytes();
            lane.shrink(epoch).await?;
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
        for job in self.dropped.drain(..) {
            let _ = job.await;
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
        let numbers = self.buffer.push(change, at, epoch)?;
        self.changes += 1;
        self.open_changes += 1;
        Ok(numbers)
    }

    /// Whether it is time to seal a chunk.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.is_full()
    }

    /// Hands the gathered rows to the encoder; waits while it is still busy with the last ones.
    /// While the epoch before waits for its commit, so do the rows.
    pub(crate) async fn seal(&mut self, epoch: Epoch) -> Result<(), Error> {
        let chunk = self.buffer.take_chunk()?;
        self.hand_over(chunk, epoch).await
    }

    async fn hand_over(&mut self, chunk: Chunk, epoch: Epoch) -> Result<(), Error> {
        if self.is_closed {
            self.waiting.push(chunk);
            return Ok(());
        }
        let first_part = self.first_part;
        self.start(move |writer| append(writer, chunk, epoch, first_part)).await
    }

    /// After a commit, of which `then` tells the writer: the chunks that waited are encoded.
    async fn go_on(
        &mut self,
        epoch: Epoch,
        then: impl FnOnce(&mut DeltaWriter) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        self.is_closed = false;
        let waiting = std::mem::take(&mut self.waiting);
        let first_part = self.first_part;
        self.start(move |writer| {
            then(writer)?;
            waiting.into_iter().try_for_each(|chunk| append(writer, chunk, epoch, first_part))
        })
        .await
    }

    /// Bytes of the rows gathered and of what the writer holds.
    fn memory_bytes(&self) -> usize {
        self.buffer.byte_len() + self.writer_bytes
    }

    async fn shrink(&mut self, epoch: Epoch) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.seal(epoch).await?;
        }
        self.start(|writer| Ok(writer.shrink()?)).await?;
        self.writer_bytes = 0;
        Ok(())
    }

    async fn close_epoch(&mut self, epoch: Epoch) -> Result<Part, Error> {
        self.changes = 0;
        self.is_closed = true;
        let chunk = if self.buffer.is_empty() { None } else { Some(self.buffer.take_chunk()?) };
        let first_part = std::mem::take(&mut self.first_part);
        let (sender, output) = oneshot::channel();
        self.start(move |writer| {
            let appended = chunk.map_or(Ok(()), |chunk| append(writer, chunk, epoch, first_part));
            let finished = appended.and_then(|()| Ok(writer.finish_epoch()?));
            // a receiver that is gone belongs to a session that is over
            let _ = sender.send(finished);
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
                let done = job.await.map_err(|source| Error::Worker { task: "encode", source })?;
                let writer = done?;
                self.writer_bytes = writer.memory_bytes();
                Ok(writer)
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

/// The stamp of an index that is right for a committed table under a schema.
pub(crate) fn index_stamp(
    lake_id: &str,
    committed: &CommittedTable,
    schema: &TableSchema,
) -> IndexStamp {
    let current = &committed.pair.current;
    let stamp =
        current.head(committed.branch).and_then(|snapshot| cdc_iceberg::Stamp::of(snapshot));
    IndexStamp {
        lake_id: lake_id.to_owned(),
        identity: index_identity(schema),
        snapshot_id: committed.head_id(),
        lsn_to: committed.covered(),
        epoch: stamp.map_or(Epoch(0), |stamp| stamp.epoch),
    }
}
