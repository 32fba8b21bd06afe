//! Cuts the received bytes into whole frames, takes streamed transactions out of them, and knows
//! what stands between transactions.
//!
//! ```text
//!  ready: pieces in order ─────────────┐   buf: whole frames │ the start of a frame
//!  [frames] [replay of a commit] [frames]       └ for the consumer; parts of streamed
//!                                                 transactions never stay here
//! ```

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use cdc_core::Lsn;

use super::frame::{Frame, decode_frame, frame_len};
use super::room::with_room;
use crate::spool::{Replay, Spool, Taken};
use crate::{Error, Result};

/// One growing buffer: whole frames that were seen, then the start of a frame.
#[derive(Debug)]
pub(crate) struct Splitter {
    buf: BytesMut,
    /// Bytes of whole frames at the front.
    whole: usize,
    /// Whether those hold anything for the consumer.
    has_data: bool,
    /// What goes to the consumer before them.
    ready: VecDeque<Ready>,
    /// Bytes of frames in `ready`.
    ready_bytes: usize,
    /// Where streamed transactions wait for their end; without it none was asked for.
    spool: Option<Spool>,
    in_transaction: bool,
    /// Position of a keepalive behind the last data, outside a transaction.
    idle: Option<Lsn>,
    /// Highest position that the consumer can have a token for.
    delivered: Lsn,
}

#[derive(Debug)]
enum Ready {
    Frames(Bytes),
    Replay(Replay),
}

/// What the reader must know of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Data(Lsn),
    Keepalive {
        wal_end: Lsn,
        reply_requested: bool,
    },
    /// Another protocol message, whole.
    Other(Bytes),
}

impl Splitter {
    pub(crate) fn new(buf: BytesMut, resume: Lsn, spool: Option<Spool>) -> Self {
        Self {
            buf,
            whole: 0,
            has_data: false,
            ready: VecDeque::new(),
            ready_bytes: 0,
            spool,
            in_transaction: false,
            idle: None,
            delivered: resume,
        }
    }

    /// The buffer with room for a read.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        with_room(&mut self.buf, self.whole)
    }

    /// Bytes of whole frames that wait for the consumer, replays left out.
    pub(crate) fn pending(&self) -> usize {
        self.ready_bytes + if self.has_data { self.whole } else { 0 }
    }

    /// Whether a committed transaction waits to be replayed. What is read meanwhile would queue
    /// behind all of it.
    pub(crate) fn is_replaying(&self) -> bool {
        self.ready.iter().any(|ready| matches!(ready, Ready::Replay(_)))
    }

    /// Bytes of streamed transactions held.
    pub(crate) fn spooled(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::held_bytes)
    }

    /// Whether [`Splitter::take`] would give something.
    pub(crate) fn has_block(&self) -> bool {
        !self.ready.is_empty() || self.has_data || self.idle.is_some()
    }

    /// Bytes that [`Splitter::take`] would give.
    pub(crate) fn next_len(&self) -> usize {
        match self.ready.front() {
            Some(Ready::Frames(frames)) => frames.len(),
            Some(Ready::Replay(replay)) => replay.next_len(),
            None if self.has_data => self.whole,
            None => 0,
        }
    }

    /// Looks at the next whole frame, if there is one.
    #[inline]
    pub(crate) fn see(&mut self) -> Result<Option<Seen>> {
        let rest = &self.buf[self.whole..];
        let Some(length) = frame_len(rest)?.filter(|length| *length <= rest.len()) else {
            return Ok(None);
        };
        let frame = &rest[..length];
        let seen = match decode_frame(frame)? {
            Frame::XLogData(data) => {
                let position = Seen::Data(data.start.max(data.wal_end));
                self.idle = None;
                let taken = match &mut self.spool {
                    Some(spool) => spool.take(frame, &data)?,
                    None => Taken::Not,
                };
                match taken {
                    Taken::Not => {}
                    Taken::Kept => {
                        self.drop_frame(length);
                        return Ok(Some(position));
                    }
                    Taken::Committed(replay) => {
                        self.delivered = self.delivered.max(data.start);
                        self.drop_frame(length);
                        self.ready.push_back(Ready::Replay(replay));
                        return Ok(Some(position));
                    }
                }
                match data.payload.first() {
                    Some(b'B') => self.in_transaction = true,
                    Some(b'C') => {
                        self.in_transaction = false;
                        self.delivered = self.delivered.max(data.start);
                    }
                    _ => {}
                }
                self.has_data = true;
                position
            }
            Frame::Keepalive { wal_end, reply_requested } => {
                if self.is_between_transactions() && wal_end > self.delivered {
                    self.idle = Some(wal_end);
                }
                Seen::Keepalive { wal_end, reply_requested }
            }
            Frame::Other(..) => Seen::Other(Bytes::copy_from_slice(frame)),
        };
        self.whole += length;
        Ok(Some(seen))
    }

    /// A streamed transaction that is open counts like any other: a position behind its parts says
    /// nothing about what the consumer has.
    fn is_between_transactions(&self) -> bool {
        !self.in_transaction && self.spool.as_ref().is_none_or(Spool::is_empty)
    }

    /// Takes the next frame out of the buffer, and what is before it to the consumer.
    fn drop_frame(&mut self, length: usize) {
        if self.has_data {
            let frames = self.buf.split_to(self.whole).freeze();
            self.ready_bytes += frames.len();
            self.ready.push_back(Ready::Frames(frames));
        } else {
            self.buf.advance(self.whole);
        }
        self.buf.advance(length);
        self.whole = 0;
        self.has_data = false;
    }

    /// The next frames for the consumer, and the idle mark if it is right behind them.
    ///
    /// # Errors
    /// `Spool` if a replay cannot be read.
    pub(crate) fn take(&mut self) -> Result<(Bytes, Option<Lsn>)> {
        match self.ready.front_mut() {
            Some(Ready::Replay(replay)) => {
                let spool = self.spool.as_mut();
                let spool = spool.ok_or_else(|| Error::protocol("a replay without a spool"))?;
                let piece = replay.next(spool.budget())?.unwrap_or_default();
                if replay.next_len() == 0 {
                    self.ready.pop_front();
                }
                return Ok((piece, None));
            }
            Some(Ready::Frames(frames)) => {
                let frames = std::mem::take(frames);
                self.ready_bytes -= frames.len();
                self.ready.pop_front();
                return Ok((frames, None));
            }
            None => {}
        }
        let frames = self.buf.split_to(self.whole);
        let data = if self.has_data { frames.freeze() } else { Bytes::new() };
        self.whole = 0;
        self.has_data = false;
        let idle = self.idle.take();
        self.delivered = self.delivered.max(idle.unwrap_or_default());
        Ok((data, idle))
    }

    /// Forgets frames that hold nothing for the consumer (keepalives already seen).
    pub(crate) fn discard_seen(&mut self) {
        if !self.has_block() && self.whole > 0 {
            self.buf.advance(self.whole);
            self.whole = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::room::READ_BYTES_MIN;
    use super::*;
    use proptest::prelude::*;

    fn data(payload: &[u8], lsn: u64) -> Vec<u8> {
        let mut body = vec![b'w'];
        body.extend_from_slice(&lsn.to_be_bytes());
        body.extend_from_slice(&lsn.to_be_bytes());
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(payload);
        copy_data(&body)
    }

    fn keepalive(wal_end: u64) -> Vec<u8> {
        let mut body = vec![b'k'];
        body.extend_from_slice(&wal_end.to_be_bytes());
        body.extend_from_slice(&[0; 9]);
        copy_data(&body)
    }

    fn copy_data(body: &[u8]) -> Vec<u8> {
        let mut out = vec![b'd'];
        out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    fn see_all(splitter: &mut Splitter) -> Vec<Seen> {
        std::iter::from_fn(|| splitter.see().unwrap()).collect()
    }

    #[test]
    fn trap_05_a_keepalive_is_an_idle_mark_only_between_transactions() {
        let mut splitter = Splitter::new(BytesMut::new(), Lsn(5), None);
        let steps: [(Vec<u8>, Option<Lsn>); 6] = [
            (keepalive(5), None),
            (keepalive(9), Some(Lsn(9))),
            (keepalive(9), None),
            ([data(b"B", 10), keepalive(12)].concat(), None),
            ([data(b"C", 20), keepalive(20)].concat(), None),
            ([keepalive(25), data(b"B", 24)].concat(), None),
        ];
        for (bytes, idle) in steps {
            splitter.room().extend_from_slice(&bytes);
            see_all(&mut splitter);
            assert_eq!(splitter.take().unwrap().1, idle);
        }
    }

    #[test]
    fn trap_04_positions_of_zero_are_reported_as_they_are() {
        let mut splitter = Splitter::new(BytesMut::new(), Lsn(5), None);
        splitter.room().extend_from_slice(&data(b"R", 0));
        assert_eq!(see_all(&mut splitter), [Seen::Data(Lsn(0))]);
    }

    #[test]
    fn the_buffer_of_a_large_frame_is_as_large_as_the_frame() {
        let frame = data(&vec![b'I'; 5_000_000], 9);
        let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), None);
        let (mut rest, mut reads) = (frame.as_slice(), 0);
        while !rest.is_empty() {
            let room = splitter.room();
            let spare = room.capacity() - room.len();
            assert!(spare > 0, "no room to read into");
            let (chunk, later) = rest.split_at(rest.len().min(spare).min(100_000));
            room.extend_from_slice(chunk);
            (rest, reads) = (later, reads + 1);
            see_all(&mut splitter);
        }
        assert!(splitter.buf.capacity() <= frame.len() + READ_BYTES_MIN);
        assert!(reads < 70, "{reads} reads");
        assert_eq!(splitter.take().unwrap().0, frame);
    }

    #[test]
    fn a_forged_length_allocates_no_more_than_twice_what_arrived() {
        let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), None);
        let mut arrived = vec![b'd', 0x3F, 0xFF, 0xFF, 0xFF];
        arrived.resize(3_000_000, 0);
        splitter.room().extend_from_slice(&arrived);
        see_all(&mut splitter);
        splitter.room();
        assert!(splitter.buf.capacity() <= 2 * arrived.len());
    }

    proptest! {
        #[test]
        fn chunking_does_not_change_what_is_seen(cuts in prop::collection::vec(1usize..40, 1..80)) {
            let stream: Vec<u8> = (1..20u64)
                .flat_map(|at| [data(b"B", at), data(&[b'I'; 30], at), data(b"C", at), keepalive(at + 1)])
                .flatten()
                .collect();
            let mut whole = Splitter::new(BytesMut::new(), Lsn(0), None);
            whole.room().extend_from_slice(&stream);
            let expected = see_all(&mut whole);
            let mut splitter = Splitter::new(BytesMut::new(), Lsn(0), None);
            let (mut seen, mut bytes, mut rest) = (Vec::new(), 0, stream.as_slice());
            for cut in cuts.iter().cycle() {
                let (chunk, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                splitter.room().extend_from_slice(chunk);
                seen.extend(see_all(&mut splitter));
                if splitter.has_block() {
                    bytes += splitter.take().unwrap().0.len();
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert!(bytes <= stream.len());
        }
    }
}
