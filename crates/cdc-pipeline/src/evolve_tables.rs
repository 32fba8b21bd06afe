//! The schemas of an epoch, on their way into the Iceberg tables: before the first file that needs them.
//! A table without rows in the epoch gets a snapshot of its own, because some readers take the columns
//! from the newest snapshot.

use std::sync::Arc;

use cdc_core::{TableName, TableSchema, failpoint};
use cdc_iceberg::{CommitKind, CommitOutcome, Stamp, Table, TableChange, TablePair};
use cdc_manifest::schema_record;
use futures::FutureExt;

use crate::Error;
use crate::commit::{BatchName, CommitState, EpochContent};

/// Times that an earlier try of the same commit is taken as the base of the next.
const TRIES_MAX: u32 = 3;

/// Which of the two tables.
#[derive(Clone, Copy)]
enum Side {
    Current,
    Changes,
}

impl CommitState {
    /// Gives each table of the epoch the schema that it has at its end. May be repeated.
    pub(crate) async fn evolve_tables(
        &mut self,
        name: &BatchName,
        content: &EpochContent,
    ) -> Result<(), Error> {
        let this = &*self;
        let mut schemas = content.evolved.clone();
        // a try of this epoch before a crash came further than this one, whose rows all end under the
        // schema that is committed
        let is_evolved = |table: &TableName| content.evolved.iter().any(|s| s.table == *table);
        let returning = content.deltas.iter().filter_map(|delta| this.tables.get(&delta.table));
        let returning = returning.filter(|committed| committed.ahead.is_some());
        schemas.extend(
            returning
                .map(|committed| Arc::clone(&committed.schema))
                .filter(|schema| !is_evolved(&schema.table)),
        );
        let evolving: Vec<_> = schemas
            .into_iter()
            .map(|schema| {
                let is_alone = content.deltas.iter().all(|delta| delta.table != schema.table);
                this.evolve_table(name, schema, is_alone).boxed()
            })
            .collect();
        let published = self.side_by_side(evolving).await;
        self.keep(published)?;
        for schema in &content.evolved {
            if let Some(committed) = self.tables.get_mut(&schema.table) {
                committed.schema = Arc::clone(schema);
                committed.ahead = None;
            }
        }
        if !content.evolved.is_empty() && failpoint("d2") {
            return Err(Error::StreamEnded);
        }
        Ok(())
    }

    async fn evolve_table(
        &self,
        name: &BatchName,
        schema: Arc<TableSchema>,
        is_alone: bool,
    ) -> Result<(TableName, TablePair), Error> {
        let table = &schema.table;
        let committed = self.tables.get(table).ok_or_else(|| Error::BadManifest {
            detail: format!("table {table} has changed but no entry"),
        })?;
        // the current state first: it is where a crash in between is read back
        let pair = &committed.pair;
        let mut current = self.evolve_side(name, &schema, &pair.current, Side::Current).await?;
        let mut changes = self.evolve_side(name, &schema, &pair.changes, Side::Changes).await?;
        if is_alone {
            let stamp = self.stamp_of(name, CommitKind::Schema);
            current = self.show_schema(stamp.clone(), table, current).await?;
            changes = self.show_schema(stamp, table, changes).await?;
        }
        Ok((table.clone(), TablePair { current, changes }))
    }

    /// Gives a changelog the schema that its table has already, without rows of its own. May be
    /// repeated.
    pub(crate) async fn evolve_changelog(&self, schema: &TableSchema) -> Result<Table, Error> {
        let table = &schema.table;
        let committed = self.tables.get(table).ok_or_else(|| Error::BadManifest {
            detail: format!("table {table} has changed but no entry"),
        })?;
        let changes = &committed.pair.changes;
        let record = schema_record(schema)?;
        let outcome = self.set_schema(changes, schema, &record, Side::Changes).await;
        let changes = self.settle(table, outcome).await?;
        let stamp = self.standing_stamp(&changes, CommitKind::Schema);
        self.show_schema(stamp, table, changes).await
    }

    async fn evolve_side(
        &self,
        name: &BatchName,
        schema: &TableSchema,
        table: &Table,
        side: Side,
    ) -> Result<Table, Error> {
        let record = schema_record(schema)?;
        let mut on = table.clone();
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.set_schema(&on, schema, &record, side).await;
            match self.settle(&schema.table, outcome).await {
                // an earlier try of ours had landed
                Err(Error::ForeignCommit { found, .. })
                    if tries < TRIES_MAX && self.is_ours(name, table, &found) =>
                {
                    on = *found;
                }
                settled => return settled,
            }
        }
    }

    async fn set_schema(
        &self,
        on: &Table,
        schema: &TableSchema,
        record: &str,
        side: Side,
    ) -> cdc_iceberg::Result<CommitOutcome> {
        match side {
            Side::Current => self.lake.tables.evolve_current(on, schema, record).await,
            Side::Changes => self.lake.tables.evolve_changes(on, schema, record).await,
        }
    }

    /// Whether what stands there is what this epoch made of the table known.
    fn is_ours(&self, name: &BatchName, known: &Table, found: &Table) -> bool {
        let branch = self.lake.branch;
        found.generation() == known.generation()
            && (found.head_id(branch) == known.head_id(branch)
                || found.find_batch(branch, name.id).is_some())
    }

    /// A snapshot with the files of the one before and the present schema.
    async fn show_schema(
        &self,
        stamp: Stamp,
        table: &TableName,
        on: Table,
    ) -> Result<Table, Error> {
        let branch = self.lake.branch;
        let shown = on.head(branch).and_then(|snapshot| snapshot.schema_id());
        if on.find_batch(branch, stamp.batch_id).is_some()
            || shown == Some(on.metadata.current_schema_id())
        {
            return Ok(on);
        }
        let change = TableChange::append(stamp, branch, Vec::new());
        let outcome = self.lake.tables.commit(&on, &change).await;
        self.settle(table, outcome).await
    }
}
