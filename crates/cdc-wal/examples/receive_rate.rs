//! Measures receiving and decoding: streams from a slot up to a position, touches every value and
//! prints what it took as one line of JSON. It acknowledges nothing, so runs on copies of one slot
//! decode the same WAL and can be compared with `pg_recvlogical --endpos`.
//!
//! ```text
//! cargo run --release -p cdc-wal --example receive_rate -- URL PUBLICATION SLOT END_LSN [off]
//! ```

use std::error::Error;
use std::time::Instant;

use cdc_core::{Cell, Lsn, RowChange, SecretString};
use cdc_wal::{
    Coalesce, Event, RelationCache, ResumePoint, Source, SourceOptions, StreamOptions, WalStream,
};

#[derive(Default)]
struct Counts {
    rows: u64,
    value_bytes: u64,
    transactions: u64,
    blocks: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, publication, slot, end, rest @ ..] = args.as_slice() else {
        return Err("usage: receive_rate URL PUBLICATION SLOT END_LSN [off]".into());
    };
    let end: Lsn = end.parse()?;
    let mut options = StreamOptions::new(publication);
    if rest.first().is_some_and(|word| word == "off") {
        options.coalesce = Coalesce::Off;
    }
    let source = Source::new(&SecretString::from(url.clone()), SourceOptions::default())?;
    let at = start(&source, slot).await?;
    let began = Instant::now();
    let mut stream = WalStream::open(source.connector(), at, options).await?;
    let counts = receive(&mut stream, end).await?;
    let seconds = began.elapsed().as_secs_f64();
    let Counts { rows, value_bytes, transactions, blocks } = counts;
    println!(
        "{{\"seconds\":{seconds:.3},\"rows\":{rows},\"rows_per_second\":{:.0},\"transactions\":{transactions},\"value_bytes\":{value_bytes},\"blocks\":{blocks},\"cpu_seconds\":{:.2}}}",
        rows as f64 / seconds,
        cpu_seconds()?
    );
    Ok(())
}

async fn start(source: &Source, slot: &str) -> Result<ResumePoint, Box<dyn Error>> {
    let control = source.connect().await?;
    let facts = control.facts().await?;
    let state = control.slot(slot).await?.ok_or("there is no such slot")?;
    control.close().await;
    Ok(ResumePoint {
        system_id: facts.system_identifier,
        timeline: facts.timeline,
        slot: slot.to_owned(),
        lsn: state.confirmed_flush,
    })
}

async fn receive(stream: &mut WalStream, end: Lsn) -> cdc_wal::Result<Counts> {
    let mut relations = RelationCache::new();
    let mut counts = Counts::default();
    while let Some(mut block) = stream.next_block().await? {
        counts.blocks += 1;
        let mut events = block.events(&mut relations);
        while let Some(event) = events.next()? {
            match event {
                Event::Change { change, .. } => {
                    counts.rows += 1;
                    counts.value_bytes += value_bytes(&change);
                }
                Event::Commit(commit) => {
                    counts.transactions += 1;
                    if commit.end_lsn >= end {
                        return Ok(counts);
                    }
                }
                Event::Idle(mark) if mark.wal_end >= end => return Ok(counts),
                _ => {}
            }
        }
    }
    Ok(counts)
}

fn value_bytes(change: &RowChange<'_>) -> u64 {
    let cells = match change {
        RowChange::Insert { new } | RowChange::Update { new, .. } => new,
        RowChange::Delete { .. } | RowChange::Truncate => return 0,
    };
    let lengths = cells.iter().map(|cell| match cell {
        Cell::Text(bytes) => bytes.len() as u64,
        Cell::Null | Cell::Unchanged => 0,
    });
    lengths.sum()
}

/// User and system time of this process, from `/proc` in ticks of 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).map_or(Ok(0), |text| text.parse::<u64>());
    Ok((ticks(12)? + ticks(13)?) as f64 / 100.0)
}
