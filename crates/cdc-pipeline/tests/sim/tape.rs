//! What was committed on the source, in commit order: the truth that everything is compared with.

use std::collections::BTreeMap;

use crate::tables::{Replica, Row, Table};

/// One change of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Insert { table: usize, row: Row },
    Update { table: usize, old: Row, new: Row },
    Delete { table: usize, old: Row },
    Truncate { tables: Vec<usize> },
}

/// A change and where its record begins.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) lsn: u64,
    pub(crate) op: Op,
}

/// A committed transaction.
#[derive(Clone, Debug)]
pub(crate) struct Txn {
    pub(crate) xid: u32,
    /// Start of the commit record.
    pub(crate) commit_lsn: u64,
    /// Its end.
    pub(crate) end_lsn: u64,
    /// Microseconds since 1970.
    pub(crate) micros: i64,
    pub(crate) changes: Vec<Change>,
}

/// A row of a changelog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Logged {
    pub(crate) commit_lsn: i64,
    pub(crate) seq: i64,
    pub(crate) op: String,
    pub(crate) lsn: i64,
    pub(crate) xid: i64,
    pub(crate) micros: i64,
    pub(crate) row: Row,
    pub(crate) unsent: Vec<String>,
}

/// The rows of all tables, each with how often it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows(pub(crate) Vec<BTreeMap<Row, u64>>);

impl Rows {
    pub(crate) fn new(tables: usize) -> Rows {
        Rows(vec![BTreeMap::new(); tables])
    }

    pub(crate) fn add(&mut self, table: usize, row: Row) {
        *self.0[table].entry(row).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, table: usize, row: &Row) {
        if let Some(count) = self.0[table].get_mut(row) {
            *count -= 1;
            if *count == 0 {
                self.0[table].remove(row);
            }
        }
    }

    pub(crate) fn apply(&mut self, txn: &Txn) {
        for change in &txn.changes {
            match &change.op {
                Op::Insert { table, row } => self.add(*table, row.clone()),
                Op::Update { table, old, new } => {
                    self.remove(*table, old);
                    self.add(*table, new.clone());
                }
                Op::Delete { table, old } => self.remove(*table, old),
                Op::Truncate { tables } => {
                    tables.iter().for_each(|table| self.0[*table].clear());
                }
            }
        }
    }
}

impl Txn {
    /// Whether the lake has anything to store of it.
    pub(crate) fn touches(&self, tables: &[Table]) -> bool {
        self.changes.iter().any(|change| match &change.op {
            Op::Insert { table, .. } | Op::Update { table, .. } | Op::Delete { table, .. } => {
                tables[*table].is_followed
            }
            Op::Truncate { tables: emptied } => emptied.iter().any(|at| tables[*at].is_followed),
        })
    }

    /// What the changelogs must have of it, by table.
    pub(crate) fn logged(&self, tables: &[Table], logs: &mut [Vec<Logged>]) {
        let mut seq = 0;
        for change in &self.changes {
            let mut log = |table: usize, op: &str, row: Row, unsent: Vec<String>| {
                logs[table].push(Logged {
                    commit_lsn: self.end_lsn.cast_signed(),
                    seq,
                    op: op.to_owned(),
                    lsn: change.lsn.cast_signed(),
                    xid: i64::from(self.xid),
                    micros: self.micros,
                    row,
                    unsent,
                });
                seq += 1;
            };
            match &change.op {
                Op::Insert { table, row } => log(*table, "I", row.clone(), Vec::new()),
                Op::Delete { table, old } => {
                    log(*table, "D", old_image(&tables[*table], old), Vec::new());
                }
                Op::Update { table, old, new } => {
                    let shape = &tables[*table];
                    let names = shape.columns.iter().zip(shape.unsent(old, new));
                    let unsent: Vec<String> = names
                        .filter(|(_, unsent)| *unsent)
                        .map(|((name, _), _)| (*name).to_owned())
                        .collect();
                    if shape.is_followed && !shape.same_key(old, new) {
                        log(*table, "D", old_image(shape, old), Vec::new());
                        log(*table, "I", new.clone(), unsent);
                    } else {
                        log(*table, "U", new.clone(), unsent);
                    }
                }
                Op::Truncate { tables: emptied } => {
                    for table in emptied {
                        log(*table, "T", vec![None; tables[*table].columns.len()], Vec::new());
                    }
                }
            }
        }
    }
}

/// What the source sends of an old row.
pub(crate) fn old_image(table: &Table, old: &Row) -> Row {
    match table.replica {
        Replica::Full => old.clone(),
        Replica::Default | Replica::Index => table.key_only(old),
    }
}
