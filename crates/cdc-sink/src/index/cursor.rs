//! A reader that walks one run forward, block by block.

use super::record::{Entry, RECORD_BYTES, hash_of};
use super::run::{BLOCK_BYTES, Run};
use crate::Result;

/// Stands on an entry of the run or behind its end. Only ever moves forward.
pub(super) struct Cursor<'r> {
    run: &'r Run,
    block: u64,
    bytes: Box<[u8; BLOCK_BYTES]>,
    /// Records in the loaded block; 0 before the first load.
    count: usize,
    slot: usize,
    entry: Option<Entry>,
}

impl<'r> Cursor<'r> {
    /// A cursor that stands nowhere until it is sought or started.
    pub(super) fn new(run: &'r Run) -> Self {
        Self { run, block: 0, bytes: Box::new([0; BLOCK_BYTES]), count: 0, slot: 0, entry: None }
    }

    /// Moves to the first entry.
    pub(super) fn start(&mut self) -> Result<()> {
        self.load(0)
    }

    /// The entry it stands on.
    pub(super) fn entry(&self) -> Option<Entry> {
        self.entry
    }

    /// Moves to the next entry.
    pub(super) fn advance(&mut self) -> Result<()> {
        self.slot += 1;
        if self.slot < self.count {
            self.entry = Some(Entry::decode(self.record(self.slot)));
            return Ok(());
        }
        self.load(self.block + 1)
    }

    /// Moves forward to the first entry whose hash is not below `hash`.
    pub(super) fn seek(&mut self, hash: u128) -> Result<()> {
        if self.count > 0 {
            match self.entry {
                None => return Ok(()),
                Some(entry) if entry.record.hash >= hash => return Ok(()),
                Some(_) if self.last_hash() >= hash => return self.seek_in_block(hash),
                Some(_) => {}
            }
        }
        self.seek_block(hash)?;
        while self.entry.is_some() && self.last_hash() < hash {
            self.load(self.block + 1)?;
        }
        if self.entry.is_some() { self.seek_in_block(hash) } else { Ok(()) }
    }

    /// Loads the last block whose first entry is below `hash`, or the first candidate.
    fn seek_block(&mut self, hash: u128) -> Result<()> {
        let (mut from, mut to) = self.run.candidates(hash);
        if self.count > 0 {
            from = from.max(self.block + 1);
            to = to.max(from);
        }
        while to.saturating_sub(from) > 1 {
            let middle = from + (to - from) / 2;
            self.load(middle)?;
            let is_below = self.entry.is_some_and(|entry| entry.record.hash < hash);
            if is_below { from = middle } else { to = middle }
        }
        if self.count > 0 && self.block == from && self.slot == 0 && self.entry.is_some() {
            return Ok(());
        }
        self.load(from)
    }

    fn seek_in_block(&mut self, hash: u128) -> Result<()> {
        let (mut from, mut to) = (self.slot, self.count);
        while from < to {
            let middle = from + (to - from) / 2;
            if hash_of(self.record(middle)) < hash { from = middle + 1 } else { to = middle }
        }
        self.slot = from;
        self.entry = (from < self.count).then(|| Entry::decode(self.record(from)));
        Ok(())
    }

    fn load(&mut self, block: u64) -> Result<()> {
        self.block = block;
        self.slot = 0;
        if block >= self.run.blocks() {
            self.entry = None;
            // not 0: the cursor has been started and stays behind the end
            self.count = 1;
            return Ok(());
        }
        self.count = self.run.read(block, &mut self.bytes)?;
        self.entry = Some(Entry::decode(self.record(0)));
        Ok(())
    }

    fn last_hash(&self) -> u128 {
        hash_of(self.record(self.count - 1))
    }

    fn record(&self, slot: usize) -> &[u8; RECORD_BYTES] {
        let (records, _) = self.bytes.as_chunks::<RECORD_BYTES>();
        &records[slot]
    }
}
