//! The index against a map that cannot be wrong, through merges, restarts and damage.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use cdc_core::{Epoch, Lsn};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::Error;

const SMALL: IndexOptions = IndexOptions { fence_bytes_max: 32, sort_records_max: 64 };

fn stamp(epoch: u64) -> IndexStamp {
    IndexStamp {
        lake_id: "lake".into(),
        identity: "primary_key:100".into(),
        snapshot_id: Some(-7),
        lsn_to: Lsn(epoch),
        epoch: Epoch(epoch),
    }
}

fn record(hash: u128, epoch: u64, row: u32) -> Record {
    let file = FileRef::delta(Epoch(epoch), 0).unwrap();
    Record { hash, position: Position { file, row } }
}

/// Hashes spread over the whole range, as those of a real hasher.
fn spread(key: u64) -> u128 {
    let high = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    u128::from(high) << 64 | u128::from(key)
}

fn empty_index(dir: &Path, options: IndexOptions) -> KeyIndex {
    IndexBuilder::create(dir, options).unwrap().finish(stamp(0)).unwrap()
}

fn ready(dir: &Path, epoch: u64) -> KeyIndex {
    match KeyIndex::open(dir, &stamp(epoch), SMALL).unwrap() {
        Opened::Ready(index) => index,
        other => panic!("{other:?}"),
    }
}

/// What must be live, and how to see that it is.
#[derive(Clone, Default)]
struct Model(HashMap<u128, BTreeSet<Position>>);

impl Model {
    fn apply(&mut self, adds: &[Record], removes: &[Record]) {
        for add in adds {
            self.0.entry(add.hash).or_default().insert(add.position);
        }
        for remove in removes {
            self.0.entry(remove.hash).or_default().remove(&remove.position);
        }
    }

    fn check(&self, index: &KeyIndex, unknown: &[u128]) {
        let mut hashes: Vec<u128> = self.0.keys().chain(unknown).copied().collect();
        hashes.extend_from_within(..hashes.len() / 2);
        let found = index.lookup_many(&hashes, usize::MAX / 2).unwrap();
        assert_eq!(found.len(), hashes.len());
        for (hash, positions) in hashes.iter().zip(found.iter()) {
            let expected: Vec<Position> = self.0.get(hash).into_iter().flatten().copied().collect();
            assert_eq!(positions, expected, "hash {hash:x}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Add under these keys; remove some of what is live.
    Apply {
        adds: Vec<u64>,
        removes: Vec<prop::sample::Index>,
    },
    Commit,
    Truncate,
    Rollback,
    /// Restart without a commit.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = prop::collection::vec(0u64..60, 0..200);
    let picks = prop::collection::vec(any::<prop::sample::Index>(), 0..100);
    let step = prop_oneof![
        6 => (keys, picks).prop_map(|(adds, removes)| Step::Apply { adds, removes }),
        4 => Just(Step::Commit),
        1 => Just(Step::Truncate),
        1 => Just(Step::Rollback),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

fn run(steps: Vec<Step>, options: IndexOptions) {
    let dir = tempfile::tempdir().unwrap();
    let mut index = empty_index(dir.path(), options);
    let (mut model, mut committed) = (Model::default(), Model::default());
    let mut epoch = 0;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Apply { adds, removes } => {
                let live: Vec<Record> = model
                    .0
                    .iter()
                    .flat_map(|(&hash, all)| {
                        all.iter().map(move |&position| Record { hash, position })
                    })
                    .collect();
                let adds: Vec<Record> = (0..)
                    .zip(adds)
                    .map(|(row, key)| record(spread(key), number as u64 + 1, row))
                    .collect();
                let mut removes: Vec<Record> = removes
                    .iter()
                    .filter(|_| !live.is_empty())
                    .map(|pick| live[pick.index(live.len())])
                    .collect();
                removes.sort_unstable();
                removes.dedup();
                model.apply(&adds, &removes);
                index.apply(adds, removes).unwrap();
            }
            Step::Commit => {
                epoch += 1;
                index.commit(stamp(epoch)).unwrap();
                committed = model.clone();
                assert!(index.runs() <= 12, "{} runs", index.runs());
            }
            Step::Truncate => {
                index.truncate();
                model = Model(model.0.into_keys().map(|hash| (hash, BTreeSet::new())).collect());
            }
            Step::Rollback => {
                index.rollback();
                model = committed.clone();
            }
            Step::Restart => {
                drop(index);
                index = ready(dir.path(), epoch);
                model = committed.clone();
            }
        }
        model.check(&index, &[0, 1, u128::MAX]);
    }
    let named = index.runs();
    drop(index);
    let index = ready(dir.path(), epoch);
    committed.check(&index, &[]);
    assert!(run_files(dir.path()).len() <= named);
}

fn run_files(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "idx")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn answers_are_those_of_a_map(steps in steps()) {
        run(steps.clone(), SMALL);
        run(steps, IndexOptions::default());
    }
}

/// Rows of keys `0..count`, one position each, built in an order that is not theirs.
fn built(dir: &TempDir, count: u64, options: IndexOptions) -> KeyIndex {
    let mut builder = IndexBuilder::create(dir.path(), options).unwrap();
    for key in 0..count {
        let key = key * 7919 % count;
        let file = FileRef::base(Epoch(key % 5), 0, 0).unwrap();
        builder.push(spread(key), file, key as u32).unwrap();
    }
    builder.finish(stamp(1)).unwrap()
}

#[test]
fn a_rebuild_in_many_chunks_finds_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let count = 20_011;
    // 64 records a chunk make 313 runs, merged in several levels
    let index = built(&dir, count, SMALL);
    assert_eq!((index.runs(), index.records()), (1, count));
    assert_eq!(run_files(dir.path()).len(), 1);
    assert!(index.fence_bytes() <= SMALL.fence_bytes_max);
    let hashes: Vec<u128> = (0..count + 100).map(spread).collect();
    let found = index.lookup_many(&hashes, 10).unwrap();
    for (key, positions) in found.iter().enumerate() {
        let expected = usize::from((key as u64) < count);
        assert_eq!(positions.len(), expected, "key {key}");
        assert!(positions.iter().all(|position| position.row == key as u32));
    }
    // and one by one, so that each starts anew
    for key in (0..count).step_by(997) {
        assert_eq!(index.lookup_many(&[spread(key)], 10).unwrap().get(0).len(), 1);
    }
}

#[test]
fn fences_stay_within_their_budget() {
    for fence_bytes_max in [16, 40, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let index = built(&dir, 5003, IndexOptions { fence_bytes_max, ..SMALL });
        assert!(index.fence_bytes() <= fence_bytes_max);
        let hashes: Vec<u128> = (0..5003).map(spread).collect();
        let found = index.lookup_many(&hashes, 1).unwrap();
        assert!(found.iter().all(|positions| positions.len() == 1));
    }
}

#[test]
fn equal_rows_are_found_up_to_the_number_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = empty_index(dir.path(), SMALL);
    // several blocks of one hash, over two runs, some removed
    let same = spread(5);
    index.apply((0..1000).map(|row| record(same, 1, row)).collect(), Vec::new()).unwrap();
    let removes = (0..10).map(|row| record(same, 1, row)).collect();
    index.apply(vec![record(same, 2, 0), record(spread(6), 2, 1)], removes).unwrap();
    let found = index.lookup_many(&[spread(6), same, spread(4)], 3).unwrap();
    assert_eq!(found.get(0), [record(spread(6), 2, 1).position]);
    let rows: Vec<u32> = found.get(1).iter().map(|position| position.row).collect();
    assert_eq!(rows, [10, 11, 12]);
    assert!(found.get(2).is_empty());
    assert_eq!(index.lookup_many(&[same], 5000).unwrap().get(0).len(), 991);
}

#[test]
fn a_hot_row_does_not_grow_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = built(&dir, 2000, SMALL);
    let hot = spread(3);
    let mut last = Record { hash: hot, position: index.lookup_many(&[hot], 1).unwrap().get(0)[0] };
    for epoch in 1..=300 {
        let next = record(hot, epoch, 0);
        index.apply(vec![next], vec![last]).unwrap();
        index.commit(stamp(epoch)).unwrap();
        last = next;
        assert_eq!(index.lookup_many(&[hot], 10).unwrap().get(0), [next.position]);
    }
    assert!(index.records() < 2020, "{} records", index.records());
    assert!(index.runs() <= 8, "{} runs", index.runs());
}

#[test]
fn an_index_for_another_state_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    drop(built(&dir, 10, SMALL));
    let mut changes: Vec<fn(&mut IndexStamp)> = Vec::new();
    changes.push(|stamp| stamp.snapshot_id = Some(8));
    changes.push(|stamp| stamp.snapshot_id = None);
    changes.push(|stamp| stamp.lake_id.push('x'));
    changes.push(|stamp| stamp.identity = "full".into());
    changes.push(|stamp| stamp.lsn_to = Lsn(9));
    changes.push(|stamp| stamp.epoch = Epoch(9));
    for change in changes {
        let mut expected = stamp(1);
        change(&mut expected);
        match KeyIndex::open(dir.path(), &expected, SMALL).unwrap() {
            Opened::Stale(index) => assert_eq!(*index.stamp(), stamp(1)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_applied_but_not_committed_is_gone_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = built(&dir, 10, SMALL);
    index.apply(vec![record(spread(99), 1, 0)], vec![]).unwrap();
    assert_eq!(index.lookup_many(&[spread(99)], 1).unwrap().get(0).len(), 1);
    drop(index);
    let index = ready(dir.path(), 1);
    assert!(index.lookup_many(&[spread(99)], 1).unwrap().get(0).is_empty());
    assert_eq!(run_files(dir.path()).len(), 1);
}

#[test]
fn an_abandoned_rebuild_leaves_no_index() {
    let dir = tempfile::tempdir().unwrap();
    drop(built(&dir, 10, SMALL));
    let mut builder = IndexBuilder::create(dir.path(), SMALL).unwrap();
    builder.push(1, FileRef::delta(Epoch(1), 0).unwrap(), 0).unwrap();
    drop(builder);
    assert!(matches!(KeyIndex::open(dir.path(), &stamp(1), SMALL).unwrap(), Opened::Absent));
    let missing = dir.path().join("missing");
    assert!(matches!(KeyIndex::open(&missing, &stamp(1), SMALL).unwrap(), Opened::Absent));
}

#[test]
fn a_torn_index_file_is_no_index() {
    let dir = tempfile::tempdir().unwrap();
    drop(built(&dir, 1000, SMALL));
    let path = dir.path().join("index.json");
    let whole = std::fs::read(&path).unwrap();
    for torn in [&whole[..0], &whole[..whole.len() / 2], &vec![0; whole.len()]] {
        std::fs::write(&path, torn).unwrap();
        assert!(matches!(KeyIndex::open(dir.path(), &stamp(1), SMALL).unwrap(), Opened::Absent));
    }
}

#[test]
fn no_damage_of_a_run_gives_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let index = built(&dir, 1000, SMALL);
    let hashes: Vec<u128> = (0..1000).map(spread).collect();
    drop(index);
    let path = run_files(dir.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut damages: Vec<Vec<u8>> = Vec::new();
    for at in (0..whole.len()).step_by(211).chain(whole.len() - 60..whole.len()) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        damages.push(flipped);
        damages.push(whole[..at].to_vec());
    }
    // two blocks changed places
    let mut swapped = whole.clone();
    let (first, rest) = swapped.split_at_mut(4096);
    first.swap_with_slice(&mut rest[..4096]);
    damages.push(swapped);
    for damage in damages {
        std::fs::write(&path, damage).unwrap();
        match KeyIndex::open(dir.path(), &stamp(1), SMALL).unwrap() {
            Opened::Absent => {}
            Opened::Ready(index) => {
                let error = index.lookup_many(&hashes, 1).unwrap_err();
                assert!(matches!(error, Error::IndexDamaged { .. }), "{error}");
            }
            Opened::Stale(index) => panic!("{index:?}"),
        }
        // a damaged run is not removed by the failed open
        assert!(path.exists());
    }
    std::fs::write(&path, whole).unwrap();
    assert!(ready(dir.path(), 1).lookup_many(&hashes, 1).unwrap().iter().all(|p| p.len() == 1));
}

#[test]
fn foreign_files_keep_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let location = "file:///lake/public.t/data/00000-0-spark.parquet";
    let mut builder = IndexBuilder::create(dir.path(), SMALL).unwrap();
    let file = builder.foreign_file(location).unwrap();
    assert_eq!(builder.foreign_file(location), Some(file));
    builder.push(spread(1), file, 4).unwrap();
    drop(builder.finish(stamp(1)).unwrap());
    let mut index = ready(dir.path(), 1);
    let found = index.lookup_many(&[spread(1)], 1).unwrap().get(0)[0];
    assert_eq!(index.foreign_location(found.file), Some(location));
    assert_ne!(index.foreign_file("file:///other.parquet"), Some(file));
}
