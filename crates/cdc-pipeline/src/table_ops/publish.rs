//! The commit of a copy to the Iceberg tables: new ones, or other rows in those that are there.

use std::sync::Arc;

use cdc_core::{Epoch, Lsn, TableName, TableSchema};
use cdc_iceberg::{
    CommitKind, CommitOutcome, DataFile, InitialContent, LAKE_PROPERTY, SOURCE_PROPERTY, Stamp,
    Table, TableChange, TableIdent, TablePair, TableSpec, current_schema, data_file_from_parquet,
};
use cdc_manifest::{parse_schema_record, schema_record};
use uuid::Uuid;

use super::copy::{CopyContext, Known};
use crate::Error;
use crate::copy::BaseFile;

/// Times that an unknown outcome is read back.
const RESOLVE_TRIES_MAX: u32 = 5;

/// A table that the lake has, as its catalog has it now.
pub(super) struct Loaded {
    pub(super) schema: TableSchema,
    /// `pg_class.oid` of the table that the schema is of.
    pub(super) source_oid: Option<u32>,
    /// A later schema that an earlier copy, or a crash, left in the table.
    pub(super) ahead: Option<TableSchema>,
    pair: TablePair,
}

/// Loads what the lake has of a table: an earlier copy may have committed and died.
pub(super) async fn load(
    context: &CopyContext,
    table: &TableName,
    known: &Known,
) -> Result<Loaded, Error> {
    let tables = &context.lake.tables;
    let wrong = || Error::iceberg(table);
    let pair = TablePair {
        current: tables.load(&known.current).await.map_err(wrong())?,
        changes: tables.load(&known.changes).await.map_err(wrong())?,
    };
    context.lake.check_encoding(table, &pair.current)?;
    let record = pair.current.schema_record();
    let record = record.map(|text| parse_schema_record(table, text)).transpose()?;
    let ahead = record.filter(|record| record.version > known.schema.version);
    Ok(Loaded { schema: known.schema.clone(), source_oid: known.source_oid, ahead, pair })
}

/// A copy whose files are durable.
pub(super) struct Copy<'a> {
    pub(super) table: &'a TableName,
    pub(super) epoch: Epoch,
    /// Its position.
    pub(super) lsn: Lsn,
    pub(super) schema: &'a Arc<TableSchema>,
    pub(super) files: &'a [BaseFile],
}

impl Copy<'_> {
    /// Commits it, in the place of all rows of the table that is there, if one is.
    pub(super) async fn commit(
        &self,
        context: &CopyContext,
        known: Option<Loaded>,
    ) -> Result<TablePair, Error> {
        let base_files = self.data_files(context)?;
        match known {
            Some(known) => self.replace(context, known.pair, base_files).await,
            None => self.create(context, base_files).await,
        }
    }

    fn data_files(&self, context: &CopyContext) -> Result<Vec<DataFile>, Error> {
        let wrong = || Error::iceberg(self.table);
        let columns = current_schema(self.schema).map_err(wrong())?;
        let describe = |file: &BaseFile| {
            let location = context.lake.store.location().uri(&file.key);
            data_file_from_parquet(&location, file.size, &file.metadata, &columns)
        };
        self.files.iter().map(describe).collect::<Result<_, _>>().map_err(wrong())
    }

    fn stamp(&self, context: &CopyContext, kind: CommitKind) -> Stamp {
        Stamp {
            kind,
            epoch: self.epoch,
            lsn_from: Lsn::ZERO,
            lsn_to: self.lsn,
            commit_ts: Some(context.lake.clock.now()),
            batch_id: Uuid::now_v7(),
            generation: context.generation,
        }
    }

    async fn create(
        &self,
        context: &CopyContext,
        base_files: Vec<DataFile>,
    ) -> Result<TablePair, Error> {
        let spec = TableSpec {
            schema: self.schema,
            namespace: &context.namespace,
            naming: context.settings.naming,
            lake_id: &context.lake_id,
            codec: crate::init::codec(context.settings.compression),
            generation: context.generation,
            deletes: context.lake.deletes,
        };
        for ident in [spec.current_ident(), spec.changes_ident()] {
            self.make_way(context, &ident).await?;
        }
        let branch = context.lake.branch;
        let stamp = self.stamp(context, CommitKind::Add);
        let content = InitialContent { stamp, branch, base_files };
        let created = context.lake.tables.create_tables(&spec, &content).await;
        created.map_err(Error::iceberg(self.table))
    }

    /// Takes out of the catalog what an earlier copy of this table left there, which no manifest names.
    /// Anything else under the name is somebody's.
    async fn make_way(&self, context: &CopyContext, ident: &TableIdent) -> Result<(), Error> {
        let wrong = || Error::iceberg(self.table);
        let catalog = context.lake.tables.catalog();
        if catalog.pointer(ident).await.map_err(wrong())?.is_none() {
            return Ok(());
        }
        let found = context.lake.tables.load(ident).await.map_err(wrong())?;
        let properties = found.metadata.properties();
        let is_ours = properties.get(SOURCE_PROPERTY) == Some(&self.table.to_string())
            && properties.get(LAKE_PROPERTY) == Some(&context.lake_id);
        if !is_ours {
            return Err(Error::TableRefused {
                table: self.table.clone(),
                reason: format!("the catalog has another table {ident}"),
                hint: "set `catalog.table_naming: qualified`, or let go of that table".into(),
            });
        }
        self.check_fence(context, &found)?;
        catalog.drop_table(ident).await.map_err(wrong())?;
        Ok(())
    }

    /// The current state first: it is where a crash in between is read back.
    async fn replace(
        &self,
        context: &CopyContext,
        pair: TablePair,
        base_files: Vec<DataFile>,
    ) -> Result<TablePair, Error> {
        let (tables, branch) = (&context.lake.tables, context.lake.branch);
        let record = schema_record(self.schema)?;
        let stamp = self.stamp(context, CommitKind::Resync);
        let current = self.fence(context, pair.current).await?;
        let evolved = tables.evolve_current(&current, self.schema, &record).await;
        let current = self.settled(context, evolved).await?;
        let rows = TableChange::replace_all(stamp.clone(), branch, base_files);
        let current = self.settled(context, tables.commit(&current, &rows).await).await?;
        let changes = self.fence(context, pair.changes).await?;
        let evolved = tables.evolve_changes(&changes, self.schema, &record).await;
        let changes = self.settled(context, evolved).await?;
        let nothing = TableChange::append(stamp, branch, Vec::new());
        let changes = self.settled(context, tables.commit(&changes, &nothing).await).await?;
        Ok(TablePair { current, changes })
    }

    /// A table that a later daemon wrote is not ours to touch.
    fn check_fence(&self, context: &CopyContext, table: &Table) -> Result<(), Error> {
        match table.generation() {
            Some(found) if found > context.generation => {
                let (table, ours) = (table.ident.to_string(), context.generation);
                let fenced = cdc_iceberg::Error::Fenced { table, found, ours };
                Err(Error::iceberg(self.table)(fenced))
            }
            _ => Ok(()),
        }
    }

    async fn fence(&self, context: &CopyContext, table: Table) -> Result<Table, Error> {
        self.check_fence(context, &table)?;
        if table.generation() >= Some(context.generation) {
            return Ok(table);
        }
        let raised = context.lake.tables.raise_generation(&table, context.generation).await;
        self.settled(context, raised).await
    }

    /// Waits for certainty. Somebody else's commit ends this try; the next one begins with it.
    async fn settled(
        &self,
        context: &CopyContext,
        outcome: cdc_iceberg::Result<CommitOutcome>,
    ) -> Result<Table, Error> {
        let table = self.table;
        let mut outcome = outcome.map_err(Error::iceberg(table))?;
        for _ in 0..RESOLVE_TRIES_MAX {
            match outcome {
                CommitOutcome::Committed(committed) => return Ok(committed),
                CommitOutcome::NotCommitted(_) => {
                    context.lake.meters.foreign_commit(table);
                    return Err(Error::TableMoved { table: table.clone() });
                }
                CommitOutcome::Unknown(unresolved) => {
                    let resolved = context.lake.tables.resolve(&unresolved).await;
                    outcome = resolved.map_err(Error::iceberg(table))?;
                }
            }
        }
        Err(Error::OutcomeUnknown { table: table.clone() })
    }
}
