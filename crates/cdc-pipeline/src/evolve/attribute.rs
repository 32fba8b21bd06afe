//! Which attributes the columns of a Relation message are. The stream names columns and types, not
//! `attnum`; the catalog knows `attnum`, and may be ahead of the stream by any number of changes.
//!
//! What is certain: columns come in `attnum` order; a column that was dropped never comes back; a new
//! one has a higher `attnum` than all before it. So the columns of the relation are those of the known
//! schema, less some that are dropped by now, then new ones. Where that leaves one way to read the
//! message it is taken, else the one with the most columns that have the name and type which schema or
//! catalog give them. Two ways that are as good are no answer.

use cdc_core::{
    Column, Generated, Identity, PgType, PgTypeKind, ReplicaIdentity, SourceColumn, SourceTable,
    TableKind, TableSchema,
};
use cdc_wal::{Relation, RelationColumn, ReplicaIdentityKind, TableShape};

/// Columns of the schema that are dropped by now, at most: each doubles the ways to read a message.
const DROPPED_MAX: usize = 10;
/// What is told of a message that can be read in more than one way, or in none.
pub(crate) const UNCLEAR: &str =
    "it was changed again on the source before this change could be followed";

/// A table and its row identity as the stream has them at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableAt {
    pub(crate) table: SourceTable,
    /// `None`: updates and deletes cannot be told apart.
    pub(crate) identity: Option<Identity>,
}

impl TableAt {
    /// The table as an exact look at the catalog has it.
    pub(crate) fn exactly(shape: &TableShape) -> TableAt {
        TableAt { table: shape.table.clone(), identity: Identity::of(&shape.table) }
    }

    /// The table as a Relation message has it, or why that cannot be known.
    pub(crate) fn described(
        schema: &TableSchema,
        relation: &Relation,
        types: &[Option<PgType>],
        shape: &TableShape,
        publishes_generated: bool,
    ) -> Result<TableAt, String> {
        let reading = Reading { schema, relation, types, shape, publishes_generated };
        let mut columns = reading.columns().ok_or_else(|| reading.why_unclear())?;
        let identity = reading.identity(&columns)?;
        columns.extend(reading.unpublished().cloned());
        columns.sort_by_key(|column| column.attnum);
        Ok(TableAt { table: SourceTable { columns, ..shape.table.clone() }, identity })
    }
}

struct Reading<'a> {
    schema: &'a TableSchema,
    relation: &'a Relation,
    /// Of the relation's columns.
    types: &'a [Option<PgType>],
    shape: &'a TableShape,
    publishes_generated: bool,
}

impl Reading<'_> {
    /// The columns of the message with their attributes.
    fn columns(&self) -> Option<Vec<SourceColumn>> {
        let known: Vec<&Column> = self.schema.columns.iter().collect();
        let (live, dropped): (Vec<&Column>, Vec<&Column>) =
            known.into_iter().partition(|column| self.now(column.attnum).is_some());
        if dropped.len() > DROPPED_MAX {
            return None;
        }
        let ways: Vec<Way> = (0..1_u32 << dropped.len())
            .filter_map(|choice| {
                let chosen = |(at, column): (usize, &&'_ Column)| {
                    (choice >> at & 1 == 1).then_some(column.attnum)
                };
                let mut kept: Vec<i16> = live.iter().map(|column| column.attnum).collect();
                kept.extend(dropped.iter().enumerate().filter_map(chosen));
                kept.sort_unstable();
                self.way(&kept)
            })
            .collect();
        let most = ways.iter().map(|way| way.told).max()?;
        let mut best = ways.iter().filter(|way| way.told == most);
        let way = best.next().filter(|way| way.is_clear && best.next().is_none())?;
        let seen = self.relation.columns.iter().zip(self.types).zip(&way.attnums);
        seen.map(|((seen, pg_type), attnum)| self.column(seen, pg_type.as_ref(), *attnum)).collect()
    }

    /// A column that was exchanged for another of its name and type is told by name.
    fn why_unclear(&self) -> String {
        let is_exchanged = |known: &&Column| {
            let same = |now: &SourceColumn| now.name == known.name && now.pg_type == known.pg_type;
            self.now(known.attnum).is_none() && self.shape.table.columns.iter().any(same)
        };
        match self.schema.columns.iter().find(is_exchanged) {
            Some(column) => format!("column {} was dropped and added again", column.name),
            None => UNCLEAR.to_owned(),
        }
    }

    /// The message read as these columns of the schema, then new ones.
    fn way(&self, kept: &[i16]) -> Option<Way> {
        let added = self.relation.columns.len().checked_sub(kept.len())?;
        let mut attnums = kept.to_vec();
        let mut is_clear = true;
        match self.added(added) {
            Added::Are(added) => attnums.extend(added),
            Added::Impossible => return None,
            Added::Unclear => is_clear = false,
        }
        let seen = self.relation.columns.iter().zip(&attnums);
        let told = seen.filter(|(column, attnum)| self.is_told(column, **attnum)).count();
        // each column that is not attributed may be told
        let told = told + self.relation.columns.len() - attnums.len();
        Some(Way { attnums, told, is_clear })
    }

    /// So many attributes behind those of the schema. One that lives today lived in between; which of
    /// those that are dropped by now did, nobody tells.
    fn added(&self, count: usize) -> Added {
        let last = self.schema.columns.iter().map(|column| column.attnum).max().unwrap_or(0);
        let is_sent = |attnum: i16| self.unpublished().all(|column| column.attnum != attnum);
        let later = self.shape.attributes.iter().filter(|a| a.attnum > last && is_sent(a.attnum));
        let later: Vec<(i16, bool)> = later.map(|a| (a.attnum, a.dropped)).collect();
        let Some(first) = later.get(..count) else { return Added::Impossible };
        if first.iter().all(|(_, dropped)| !dropped) || later.len() == count {
            return Added::Are(first.iter().map(|(attnum, _)| *attnum).collect());
        }
        // those that are dropped by now may have been so before this message
        let live: Vec<i16> = later.iter().filter(|a| !a.1).map(|a| a.0).take(count).collect();
        let seen = &self.relation.columns[self.relation.columns.len() - count..];
        let fits = |(column, attnum): (&RelationColumn, &i16)| self.is_told(column, *attnum);
        match live.len() == count && seen.iter().zip(&live).all(fits) {
            true => Added::Are(live),
            false => Added::Unclear,
        }
    }

    /// Whether the schema or the catalog gives this attribute this name and type.
    fn is_told(&self, seen: &RelationColumn, attnum: i16) -> bool {
        let known = self.schema.columns.iter().find(|column| column.attnum == attnum);
        let by_schema = known.is_some_and(|c| c.name == seen.name && same_type(&c.pg_type, seen));
        let now = self.now(attnum);
        by_schema || now.is_some_and(|c| c.name == seen.name && same_type(&c.pg_type, seen))
    }

    fn column(
        &self,
        seen: &RelationColumn,
        pg_type: Option<&PgType>,
        attnum: i16,
    ) -> Option<SourceColumn> {
        let known = self.schema.columns.iter().find(|column| column.attnum == attnum);
        let now = self.now(attnum);
        // what is known of the attribute says more, a domain's modifier for one
        let types = now.map(|c| &c.pg_type).into_iter().chain(known.map(|c| &c.pg_type));
        let pg_type = types.into_iter().find(|known| same_type(known, seen)).or(pg_type)?.clone();
        let nullable =
            now.map_or_else(|| known.is_none_or(|known| known.nullable), |now| now.nullable);
        let name = seen.name.clone();
        Some(SourceColumn { name, attnum, pg_type, nullable, generated: Generated::No })
    }

    fn now(&self, attnum: i16) -> Option<&SourceColumn> {
        self.shape.table.columns.iter().find(|column| column.attnum == attnum)
    }

    /// Columns that the stream leaves out.
    fn unpublished(&self) -> impl Iterator<Item = &SourceColumn> {
        self.shape.table.columns.iter().filter(|column| match column.generated {
            Generated::No => false,
            Generated::Stored => !self.publishes_generated,
            Generated::Virtual => true,
        })
    }

    /// The row identity by what the message marks as key. Under FULL everything is marked, so a key is
    /// believed only if it is the one that was known: the whole row is always right.
    fn identity(&self, columns: &[SourceColumn]) -> Result<Option<Identity>, String> {
        let table = &self.shape.table;
        if table.kind == TableKind::PartitionRoot {
            // old rows have the identity of their leaf, which the root's message does not tell
            return Ok(Identity::of(table));
        }
        let marked: Vec<&str> = self
            .relation
            .columns
            .iter()
            .filter(|column| column.is_key)
            .map(|column| column.name.as_str())
            .collect();
        let ordered = |catalog: &[String]| -> Vec<String> {
            match same_set(catalog, &marked) {
                true => catalog.to_vec(),
                false => marked.iter().map(|name| (*name).to_owned()).collect(),
            }
        };
        Ok(match self.relation.replica_identity {
            ReplicaIdentityKind::Nothing => None,
            ReplicaIdentityKind::Default | ReplicaIdentityKind::Index if marked.is_empty() => None,
            ReplicaIdentityKind::Default => Some(Identity::PrimaryKey(ordered(&table.primary_key))),
            ReplicaIdentityKind::Index => {
                let name = match (&table.replica_identity, &self.schema.identity) {
                    (ReplicaIdentity::Index { name, .. }, _)
                    | (_, Identity::Index { name, .. }) => name.clone(),
                    _ => return Err(UNCLEAR.to_owned()),
                };
                let columns = match &table.replica_identity {
                    ReplicaIdentity::Index { columns, .. } => ordered(columns),
                    _ => ordered(&[]),
                };
                Some(Identity::Index { name, columns })
            }
            ReplicaIdentityKind::Full => Some(match &self.schema.identity {
                Identity::PrimaryKey(_) if self.is_known_key(columns) => {
                    Identity::PrimaryKey(table.primary_key.clone())
                }
                _ => Identity::Full,
            }),
        })
    }

    /// Whether the primary key of the catalog is that of the schema, whatever its columns are named.
    fn is_known_key(&self, columns: &[SourceColumn]) -> bool {
        let known: Vec<i16> = self
            .schema
            .identity_positions()
            .into_iter()
            .map(|at| self.schema.columns[at].attnum)
            .collect();
        let attnum = |name: &String| {
            columns.iter().find(|column| column.name == *name).map(|column| column.attnum)
        };
        let now: Option<Vec<i16>> = self.shape.table.primary_key.iter().map(attnum).collect();
        now.is_some_and(|now| now == known)
    }
}

/// Which attributes are new in a message.
enum Added {
    Are(Vec<i16>),
    /// There are not so many.
    Impossible,
    /// More than one choice of them is possible.
    Unclear,
}

/// One way to read a message.
struct Way {
    attnums: Vec<i16>,
    /// Columns that have the name and the type which schema or catalog give them; those that may
    /// have them, where it is not clear which they are.
    told: usize,
    is_clear: bool,
}

fn same_set(catalog: &[String], marked: &[&str]) -> bool {
    catalog.len() == marked.len() && catalog.iter().all(|name| marked.contains(&name.as_str()))
}

/// A domain's own modifier is never sent, so only its OID can be compared.
pub(crate) fn same_type(known: &PgType, found: &RelationColumn) -> bool {
    let is_domain = matches!(known.kind, PgTypeKind::Domain(_));
    let typmod = match &known.kind {
        PgTypeKind::Array(element) => element.typmod,
        _ => known.typmod,
    };
    known.oid == found.type_oid && (is_domain || typmod == found.typmod)
}

#[cfg(test)]
#[path = "attribute_tests.rs"]
mod tests;
