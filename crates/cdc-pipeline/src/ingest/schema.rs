//! The ingest loop's part in schema evolution: decides at a table's first row of a new shape, or at a
//! position for which the catalog was read, what the table becomes, and makes the cut where one is
//! needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Lsn, TableName, TableSchema};
use cdc_wal::{Relation, TableShape};
use tokio::time::Instant;

use super::flushing::{RunningFlush, Then};
use super::{Flushed, Ingest, workshop};
use crate::Error;
use crate::evolve::{Evolution, Fill, Found, Next, OlderRows, SchemaCatalog, TableAt, WatchEnds};
use crate::fill::{Filling, fill};

/// What the loop needs to follow changes of tables.
pub(crate) struct Schemas {
    catalog: Box<dyn SchemaCatalog>,
    watch: Option<WatchEnds>,
    /// Tables that the catalog has otherwise, until the stream reaches where it was read.
    found: BTreeMap<TableName, Found>,
    /// Everything that was committed below has come.
    reached: Lsn,
}

impl Schemas {
    /// Questions go to this catalog.
    pub(crate) fn new(catalog: Box<dyn SchemaCatalog>) -> Schemas {
        Schemas { catalog, watch: None, found: BTreeMap::new(), reached: Lsn::ZERO }
    }

    /// Findings of a regular look come from there.
    pub(crate) fn watching(mut self, watch: WatchEnds) -> Schemas {
        self.watch = Some(watch);
        self
    }

    /// The next finding; pending for ever without a look. Cancel safe.
    pub(super) async fn next_found(&mut self) -> Found {
        if let Some(watch) = &mut self.watch
            && let Some(found) = watch.found.recv().await
        {
            return found;
        }
        std::future::pending().await
    }

    /// Has the catalog looked at now.
    pub(super) fn look(&self) {
        if let Some(watch) = &self.watch {
            watch.look.notify_one();
        }
    }

    /// Keeps a finding until the stream is there. One that waits already is not put off by a newer
    /// one; the next look brings that again.
    pub(super) fn keep(&mut self, found: Found) {
        let (table, at, reached) = (&found.table, found.at, self.reached);
        tracing::debug!(%table, %at, %reached, "table found otherwise in the catalog");
        self.found.entry(found.table.clone()).or_insert(found);
    }

    /// Everything that was committed below `lsn` has come.
    pub(super) fn reach(&mut self, lsn: Lsn) {
        self.reached = self.reached.max(lsn);
    }

    /// Everything that was committed below has come.
    pub(super) fn reached(&self) -> Lsn {
        self.reached
    }

    fn take_reached(&mut self) -> Option<Found> {
        let reached = self.reached;
        let table = self.found.values().find(|found| found.at <= reached)?.table.clone();
        self.found.remove(&table)
    }
}

/// A schema that a table gets, or why it cannot be followed.
type Decision = Result<Option<Next>, String>;

impl Ingest<'_> {
    /// Decides what a relation is: the first row behind its description that the lake lacks has come.
    /// The row is not taken yet.
    pub(super) async fn settle(&mut self, oid: u32, xid: u32, now: Instant) -> Result<(), Error> {
        let Some((table, relation)) = self.lanes.unsettled(oid) else { return Ok(()) };
        match self.described(&table, &relation, xid).await? {
            Err(reason) => self.stop_changed(&table, reason, now),
            Ok(next) => {
                let has_changed = next.is_some();
                if !self.follow_schema(&table, next, now).await? {
                    return Ok(());
                }
                if let Err(error) = self.lanes.settled(oid).await {
                    return self.stop_for(&table, error, now);
                }
                self.tell_known();
                if has_changed {
                    // what of the change is not in the message is in the catalog
                    self.schemas.look();
                }
                Ok(())
            }
        }
    }

    async fn described(
        &mut self,
        table: &TableName,
        relation: &Relation,
        xid: u32,
    ) -> Result<Decision, Error> {
        if let Some(reason) = self.lanes.refusal(table, relation) {
            return Ok(Err(reason));
        }
        let Some((schema, ahead)) = self.lanes.schemas(table) else { return Ok(Ok(None)) };
        // first: what is asked behind it has the transaction too
        let Some(shape) = self.schemas.catalog.shape_behind(relation.oid, xid).await? else {
            if self.lanes.is_as_known(table, relation) {
                // its last rows
                return Ok(Ok(None));
            }
            return Ok(Err("it was changed and then dropped on the source".into()));
        };
        if self.lanes.is_as_known(table, relation) && has_all(&shape, &schema) {
            return Ok(Ok(None));
        }
        let publishes_generated = self.schemas.catalog.publishes_generated().await?;
        let types = self.schemas.catalog.types(&relation.columns).await?;
        let at = TableAt::described(&schema, relation, &types, &shape, publishes_generated);
        let at = match at {
            Ok(at) => at,
            Err(reason) => return Ok(Err(reason)),
        };
        let older = self.lanes.older_rows(table, &shape);
        let evolution = Evolution { types: &self.settings.replication.types, publishes_generated };
        let decision = evolution.next(&schema, &at, &shape, older, ahead.as_deref());
        if older != OlderRows::Untouched && matches!(decision, Ok(Some(_))) {
            // the catalog may be ahead, and what it has now hide a rewrite that is still to come
            self.lanes.set_filenode(table, None);
        }
        Ok(decision)
    }

    /// Takes in what the catalog has had at positions that the stream has reached by now. No
    /// transaction is open.
    pub(super) async fn apply_found(&mut self) -> Result<(), Error> {
        while let Some(found) = self.schemas.take_reached() {
            let now = Instant::now();
            let table = &found.table;
            let Some((schema, ahead)) = self.lanes.schemas(table) else { continue };
            let decision = self.exactly(&schema, ahead.as_deref(), &found);
            match decision {
                Err(reason) => self.stop_changed(table, reason, now)?,
                Ok(next) => {
                    if self.follow_schema(table, next, now).await? {
                        self.lanes.set_filenode(table, Some(found.shape.filenode));
                    }
                }
            }
            self.tell_known();
        }
        Ok(())
    }

    fn exactly(
        &self,
        schema: &TableSchema,
        ahead: Option<&TableSchema>,
        found: &Found,
    ) -> Decision {
        let name = &found.shape.table.name;
        if *name != schema.table {
            return Err(format!("it is now named {name} on the source"));
        }
        let evolution = Evolution {
            types: &self.settings.replication.types,
            publishes_generated: found.publishes_generated,
        };
        let older = self.lanes.older_rows(&found.table, &found.shape);
        evolution.next(schema, &TableAt::exactly(&found.shape), &found.shape, older, ahead)
    }

    /// Changes of the table have this schema from here on. `false` if the table had to stop.
    async fn follow_schema(
        &mut self,
        table: &TableName,
        next: Option<Next>,
        now: Instant,
    ) -> Result<bool, Error> {
        let Some(Next { schema, fills }) = next else { return Ok(true) };
        let changes_identity = self.lanes.needs_reindex(table, &schema);
        if changes_identity || !fills.is_empty() {
            if !self.make_room(table).await? {
                let reason = match fills.first() {
                    Some(fill) => added_too_late(&schema, fill),
                    None => "its row identity changed inside a transaction that had changed its rows before".into(),
                };
                self.stop_changed(table, reason, now)?;
                return Ok(false);
            }
            if self.lanes.schemas(table).is_none() {
                // what was flushed has stopped it
                return Ok(false);
            }
        }
        let mut schema = Arc::new(schema);
        if !fills.is_empty() {
            let policy = self.settings.replication.types.policy.unrepresentable;
            match Filling::of((*schema).clone(), &fills, policy) {
                Err(error) => return self.stop_for(table, error, now).map(|()| false),
                Ok(filling) => {
                    schema = Arc::clone(&filling.schema);
                    self.fill(Filling { keeps_index: !changes_identity, ..filling }).await?;
                }
            }
        }
        let followed = match changes_identity {
            true => self.lanes.reindex(table, schema).await,
            false => self.lanes.evolve(table, schema).await,
        };
        if let Err(error) = followed {
            self.stop_for(table, error, now)?;
            return Ok(false);
        }
        self.batch.change_schema(now);
        Ok(true)
    }

    /// Sees to it that the table has no row that is not committed: those before the open transaction
    /// are flushed. `false` if the open transaction has rows of it already, which cannot be parted
    /// from those to come.
    async fn make_room(&mut self, table: &TableName) -> Result<bool, Error> {
        self.await_flush().await?;
        if !self.lanes.has_open_rows(table) {
            return Ok(true);
        }
        if self.lanes.is_in_transaction(table) || self.must_catch_up() {
            return Ok(false);
        }
        if let Some(transaction) = self.transaction.as_ref().filter(|open| open.seq > 0) {
            // it has rows of other tables, which are in the batch already: the next session cuts first
            let final_lsn = transaction.final_lsn;
            return Err(Error::CutNeeded { table: table.clone(), final_lsn });
        }
        self.start_flush(None).await?;
        self.await_flush().await?;
        Ok(!self.lanes.has_open_rows(table))
    }

    /// Has the older rows of a table written anew, and waits for that. Nothing of it is open, and no
    /// flush runs.
    async fn fill(&mut self, mut filling: Filling) -> Result<(), Error> {
        let table = filling.schema.table.clone();
        if self.compactor.give_up(&table).await {
            filling.attempts_skipped = 1;
        }
        filling.hasher = self.lanes.hasher(&table);
        let Some(mut state) = self.state.take() else { return Err(Error::StreamEnded) };
        // an index tells rows apart by what was committed, which may lag behind the lane
        filling.keeps_index &= state
            .tables
            .get(&table)
            .is_some_and(|committed| !self.lanes.needs_reindex(&table, &committed.schema));
        let (workshop, stop) = (workshop(self.settings), self.stop.clone());
        let job = tokio::spawn(async move {
            let outcome = fill(&mut state, &workshop, filling, &stop).await;
            Flushed { state, outcome }
        });
        self.flush = Some(RunningFlush { job, token: None, then: Then::Nobody });
        self.await_flush().await
    }

    /// Ends the epoch before a transaction for which that was asked.
    pub(super) async fn end_epoch_before(&mut self, final_lsn: Lsn) -> Result<(), Error> {
        if self.cut_before.is_none_or(|cut| final_lsn < cut) {
            return Ok(());
        }
        self.cut_before = None;
        self.await_flush().await?;
        if self.batch.is_empty() || self.must_catch_up() {
            return Ok(());
        }
        self.start_flush(None).await?;
        self.await_flush().await
    }

    fn stop_changed(
        &mut self,
        table: &TableName,
        detail: String,
        now: Instant,
    ) -> Result<(), Error> {
        self.stop_for(table, Error::SchemaChanged { table: table.clone(), detail }, now)
    }

    /// Stops a table for an error that is about it alone; every other error comes back.
    fn stop_for(&mut self, table: &TableName, error: Error, now: Instant) -> Result<(), Error> {
        let lost = self.lanes.stop(table, error, self.batch.lsn_from)?;
        self.batch.stop_table(lost, now);
        self.tell_known();
        Ok(())
    }

    /// Tells the regular look what is known now.
    pub(super) fn tell_known(&self) {
        if let Some(watch) = &self.schemas.watch {
            watch.known.send_replace(self.lanes.known());
        }
    }
}

/// Whether no column of the schema has been dropped: none ever was then, for a number that is dropped
/// does not come back.
fn has_all(shape: &TableShape, schema: &TableSchema) -> bool {
    schema
        .columns
        .iter()
        .all(|column| shape.attribute(column.attnum).is_some_and(|attribute| !attribute.dropped))
}

/// Why a column with a constant cannot be followed.
fn added_too_late(schema: &TableSchema, fill: &Fill) -> String {
    let column = schema.columns.iter().find(|column| column.field_id == fill.column);
    let name = column.map_or("", |column| column.name.as_str());
    format!(
        "column {name} was added with a value for older rows inside a transaction that had changed rows of the table before"
    )
}
