//! The 19 message kinds of pgoutput, protocol versions 1 to 4, decoded without copying
//! (<https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>).

use cdc_core::{Cell, Lsn};

use super::reader::Reader;
use super::relation::{Relation, RelationColumn, ReplicaIdentityKind};
use crate::{Error, Result};

/// What stood before the new row of an update, or in a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldKind {
    /// Nothing was sent.
    None,
    /// The replica identity's columns (`K`).
    Key,
    /// The whole row (`O`).
    Full,
}

/// One message. The cells of Insert, Update and Delete are in the [`Tuples`] it was decoded with.
///
/// `xid` of a change is set inside a streamed transaction only. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the protocol's field of that name")]
#[non_exhaustive]
pub enum Message<'a> {
    Begin {
        final_lsn: Lsn,
        commit_micros: i64,
        xid: u32,
    },
    Commit {
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_micros: i64,
    },
    Origin {
        lsn: Lsn,
        name: &'a str,
    },
    Relation {
        xid: Option<u32>,
        relation: RelationBody<'a>,
    },
    Type {
        xid: Option<u32>,
        oid: u32,
        schema: &'a str,
        name: &'a str,
    },
    Insert {
        xid: Option<u32>,
        relation: u32,
    },
    Update {
        xid: Option<u32>,
        relation: u32,
        old: OldKind,
    },
    Delete {
        xid: Option<u32>,
        relation: u32,
        old: OldKind,
    },
    Truncate {
        xid: Option<u32>,
        relations: Oids<'a>,
        cascade: bool,
        restart_identity: bool,
    },
    Logical {
        xid: Option<u32>,
        transactional: bool,
        lsn: Lsn,
        prefix: &'a str,
        content: &'a [u8],
    },
    StreamStart {
        xid: u32,
        first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_micros: i64,
    },
    StreamAbort {
        xid: u32,
        subxid: u32,
        abort: Option<(Lsn, i64)>,
    },
    BeginPrepare {
        prepare_lsn: Lsn,
        end_lsn: Lsn,
        prepare_micros: i64,
        xid: u32,
        gid: &'a str,
    },
    Prepare {
        prepare_lsn: Lsn,
        end_lsn: Lsn,
        prepare_micros: i64,
        xid: u32,
        gid: &'a str,
    },
    CommitPrepared {
        commit_lsn: Lsn,
        end_lsn: Lsn,
        commit_micros: i64,
        xid: u32,
        gid: &'a str,
    },
    RollbackPrepared {
        prepare_end_lsn: Lsn,
        end_lsn: Lsn,
        micros: (i64, i64),
        xid: u32,
        gid: &'a str,
    },
    StreamPrepare {
        prepare_lsn: Lsn,
        end_lsn: Lsn,
        prepare_micros: i64,
        xid: u32,
        gid: &'a str,
    },
}

/// The cells of one message. Kept by the caller and reused, so that a row allocates nothing.
#[derive(Debug, Default)]
pub struct Tuples<'a> {
    /// Cells of the old tuple; empty if none was sent.
    pub old: Vec<Cell<'a>>,
    /// Cells of the new tuple; empty for a delete.
    pub new: Vec<Cell<'a>>,
}

impl<'a> Tuples<'a> {
    /// The same allocations for messages of another lifetime. Collecting an emptied vector into a
    /// vector of the same layout keeps its buffer.
    pub fn recycle<'b>(self) -> Tuples<'b> {
        fn empty<'b>(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'b>> {
            cells.clear();
            cells.into_iter().map(|_| Cell::Null).collect()
        }
        Tuples { old: empty(self.old), new: empty(self.new) }
    }
}

/// The OIDs of a Truncate message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oids<'a>(&'a [u8]);

impl Iterator for Oids<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }
}

/// A Relation message whose columns are still bytes, so that a repeated one costs no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationBody<'a> {
    /// `pg_class.oid`.
    pub oid: u32,
    /// The bytes behind the OID, the cache's key.
    pub(super) bytes: &'a [u8],
}

impl RelationBody<'_> {
    /// The description as values of its own.
    pub fn decode(&self) -> Result<Relation> {
        let mut reader = Reader::new(self.bytes);
        let schema = match reader.text()? {
            "" => "pg_catalog",
            schema => schema,
        };
        let name = reader.text()?;
        let replica_identity = ReplicaIdentityKind::from_byte(reader.u8()?)?;
        let count = usize::from(reader.u16()?);
        // a column takes at least ten bytes, which bounds what a forged count can allocate
        let mut columns = Vec::with_capacity(count.min(reader.remaining() / 10));
        for _ in 0..count {
            let flags = reader.u8()?;
            columns.push(RelationColumn {
                is_key: flags & 1 != 0,
                name: reader.text()?.to_owned(),
                type_oid: reader.u32()?,
                typmod: reader.i32()?,
            });
        }
        reader.finish()?;
        Ok(Relation {
            oid: self.oid,
            schema: schema.to_owned(),
            name: name.to_owned(),
            replica_identity,
            columns,
            version: 0,
        })
    }
}

/// Decodes one message. `streamed` says whether it stands between StreamStart and StreamStop,
/// where changes carry their transaction id.
pub fn decode<'a>(
    payload: &'a [u8],
    streamed: bool,
    tuples: &mut Tuples<'a>,
) -> Result<Message<'a>> {
    let mut r = Reader::new(payload);
    let tag = r.u8()?;
    let message = match tag {
        b'I' | b'U' | b'D' => decode_row(tag, &mut r, streamed, tuples)?,
        b'B' => Message::Begin { final_lsn: r.lsn()?, commit_micros: r.micros()?, xid: r.u32()? },
        b'C' => {
            r.u8()?;
            Message::Commit { commit_lsn: r.lsn()?, end_lsn: r.lsn()?, commit_micros: r.micros()? }
        }
        b'R' | b'Y' | b'T' | b'M' => decode_description(tag, &mut r, streamed)?,
        b'O' => Message::Origin { lsn: r.lsn()?, name: r.text()? },
        b'S' => Message::StreamStart { xid: r.u32()?, first: r.u8()? == 1 },
        b'E' => Message::StreamStop,
        b'c' => decode_stream_commit(&mut r)?,
        b'A' => decode_stream_abort(&mut r)?,
        b'b' | b'P' | b'K' | b'r' | b'p' => decode_two_phase(tag, &mut r)?,
        other => {
            return Err(Error::protocol(format!(
                "message kind {:?} is unknown",
                char::from(other)
            )));
        }
    };
    r.finish()?;
    Ok(message)
}

#[inline]
fn decode_row<'a>(
    tag: u8,
    r: &mut Reader<'a>,
    streamed: bool,
    tuples: &mut Tuples<'a>,
) -> Result<Message<'a>> {
    tuples.old.clear();
    tuples.new.clear();
    let xid = xid_if(streamed, r)?;
    let relation = r.u32()?;
    let mut part = r.u8()?;
    let mut old = OldKind::None;
    if tag != b'I' && matches!(part, b'K' | b'O') {
        old = if part == b'K' { OldKind::Key } else { OldKind::Full };
        decode_cells(r, &mut tuples.old)?;
        if tag == b'D' {
            return Ok(Message::Delete { xid, relation, old });
        }
        part = r.u8()?;
    }
    if tag == b'D' || part != b'N' {
        return Err(Error::protocol(format!("tuple kind {:?} is unknown", char::from(part))));
    }
    decode_cells(r, &mut tuples.new)?;
    Ok(if tag == b'I' {
        Message::Insert { xid, relation }
    } else {
        Message::Update { xid, relation, old }
    })
}

/// Appends the cells of one TupleData.
#[inline]
fn decode_cells<'a>(r: &mut Reader<'a>, cells: &mut Vec<Cell<'a>>) -> Result<()> {
    let count = usize::from(r.u16()?);
    // each cell takes at least one byte, which bounds what a forged count can allocate
    cells.reserve(count.min(r.remaining()));
    for _ in 0..count {
        cells.push(match r.u8()? {
            b't' => {
                let length = r.u32()? as usize;
                Cell::Text(r.take(length)?)
            }
            b'n' => Cell::Null,
            b'u' => Cell::Unchanged,
            b'b' => return Err(Error::protocol("a binary value, which was not asked for")),
            other => {
                let reason = format!("column kind {:?} is unknown", char::from(other));
                return Err(Error::protocol(reason));
            }
        });
    }
    Ok(())
}

fn decode_description<'a>(tag: u8, r: &mut Reader<'a>, streamed: bool) -> Result<Message<'a>> {
    let xid = xid_if(streamed, r)?;
    Ok(match tag {
        b'R' => {
            let relation = RelationBody { oid: r.u32()?, bytes: r.take(r.remaining())? };
            Message::Relation { xid, relation }
        }
        b'Y' => Message::Type { xid, oid: r.u32()?, schema: r.text()?, name: r.text()? },
        b'T' => {
            let count = r.u32()? as usize;
            let flags = r.u8()?;
            let bytes =
                count.checked_mul(4).ok_or_else(|| Error::protocol("too many relations"))?;
            Message::Truncate {
                xid,
                relations: Oids(r.take(bytes)?),
                cascade: flags & 1 != 0,
                restart_identity: flags & 2 != 0,
            }
        }
        _ => {
            let transactional = r.u8()? & 1 != 0;
            let lsn = r.lsn()?;
            let prefix = r.text()?;
            let length = r.u32()? as usize;
            Message::Logical { xid, transactional, lsn, prefix, content: r.take(length)? }
        }
    })
}

fn decode_stream_commit<'a>(r: &mut Reader<'a>) -> Result<Message<'a>> {
    let xid = r.u32()?;
    r.u8()?;
    Ok(Message::StreamCommit {
        xid,
        commit_lsn: r.lsn()?,
        end_lsn: r.lsn()?,
        commit_micros: r.micros()?,
    })
}

fn decode_stream_abort<'a>(r: &mut Reader<'a>) -> Result<Message<'a>> {
    let (xid, subxid) = (r.u32()?, r.u32()?);
    // position and time come with streaming = parallel only
    let abort = if r.remaining() > 0 { Some((r.lsn()?, r.micros()?)) } else { None };
    Ok(Message::StreamAbort { xid, subxid, abort })
}

fn decode_two_phase<'a>(tag: u8, r: &mut Reader<'a>) -> Result<Message<'a>> {
    if tag != b'b' {
        r.u8()?;
    }
    let (first, end_lsn, micros) = (r.lsn()?, r.lsn()?, r.micros()?);
    if tag == b'r' {
        let micros = (micros, r.micros()?);
        let (xid, gid) = (r.u32()?, r.text()?);
        return Ok(Message::RollbackPrepared { prepare_end_lsn: first, end_lsn, micros, xid, gid });
    }
    let (prepare_lsn, prepare_micros) = (first, micros);
    let (xid, gid) = (r.u32()?, r.text()?);
    Ok(match tag {
        b'b' => Message::BeginPrepare { prepare_lsn, end_lsn, prepare_micros, xid, gid },
        b'P' => Message::Prepare { prepare_lsn, end_lsn, prepare_micros, xid, gid },
        b'p' => Message::StreamPrepare { prepare_lsn, end_lsn, prepare_micros, xid, gid },
        _ => {
            Message::CommitPrepared { commit_lsn: first, end_lsn, commit_micros: micros, xid, gid }
        }
    })
}

#[inline]
fn xid_if(streamed: bool, r: &mut Reader<'_>) -> Result<Option<u32>> {
    if streamed { r.u32().map(Some) } else { Ok(None) }
}
