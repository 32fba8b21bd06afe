//! The tables of the simulated source: one for each way in which PostgreSQL tells rows apart.

use cdc_core::{Column, FieldId, Identity, PgType, StoredType, TableName, TableSchema, oid};

/// A row as text, NULL where there is none.
pub(crate) type Row = Vec<Option<String>>;

/// Texts of this length and more stand for values stored out of line: they are not sent again when
/// an update leaves them as they are.
pub(crate) const TOAST_CHARS: usize = 40;

/// `relreplident` and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replica {
    Default,
    Full,
    Index,
}

/// A table of the source.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) name: &'static str,
    /// Name and type OID.
    pub(crate) columns: &'static [(&'static str, u32)],
    /// Columns that rows are told apart by; none if all are.
    pub(crate) key: &'static [usize],
    pub(crate) replica: Replica,
    /// Whether the lake follows it.
    pub(crate) is_followed: bool,
}

pub(crate) const ACCOUNTS: usize = 0;
pub(crate) const SAVINGS: usize = 1;
pub(crate) const ITEMS: usize = 2;
pub(crate) const EVENTS: usize = 3;
pub(crate) const BLOBS: usize = 4;
pub(crate) const OTHER: usize = 5;

/// All tables, by number.
pub(crate) fn tables() -> Vec<Table> {
    const BANK: &[(&str, u32)] = &[("id", oid::INT8), ("balance", oid::INT8), ("memo", oid::TEXT)];
    let table = |number: u32, name, columns, key, replica| Table {
        oid: 16_400 + number,
        name,
        columns,
        key,
        replica,
        is_followed: true,
    };
    let items = &[("id", oid::INT8), ("code", oid::TEXT), ("qty", oid::INT4), ("note", oid::TEXT)];
    let blobs = &[("a", oid::INT4), ("b", oid::TEXT), ("payload", oid::TEXT)];
    let other = table(5, "other", &[("id", oid::INT8)], &[0], Replica::Default);
    vec![
        table(0, "accounts", BANK, &[0], Replica::Default),
        table(1, "savings", BANK, &[0], Replica::Full),
        table(2, "items", items, &[1], Replica::Index),
        table(3, "events", &[("kind", oid::INT4), ("body", oid::TEXT)], &[], Replica::Full),
        table(4, "blobs", blobs, &[0, 1], Replica::Default),
        Table { is_followed: false, ..other },
    ]
}

impl Table {
    pub(crate) fn table_name(&self) -> TableName {
        TableName::new("public", self.name)
    }

    /// What discovery and init would make of it.
    pub(crate) fn schema(&self) -> TableSchema {
        let names = || self.key.iter().map(|at| self.columns[*at].0.to_owned()).collect();
        let columns = self.columns.iter().enumerate().map(|(at, (name, type_oid))| {
            let (type_name, stored) = match *type_oid {
                oid::INT8 => ("bigint", StoredType::Int64),
                oid::INT4 => ("integer", StoredType::Int32),
                _ => ("text", StoredType::String),
            };
            let number = i32::try_from(at).unwrap_or(0);
            Column {
                name: (*name).to_owned(),
                field_id: FieldId(FieldId::FIRST_USER.0 + number),
                element_id: None,
                attnum: i16::try_from(at + 1).unwrap_or(0),
                pg_type: PgType::base(*type_oid, type_name),
                stored,
                nullable: !self.key.contains(&at),
                lossy: false,
            }
        });
        TableSchema {
            table: self.table_name(),
            version: 1,
            columns: columns.collect(),
            identity: match (self.replica, self.key) {
                (_, []) => Identity::Full,
                (Replica::Index, _) => {
                    Identity::Index { name: format!("{}_code_key", self.name), columns: names() }
                }
                _ => Identity::PrimaryKey(names()),
            },
            next_field_id: FieldId(
                FieldId::FIRST_USER.0 + i32::try_from(self.columns.len()).unwrap_or(0),
            ),
            omitted: Vec::new(),
        }
    }

    pub(crate) fn same_key(&self, one: &Row, other: &Row) -> bool {
        self.key.iter().all(|at| one[*at] == other[*at])
    }

    /// The row with nothing but the key.
    pub(crate) fn key_only(&self, row: &Row) -> Row {
        let kept = |at: usize| self.key.contains(&at).then(|| row[at].clone()).flatten();
        (0..row.len()).map(kept).collect()
    }

    /// Which columns an update leaves out.
    pub(crate) fn unsent(&self, old: &Row, new: &Row) -> Vec<bool> {
        let unsent = |at: usize| {
            let is_long = new[at].as_ref().is_some_and(|text| text.len() >= TOAST_CHARS);
            is_long && self.columns[at].1 == oid::TEXT && old[at] == new[at]
        };
        (0..new.len()).map(unsent).collect()
    }
}
