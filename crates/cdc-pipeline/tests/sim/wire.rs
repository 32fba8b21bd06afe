//! The bytes that a walsender sends, written from the protocol's documentation
//! (<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>).

use crate::tables::{Replica, Row, Table};
use crate::tape::{Change, Op, Txn, old_image};

/// Microseconds from 1970 to 2000.
const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A message of the frontend/backend protocol.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// The start of every answer to a login: it is accepted.
pub(crate) fn welcome() -> Vec<u8> {
    [message(b'R', &0u32.to_be_bytes()), message(b'Z', b"I")].concat()
}

pub(crate) fn data_row(cells: &[String]) -> Vec<u8> {
    let mut body = u16::try_from(cells.len()).unwrap_or(0).to_be_bytes().to_vec();
    for cell in cells {
        body.extend_from_slice(&u32::try_from(cell.len()).unwrap_or(0).to_be_bytes());
        body.extend_from_slice(cell.as_bytes());
    }
    message(b'D', &body)
}

pub(crate) fn error(sqlstate: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0").as_bytes())
}

pub(crate) fn keepalive(wal_end: u64, wants_reply: bool) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.extend_from_slice(&wal_end.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.push(u8::from(wants_reply));
    message(b'd', &body)
}

/// WAL data at a position.
fn wal(lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.extend_from_slice(&lsn.to_be_bytes());
    body.extend_from_slice(&lsn.to_be_bytes());
    body.extend_from_slice(&[0; 8]);
    body.extend_from_slice(payload);
    message(b'd', &body)
}

/// The frames of a transaction. `known` has the relations that this connection has described.
pub(crate) fn transaction(txn: &Txn, tables: &[Table], known: &mut [bool]) -> Vec<Vec<u8>> {
    let first = txn.changes.first().map_or(txn.commit_lsn, |change| change.lsn);
    let micros = txn.micros - PG_EPOCH_MICROS;
    let mut begin = vec![b'B'];
    begin.extend_from_slice(&txn.commit_lsn.to_be_bytes());
    begin.extend_from_slice(&micros.to_be_bytes());
    begin.extend_from_slice(&txn.xid.to_be_bytes());
    let mut frames = vec![wal(first, &begin)];
    for change in &txn.changes {
        for table in touched(change) {
            if !std::mem::replace(&mut known[table], true) {
                frames.push(wal(0, &relation(&tables[table])));
            }
        }
        frames.push(wal(change.lsn, &payload(&change.op, tables)));
    }
    let mut commit = vec![b'C', 0];
    commit.extend_from_slice(&txn.commit_lsn.to_be_bytes());
    commit.extend_from_slice(&txn.end_lsn.to_be_bytes());
    commit.extend_from_slice(&micros.to_be_bytes());
    frames.push(wal(txn.end_lsn, &commit));
    frames
}

fn touched(change: &Change) -> Vec<usize> {
    match &change.op {
        Op::Insert { table, .. } | Op::Update { table, .. } | Op::Delete { table, .. } => {
            vec![*table]
        }
        Op::Truncate { tables } => tables.clone(),
    }
}

fn relation(table: &Table) -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend_from_slice(&table.oid.to_be_bytes());
    out.extend_from_slice(b"public\0");
    out.extend_from_slice(table.name.as_bytes());
    out.push(0);
    out.push(match table.replica {
        Replica::Default => b'd',
        Replica::Full => b'f',
        Replica::Index => b'i',
    });
    out.extend_from_slice(&u16::try_from(table.columns.len()).unwrap_or(0).to_be_bytes());
    for (at, (name, type_oid)) in table.columns.iter().enumerate() {
        out.push(u8::from(table.replica == Replica::Full || table.key.contains(&at)));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(&type_oid.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
    }
    out
}

fn payload(op: &Op, tables: &[Table]) -> Vec<u8> {
    match op {
        Op::Insert { table, row } => {
            let mut out = row_head(b'I', &tables[*table]);
            out.push(b'N');
            tuple(&mut out, row, &vec![false; row.len()]);
            out
        }
        Op::Update { table, old, new } => {
            let table = &tables[*table];
            let mut out = row_head(b'U', table);
            if table.replica == Replica::Full || !table.same_key(old, new) {
                old_tuple(&mut out, table, old);
            }
            out.push(b'N');
            tuple(&mut out, new, &table.unsent(old, new));
            out
        }
        Op::Delete { table, old } => {
            let table = &tables[*table];
            let mut out = row_head(b'D', table);
            old_tuple(&mut out, table, old);
            out
        }
        Op::Truncate { tables: emptied } => {
            let mut out = vec![b'T'];
            out.extend_from_slice(&u32::try_from(emptied.len()).unwrap_or(0).to_be_bytes());
            out.push(0);
            emptied.iter().for_each(|at| out.extend_from_slice(&tables[*at].oid.to_be_bytes()));
            out
        }
    }
}

fn row_head(kind: u8, table: &Table) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&table.oid.to_be_bytes());
    out
}

fn old_tuple(out: &mut Vec<u8>, table: &Table, old: &Row) {
    out.push(if table.replica == Replica::Full { b'O' } else { b'K' });
    let image = old_image(table, old);
    tuple(out, &image, &vec![false; image.len()]);
}

fn tuple(out: &mut Vec<u8>, row: &Row, unsent: &[bool]) {
    out.extend_from_slice(&u16::try_from(row.len()).unwrap_or(0).to_be_bytes());
    for (cell, unsent) in row.iter().zip(unsent) {
        match cell {
            None => out.push(b'n'),
            Some(_) if *unsent => out.push(b'u'),
            Some(text) => {
                out.push(b't');
                out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}
