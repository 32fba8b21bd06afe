//! Tables that come and go while the session runs: a copied table gets its lane with the changes that
//! were deferred for it, a table that leaves loses everything.

use std::sync::Arc;

use cdc_core::{Lsn, TableName, TableSchema};
use cdc_sink::{ChangeBuffer, Chunk, DeltaWriter};

use super::schema::{Unsettled, counted, is_as_known};
use super::{FollowedTable, Lane, Lanes, Writer};
use crate::Error;
use crate::commit::CommittedTable;

/// A copied table on its way into a lane.
pub(crate) struct Adopted {
    pub(crate) committed: CommittedTable,
    /// `pg_class.oid`.
    pub(crate) oid: u32,
    /// The position of the copy.
    pub(crate) lsn: Lsn,
    /// Its encoder, over the index of the copy.
    pub(crate) writer: DeltaWriter,
    /// Its changes behind the copy, in the open epoch.
    pub(crate) chunks: Vec<Chunk>,
}

impl Lanes {
    /// Whether the newest description of a relation fits a schema; one that was not described yet
    /// may.
    pub(crate) fn fits(&self, oid: u32, schema: &TableSchema) -> bool {
        self.described.get(&oid).is_none_or(|relation| {
            relation.table() == schema.table && is_as_known(schema, relation)
        })
    }

    /// A relation of which nobody needs to be told that it is not followed: it is about to be.
    pub(crate) fn expect(&mut self, oid: u32) {
        self.ignored.insert(oid);
    }

    /// Follows a copied table. No transaction is open, and no lane of the table. Gives the changes
    /// behind the copy.
    pub(crate) async fn adopt(&mut self, adopted: Adopted) -> Result<u64, Error> {
        let Adopted { committed, oid, lsn, writer, chunks } = adopted;
        let schema = Arc::clone(&committed.schema);
        let table = schema.table.clone();
        let first_part = self.opener.first_free_part(&table, self.epoch).await?;
        self.follow_adopted(
            table.clone(),
            FollowedTable {
                committed,
                schema: Arc::clone(&schema),
                covered: lsn,
                filenode: None,
                recorded_filenode: None,
                oid: Some(oid),
                is_written: true,
            },
        );
        let changes = chunks.iter().map(|chunk| chunk.rows() as u64).sum();
        self.by_oid.insert(oid, self.lanes.len());
        let mut lane = Lane {
            buffer: ChangeBuffer::new(Arc::clone(&schema), self.opener.unrepresentable()),
            covered: lsn,
            is_closed: false,
            hasher: writer.index().hasher(),
            table: table.clone(),
            oid,
            writer: Writer::Idle(Box::new(writer)),
            first_part,
            waiting: Vec::new(),
            changes,
            open_changes: 0,
            writer_bytes: 0,
        };
        for chunk in chunks {
            lane.hand_over(chunk, self.epoch).await?;
        }
        self.lanes.push(lane);
        // it changed behind the last row that was deferred: its next row decides
        if let Some(relation) = self.described.get(&oid).filter(|_| !self.fits(oid, &schema)) {
            let relation = relation.clone();
            let policy = self.opener.unrepresentable();
            self.unwritten.insert(oid, ChangeBuffer::new(counted(&schema, &relation), policy));
            self.unsettled.insert(oid, Unsettled { table, relation });
        }
        Ok(changes)
    }

    fn follow_adopted(&mut self, table: TableName, followed: FollowedTable) {
        if let Some(oid) = followed.oid {
            self.ignored.remove(&oid);
            self.unwritten.remove(&oid);
            self.unsettled.remove(&oid);
            for older in self.tables.values_mut().filter(|older| older.oid == Some(oid)) {
                older.oid = None;
            }
        }
        self.tables.insert(table, followed);
    }

    /// Stops following a table.
    pub(crate) fn forget(&mut self, table: &TableName) {
        self.drop_lane(table);
        self.tables.remove(table);
    }

    /// Waits until the encoders of dropped lanes have let go of their indexes.
    pub(crate) async fn settle_dropped(&mut self) {
        for job in self.dropped.drain(..) {
            // what it did is of no interest
            let _ = job.await;
        }
    }
}
