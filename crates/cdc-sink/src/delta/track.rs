//! Which versions are live and which are superseded, followed through the changes of an epoch.

use std::collections::{BTreeMap, HashMap};

use cdc_core::{Epoch, Identity, TableSchema};

use super::live::{LiveRows, OpenRow};
use crate::chunk::Chunk;
use crate::index::{FileRef, KeyIndex, Position, Record};
use crate::{Error, Result};

/// Live and superseded rows remembered in memory before they move to the index on disk.
const TRACKED_ROWS_MAX: usize = 2 << 20;

/// The rows of an epoch: what is live in its files, what it supersedes.
pub(super) struct Tracker {
    epoch: Epoch,
    live: LiveRows,
    /// Superseded rows by file.
    deletes: BTreeMap<FileRef, Vec<u32>>,
    /// Records of the index that are superseded.
    removed: Vec<Record>,
    /// How many of the index's positions of an identity are superseded; they go in the index's
    /// order.
    taken: HashMap<u128, usize>,
    truncate: bool,
}

/// What a chunk's rows do, for one look at the index.
struct Lookup {
    hash: u128,
    row: usize,
}

/// A change row of a chunk: its operation, the hash of its own image and of the row it replaces.
struct Change {
    op: u8,
    own: u128,
    replaced: u128,
}

impl Tracker {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            live: LiveRows::default(),
            deletes: BTreeMap::new(),
            removed: Vec::new(),
            taken: HashMap::new(),
            truncate: false,
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        let deletes: usize = self.deletes.values().map(|rows| rows.capacity() * 4).sum();
        self.live.memory_bytes()
            + deletes
            + self.removed.capacity() * 48
            + self.taken.capacity() * 33
    }

    /// Follows the rows of a chunk that starts at `start`; gives the last version of each row that
    /// a `U` or `D` supersedes. `earlier` names the epoch's complete files and their rows.
    ///
    /// # Errors
    /// [`Error::MissingRow`] for a row that is neither here nor in the index; errors of the index.
    pub(super) fn follow(
        &mut self,
        chunk: &Chunk,
        start: OpenRow,
        earlier: &[(FileRef, u32)],
        index: &mut KeyIndex,
    ) -> Result<Vec<Option<Position>>> {
        let hashes = hashes(chunk, index)?;
        let mut old_hashes = old_hashes(chunk, index)?.into_iter();
        let mut previous = vec![None; chunk.rows()];
        let mut lookups = Vec::new();
        for (row, op) in chunk.ops.iter().copied().enumerate() {
            let own = hashes[row];
            let replaced = if op == b'U' { old_hashes.next().unwrap_or(own) } else { own };
            let at = OpenRow::new(start.part(), start.row() + row_number(row));
            if op == b'T' {
                self.resolve(chunk, &mut lookups, &mut previous, index)?;
                self.truncate(at, earlier, index)?;
                continue;
            }
            let change = Change { op, own, replaced };
            self.follow_row(&change, row, at, &mut previous[row], &mut lookups)?;
        }
        self.resolve(chunk, &mut lookups, &mut previous, index)?;
        if self.live.len() + self.removed.len() > TRACKED_ROWS_MAX {
            self.move_to_index(index)?;
        }
        Ok(previous)
    }

    fn follow_row(
        &mut self,
        change: &Change,
        row: usize,
        at: OpenRow,
        previous: &mut Option<Position>,
        lookups: &mut Vec<Lookup>,
    ) -> Result<()> {
        if change.op != b'I' {
            match self.live.remove(change.replaced) {
                Some(open) => {
                    let position = self.position(open)?;
                    self.delete(position);
                    *previous = Some(position);
                }
                None => lookups.push(Lookup { hash: change.replaced, row }),
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
        chunk: &Chunk,
        lookups: &mut Vec<Lookup>,
        previous: &mut [Option<Position>],
        index: &KeyIndex,
    ) -> Result<()> {
        if lookups.is_empty() {
            return Ok(());
        }
        let wanted: Vec<u128> = lookups.iter().map(|lookup| lookup.hash).collect();
        let is_unique = chunk.schema.identity != Identity::Full;
        let most = if is_unique { 1 } else { self.positions_wanted(&wanted) };
        let found = index.lookup_many(&wanted, most)?;
        for (Lookup { hash, row }, positions) in lookups.drain(..).zip(found.iter()) {
            let taken = self.taken.entry(hash).or_default();
            let Some(position) = positions.get(*taken).copied() else {
                return Err(Error::MissingRow { table: chunk.schema.table.clone() });
            };
            *taken += 1;
            self.removed.push(Record { hash, position });
            self.deletes.entry(position.file).or_default().push(position.row);
            previous[row] = Some(position);
        }
        Ok(())
    }

    /// How many positions of one identity may be needed: more than one only where rows without a
    /// key repeat.
    fn positions_wanted(&self, hashes: &[u128]) -> usize {
        let mut asked: HashMap<u128, usize> = HashMap::with_capacity(hashes.len());
        let mut most = 1;
        for hash in hashes {
            let known = || self.taken.get(hash).copied().unwrap_or(0);
            let count = asked.entry(*hash).or_insert_with(known);
            *count += 1;
            most = most.max(*count);
        }
        most
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
    pub(super) fn finish(mut self, index: &mut KeyIndex) -> Result<BTreeMap<FileRef, Vec<u32>>> {
        self.move_to_index(index)?;
        for rows in self.deletes.values_mut() {
            rows.sort_unstable();
            rows.dedup();
        }
        Ok(self.deletes)
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
