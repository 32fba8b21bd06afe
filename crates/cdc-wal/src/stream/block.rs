//! A block: the whole frames of one or more reads, decoded lazily on the consumer's thread.

use bytes::Bytes;
use cdc_core::{Lsn, OldTuple, RowChange};
use tokio::sync::OwnedSemaphorePermit;

use super::event::{Commit, Event, IdleMark};
use crate::pgoutput::{self, Message, Oids, OldKind, RelationCache, Tuples};
use crate::session::frame::{Frame, FrameIter, XLogData};
use crate::{Error, Result};

/// Bytes as they came from the server. Holds its share of the stream's byte budget until dropped,
/// so drop it once its events are consumed.
#[derive(Debug)]
pub struct Block {
    data: Bytes,
    idle: Option<Lsn>,
    _share: Option<OwnedSemaphorePermit>,
}

impl Block {
    /// `data` holds whole protocol messages. `idle` follows them.
    pub(crate) fn new(data: Bytes, idle: Option<Lsn>, share: Option<OwnedSemaphorePermit>) -> Self {
        Self { data, idle, _share: share }
    }

    /// Size of the protocol messages, headers included.
    pub fn byte_len(&self) -> usize {
        self.data.len()
    }

    /// The events, in order. One cache serves all blocks of one stream, in order.
    pub fn events<'a>(&'a mut self, relations: &'a mut RelationCache) -> Events<'a> {
        let tuples = relations.take_tuples();
        let frames = FrameIter::new(&self.data);
        Events { frames, relations, tuples, truncate: None, idle: self.idle }
    }
}

/// The events of a block. Each borrows from the iterator and ends with the next call.
#[derive(Debug)]
pub struct Events<'a> {
    frames: FrameIter<'a>,
    relations: &'a mut RelationCache,
    tuples: Tuples<'a>,
    truncate: Option<(Lsn, Oids<'a>)>,
    idle: Option<Lsn>,
}

/// The next event before it borrows anything from the iterator.
enum Step<'a> {
    Relation(usize),
    Row { relation: u32, lsn: Lsn, row: Row },
    Ready(Event<'a>),
}

enum Row {
    Insert,
    Update(OldKind),
    Delete(OldKind),
}

impl<'a> Events<'a> {
    /// The next event, or `None` at the end of the block. After an error the stream is unusable:
    /// open it again at the last durable position.
    #[expect(clippy::should_implement_trait, reason = "a lending iterator cannot be an Iterator")]
    pub fn next(&mut self) -> Result<Option<Event<'_>>> {
        let step = loop {
            if let Some(emptied) = self.next_truncated()? {
                break emptied;
            }
            match self.frames.next()? {
                None => {
                    let idle = self.idle.take();
                    return Ok(idle.map(|wal_end| Event::Idle(IdleMark::new(wal_end))));
                }
                Some(Frame::XLogData(data)) => {
                    if let Some(step) = self.decode(data)? {
                        break step;
                    }
                }
                // the reader has acted on all other frames
                Some(_) => {}
            }
        };
        Ok(Some(match step {
            Step::Relation(slot) => Event::Relation(self.relations.relation(slot)),
            Step::Row { relation, lsn, row } => {
                Event::Change { relation, lsn, change: self.row_change(row) }
            }
            Step::Ready(event) => event,
        }))
    }

    #[inline]
    fn decode(&mut self, data: XLogData<'a>) -> Result<Option<Step<'a>>> {
        Ok(Some(match pgoutput::decode(data.payload, false, &mut self.tuples)? {
            Message::Insert { relation, .. } => self.row(data.start, relation, Row::Insert)?,
            Message::Update { relation, old, .. } => {
                self.row(data.start, relation, Row::Update(old))?
            }
            Message::Delete { relation, old, .. } => {
                self.row(data.start, relation, Row::Delete(old))?
            }
            Message::Begin { final_lsn, commit_micros, xid } => {
                Step::Ready(Event::Begin { final_lsn, commit_micros, xid })
            }
            Message::Commit { commit_lsn, end_lsn, commit_micros } => {
                Step::Ready(Event::Commit(Commit::new(commit_lsn, end_lsn, commit_micros)))
            }
            Message::Relation { relation, .. } => match self.relations.learn(relation)? {
                Some(slot) => Step::Relation(slot),
                None => return Ok(None),
            },
            Message::Truncate { relations, .. } => {
                self.truncate = Some((data.start, relations));
                return Ok(None);
            }
            Message::Logical { transactional, lsn, prefix, content, .. } => {
                Step::Ready(Event::Message { transactional, lsn, prefix, content })
            }
            Message::Origin { lsn, name } => Step::Ready(Event::Origin { lsn, name }),
            // types are resolved from the catalog: here a domain comes without its modifier
            Message::Type { .. } => return Ok(None),
            other => {
                let reason = format!("a message that was not asked for: {other:?}");
                return Err(Error::protocol(reason));
            }
        }))
    }

    /// Checks the cells of a row against its relation.
    #[inline]
    fn row(&mut self, lsn: Lsn, relation: u32, row: Row) -> Result<Step<'a>> {
        let columns = self.relations.column_count(relation)?;
        let fits = |cells: usize| cells == columns;
        let (old, new) = (self.tuples.old.len(), self.tuples.new.len());
        let sound = match row {
            Row::Insert | Row::Update(OldKind::None) => fits(new),
            Row::Update(_) => fits(new) && fits(old),
            Row::Delete(_) => fits(old),
        };
        if !sound {
            let reason = format!(
                "a change of relation {relation} has {old} old and {new} new values for {columns} columns"
            );
            return Err(Error::protocol(reason));
        }
        Ok(Step::Row { relation, lsn, row })
    }

    fn row_change(&self, row: Row) -> RowChange<'_> {
        let old = |kind| match kind {
            OldKind::None => OldTuple::None,
            OldKind::Key => OldTuple::Key(&self.tuples.old),
            OldKind::Full => OldTuple::Full(&self.tuples.old),
        };
        match row {
            Row::Insert => RowChange::Insert { new: &self.tuples.new },
            Row::Update(kind) => RowChange::Update { old: old(kind), new: &self.tuples.new },
            Row::Delete(kind) => RowChange::Delete { old: old(kind) },
        }
    }

    /// One truncated table of a Truncate message under way.
    #[inline]
    fn next_truncated(&mut self) -> Result<Option<Step<'a>>> {
        let Some((lsn, oids)) = &mut self.truncate else { return Ok(None) };
        let lsn = *lsn;
        let Some(relation) = oids.next() else {
            self.truncate = None;
            return Ok(None);
        };
        self.relations.column_count(relation)?;
        let change = RowChange::Truncate;
        Ok(Some(Step::Ready(Event::Change { relation, lsn, change })))
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        self.relations.return_tuples(std::mem::take(&mut self.tuples));
    }
}
