//! The ingest loop's part in schema evolution: decides at a table's first row of a new shape, or at a
//! position for which the catalog was read, what the table becomes, and makes the cut where one is
//! needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Lsn, TableName, TableSchema};
use cdc_wal::{Relation, TableShape};
use tokio::time::Instant;

use super::Ingest;
use crate::Error;
use crate::evolve::{Evolution, Found, Next, OlderRows, SchemaCatalog, TableAt, WatchEnds};

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
        if let Some(fill) = fills.first() {
            let column = schema.columns.iter().find(|column| column.field_id == fill.column);
            let name = column.map_or("", |column| column.name.as_str());
            let reason = format!("column {name} was added with a value for older rows");
            self.stop_changed(table, reason, now)?;
            return Ok(false);
        }
        if self.lanes.needs_reindex(table, &schema) {
            if !self.make_room_for_reindex(table).await? {
                let reason = "its row identity changed inside a transaction that had changed other rows before";
                self.stop_changed(table, reason.into(), now)?;
                return Ok(false);
            }
            if let Err(error) = self.lanes.reindex(table, Arc::new(schema)).await {
                self.stop_for(table, error, now)?;
                return Ok(false);
            }
        } else if let Err(error) = self.lanes.evolve(table, Arc::new(schema)).await {
            self.stop_for(table, error, now)?;
            return Ok(false);
        }
        self.batch.change_schema(now);
        Ok(true)
    }

    /// Sees to it that the table has no row that is not committed: those before the open transaction
    /// are flushed. `false` if the open transaction has rows already that cannot be parted from them.
    async fn make_room_for_reindex(&mut self, table: &TableName) -> Result<bool, Error> {
        self.await_flush().await?;
        if !self.lanes.has_open_rows(table) {
            return Ok(true);
        }
        let is_begun = self.transaction.as_ref().is_some_and(|transaction| transaction.seq > 0);
        if is_begun || self.must_catch_up() {
            return Ok(false);
        }
        self.start_flush(None).await?;
        self.await_flush().await?;
        Ok(!self.lanes.has_open_rows(table))
    }

    /// Waits for the flush that runs, if one does.
    pub(super) async fn await_flush(&mut self) -> Result<(), Error> {
        if self.flush.is_some() {
            let flushed = super::joined(&mut self.flush).await?;
            self.flushed(flushed).await?;
        }
        Ok(())
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
