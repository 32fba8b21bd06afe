//! The catalog queries of discovery, each one round trip for all tables.

use tokio_postgres::Row;

use super::resolve::TypeRow;
use crate::control::{Control, get};
use crate::error::Result;

/// A row of `pg_class`.
#[derive(Clone, Debug)]
pub(super) struct RelationRow {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `r`, `p` or `f`.
    pub(super) kind: String,
    /// `p` permanent or `u` unlogged.
    pub(super) persistence: String,
    pub(super) replica_identity: String,
    pub(super) estimated_rows: f32,
    pub(super) heap_bytes: i64,
    /// Schema and name of the partition root, for a partition.
    pub(super) root: Option<(String, String)>,
}

/// A leaf of a partition root.
#[derive(Clone, Debug)]
pub(super) struct LeafRow {
    pub(super) root: u32,
    pub(super) oid: u32,
    pub(super) replica_identity: String,
    pub(super) estimated_rows: f32,
    pub(super) heap_bytes: i64,
}

/// A live column.
#[derive(Clone, Debug)]
pub(super) struct AttributeRow {
    pub(super) relation: u32,
    pub(super) name: String,
    pub(super) attnum: i16,
    pub(super) type_oid: u32,
    pub(super) typmod: i32,
    pub(super) type_name: String,
    pub(super) not_null: bool,
    /// Empty, `s` or `v`.
    pub(super) generated: String,
}

/// A unique index that PostgreSQL accepts as a row identity.
#[derive(Clone, Debug)]
pub(super) struct IndexRow {
    pub(super) relation: u32,
    pub(super) name: String,
    pub(super) primary: bool,
    pub(super) replica_identity: bool,
    pub(super) columns: Vec<String>,
}

/// Those of `schemas` that do not exist.
pub(super) async fn unknown_schemas(control: &Control, schemas: &[String]) -> Result<Vec<String>> {
    let sql = "SELECT wanted FROM unnest($1::text[]) wanted \
               WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = wanted) \
               ORDER BY 1";
    let rows = control.query("look up the schemas", sql, &[&schemas]).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

/// How the bytes of a table are found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sizes {
    /// From its files, under a lock that a change of the table excludes.
    Measured,
    /// As the last VACUUM left them, without a lock.
    Noted,
}

impl Sizes {
    fn bytes_of_c(self) -> &'static str {
        match self {
            Sizes::Measured => "coalesce(pg_catalog.pg_relation_size(c.oid), 0)",
            Sizes::Noted => {
                "greatest(c.relpages, 0)::int8 * pg_catalog.current_setting('block_size')::int8"
            }
        }
    }
}

/// The leaves of the partition roots among `$1`, without the locks that `pg_partition_tree` takes.
pub(super) const LEAVES: &str = "\
WITH RECURSIVE tree(root, oid) AS ( \
  SELECT r.oid, r.oid FROM pg_catalog.pg_class r \
    WHERE r.oid = ANY($1) AND r.relkind = 'p' AND NOT r.relispartition \
  UNION ALL \
  SELECT t.root, i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid), \
leaf(root, oid) AS ( \
  SELECT t.root, t.oid FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid \
    WHERE c.relkind <> 'p') ";

const RELATIONS: &str = "\
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, \
  c.relpersistence::text, c.relreplident::text, c.reltuples, \
  {bytes}, rn.nspname::text, r.relname::text \
FROM pg_catalog.pg_class c \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
LEFT JOIN pg_catalog.pg_class r ON c.relispartition \
  AND r.oid = pg_catalog.pg_partition_root(c.oid) \
LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace \
WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'";

/// The tables of some schemas.
pub(super) async fn relations(control: &Control, schemas: &[String]) -> Result<Vec<RelationRow>> {
    let relations = RELATIONS.replace("{bytes}", Sizes::Measured.bytes_of_c());
    let sql = format!("{relations} AND n.nspname = ANY($1) ORDER BY n.nspname, c.relname");
    let rows = control.query("list the tables", &sql, &[&schemas]).await?;
    rows.iter().map(relation_row).collect()
}

/// The tables with these OIDs, as far as they are there. Waits for no lock.
pub(super) async fn relations_of(control: &Control, oids: &[u32]) -> Result<Vec<RelationRow>> {
    let relations = RELATIONS.replace("{bytes}", Sizes::Noted.bytes_of_c());
    let sql = format!("{relations} AND c.oid = ANY($1) ORDER BY n.nspname, c.relname");
    let rows = control.query("look tables up", &sql, &[&oids]).await?;
    rows.iter().map(relation_row).collect()
}

fn relation_row(row: &Row) -> Result<RelationRow> {
    let root_schema: Option<String> = get(row, 8)?;
    let root_name: Option<String> = get(row, 9)?;
    Ok(RelationRow {
        oid: get(row, 0)?,
        schema: get(row, 1)?,
        name: get(row, 2)?,
        kind: get(row, 3)?,
        persistence: get(row, 4)?,
        replica_identity: get(row, 5)?,
        estimated_rows: get(row, 6)?,
        heap_bytes: get(row, 7)?,
        root: root_schema.zip(root_name),
    })
}

pub(super) async fn leaves(control: &Control, oids: &[u32], sizes: Sizes) -> Result<Vec<LeafRow>> {
    let bytes = sizes.bytes_of_c();
    let sql = format!(
        "{LEAVES} SELECT l.root, c.oid, c.relreplident::text, c.reltuples, {bytes} \
         FROM leaf l JOIN pg_catalog.pg_class c ON c.oid = l.oid ORDER BY l.root, c.oid"
    );
    let read = |row: &Row| -> Result<LeafRow> {
        Ok(LeafRow {
            root: get(row, 0)?,
            oid: get(row, 1)?,
            replica_identity: get(row, 2)?,
            estimated_rows: get(row, 3)?,
            heap_bytes: get(row, 4)?,
        })
    };
    let rows = control.query("list the partitions", &sql, &[&oids]).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn attributes(control: &Control, oids: &[u32]) -> Result<Vec<AttributeRow>> {
    let sql = "SELECT a.attrelid, a.attname::text, a.attnum, a.atttypid, a.atttypmod, \
                 pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
                 a.attgenerated::text \
               FROM pg_catalog.pg_attribute a \
               WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped \
               ORDER BY a.attrelid, a.attnum";
    let read = |row: &Row| -> Result<AttributeRow> {
        Ok(AttributeRow {
            relation: get(row, 0)?,
            name: get(row, 1)?,
            attnum: get(row, 2)?,
            type_oid: get(row, 3)?,
            typmod: get(row, 4)?,
            type_name: get(row, 5)?,
            not_null: get(row, 6)?,
            generated: get(row, 7)?,
        })
    };
    let rows = control.query("list the columns", sql, &[&oids]).await?;
    rows.iter().map(read).collect()
}

/// The identity indexes of the tables and of their leaves.
///
/// Deferrable, partial, invalid and expression indexes are left out, as PostgreSQL leaves them out
/// in `RelationGetIndexList` (src/backend/utils/cache/relcache.c): an update of a published table
/// with a deferrable primary key fails for want of a replica identity.
pub(super) async fn indexes(control: &Control, oids: &[u32]) -> Result<Vec<IndexRow>> {
    let sql = "WITH wanted AS ( \
                 SELECT unnest($1::oid[]) AS oid \
                 UNION \
                 SELECT t.relid::oid FROM pg_catalog.pg_class r \
                 CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.oid) t \
                 WHERE r.oid = ANY($1) AND r.relkind = 'p' AND NOT r.relispartition AND t.isleaf) \
               SELECT i.indrelid, ic.relname::text, i.indisprimary, i.indisreplident, \
                 ARRAY(SELECT a.attname::text \
                   FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) \
                   JOIN pg_catalog.pg_attribute a \
                     ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
                   WHERE k.n <= i.indnkeyatts ORDER BY k.n) \
               FROM wanted w JOIN pg_catalog.pg_index i ON i.indrelid = w.oid \
               JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid \
               WHERE i.indisunique AND i.indisvalid AND i.indimmediate \
                 AND i.indpred IS NULL AND i.indexprs IS NULL \
               ORDER BY i.indrelid, ic.relname";
    let read = |row: &Row| -> Result<IndexRow> {
        Ok(IndexRow {
            relation: get(row, 0)?,
            name: get(row, 1)?,
            primary: get(row, 2)?,
            replica_identity: get(row, 3)?,
            columns: get(row, 4)?,
        })
    };
    let rows = control.query("list the identity indexes", sql, &[&oids]).await?;
    rows.iter().map(read).collect()
}

/// All types that the columns are made of, closed over domain bases and array elements.
///
/// An array is a type whose element names it as its array type; `int2vector` and `name` have an
/// element too, but another text form.
pub(super) async fn types(control: &Control, oids: &[u32]) -> Result<Vec<TypeRow>> {
    let first = "SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped";
    closed_types(control, first, oids).await
}

/// The same of types by their own OIDs.
pub(super) async fn types_of(control: &Control, oids: &[u32]) -> Result<Vec<TypeRow>> {
    closed_types(control, "SELECT pg_catalog.unnest($1::oid[])", oids).await
}

async fn closed_types(control: &Control, first: &str, oids: &[u32]) -> Result<Vec<TypeRow>> {
    let sql = format!(
        "WITH RECURSIVE used(oid) AS ({first} \
                 UNION \
                 SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE e.oid END \
                 FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid \
                 LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid \
                 WHERE t.typtype = 'd' OR e.oid IS NOT NULL) \
               SELECT t.oid, t.typtype::text, t.typbasetype, t.typtypmod, e.oid, \
                 pg_catalog.format_type(t.typbasetype, t.typtypmod) \
               FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.oid \
               LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND e.typarray = t.oid"
    );
    let read = |row: &Row| -> Result<TypeRow> {
        Ok(TypeRow {
            oid: get(row, 0)?,
            kind: get(row, 1)?,
            domain_base: get(row, 2)?,
            domain_typmod: get(row, 3)?,
            element: get(row, 4)?,
            domain_base_name: get(row, 5)?,
        })
    };
    let rows = control.query("resolve the column types", &sql, &[&oids]).await?;
    rows.iter().map(read).collect()
}
