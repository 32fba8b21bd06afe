//! What a block consists of, for whoever consumes the stream.

use cdc_core::{Lsn, RowChange};

use super::ack::AckToken;
use crate::pgoutput::Relation;

/// One event, borrowed from its block. Transactions come whole and in commit order: `Begin`, then
/// changes, then `Commit`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A transaction begins.
    Begin {
        /// LSN of its commit record. A transaction is already held iff this is strictly below the
        /// resume position: it may equal the end of the transaction before.
        final_lsn: Lsn,
        /// Commit time, microseconds since 1970.
        commit_micros: i64,
        /// Transaction id.
        xid: u32,
    },
    /// A relation is described for the first time or differently than before. Never repeated
    /// without a difference.
    Relation(&'a Relation),
    /// A row changed, or a table was emptied (one event per table).
    Change {
        /// OID of the relation, announced before.
        relation: u32,
        /// WAL position of the change. Neither unique nor ordered across transactions.
        lsn: Lsn,
        /// The change; it has as many cells as the relation has columns.
        change: RowChange<'a>,
    },
    /// A logical message. One that is not transactional comes outside `Begin` and `Commit` and
    /// even if its transaction rolls back.
    Message {
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// WAL position.
        lsn: Lsn,
        /// Prefix given to `pg_logical_emit_message`.
        prefix: &'a str,
        /// Content.
        content: &'a [u8],
    },
    /// The transaction came from another node.
    Origin {
        /// Commit LSN there.
        lsn: Lsn,
        /// Name of the replication origin.
        name: &'a str,
    },
    /// The transaction is complete.
    Commit(Commit),
    /// Nothing is in flight: everything committed below this position has been delivered.
    Idle(IdleMark),
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Start of the commit record.
    pub commit_lsn: Lsn,
    /// End of the commit record: what a manifest stores and a restart resumes at.
    pub end_lsn: Lsn,
    /// Commit time, microseconds since 1970.
    pub commit_micros: i64,
    token: AckToken,
}

impl Commit {
    pub(super) fn new(commit_lsn: Lsn, end_lsn: Lsn, commit_micros: i64) -> Self {
        Self { commit_lsn, end_lsn, commit_micros, token: AckToken::new(end_lsn) }
    }

    /// Leave to acknowledge everything up to the end of this transaction.
    pub fn token(&self) -> AckToken {
        self.token
    }
}

/// A position at which the server had nothing more to send. Acknowledging it lets an idle slot
/// advance while other databases and tables write; open transactions are sent again whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleMark {
    /// The server's position.
    pub wal_end: Lsn,
    token: AckToken,
}

impl IdleMark {
    pub(super) fn new(wal_end: Lsn) -> Self {
        Self { wal_end, token: AckToken::new(wal_end) }
    }

    /// Leave to acknowledge, once every commit delivered before is durable.
    pub fn token(&self) -> AckToken {
        self.token
    }
}
