//! Receives the changes of one table from a slot, decodes them into Arrow columns, and drops them.
//!
//! The part of the way into a lake that comes before any file; `cargo xtask bench stream` measures
//! it beside `pg_recvlogical`, which receives only.
//!
//! `receive <url> <publication> <slot> <end LSN>`

use std::error::Error;
use std::sync::Arc;

use cdc_core::{
    ChangePosition, Epoch, Identity, Lsn, SecretString, TableSchema, TypePolicy,
    UnrepresentablePolicy,
};
use cdc_sink::ChangeBuffer;
use cdc_wal::{Event, RelationCache, ResumePoint, Source, SourceOptions, StreamOptions, WalStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut word = |what: &str| words.next().ok_or(format!("no {what} given"));
    let url = SecretString::from(word("url")?);
    let (publication, slot) = (word("publication")?, word("slot")?);
    let end: Lsn = word("end LSN")?.parse()?;

    let source = Source::new(&url, SourceOptions::default())?;
    let schema = Arc::new(schema_of_the_table(&source).await?);
    let facts = source.connect().await?.facts().await?;
    let at = ResumePoint {
        system_id: facts.system_identifier,
        timeline: facts.timeline,
        slot,
        lsn: Lsn(0),
    };
    let mut stream =
        WalStream::open(source.connector(), at, StreamOptions::new(publication)).await?;
    let rows = receive(&mut stream, schema, end).await?;
    println!("{rows}");
    stream.close().await?;
    Ok(())
}

async fn schema_of_the_table(source: &Source) -> Result<TableSchema, Box<dyn Error>> {
    let tables = source.connect().await?.discover(&["public".to_owned()]).await?;
    let table = tables.first().ok_or("no table in the schema public")?;
    let identity = Identity::of(table).ok_or("the table has no usable identity")?;
    Ok(TableSchema::first(table, identity, &TypePolicy::default(), |_| None, false))
}

/// Takes in all transactions up to `end` and returns how many rows they had.
async fn receive(
    stream: &mut WalStream,
    schema: Arc<TableSchema>,
    end: Lsn,
) -> Result<u64, Box<dyn Error>> {
    let mut buffer = ChangeBuffer::new(schema, UnrepresentablePolicy::Error);
    let mut relations = RelationCache::new();
    let acker = stream.acker();
    let mut rows = 0;
    while let Some(mut block) = stream.next_block().await? {
        let mut position = ChangePosition { lsn: Lsn(0), commit_micros: 0, xid: 0, seq: 0 };
        let mut events = block.events(&mut relations);
        while let Some(event) = events.next()? {
            match event {
                Event::Begin { commit_micros, xid, .. } => {
                    position = ChangePosition { lsn: Lsn(0), commit_micros, xid, seq: 0 };
                }
                Event::Change { lsn, change, .. } => {
                    position.lsn = lsn;
                    position.seq += buffer.push(&change, &position, Epoch(1))?;
                    rows += 1;
                    if buffer.is_full() {
                        drop(buffer.take_chunk()?);
                    }
                }
                Event::Commit(commit) => {
                    buffer.commit(commit.end_lsn);
                    acker.durable(commit.token());
                    if commit.end_lsn >= end {
                        drop(buffer.take_chunk()?);
                        return Ok(rows);
                    }
                }
                Event::Idle(mark) if mark.wal_end >= end => return Ok(rows),
                _ => {}
            }
        }
    }
    Err("the stream ended before the end LSN".into())
}
