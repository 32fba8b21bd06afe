//! The changes of a table that is being copied: kept until the copy stands, then those that the copy
//! does not have go on through a lane.

use std::sync::Arc;

use cdc_core::{
    ChangePosition, Epoch, Lsn, RowChange, TableName, TableSchema, UnrepresentablePolicy,
};
use cdc_sink::{ChangeBuffer, Chunk, chunks_after};

use crate::Error;

/// What has gathered of one table.
pub(crate) struct Deferred {
    table: TableName,
    oid: u32,
    policy: UnrepresentablePolicy,
    buffer: ChangeBuffer,
    chunks: Vec<Chunk>,
    chunk_bytes: usize,
    /// The position of the copy, once known: transactions below need not be kept.
    from: Lsn,
    /// End of the last transaction that came.
    last_end: Lsn,
    /// Why the open transaction cannot be used.
    open_misfit: Option<Error>,
    /// The same of the last such transaction, with its end.
    misfit: Option<(Lsn, Error)>,
}

impl Deferred {
    /// Nothing yet.
    pub(crate) fn new(
        oid: u32,
        schema: Arc<TableSchema>,
        policy: UnrepresentablePolicy,
    ) -> Deferred {
        Deferred {
            table: schema.table.clone(),
            oid,
            policy,
            buffer: ChangeBuffer::new(schema, policy),
            chunks: Vec::new(),
            chunk_bytes: 0,
            from: Lsn::ZERO,
            last_end: Lsn::ZERO,
            open_misfit: None,
            misfit: None,
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> &TableName {
        &self.table
    }

    /// The relation whose changes are kept.
    pub(crate) fn oid(&self) -> u32 {
        self.oid
    }

    /// The schema that the changes must have.
    pub(crate) fn schema(&self) -> &Arc<TableSchema> {
        self.buffer.schema()
    }

    /// The copy stands at `lsn`: what has gathered below goes. `open` is where the commit record of
    /// the open transaction is.
    pub(crate) fn begin_at(&mut self, lsn: Lsn, open: Option<Lsn>) {
        self.from = lsn;
        if self.last_end <= lsn && open.is_none_or(|open| open < lsn) {
            self.open_misfit = None;
            let schema = Arc::clone(self.buffer.schema());
            self.buffer = ChangeBuffer::new(schema, self.policy);
            self.chunks.clear();
            (self.chunk_bytes, self.misfit) = (0, None);
        }
    }

    /// Whether the copy certainly has a transaction, by the LSN of its commit record.
    pub(crate) fn covers(&self, final_lsn: Lsn) -> bool {
        final_lsn < self.from
    }

    /// How many sequence numbers a change would use.
    pub(crate) fn sequence_numbers(&self, change: &RowChange<'_>) -> u64 {
        self.buffer.sequence_numbers(change)
    }

    /// Adds a change and gives how many sequence numbers it used. A change that cannot be kept spoils
    /// its transaction, which matters only if the copy does not have it.
    pub(crate) fn push(
        &mut self,
        change: &RowChange<'_>,
        at: &ChangePosition,
        epoch: Epoch,
    ) -> Result<u64, Error> {
        match self.buffer.push(change, at, epoch) {
            Ok(used) => {
                if self.buffer.is_full() {
                    self.seal()?;
                }
                Ok(used)
            }
            Err(error) => {
                self.spoil(error.into());
                Ok(self.buffer.sequence_numbers(change))
            }
        }
    }

    /// The open transaction has a change that cannot be kept.
    pub(crate) fn spoil(&mut self, error: Error) {
        self.open_misfit.get_or_insert(error);
    }

    /// Ends the open transaction.
    pub(crate) fn commit(&mut self, end_lsn: Lsn) {
        self.buffer.commit(end_lsn);
        self.last_end = end_lsn;
        if let Some(error) = self.open_misfit.take() {
            self.misfit = Some((end_lsn, error));
        }
    }

    /// Bytes that are kept.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.chunk_bytes + self.buffer.byte_len()
    }

    fn seal(&mut self) -> Result<(), Error> {
        let chunk = self.buffer.take_chunk()?;
        self.chunk_bytes += chunk.memory_bytes();
        self.chunks.push(chunk);
        Ok(())
    }

    /// The changes of the transactions that end above `lsn`, as of another epoch. No transaction may
    /// be open.
    ///
    /// # Errors
    /// Of the last change that could not be kept, if its transaction ends above `lsn`.
    pub(crate) fn above(mut self, lsn: Lsn, epoch: Epoch) -> Result<Vec<Chunk>, Error> {
        if let Some((end, error)) = self.misfit.take()
            && end > lsn
        {
            return Err(error);
        }
        if !self.buffer.is_empty() {
            self.seal()?;
        }
        let chunks = chunks_after(self.chunks, lsn, epoch)?;
        Ok(chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use cdc_core::{
        Cell, Generated, Identity, PgType, ReplicaIdentity, SourceColumn, SourceTable, TableKind,
        TypePolicy, oid,
    };

    use super::*;

    const OID: u32 = 7;

    fn deferred() -> Deferred {
        let source = SourceTable {
            name: TableName::new("public", "t"),
            oid: OID,
            kind: TableKind::Table,
            columns: vec![SourceColumn {
                name: "id".into(),
                attnum: 1,
                pg_type: PgType::base(oid::INT4, "integer"),
                nullable: false,
                generated: Generated::No,
            }],
            primary_key: vec!["id".into()],
            replica_identity: ReplicaIdentity::Default,
            partition_root: None,
            estimated_rows: -1,
            heap_bytes: 0,
        };
        let identity = Identity::PrimaryKey(vec!["id".into()]);
        let schema = TableSchema::first(&source, identity, &TypePolicy::default(), |_| None, false);
        Deferred::new(OID, Arc::new(schema), UnrepresentablePolicy::Error)
    }

    /// A transaction of these rows that ends at `end`.
    fn transaction(deferred: &mut Deferred, end: u64, rows: &[&str]) {
        for (seq, id) in rows.iter().enumerate() {
            let at = ChangePosition { lsn: Lsn(end), commit_micros: 0, xid: 1, seq: seq as u64 };
            let cells = [Cell::Text(id.as_bytes())];
            let used = deferred.push(&RowChange::Insert { new: &cells }, &at, Epoch(1)).unwrap();
            assert_eq!(used, 1);
        }
        deferred.commit(Lsn(end));
    }

    fn rows(chunks: &[Chunk]) -> usize {
        chunks.iter().map(Chunk::rows).sum()
    }

    #[test]
    fn what_the_copy_has_is_left_out() {
        for (lsn, expected) in [(0, 6), (10, 4), (19, 4), (20, 1), (30, 0)] {
            let mut deferred = deferred();
            transaction(&mut deferred, 10, &["1", "2"]);
            transaction(&mut deferred, 20, &["3", "4", "5"]);
            transaction(&mut deferred, 30, &["6"]);
            let kept = deferred.above(Lsn(lsn), Epoch(9)).unwrap();
            assert_eq!(rows(&kept), expected, "behind {lsn}");
        }
    }

    #[test]
    fn nothing_below_the_copy_is_kept_once_its_position_is_known() {
        let mut deferred = deferred();
        transaction(&mut deferred, 10, &["1", "no number"]);
        transaction(&mut deferred, 20, &["2", "3"]);
        deferred.begin_at(Lsn(25), None);
        assert_eq!(deferred.memory_bytes(), 0);
        assert!(deferred.covers(Lsn(24)) && !deferred.covers(Lsn(25)));
        transaction(&mut deferred, 30, &["4"]);
        assert_eq!(rows(&deferred.above(Lsn(25), Epoch(9)).unwrap()), 1);
    }

    #[test]
    fn an_open_transaction_below_the_copy_is_kept_no_more() {
        for (lsn, kept) in [(25, 0), (15, 3)] {
            let mut deferred = deferred();
            transaction(&mut deferred, 10, &["1", "2"]);
            let at = ChangePosition { lsn: Lsn(20), commit_micros: 0, xid: 1, seq: 0 };
            let cells = [Cell::Text(b"3")];
            deferred.push(&RowChange::Insert { new: &cells }, &at, Epoch(1)).unwrap();
            deferred.begin_at(Lsn(lsn), Some(Lsn(20)));
            assert_eq!(deferred.buffer.rows(), kept, "a copy at {lsn}");
            deferred.commit(Lsn(21));
            let above = deferred.above(Lsn(lsn), Epoch(9)).unwrap();
            assert_eq!(rows(&above), usize::from(lsn < 20), "behind {lsn}");
        }
    }

    #[test]
    fn what_gathered_on_both_sides_of_the_copy_is_parted_at_the_end() {
        let mut deferred = deferred();
        transaction(&mut deferred, 10, &["1"]);
        transaction(&mut deferred, 30, &["2", "3"]);
        deferred.begin_at(Lsn(20), None);
        assert_eq!(rows(&deferred.above(Lsn(20), Epoch(9)).unwrap()), 2);
    }

    #[test]
    fn a_change_that_cannot_be_kept_matters_behind_the_copy_only() {
        for (lsn, is_usable) in [(10, false), (20, true)] {
            let mut deferred = deferred();
            transaction(&mut deferred, 10, &["1"]);
            transaction(&mut deferred, 20, &["2", "no number", "3"]);
            transaction(&mut deferred, 30, &["4"]);
            assert_eq!(deferred.above(Lsn(lsn), Epoch(9)).is_ok(), is_usable, "behind {lsn}");
        }
    }

    #[test]
    fn the_end_of_a_transaction_survives_a_cut_before_it() {
        let mut deferred = deferred();
        let at = ChangePosition { lsn: Lsn(5), commit_micros: 0, xid: 1, seq: 0 };
        let cells = [Cell::Text(b"1")];
        deferred.push(&RowChange::Insert { new: &cells }, &at, Epoch(1)).unwrap();
        deferred.seal().unwrap();
        deferred.commit(Lsn(10));
        let kept = deferred.above(Lsn(0), Epoch(2)).unwrap();
        assert_eq!((kept.len(), rows(&kept)), (2, 1));
    }

    #[test]
    fn what_is_kept_counts_as_memory() {
        let mut deferred = deferred();
        assert_eq!(deferred.memory_bytes(), 0);
        transaction(&mut deferred, 10, &["1", "2"]);
        let gathered = deferred.memory_bytes();
        assert!(gathered > 0);
        deferred.seal().unwrap();
        assert!(deferred.memory_bytes() > 0);
    }
}
