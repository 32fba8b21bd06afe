//! Follows a database and prints its changes: cdc-wal embedded in a small program. It needs a
//! publication and a pgoutput slot, which it neither creates nor drops.
//!
//! ```text
//! psql -c "CREATE PUBLICATION pub FOR ALL TABLES" \
//!      -c "SELECT pg_create_logical_replication_slot('slot', 'pgoutput')"
//! cargo run -p cdc-wal --example embed -- postgresql://user@localhost/db pub slot [transactions]
//! ```

use std::collections::HashMap;
use std::error::Error;

use cdc_core::{Cell, OldTuple, RowChange, SecretString, TableName};
use cdc_wal::{Event, RelationCache, ResumePoint, Source, SourceOptions, StreamOptions, WalStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(url), Some(publication), Some(slot)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: embed URL PUBLICATION SLOT [TRANSACTIONS]".into());
    };
    let mut left: u64 = args.next().map_or(Ok(u64::MAX), |text| text.parse())?;

    let source = Source::new(&SecretString::from(url), SourceOptions::default())?;
    let at = confirmed_position(&source, slot).await?;
    let options = StreamOptions::new(publication);
    let mut stream = WalStream::open(source.connector(), at, options).await?;
    let acker = stream.acker();

    let mut relations = RelationCache::new();
    let mut names: HashMap<u32, TableName> = HashMap::new();
    while left > 0 {
        let Some(mut block) = stream.next_block().await? else { break };
        let mut events = block.events(&mut relations);
        while let Some(event) = events.next()? {
            match event {
                Event::Relation(relation) => {
                    names.insert(relation.oid, relation.table());
                }
                Event::Change { relation, lsn, change } => {
                    let name = names.get(&relation).map(ToString::to_string).unwrap_or_default();
                    println!("{lsn} {name} {}", render(&change));
                }
                Event::Commit(commit) => {
                    println!("{} commit", commit.end_lsn);
                    // printed is as durable as it gets here; a real consumer stores first
                    acker.durable(commit.token());
                    left = left.saturating_sub(1);
                }
                Event::Idle(mark) => acker.durable(mark.token()),
                _ => {}
            }
        }
    }
    stream.close().await?;
    Ok(())
}

/// Where the slot stands. A consumer with a store of its own resumes from what it stored instead.
async fn confirmed_position(source: &Source, slot: String) -> Result<ResumePoint, Box<dyn Error>> {
    let control = source.connect().await?;
    let facts = control.facts().await?;
    let state = control.slot(&slot).await?.ok_or("there is no such slot")?;
    control.close().await;
    Ok(ResumePoint {
        system_id: facts.system_identifier,
        timeline: facts.timeline,
        slot,
        lsn: state.confirmed_flush,
    })
}

fn render(change: &RowChange<'_>) -> String {
    match change {
        RowChange::Insert { new } => format!("insert ({})", cells(new)),
        RowChange::Update { old, new } => format!("update {} to ({})", key(old), cells(new)),
        RowChange::Delete { old } => format!("delete {}", key(old)),
        RowChange::Truncate => "truncate".to_owned(),
    }
}

fn key(old: &OldTuple<'_>) -> String {
    match old {
        OldTuple::None => "same key".to_owned(),
        OldTuple::Key(old) | OldTuple::Full(old) => format!("({})", cells(old)),
    }
}

fn cells(cells: &[Cell<'_>]) -> String {
    let texts = cells.iter().map(|cell| match cell {
        Cell::Null => "null".into(),
        Cell::Unchanged => "(unchanged)".into(),
        Cell::Text(bytes) => String::from_utf8_lossy(bytes),
    });
    texts.collect::<Vec<_>>().join(", ")
}
