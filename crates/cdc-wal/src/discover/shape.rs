//! One table as the catalog has it now, with what a change of it did to the rows that were there: read
//! for a table of which the stream, or a look at all tables, has said something new.
//!
//! The catalog may be ahead of the stream. [`Control::shape_at`] says for which position of the log its
//! answer is exact: every column, key and identity change takes ACCESS EXCLUSIVE on the table and
//! keeps it until its commit record is in the log. Under ACCESS SHARE there is none half way, so what
//! is committed below the log's present end is in the answer, and nothing else is.
//!
//! It may also be behind: a transaction is sent once its commit record is in the log, and is visible to
//! others a moment later, or much later where `synchronous_standby_names` is set.
//! [`Control::shape_behind`] waits for that.

use std::time::Duration;

use cdc_core::{Lsn, PgType, SourceTable, quote_ident};
use tokio_postgres::Row;

use super::{assemble, catalog, resolve};
use crate::control::{Control, get, parse_lsn};
use crate::error::Result;

/// Bytes of a page header of the log at most (`SizeOfXLogLongPHD`, src/include/access/xlog_internal.h).
const PAGE_HEADER_BYTES: u64 = 40;
/// How long the lock is waited for. Whoever holds it is changing the table; the next look is soon.
const LOCK_WAIT: &str = "1s";

/// How often a transaction is looked at that is not visible yet.
const VISIBLE_POLL: Duration = Duration::from_millis(10);

/// A table, and what its catalog entries tell of older rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// The table.
    pub table: SourceTable,
    /// Every attribute that it ever had, in `attnum` order, dropped ones included.
    pub attributes: Vec<Attribute>,
    /// Changes whenever the rows were written anew (`pg_class.relfilenode`, of all leaves).
    pub filenode: u64,
}

/// What `pg_attribute` tells beside the column itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// `attnum`.
    pub attnum: i16,
    /// Whether it was dropped.
    pub dropped: bool,
    /// The value that rows have which were written before the column was added
    /// (`attmissingval`), as text. Of a partition root: what its leaves have.
    pub missing: Option<String>,
    /// Whether leaves differ in that.
    pub missing_differs: bool,
    /// Whether new rows get another value than NULL by themselves: a default, or an identity.
    pub has_default: bool,
}

impl TableShape {
    /// What is told of an attribute.
    pub fn attribute(&self, attnum: i16) -> Option<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.attnum == attnum)
    }
}

/// Behind [`catalog::LEAVES`]: a partition root has no rows, and so no value for older ones. Leaves
/// differ also where some have none. The one element of the array is written by its type's own output
/// function.
const ATTRIBUTES: &str = "\
SELECT a.attrelid, a.attnum, a.attisdropped, m.value, m.differs, \
  a.atthasdef OR a.attidentity <> '' \
FROM pg_catalog.pg_attribute a \
CROSS JOIN LATERAL (SELECT pg_catalog.min(v.value) AS value, \
    pg_catalog.count(DISTINCT v.value) > 1 \
      OR pg_catalog.count(v.value) > 0 AND pg_catalog.count(*) > pg_catalog.count(v.value) \
      AS differs \
  FROM (SELECT pg_catalog.array_to_string(a.attmissingval, '') AS value WHERE a.atthasmissing \
    UNION ALL \
    SELECT CASE WHEN b.atthasmissing THEN pg_catalog.array_to_string(b.attmissingval, '') END \
    FROM leaf l \
    JOIN pg_catalog.pg_attribute b ON b.attrelid = l.oid AND b.attname = a.attname \
    WHERE l.root = a.attrelid AND NOT a.attisdropped) v) m \
WHERE a.attrelid = ANY($1) AND a.attnum > 0 \
ORDER BY a.attrelid, a.attnum";

/// Of a table itself, or the sum over the leaves of a partition root, so that each change of one
/// changes it; behind [`catalog::LEAVES`].
const FILENODES: &str = "\
SELECT t.root, coalesce(sum(pg_catalog.pg_relation_filenode(t.oid)::int8 * 31 + t.oid::int8), 0)::int8 \
FROM (SELECT root, oid FROM leaf UNION ALL SELECT r.oid, r.oid FROM pg_catalog.pg_class r \
  WHERE r.oid = ANY($1) AND r.relkind <> 'p') t \
GROUP BY t.root";

impl Control {
    /// The tables with these OIDs as the catalog has them, all at one moment. Those that are gone are
    /// left out.
    ///
    /// # Errors
    /// Of the queries.
    pub async fn shapes(&self, oids: &[u32]) -> Result<Vec<TableShape>> {
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        self.execute("begin a look at the catalog", begin).await?;
        let read = self.read_shapes(oids).await;
        let ended = self.execute("end a look at the catalog", "COMMIT").await;
        let shapes = read?;
        ended.map(|()| shapes)
    }

    /// One table as the catalog has it once transaction `xid`, whose commit record is in the log, is
    /// visible. Waits for that as long as it takes. `None` if the table is gone.
    ///
    /// # Errors
    /// Of the queries.
    pub async fn shape_behind(&self, oid: u32, xid: u32) -> Result<Option<TableShape>> {
        loop {
            let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
            self.execute("begin a look at the catalog", begin).await?;
            let read = self.read_behind(oid, xid).await;
            let ended = self.execute("end a look at the catalog", "COMMIT").await;
            let found = read?;
            ended?;
            match found {
                Some(shapes) => return Ok(shapes.into_iter().next()),
                None => tokio::time::sleep(VISIBLE_POLL).await,
            }
        }
    }

    /// `None` if the snapshot does not have the transaction.
    async fn read_behind(&self, oid: u32, xid: u32) -> Result<Option<Vec<TableShape>>> {
        let sql = "SELECT pg_catalog.pg_current_snapshot()::text";
        let row = self.query_one("read the snapshot", sql, &[]).await?;
        let snapshot: String = get(&row, 0)?;
        if !has_ended(xid, &snapshot) {
            return Ok(None);
        }
        self.read_shapes(&[oid]).await.map(Some)
    }

    /// One table with the position at which it is exactly so: everything that was committed below is
    /// in it, nothing that is committed at or above. `None` if the table is gone.
    ///
    /// # Errors
    /// Of the queries; SQLSTATE 55P03 if somebody is changing the table for longer than a second.
    pub async fn shape_at(&self, oid: u32) -> Result<Option<(TableShape, Lsn)>> {
        let begin = format!(
            "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL lock_timeout = '{LOCK_WAIT}'"
        );
        self.execute("begin a look at a table", &begin).await?;
        let read = self.read_locked(oid).await;
        let ended = self.execute("end a look at a table", "COMMIT").await;
        let shape = read?;
        ended.map(|()| shape)
    }

    /// Types by OID and modifier, as a Relation message gives them; `None` for one that is gone.
    ///
    /// # Errors
    /// Of the queries.
    pub async fn types(&self, asked: &[(u32, i32)]) -> Result<Vec<Option<PgType>>> {
        let oids: Vec<u32> = asked.iter().map(|(oid, _)| *oid).collect();
        let modifiers: Vec<i32> = asked.iter().map(|(_, typmod)| *typmod).collect();
        let known = catalog::types_of(self, &oids).await?;
        let sql = "SELECT pg_catalog.format_type(a.type, a.modifier) \
                   FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::int4[])) \
                     WITH ORDINALITY \
                     a(type, modifier, n) ORDER BY a.n";
        let names = self.query("name types", sql, &[&oids, &modifiers]).await?;
        let is_known: Vec<bool> =
            oids.iter().map(|oid| known.iter().any(|row| row.oid == *oid)).collect();
        let types = resolve::TypeTable::new(known);
        let resolve = |((oid, typmod), (row, is_known)): (&(u32, i32), (&Row, &bool))| {
            let name: Option<String> = get(row, 0)?;
            let name = name.filter(|_| *is_known);
            Ok(name.map(|name| types.resolve(*oid, *typmod, &name)))
        };
        asked.iter().zip(names.iter().zip(&is_known)).map(resolve).collect()
    }

    async fn read_locked(&self, oid: u32) -> Result<Option<(TableShape, Lsn)>> {
        let Some(before) = self.name_of(oid).await? else { return Ok(None) };
        let (schema, name) = (quote_ident(&before.0), quote_ident(&before.1));
        let lock = format!("LOCK TABLE {schema}.{name} IN ACCESS SHARE MODE");
        self.execute("lock a table against changes", &lock).await?;
        if self.name_of(oid).await?.as_ref() != Some(&before) {
            // renamed in between: what is locked may be another table
            return Ok(None);
        }
        let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text";
        let row = self.query_one("read the end of the log", sql, &[]).await?;
        let end: Option<String> = get(&row, 0)?;
        let at = before_page_header(parse_lsn(end.as_deref())?);
        let shape = self.read_shapes(&[oid]).await?.pop();
        Ok(shape.map(|shape| (shape, at)))
    }

    async fn name_of(&self, oid: u32) -> Result<Option<(String, String)>> {
        let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
        let rows = self.query("look a table up", sql, &[&oid]).await?;
        rows.first().map(|row| Ok((get(row, 0)?, get(row, 1)?))).transpose()
    }

    async fn read_shapes(&self, oids: &[u32]) -> Result<Vec<TableShape>> {
        let parts = assemble::CatalogParts {
            relations: catalog::relations_of(self, oids).await?,
            leaves: catalog::leaves(self, oids, catalog::Sizes::Noted).await?,
            attributes: catalog::attributes(self, oids).await?,
            indexes: catalog::indexes(self, oids).await?,
            types: resolve::TypeTable::new(catalog::types(self, oids).await?),
        };
        let mut attributes: Vec<(u32, Attribute)> = Vec::new();
        let sql = format!("{}{ATTRIBUTES}", catalog::LEAVES);
        for row in self.query("list the attributes", &sql, &[&oids]).await? {
            let attribute = Attribute {
                attnum: get(&row, 1)?,
                dropped: get(&row, 2)?,
                missing: get(&row, 3)?,
                missing_differs: get(&row, 4)?,
                has_default: get(&row, 5)?,
            };
            attributes.push((get(&row, 0)?, attribute));
        }
        let mut filenodes: Vec<(u32, i64)> = Vec::new();
        let sql = format!("{}{FILENODES}", catalog::LEAVES);
        for row in self.query("list the filenodes", &sql, &[&oids]).await? {
            filenodes.push((get(&row, 0)?, get(&row, 1)?));
        }
        let shape = |table: SourceTable| {
            let of = |(oid, _): &&(u32, Attribute)| *oid == table.oid;
            let filenode = filenodes.iter().find(|(oid, _)| *oid == table.oid);
            TableShape {
                attributes: attributes.iter().filter(of).map(|(_, a)| a.clone()).collect(),
                filenode: filenode.map_or(0, |(_, node)| node.cast_unsigned()),
                table,
            }
        };
        Ok(parts.assemble().into_iter().map(shape).collect())
    }
}

/// The end of the log may lie behind the header of a page on which nothing stands yet. No record begins
/// between the page and that, and a server that is idle tells the beginning of the page.
fn before_page_header(at: Lsn) -> Lsn {
    let into_page = at.0 % 8192;
    if into_page <= PAGE_HEADER_BYTES { Lsn(at.0 - into_page) } else { at }
}

/// Whether a transaction of the recent past has ended for a snapshot, `xmin:xmax:xip,xip,…` in 64-bit
/// numbers (`pg_snapshot_out`, src/backend/utils/adt/xid8funcs.c). One that cannot be read has nothing.
fn has_ended(xid: u32, snapshot: &str) -> bool {
    let mut parts = snapshot.splitn(3, ':').skip(1);
    // the stream tells the lower half of a number only
    let low = |text: &str| u32::try_from(text.parse::<u64>().ok()? & u64::from(u32::MAX)).ok();
    let Some(xmax) = parts.next().and_then(low) else { return false };
    let is_below = xid.wrapping_sub(xmax).cast_signed() < 0;
    let mut running = parts.next().unwrap_or_default().split(',');
    is_below && running.all(|running| low(running) != Some(xid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_seen_once_no_snapshot_has_it_running() {
        let cases = [
            (99, "90:100:", true),
            (99, "90:100:91,98", true),
            (98, "90:100:91,98", false),
            (100, "90:100:", false),
            (101, "90:100:", false),
            // the numbers have gone round
            (5, "8589934592:8589934602:", true),
            (u32::MAX, "8589934592:8589934602:", true),
            (5, "8589934592:8589934602:8589934597", false),
            (7, "", false),
        ];
        for (xid, snapshot, expected) in cases {
            assert_eq!(has_ended(xid, snapshot), expected, "{xid} in {snapshot}");
        }
    }

    #[test]
    fn a_position_behind_a_page_header_is_that_of_the_page() {
        assert_eq!(before_page_header(Lsn(0x4000)), Lsn(0x4000));
        assert_eq!(before_page_header(Lsn(0x4018)), Lsn(0x4000));
        assert_eq!(before_page_header(Lsn(0x4028)), Lsn(0x4000));
        assert_eq!(before_page_header(Lsn(0x4030)), Lsn(0x4030));
    }
}
