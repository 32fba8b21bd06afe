//! What a daemon is told of the source's tables when it asks the catalog: they never change.

use std::sync::Arc;

use async_trait::async_trait;
use cdc_core::{Generated, Lsn, PgType, ReplicaIdentity, SourceColumn, SourceTable, TableKind};
use cdc_pipeline::{Error, OpenCatalog, SchemaCatalog};
use cdc_wal::{Attribute, RelationColumn, TableShape};

use crate::tables::{Replica, Table, tables};

struct SimSchemas;

/// The catalog of the simulated source, for every daemon.
pub(crate) fn catalogs() -> OpenCatalog {
    Arc::new(|_| Box::new(SimSchemas))
}

fn shape(table: &Table) -> TableShape {
    let schema = table.schema();
    let column = |column: &cdc_core::Column| SourceColumn {
        name: column.name.clone(),
        attnum: column.attnum,
        pg_type: column.pg_type.clone(),
        nullable: column.nullable,
        generated: Generated::No,
    };
    let attribute = |column: &cdc_core::Column| Attribute {
        attnum: column.attnum,
        dropped: false,
        missing: None,
        missing_differs: false,
        has_default: false,
    };
    let key: Vec<String> = table.key.iter().map(|at| table.columns[*at].0.to_owned()).collect();
    let (primary_key, replica_identity) = match table.replica {
        Replica::Default => (key, ReplicaIdentity::Default),
        Replica::Full => (key, ReplicaIdentity::Full),
        Replica::Index => {
            let name = format!("{}_code_key", table.name);
            (Vec::new(), ReplicaIdentity::Index { name, columns: key })
        }
    };
    TableShape {
        attributes: schema.columns.iter().map(attribute).collect(),
        filenode: u64::from(table.oid),
        table: SourceTable {
            oid: table.oid,
            name: table.table_name(),
            kind: TableKind::Table,
            partition_root: None,
            columns: schema.columns.iter().map(column).collect(),
            primary_key,
            replica_identity,
            estimated_rows: -1,
            heap_bytes: 0,
        },
    }
}

#[async_trait]
impl SchemaCatalog for SimSchemas {
    async fn shapes(&mut self, oids: &[u32]) -> Result<Vec<TableShape>, Error> {
        Ok(tables().iter().filter(|table| oids.contains(&table.oid)).map(shape).collect())
    }

    async fn shape_behind(&mut self, oid: u32, _xid: u32) -> Result<Option<TableShape>, Error> {
        Ok(self.shapes(&[oid]).await?.pop())
    }

    async fn shape_at(&mut self, oid: u32) -> Result<Option<(TableShape, Lsn)>, Error> {
        Ok(self.shapes(&[oid]).await?.pop().map(|shape| (shape, Lsn::ZERO)))
    }

    async fn types(&mut self, columns: &[RelationColumn]) -> Result<Vec<Option<PgType>>, Error> {
        let schemas: Vec<_> = tables().iter().map(Table::schema).collect();
        let known = |asked: &RelationColumn| {
            let mut columns = schemas.iter().flat_map(|schema| &schema.columns);
            columns.find(|c| c.pg_type.oid == asked.type_oid).map(|c| c.pg_type.clone())
        };
        Ok(columns.iter().map(known).collect())
    }

    async fn publishes_generated(&mut self) -> Result<bool, Error> {
        Ok(false)
    }
}
