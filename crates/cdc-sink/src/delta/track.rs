//! Which versions are live and which are superseded, followed through the changes of an epoch.

use std::collections::BTreeMap;

use cdc_core::{Epoch, Identity, TableName, TableSchema};

use super::live::{ByHash, LiveRows, OpenRow};
use crate::chunk::Chunk;
use crate::index::{FileRef, KeyIndex, Position, Record};
use crate::{Error, Result};

/// The rows of an epoch: what is live in its files, what it supersedes.
pub(super) struct Tracker {
    table: TableName,
    epoch: Epoch,
    /// Rows remembered in memory before they move to the index on disk.
    rows_max: usize,
    live: LiveRows,
    /// Superseded rows by file.
    deletes: BTreeMap<FileRef, Vec<u32>>,
    /// Superseded rows whose last version is somewhere in the index. They are looked up many at a
    /// time: a look at 100,000 scattered identities costs little more than one at 10,000.
    unresolved: Vec<Lookup>,
    /// Records of the index that are superseded.
    removed: Vec<Record>,
    /// How many of the index's positions of an identity are superseded; they go in the index's
    /// order.
    taken: ByHash<u32>,
    truncate: bool,
}

/// An identity whose last version is in the index, and the row of the present chunk that supersedes
/// it, if somebody wants to know.
struct Lookup {
    hash: u128,
    row: Option<usize>,
}

/// A change row of a chunk: its operation, the hash of its own image and of the row it replaces.
struct Change {
    op: u8,
    own: u128,
    replaced: u128,
}

impl Tracker {
    pub(super) fn new(table: TableName, epoch: Epoch, rows_max: usize) -> Self {
        Self {
            table,
            epoch,
            rows_max,
            live: LiveRows::default(),
            deletes: BTreeMap::new(),
            unresolved: Vec::new(),
            removed: Vec::new(),
            taken: ByHash::default(),
            truncate: false,
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        let deletes: usize = self.deletes.values().map(|rows| rows.capacity() * 4).sum();
        let unresolved = self.unresolved.capacity() * size_of::<Lookup>();
        let removed = self.removed.capacity() * size_of::<Record>();
        self.live.memory_bytes() + deletes + unresolved + removed + self.taken.capacity() * 33
    }

    /// Follows the rows of a chunk that starts at `start`. `earlier` names the epoch's complete
    /// files and their rows. Where the chunk lacks values, gives the last version of each row that
    /// a `U` or `D` supersedes.
    ///
    /// # Errors
    /// [`Error::MissingRow`] for a row that is neither here nor in the index, now or in a later
    /// call; errors of the index.
    pub(super) fn follow(
        &mut self,
        chunk: &Chunk,
        start: OpenRow,
        earlier: &[(FileRef, u32)],
        index: &mut KeyIndex,
    ) -> Result<Vec<Option<Position>>> {
        let hashes = hashes(chunk, index)?;
        let mut old_hashes = old_hashes(chunk, index)?.into_iter();
        let is_unique = chunk.schema.identity != Identity::Full;
        let mut previous = vec![None; if chunk.patches.is_empty() { 0 } else { chunk.rows() }];
        for (row, op) in chunk.ops.iter().copied().enumerate() {
            let own = hashes[row];
            let replaced = if op == b'U' { old_hashes.next().unwrap_or(own) } else { own };
            let at = OpenRow::new(start.part(), start.row() + row_number(row));
            if op == b'T' {
                self.resolve(is_unique, &mut previous, index)?;
                self.truncate(at, earlier, index)?;
            } else {
                self.follow_row(&Change { op, own, replaced }, row, at, &mut previous)?;
            }
        }
        if !previous.is_empty() || self.unresolved.len() > self.rows_max / 2 {
            self.resolve(is_unique, &mut previous, index)?;
        }
        if self.live.len() + self.removed.len() + self.unresolved.len() > self.rows_max {
            self.resolve(is_unique, &mut previous, index)?;
            self.move_to_index(index)?;
        }
        // a row number means nothing outside its chunk
        self.unresolved.iter_mut().for_each(|lookup| lookup.row = None);
        Ok(previous)
    }

    fn follow_row(
        &mut self,
        change: &Change,
        row: usize,
        at: OpenRow,
        previous: &mut [Option<Position>],
    ) -> Result<()> {
        if change.op != b'I' {
            match self.live.remove(change.replaced) {
                Some(open) => {
                    let position = self.position(open)?;
                    self.delete(position);
                    if let Some(previous) = previous.get_mut(row) {
                        *previous = Some(position);
                    }
                }
                None => {
                    self.unresolved.push(Lookup { hash: change.replaced, row: Some(row) });
                }
            }
        }
        if change.op == b'D' {
            let position = self.position(at)?;
            self.delete(position);
        } else {
            self.live.insert(change.own, at);
        }
        Ok(())
    }

    /// Finds rows that are not live in memory in the index, and supersedes them.
    fn resolve(
        &mut self,
        is_unique: bool,
        previous: &mut [Option<Position>],
        index: &KeyIndex,
    ) -> Result<()> {
        let lookups = std::mem::take(&mut self.unresolved);
        if lookups.is_empty() {
            return Ok(());
        }
        let wanted: Vec<u128> = lookups.iter().map(|lookup| lookup.hash).collect();
        let most = if is_unique { 1 } else { self.positions_wanted(&wanted) };
        let found = index.lookup_many(&wanted, most)?;
        for (Lookup { hash, row }, positions) in lookups.into_iter().zip(found.iter()) {
            let taken = self.taken.entry(hash).or_default();
            let Some(position) = positions.get(*taken as usize).copied() else {
                return Err(Error::MissingRow { table: self.table.clone() });
            };
            *taken += 1;
            self.removed.push(Record { hash, position });
            self.deletes.entry(position.file).or_default().push(position.row);
            if let Some(previous) = row.and_then(|row| previous.get_mut(row)) {
                *previous = Some(position);
            }
        }
        Ok(())
    }

    /// How many positions of one identity may be needed: more than one only where rows without a
    /// key repeat.
    fn positions_wanted(&self, hashes: &[u128]) -> usize {
        let mut asked: ByHash<u32> = ByHash::default();
        let mut most = 1;
        for hash in hashes {
            let known = || self.taken.get(hash).copied().unwrap_or(0);
            let count = asked.entry(*hash).or_insert_with(known);
            *count += 1;
            most = most.max(*count);
        }
        most as usize
    }

    /// Empties the table: every row of this epoch's files up to the `T` at `at` is dead, and every
    /// older file leaves the table.
    fn truncate(
        &mut self,
        at: OpenRow,
        earlier: &[(FileRef, u32)],
        index: &mut KeyIndex,
    ) -> Result<()> {
        self.truncate = true;
        self.live.drain();
        self.removed.clear();
        self.taken.clear();
        index.truncate();
        let current = self.position(at)?.file;
        let dead = earlier.iter().copied().chain([(current, at.row() + 1)]);
        self.deletes = dead.map(|(file, rows)| (file, (0..rows).collect())).collect();
        Ok(())
    }

    /// Whether the table was truncated in this epoch.
    pub(super) fn is_truncated(&self) -> bool {
        self.truncate
    }

    /// Hands all records to the index and gives the superseded rows by file, ascending.
    ///
    /// # Errors
    /// As [`Tracker::follow`].
    pub(super) fn finish(
        mut self,
        is_unique: bool,
        index: &mut KeyIndex,
    ) -> Result<BTreeMap<FileRef, Vec<u32>>> {
        self.resolve(is_unique, &mut [], index)?;
        self.move_to_index(index)?;
        for rows in self.deletes.values_mut() {
            rows.sort_unstable();
        }
        Ok(self.deletes)
    }

    /// Moves what is remembered to the index.
    ///
    /// # Errors
    /// As [`Tracker::follow`].
    pub(super) fn shrink(&mut self, is_unique: bool, index: &mut KeyIndex) -> Result<()> {
        self.resolve(is_unique, &mut [], index)?;
        self.move_to_index(index)
    }

    fn move_to_index(&mut self, index: &mut KeyIndex) -> Result<()> {
        let adds = self.live.drain_records(self.epoch);
        self.taken.clear();
        index.apply(adds, std::mem::take(&mut self.removed))
    }

    fn delete(&mut self, position: Position) {
        self.deletes.entry(position.file).or_default().push(position.row);
    }

    fn position(&self, row: OpenRow) -> Result<Position> {
        row.position(self.epoch).ok_or(Error::TooManyFiles { epoch: self.epoch })
    }
}

/// The text by which a key index knows the identity of a table: its kind and the field ids of its
/// columns, of all columns where the whole row is the identity. An index made for another identity
/// must be rebuilt.
pub fn index_identity(schema: &TableSchema) -> String {
    let columns: Vec<String> = identity_columns(schema)
        .into_iter()
        .map(|at| schema.columns[at].field_id.0.to_string())
        .collect();
    format!("{}:{}", schema.identity.label(), columns.join(","))
}

/// Positions of the columns whose values are the identity.
pub(crate) fn identity_columns(schema: &TableSchema) -> Vec<usize> {
    match schema.identity {
        Identity::Full => (0..schema.columns.len()).collect(),
        _ => schema.identity_positions(),
    }
}

fn hashes(chunk: &Chunk, index: &KeyIndex) -> Result<Vec<u128>> {
    let columns = identity_columns(&chunk.schema);
    let arrays: Vec<_> =
        columns.into_iter().map(|at| std::sync::Arc::clone(chunk.batch.column(at))).collect();
    if arrays.is_empty() {
        // a table without columns: all its rows are the same
        return Ok(vec![0; chunk.rows()]);
    }
    index.hasher().hash_rows(&arrays)
}

/// Hashes of the rows before each `U`, where the identity is the whole row.
fn old_hashes(chunk: &Chunk, index: &KeyIndex) -> Result<Vec<u128>> {
    match &chunk.old_rows {
        Some(old) if old.num_rows() > 0 && old.num_columns() > 0 => {
            index.hasher().hash_rows(old.columns())
        }
        _ => Ok(Vec::new()),
    }
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
