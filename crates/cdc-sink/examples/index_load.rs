//! How fast the key index is on this machine: build, look up, apply, commit.
//!
//! `cargo run --release -p cdc-sink --example index_load -- <directory> [entries]`

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use cdc_core::{Epoch, Lsn};
use cdc_sink::index::{
    FileRef, IndexBuilder, IndexOptions, IndexStamp, KeyIndex, Position, Record,
};

const LOOKUPS: u64 = 300_000;
const ADDS: u64 = 1_000_000;
const SMALL_EPOCHS: u64 = 100;
const ROWS_PER_SMALL_EPOCH: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("give a directory that may be filled")?;
    let entries: u64 = arguments.next().map_or(Ok(10_000_000), |text| text.parse())?;
    let dir = Path::new(&dir);

    let mut index = timed("build", entries, || build(dir, entries))?;
    let hashes: Vec<u128> = (0..LOOKUPS).map(|key| spread(key * 31 % entries)).collect();
    let found = timed("look up", LOOKUPS, || index.lookup_many(&hashes, 1))?;
    if found.iter().any(|positions| positions.len() != 1) {
        return Err("a row was not found".into());
    }
    let adds = (0..ADDS).map(|row| record(entries + row, 1, row)).collect();
    timed("add", ADDS, || index.apply(adds, Vec::new()))?;
    timed("commit", ADDS, || index.commit(stamp(1)))?;
    let updates = SMALL_EPOCHS * ROWS_PER_SMALL_EPOCH;
    timed("update in small epochs", updates, || update(&mut index))?;
    println!(
        "{} runs, {} records, {} bytes of fences",
        index.runs(),
        index.records(),
        index.fence_bytes()
    );
    Ok(())
}

fn build(dir: &Path, entries: u64) -> cdc_sink::Result<KeyIndex> {
    let mut builder = IndexBuilder::create(dir, IndexOptions::default())?;
    for key in 0..entries {
        let Record { hash, position } = record(key, 0, key);
        builder.push(hash, position.file, position.row)?;
    }
    builder.finish(stamp(0))
}

fn update(index: &mut KeyIndex) -> cdc_sink::Result<()> {
    for epoch in 2..2 + SMALL_EPOCHS {
        let keys = (0..ROWS_PER_SMALL_EPOCH).map(|row| row * 7919 + epoch);
        let hashes: Vec<u128> = keys.clone().map(spread).collect();
        let found = index.lookup_many(&hashes, 1)?;
        let old = hashes.iter().zip(found.iter());
        let removes = old
            .flat_map(|(&hash, positions)| {
                positions.iter().map(move |&position| Record { hash, position })
            })
            .collect();
        let adds = keys.enumerate().map(|(row, key)| record(key, epoch, row as u64)).collect();
        index.apply(adds, removes)?;
        index.commit(stamp(epoch))?;
    }
    Ok(())
}

fn timed<T, E>(what: &str, count: u64, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    let value = work()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.3} s, {:.0} a second", count as f64 / seconds);
    Ok(value)
}

/// Hashes spread over the whole range, as those of a real hasher.
fn spread(key: u64) -> u128 {
    let high = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    u128::from(high) << 64 | u128::from(key)
}

fn record(key: u64, epoch: u64, row: u64) -> Record {
    let file = FileRef::delta(Epoch(epoch), 0).expect("small epochs fit");
    Record { hash: spread(key), position: Position { file, row: row as u32 } }
}

fn stamp(epoch: u64) -> IndexStamp {
    IndexStamp {
        lake_id: "load".into(),
        identity: "primary_key:100".into(),
        snapshot_id: None,
        lsn_to: Lsn(epoch),
        epoch: Epoch(epoch),
    }
}
