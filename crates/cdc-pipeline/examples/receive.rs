//! Receives a stream into Arrow and throws it away: what following a log costs before any file is
//! written. The benchmarks measure it beside `pg_recvlogical`.
//!
//! `receive <url> <publication> <slot> <end lsn>` stops at the first transaction that ends at or
//! behind the end. Nothing is confirmed.

use std::collections::HashMap;
use std::sync::Arc;

use cdc_core::{
    ChangePosition, Epoch, Identity, Lsn, SecretString, TableName, TableSchema, TypePolicy,
    UnrepresentablePolicy,
};
use cdc_sink::ChangeBuffer;
use cdc_wal::{Event, RelationCache, ResumePoint, Source, SourceOptions, StreamOptions, WalStream};

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (rows, bytes) = runtime.block_on(receive())?;
    println!("{{\"rows\": {rows}, \"bytes\": {bytes}}}");
    Ok(())
}

async fn receive() -> Result<(u64, u64), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, publication, slot, end] = arguments.as_slice() else {
        return Err("usage: receive <url> <publication> <slot> <end lsn>".into());
    };
    let end: Lsn = end.parse()?;
    let source = Source::new(&SecretString::from(url.as_str()), SourceOptions::default())?;
    let control = source.connect().await?;
    let facts = control.facts().await?;
    let confirmed = control.slot(slot).await?.ok_or("no such slot")?.confirmed_flush;
    let schemas = schemas(control.discover(&["public".to_owned()]).await?);
    let at = ResumePoint {
        system_id: facts.system_identifier,
        timeline: facts.timeline,
        slot: slot.clone(),
        lsn: confirmed,
    };
    let mut stream =
        WalStream::open(source.connector(), at, StreamOptions::new(publication)).await?;
    let mut relations = RelationCache::new();
    let mut buffers: HashMap<u32, ChangeBuffer> = HashMap::new();
    let (mut rows, mut bytes) = (0, 0);
    let mut at = ChangePosition { lsn: Lsn::ZERO, commit_micros: 0, xid: 0, seq: 0 };
    while let Some(mut block) = stream.next_block().await? {
        bytes += block.byte_len() as u64;
        let mut events = block.events(&mut relations);
        while let Some(event) = events.next()? {
            match event {
                Event::Begin { commit_micros, xid, .. } => {
                    at = ChangePosition { commit_micros, xid, seq: 0, ..at };
                }
                Event::Relation(relation) => {
                    let name = TableName::new(&relation.schema, &relation.name);
                    let schema = schemas.get(&name).ok_or("a table outside schema public")?;
                    let buffer =
                        || ChangeBuffer::new(Arc::clone(schema), UnrepresentablePolicy::Error);
                    buffers.entry(relation.oid).or_insert_with(buffer);
                }
                Event::Change { relation, lsn, change } => {
                    let buffer = buffers.get_mut(&relation).ok_or("an unknown relation")?;
                    at.seq += buffer.push(&change, &ChangePosition { lsn, ..at }, Epoch(1))?;
                    rows += 1;
                    if buffer.is_full() {
                        std::hint::black_box(buffer.take_chunk()?);
                    }
                }
                Event::Commit(commit) => {
                    buffers.values_mut().for_each(|buffer| buffer.commit(commit.end_lsn));
                    if commit.end_lsn >= end {
                        return Ok((rows, bytes));
                    }
                }
                Event::Idle(mark) if mark.wal_end >= end => return Ok((rows, bytes)),
                _ => {}
            }
        }
    }
    Ok((rows, bytes))
}

fn schemas(tables: Vec<cdc_core::SourceTable>) -> HashMap<TableName, Arc<TableSchema>> {
    let policy = TypePolicy::default();
    let first = |table: cdc_core::SourceTable| {
        let identity = Identity::of(&table)?;
        let schema = TableSchema::first(&table, identity, &policy, |_| None, false);
        Some((table.name, Arc::new(schema)))
    };
    tables.into_iter().filter_map(first).collect()
}
