//! A publication as the catalogs describe it.

use std::collections::BTreeSet;

use cdc_core::TableName;
use tokio_postgres::Row;

use crate::control::{Control, get};
use crate::error::Result;

/// A publication as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationState {
    /// Owner's role.
    pub owner: String,
    /// Published tables, partition roots in place of their leaves if `via_root`.
    pub tables: BTreeSet<TableName>,
    /// Tables of which a row filter or a column list lets only a part through.
    pub partial: BTreeSet<TableName>,
    /// `FOR ALL TABLES`, or `FOR TABLES IN SCHEMA`: its tables change by themselves.
    pub open_ended: bool,
    /// Kinds of change that it leaves out, of `insert`, `update`, `delete`, `truncate`.
    pub missing_actions: Vec<String>,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// Whether stored generated columns are sent.
    pub publishes_generated: bool,
}

/// Columns that older servers lack are read through the row's JSON form.
const STATE: &str = "\
SELECT p.oid, p.puballtables, \
  ARRAY(SELECT action FROM (VALUES ('insert', p.pubinsert), ('update', p.pubupdate), \
    ('delete', p.pubdelete), ('truncate', p.pubtruncate)) a(action, published) \
    WHERE NOT published), \
  p.pubviaroot, coalesce(pg_catalog.to_jsonb(p)->>'pubgencols' = 's', false), \
  pg_catalog.pg_get_userbyid(p.pubowner)::text \
FROM pg_catalog.pg_publication p WHERE p.pubname = $1";

const TABLES: &str = "\
SELECT schemaname::text, tablename::text FROM pg_catalog.pg_publication_tables \
WHERE pubname = $1";

const PARTIAL: &str = "\
SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_publication_rel r \
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
WHERE r.prpubid = $1 AND (pg_catalog.to_jsonb(r)->>'prqual' IS NOT NULL \
  OR pg_catalog.to_jsonb(r)->>'prattrs' IS NOT NULL)";

impl Control {
    /// A publication as it is now, `None` if it does not exist.
    pub async fn publication(&self, name: &str) -> Result<Option<PublicationState>> {
        let context = format!("read publication {name}");
        let rows = self.query(&context, STATE, &[&name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let oid: u32 = get(row, 0)?;
        let all_tables: bool = get(row, 1)?;
        let partial = self.query(&context, PARTIAL, &[&oid]).await?;
        let tables = self.query(&context, TABLES, &[&name]).await?;
        Ok(Some(PublicationState {
            owner: get(row, 5)?,
            tables: table_names(&tables)?,
            partial: table_names(&partial)?,
            open_ended: all_tables || self.publishes_schemas(&context, oid).await?,
            missing_actions: get(row, 2)?,
            via_root: get(row, 3)?,
            publishes_generated: get(row, 4)?,
        }))
    }

    /// `FOR TABLES IN SCHEMA` exists from PostgreSQL 15.
    async fn publishes_schemas(&self, context: &str, oid: u32) -> Result<bool> {
        if self.server_version_num() < 150_000 {
            return Ok(false);
        }
        let sql =
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace WHERE pnpubid = $1)";
        get(&self.query_one(context, sql, &[&oid]).await?, 0)
    }
}

fn table_names(rows: &[Row]) -> Result<BTreeSet<TableName>> {
    let name = |row: &Row| -> Result<TableName> {
        Ok(TableName::new(get::<String>(row, 0)?, get::<String>(row, 1)?))
    };
    rows.iter().map(name).collect()
}
