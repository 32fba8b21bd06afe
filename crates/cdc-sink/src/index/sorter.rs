//! Entries in any order become one sorted set of runs, in bounded memory.

use super::merge::{self, Removals};
use super::record::Entry;
use super::run::{Run, RunDir};
use crate::Result;

/// Runs merged at once; so many files are open and buffers held.
const FAN_IN_MAX: usize = 32;

/// Gathers entries, writes a run whenever enough are there, and merges runs when there are too many of
/// a size.
#[derive(Debug)]
pub(super) struct RunSorter {
    dir: RunDir,
    records_max: usize,
    removals: Removals,
    chunk: Vec<Entry>,
    /// Runs by how many merges are behind them.
    levels: Vec<Vec<Run>>,
}

impl RunSorter {
    /// Nothing yet. At most `records_max` entries are in memory; `removals` says what becomes of one
    /// without its record.
    pub(super) fn new(dir: RunDir, records_max: usize, removals: Removals) -> RunSorter {
        RunSorter { dir, records_max, removals, chunk: Vec::new(), levels: Vec::new() }
    }

    /// Takes an entry.
    pub(super) fn push(&mut self, entry: Entry) -> Result<()> {
        self.chunk.push(entry);
        if self.chunk.len() >= self.records_max { self.spill() } else { Ok(()) }
    }

    /// The directory, and the one run of all entries, if there were any.
    pub(super) fn finish(mut self) -> Result<(RunDir, Option<Run>)> {
        self.spill()?;
        let mut runs: Vec<Run> = self.levels.drain(..).flatten().collect();
        while runs.len() > 1 {
            let rest = runs.split_off(runs.len().min(FAN_IN_MAX));
            let merged = self.merge(runs)?;
            runs = rest;
            runs.push(merged);
        }
        Ok((self.dir, runs.pop()))
    }

    fn spill(&mut self) -> Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let mut entries = std::mem::take(&mut self.chunk);
        entries.sort_unstable();
        entries.dedup();
        let mut run = self.dir.write(entries.drain(..).map(Ok))?;
        self.chunk = entries;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            self.levels[level].push(run);
            if self.levels[level].len() < FAN_IN_MAX {
                break;
            }
            let full = std::mem::take(&mut self.levels[level]);
            run = self.merge(full)?;
        }
        Ok(())
    }

    fn merge(&mut self, runs: Vec<Run>) -> Result<Run> {
        let merged = merge::merge(&mut self.dir, &runs, self.removals)?;
        self.dir.remove(runs);
        Ok(merged)
    }
}
