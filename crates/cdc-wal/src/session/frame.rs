//! The frames of a replication stream: CopyData with WAL or a keepalive in it, and the few other
//! messages the server may send meanwhile
//! (<https://www.postgresql.org/docs/current/protocol-replication.html>).

use bytes::Bytes;
use cdc_core::Lsn;

use crate::{Error, Result};

/// PostgreSQL sends no message longer than this.
const FRAME_BYTES_MAX: usize = 1 << 30;
const HEADER: usize = 5;

/// One frame of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    XLogData(XLogData<'a>),
    Keepalive {
        wal_end: Lsn,
        reply_requested: bool,
    },
    /// Another protocol message: its tag and body.
    Other(u8, &'a [u8]),
}

/// One pgoutput message and where it stands. Both positions are 0 for relations and types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XLogData<'a> {
    pub(crate) start: Lsn,
    pub(crate) wal_end: Lsn,
    pub(crate) payload: &'a [u8],
}

/// The length of the frame at the front, header included, or `None` if more bytes are needed to
/// know it.
#[inline]
pub(crate) fn frame_len(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=FRAME_BYTES_MAX).contains(&length) {
        return Err(Error::protocol(format!("a message of {length} bytes")));
    }
    Ok(Some(length + 1))
}

/// Decodes one whole frame.
#[inline]
pub(crate) fn decode_frame(frame: &[u8]) -> Result<Frame<'_>> {
    let (header, body) =
        frame.split_first_chunk::<HEADER>().ok_or_else(|| Error::protocol("half a frame"))?;
    if header[0] != b'd' {
        return Ok(Frame::Other(header[0], body));
    }
    match body.split_first() {
        Some((b'w', rest)) => {
            let (fields, payload) = rest
                .split_first_chunk::<24>()
                .ok_or_else(|| Error::protocol("wal data ends too early"))?;
            Ok(Frame::XLogData(XLogData {
                start: lsn(fields, 0),
                wal_end: lsn(fields, 8),
                payload,
            }))
        }
        Some((b'k', rest)) => match rest.first_chunk::<17>() {
            Some(fields) => {
                Ok(Frame::Keepalive { wal_end: lsn(fields, 0), reply_requested: fields[16] != 0 })
            }
            None => Err(Error::protocol("a keepalive ends too early")),
        },
        Some((kind, _)) => {
            Err(Error::protocol(format!("copy data of kind {:?}", char::from(*kind))))
        }
        None => Err(Error::protocol("empty copy data")),
    }
}

/// Takes the first of whole CopyData frames: its body, and the frames behind it.
#[inline]
pub(crate) fn split_copy_data(frames: &mut [u8]) -> Result<Option<(&mut [u8], &mut [u8])>> {
    if frames.is_empty() {
        return Ok(None);
    }
    let length = frame_len(frames)?.filter(|_| frames[0] == b'd');
    let frame = length.and_then(|length| frames.split_at_mut_checked(length));
    let (frame, rest) = frame.ok_or_else(|| Error::protocol("half a row of a copy"))?;
    Ok(Some((&mut frame[HEADER..], rest)))
}

#[inline]
fn lsn(bytes: &[u8], at: usize) -> Lsn {
    let chunk = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>).copied();
    Lsn(u64::from_be_bytes(chunk.unwrap_or_default()))
}

/// The frames of bytes that hold whole frames only.
#[derive(Clone, Debug)]
pub(crate) struct FrameIter<'a> {
    bytes: &'a [u8],
}

impl<'a> FrameIter<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'a>>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let frame = frame_len(self.bytes)?
            .and_then(|length| self.bytes.split_at_checked(length))
            .ok_or_else(|| Error::protocol("half a frame"))?;
        self.bytes = frame.1;
        decode_frame(frame.0).map(Some)
    }
}

/// What stands before the rest of a pgoutput message in its frame: headers and the message's tag.
pub(crate) const MESSAGE_HEADER: usize = HEADER + 25 + 1;

/// The frame of a message at the position of `data`, up to and including its tag; `rest` bytes are
/// to follow. The server's clock is left out.
pub(crate) fn encode_header(
    data: &XLogData<'_>,
    tag: u8,
    rest: usize,
) -> Result<[u8; MESSAGE_HEADER]> {
    let length = MESSAGE_HEADER - 1 + rest;
    let length = u32::try_from(length).ok().filter(|length| *length as usize <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| Error::protocol("a message is too long"))?;
    let mut header = [0; MESSAGE_HEADER];
    header[0] = b'd';
    header[1..5].copy_from_slice(&length.to_be_bytes());
    header[5] = b'w';
    header[6..14].copy_from_slice(&data.start.0.to_be_bytes());
    header[14..22].copy_from_slice(&data.wal_end.0.to_be_bytes());
    header[MESSAGE_HEADER - 1] = tag;
    Ok(header)
}

/// A Begin message, made up where the server sent none. Times are microseconds since 1970.
pub(crate) fn encode_begin(
    at: &XLogData<'_>,
    final_lsn: Lsn,
    commit_micros: i64,
    xid: u32,
) -> Result<Bytes> {
    let rest = [
        final_lsn.0.to_be_bytes().as_slice(),
        &cdc_core::unix_micros_to_pg(commit_micros).to_be_bytes(),
        &xid.to_be_bytes(),
    ]
    .concat();
    Ok([encode_header(at, b'B', rest.len())?.as_slice(), &rest].concat().into())
}

/// A Commit message, likewise.
pub(crate) fn encode_commit(
    at: &XLogData<'_>,
    commit_lsn: Lsn,
    end_lsn: Lsn,
    commit_micros: i64,
) -> Result<Bytes> {
    let rest = [
        [0].as_slice(),
        &commit_lsn.0.to_be_bytes(),
        &end_lsn.0.to_be_bytes(),
        &cdc_core::unix_micros_to_pg(commit_micros).to_be_bytes(),
    ]
    .concat();
    Ok([encode_header(at, b'C', rest.len())?.as_slice(), &rest].concat().into())
}

/// Appends a standby status update as CopyData. `micros` is the time in microseconds since
/// 2000-01-01. A reply is requested only of a server that has long been silent: else it would only
/// cost another round.
pub(crate) fn encode_status(
    out: &mut Vec<u8>,
    write: Lsn,
    durable: Lsn,
    micros: i64,
    wants_reply: bool,
) {
    out.push(b'd');
    out.extend_from_slice(&38u32.to_be_bytes());
    out.push(b'r');
    out.extend_from_slice(&write.0.to_be_bytes());
    // flush and apply: zero would make the server take the write position for them
    out.extend_from_slice(&durable.0.to_be_bytes());
    out.extend_from_slice(&durable.0.to_be_bytes());
    out.extend_from_slice(&micros.to_be_bytes());
    out.push(wants_reply.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trap_01_a_status_names_written_and_durable_positions_apart() {
        let mut out = Vec::new();
        encode_status(&mut out, Lsn(0x30), Lsn(0x20), 7, false);
        assert_eq!(frame_len(&out).unwrap(), Some(out.len()));
        let body = &out[6..];
        assert_eq!([lsn(body, 0), lsn(body, 8), lsn(body, 16)], [Lsn(0x30), Lsn(0x20), Lsn(0x20)]);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = FrameIter::new(&bytes);
            while let Ok(Some(_)) = frames.next() {}
        }
    }
}
