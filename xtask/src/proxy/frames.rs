//! The frontend half of the wire protocol, as far as the proxy must understand it: where a message
//! ends, and what a standby status update says
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use anyhow::{Context, Result, ensure};

use crate::lab::Lsn;

/// PostgreSQL sends no message longer than this.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// The request code of protocol 3.0 in a startup message.
const PROTOCOL_3: u32 = 196_608;

/// A standby status update: what the daemon says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    /// The flush position, which the server never sends again.
    pub(super) flushed: Lsn,
}

/// One whole message of a client, with all its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// The first one of a session.
    Startup { is_replication: bool, bytes: &'a [u8] },
    /// A standby status update.
    Status { status: Status, bytes: &'a [u8] },
    /// Any other.
    Other { bytes: &'a [u8] },
}

impl<'a> Message<'a> {
    /// What goes to the server.
    pub(super) fn bytes(&self) -> &'a [u8] {
        match self {
            Message::Startup { bytes, .. }
            | Message::Status { bytes, .. }
            | Message::Other { bytes } => bytes,
        }
    }
}

/// The message at the front of what a client sent, or `None` if more bytes are needed.
pub(super) fn first_message(sent: &[u8], is_started: bool) -> Result<Option<Message<'_>>> {
    let header = usize::from(is_started);
    let Some(length) = sent.get(header..header + 4) else { return Ok(None) };
    let length = u32::from_be_bytes(length.try_into().context("four bytes")?) as usize;
    ensure!((4..=MESSAGE_BYTES_MAX).contains(&length), "a client's message of {length} bytes");
    let Some(bytes) = sent.get(..header + length) else { return Ok(None) };
    let body = &bytes[header + 4..];
    if !is_started {
        return startup(bytes, body).map(Some);
    }
    Ok(Some(match (bytes[0], status(body)) {
        (b'd', Some(status)) => Message::Status { status, bytes },
        _ => Message::Other { bytes },
    }))
}

fn startup<'a>(bytes: &'a [u8], body: &'a [u8]) -> Result<Message<'a>> {
    let (code, parameters) = body.split_first_chunk::<4>().context("a startup without a code")?;
    // the labs connect without TLS, so nothing else comes first
    ensure!(u32::from_be_bytes(*code) == PROTOCOL_3, "a session that does not begin in the clear");
    let words: Vec<&[u8]> = parameters.split(|byte| *byte == 0).collect();
    let is_replication = words.contains(&&b"replication"[..]);
    Ok(Message::Startup { is_replication, bytes })
}

/// `r`, then written, flushed and applied positions, the clock and the wish for a reply.
fn status(body: &[u8]) -> Option<Status> {
    let (b'r', rest) = body.split_first()? else { return None };
    let fields: &[u8; 33] = rest.try_into().ok()?;
    Some(Status { flushed: Lsn::from_be_bytes(fields[8..16].try_into().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(body.len() + 4).unwrap_or(0).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn the_flush_position_of_a_status_update_is_read() -> Result<()> {
        let mut body = vec![b'r'];
        for field in [7u64, 5, 3, 1] {
            body.extend(field.to_be_bytes());
        }
        body.push(0);
        let bytes = message(b'd', &body);
        assert_eq!(first_message(&bytes[..20], true)?, None);
        let found = first_message(&bytes, true)?;
        assert_eq!(found, Some(Message::Status { status: Status { flushed: 5 }, bytes: &bytes }));
        Ok(())
    }

    #[test]
    fn data_that_only_begins_like_a_status_is_not_one() -> Result<()> {
        let bytes = message(b'd', b"row of a COPY");
        assert_eq!(first_message(&bytes, true)?, Some(Message::Other { bytes: &bytes }));
        Ok(())
    }

    #[test]
    fn a_replication_session_is_told_from_others() -> Result<()> {
        for (parameters, expected) in
            [(&b"user\0p\0replication\0database\0\0"[..], true), (&b"user\0p\0\0"[..], false)]
        {
            let mut bytes = u32::try_from(parameters.len() + 8)?.to_be_bytes().to_vec();
            bytes.extend(PROTOCOL_3.to_be_bytes());
            bytes.extend(parameters);
            match first_message(&bytes, false)? {
                Some(Message::Startup { is_replication, .. }) => {
                    assert_eq!(is_replication, expected);
                }
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    }
}
