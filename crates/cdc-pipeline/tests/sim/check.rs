//! What must hold: looked at with every manifest that becomes durable, and of the whole lake at the
//! end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cdc_core::{Epoch, Lsn, TableName};
use cdc_manifest::{LakeStore, Manifest, RefsStore};

use crate::lake::FIRST_LSN;
use crate::read::{Reader, TableCut};
use crate::rng::Rng;
use crate::tables::{ACCOUNTS, SAVINGS, Table};
use crate::tape::{Logged, Rows, Txn};
use crate::workload::Database;
use crate::world::World;

/// Cuts whose rows are compared with the source, besides the last one.
const CUTS_COMPARED: usize = 5;

/// A manifest that was durable.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) epoch: Epoch,
    pub(crate) commit_lsn: Lsn,
    pub(crate) covered_lsn: Lsn,
    pub(crate) generation: u64,
    pub(crate) tables: BTreeMap<TableName, TableCut>,
}

/// The manifests of a seed, as they became durable.
#[derive(Default)]
pub(crate) struct Watch {
    cuts: Mutex<Vec<Cut>>,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, Vec<Cut>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn covered(&self) -> Lsn {
        self.lock().last().map_or(Lsn::ZERO, |cut| cut.covered_lsn)
    }

    pub(crate) fn epochs(&self) -> u64 {
        self.lock().last().map_or(0, |cut| cut.epoch.0)
    }

    /// An object is durable; if it is the manifest, it must follow from the one before.
    pub(crate) fn stored(&self, world: &World, key: &str, bytes: &[u8]) {
        if key != cdc_manifest::layout::MANIFEST_KEY {
            return;
        }
        let manifest = match Manifest::parse(bytes) {
            Ok(manifest) => manifest,
            Err(error) => return world.violation(format!("manifest: {error}")),
        };
        let cut = cut_of(&manifest);
        world.log(format_args!(
            "manifest epoch {} cut {} covered {} generation {}",
            cut.epoch, cut.commit_lsn, cut.covered_lsn, cut.generation
        ));
        let mut cuts = self.lock();
        if let Some(before) = cuts.last()
            && let Some(rule) = broken_step(before, &cut)
        {
            world.violation(format!("manifest: {rule}"));
        }
        cuts.push(cut);
    }
}

fn cut_of(manifest: &Manifest) -> Cut {
    let tables = manifest.active_tables().map(|(name, entry)| {
        let cut = TableCut {
            metadata: entry.metadata_location.clone().unwrap_or_default(),
            snapshot: entry.snapshot_id,
            changes_metadata: entry.changes_metadata_location.clone().unwrap_or_default(),
            changes_snapshot: entry.changes_snapshot_id,
        };
        (name.clone(), cut)
    });
    Cut {
        epoch: manifest.epoch,
        commit_lsn: manifest.commit_lsn,
        covered_lsn: manifest.covered_lsn,
        generation: manifest.generation,
        tables: tables.collect(),
    }
}

fn broken_step(before: &Cut, after: &Cut) -> Option<String> {
    let step =
        |what: &str, from: String, to: String| Some(format!("{what} went from {from} to {to}"));
    if after.epoch != before.epoch && after.epoch != before.epoch.next() {
        return step("epoch", before.epoch.to_string(), after.epoch.to_string());
    }
    if after.commit_lsn < before.commit_lsn {
        return step("cut", before.commit_lsn.to_string(), after.commit_lsn.to_string());
    }
    if after.covered_lsn < before.covered_lsn {
        return step("covered", before.covered_lsn.to_string(), after.covered_lsn.to_string());
    }
    if after.generation < before.generation {
        let (from, to) = (before.generation.to_string(), after.generation.to_string());
        return step("generation", from, to);
    }
    None
}

/// The whole lake against the tape: the last cut, and some of the others.
pub(crate) struct Judge<'a> {
    pub(crate) lake: LakeStore,
    pub(crate) watch: &'a Watch,
    pub(crate) db: &'a Database,
    /// The rows before the first transaction of the tape.
    pub(crate) first_rows: Rows,
}

impl Judge<'_> {
    pub(crate) async fn judge(&self, rng: &mut Rng) -> Result<(), String> {
        let cuts = self.watch.lock().clone();
        self.check_positions(&cuts)?;
        let mut newest: BTreeMap<Epoch, &Cut> = BTreeMap::new();
        for cut in &cuts {
            newest.insert(cut.epoch, cut);
        }
        let epochs: Vec<Epoch> = newest.keys().copied().collect();
        let mut chosen: BTreeSet<Epoch> = epochs.last().copied().into_iter().collect();
        for _ in 0..CUTS_COMPARED {
            chosen.insert(epochs[rng.index(epochs.len())]);
        }
        let mut reader = Reader::new(self.lake.clone());
        let mut source = Source::new(self);
        for epoch in chosen {
            let cut = newest[&epoch];
            source.advance(cut.commit_lsn);
            self.check_cut(cut, &source, &mut reader).await?;
        }
        self.check_refs(&cuts).await
    }

    /// Every cut is the end of a transaction, and nothing of ours lies between cut and covered.
    fn check_positions(&self, cuts: &[Cut]) -> Result<(), String> {
        let ends: BTreeSet<u64> = self.db.tape.iter().map(|txn| txn.end_lsn).collect();
        let ours = |txn: &&Txn| txn.touches(&self.db.tables);
        for cut in cuts {
            let (at, covered) = (cut.commit_lsn.0, cut.covered_lsn.0);
            if at != FIRST_LSN && !ends.contains(&at) {
                return Err(format!("cut {} is not the end of a transaction", cut.commit_lsn));
            }
            let between = |txn: &&Txn| at < txn.end_lsn && txn.end_lsn <= covered;
            if let Some(txn) = self.db.tape.iter().filter(between).find(ours) {
                return Err(format!(
                    "cut {} covers {} but transaction {} ends at {}",
                    cut.commit_lsn,
                    cut.covered_lsn,
                    txn.xid,
                    Lsn(txn.end_lsn)
                ));
            }
        }
        Ok(())
    }

    async fn check_cut(
        &self,
        cut: &Cut,
        source: &Source<'_>,
        reader: &mut Reader,
    ) -> Result<(), String> {
        let mut sum = 0;
        for (number, table) in self.db.tables.iter().enumerate() {
            if !table.is_followed {
                continue;
            }
            let at = |text: String| {
                format!("{} at epoch {} ({}): {text}", table.name, cut.epoch, cut.commit_lsn)
            };
            let found = cut.tables.get(&table.table_name());
            let found = found.ok_or_else(|| at("is not in the manifest".to_owned()))?;
            let rows = reader.rows(table, found).await.map_err(at)?;
            let expected = &source.rows.0[number];
            if rows != *expected {
                return Err(at(difference(expected, &rows)));
            }
            if [ACCOUNTS, SAVINGS].contains(&number) {
                sum += balance(&rows);
            }
            let log = reader.log(table, found).await.map_err(at)?;
            same_log(&source.logs[number], &log).map_err(at)?;
        }
        if sum != source.sum {
            return Err(format!(
                "the bank has {sum} instead of {} at epoch {}",
                source.sum, cut.epoch
            ));
        }
        Ok(())
    }

    /// Raw tags and branches name cuts that were committed, and main is the last one.
    async fn check_refs(&self, cuts: &[Cut]) -> Result<(), String> {
        let store = RefsStore::new(self.lake.clone());
        let failed = |error: cdc_manifest::Error| format!("refs: {error}");
        let committed: BTreeSet<(Epoch, Lsn)> =
            cuts.iter().map(|cut| (cut.epoch, cut.commit_lsn)).collect();
        for key in store.list_raw().await.map_err(failed)? {
            let tag = store.load_raw(&key).await.map_err(failed)?;
            let cut = tag.ok_or_else(|| format!("refs: {key} is gone"))?.cut;
            if !committed.contains(&(cut.epoch, cut.commit_lsn)) {
                return Err(format!("raw tag {key} names a cut that was never committed"));
            }
        }
        let refs = store.load().await.map_err(failed)?;
        for (name, found) in &refs.refs {
            if !committed.contains(&(found.epoch, found.commit_lsn)) {
                return Err(format!("ref {name} names a cut that was never committed"));
            }
        }
        Ok(())
    }
}

/// The tape, replayed up to a position.
struct Source<'a> {
    tape: &'a [Txn],
    tables: &'a [Table],
    rows: Rows,
    logs: Vec<Vec<Logged>>,
    sum: i64,
}

impl<'a> Source<'a> {
    fn new(judge: &'a Judge<'_>) -> Source<'a> {
        let rows = judge.first_rows.clone();
        Source {
            tape: &judge.db.tape,
            tables: &judge.db.tables,
            sum: balance(&rows.0[ACCOUNTS]) + balance(&rows.0[SAVINGS]),
            logs: vec![Vec::new(); judge.db.tables.len()],
            rows,
        }
    }

    fn advance(&mut self, to: Lsn) {
        let reached = self.tape.partition_point(|txn| txn.end_lsn <= to.0);
        let (now, later) = self.tape.split_at(reached);
        for txn in now {
            self.rows.apply(txn);
            txn.logged(self.tables, &mut self.logs);
        }
        self.tape = later;
    }
}

fn balance(rows: &BTreeMap<crate::tables::Row, u64>) -> i64 {
    let of = |(row, count): (&crate::tables::Row, &u64)| {
        let balance: i64 = row[1].as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
        balance * i64::try_from(*count).unwrap_or(0)
    };
    rows.iter().map(of).sum()
}

fn difference<K: Ord + std::fmt::Debug>(
    expected: &BTreeMap<K, u64>,
    found: &BTreeMap<K, u64>,
) -> String {
    let count = |rows: &BTreeMap<K, u64>, key: &K| rows.get(key).copied().unwrap_or(0);
    let keys: BTreeSet<&K> = expected.keys().chain(found.keys()).collect();
    let differ: Vec<String> = keys
        .into_iter()
        .filter(|key| count(expected, key) != count(found, key))
        .map(|key| format!("{key:?} {} instead of {}", count(found, key), count(expected, key)))
        .collect();
    format!("{} rows differ: {}", differ.len(), differ[..differ.len().min(3)].join("; "))
}

fn same_log(expected: &[Logged], found: &[Logged]) -> Result<(), String> {
    let differs = expected.iter().zip(found).position(|(one, other)| one != other);
    match differs {
        Some(at) => {
            Err(format!("changelog row {at} is {:?} instead of {:?}", found[at], expected[at]))
        }
        None if expected.len() == found.len() => Ok(()),
        None => Err(format!(
            "the changelog has {} rows instead of {}; the first beyond: {:?}",
            found.len(),
            expected.len(),
            expected.get(found.len()).or_else(|| found.get(expected.len()))
        )),
    }
}

/// Shared by whoever writes to the lake.
pub(crate) fn watch() -> Arc<Watch> {
    Arc::default()
}
