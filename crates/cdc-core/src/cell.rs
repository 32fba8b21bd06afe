//! One row as PostgreSQL sent it: borrowed cells, and the change they belong to.

use crate::Lsn;

/// One value of a row, borrowed from the bytes that arrived.
///
/// `Unchanged` is a value in its own right: PostgreSQL did not send an unchanged TOASTed column.
/// It never becomes NULL; the sink carries the old value over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// Not sent because unchanged (TOAST).
    Unchanged,
    /// The value in PostgreSQL's text form under the pinned session settings.
    Text(&'a [u8]),
}

/// What a change says about the row before it.
#[derive(Clone, Copy, Debug)]
pub enum OldTuple<'a> {
    /// Nothing: the key is unchanged and equals the new row's.
    None,
    /// The replica identity columns; all other cells are `Null`. Cells in table order.
    Key(&'a [Cell<'a>]),
    /// The whole old row (REPLICA IDENTITY FULL).
    Full(&'a [Cell<'a>]),
}

/// A change of one row, or of the whole table, with cells in the order of the relation's columns.
#[derive(Clone, Copy, Debug)]
pub enum RowChange<'a> {
    /// A new row.
    Insert {
        /// All columns.
        new: &'a [Cell<'a>],
    },
    /// A changed row.
    Update {
        /// What is known of the row before.
        old: OldTuple<'a>,
        /// All columns; unchanged TOAST is [`Cell::Unchanged`].
        new: &'a [Cell<'a>],
    },
    /// A removed row; `old` is never [`OldTuple::None`].
    Delete {
        /// What is known of the row before.
        old: OldTuple<'a>,
    },
    /// The table was emptied.
    Truncate,
}

/// Where a change stands. (`commit_lsn`, `xid`, `seq`) identifies it and is the same on every
/// replay; an LSN alone is not an identity.
///
/// The end LSN of the transaction is not part of it: PostgreSQL sends it only with the Commit
/// message, behind the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangePosition {
    /// WAL position of the change.
    pub lsn: Lsn,
    /// Commit time on the source, microseconds since 1970.
    pub commit_micros: i64,
    /// Transaction id.
    pub xid: u32,
    /// Position of the change in its transaction, over all tables, from 0.
    pub seq: u64,
}
