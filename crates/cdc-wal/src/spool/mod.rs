//! Transactions that the server sends while they are still open, kept until they end.
//!
//! ```text
//!  StreamStart(xid) … frames … StreamStop   any number of times, transactions taking turns
//!        └─ append to the transaction's text, in memory up to a bound, then in a file
//!  StreamAbort(xid, sub)   cut off from the first frame of the subtransaction
//!  StreamCommit(xid)       Begin, the text, Commit: a Replay, as if it had come at its commit
//! ```
//! What is kept is what the server would have sent without streaming: each frame loses the
//! transaction id that it bears only here. So the consumer sees one kind of stream.

mod replay;
mod streamed;
mod subxacts;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use crate::pgoutput::{self, Message, Tuples};
use crate::session::frame::{self, XLogData};
use crate::stream::SpoolOptions;
use crate::{Error, Result};

pub(crate) use replay::Replay;
use streamed::Streamed;
use text::Budget;

/// All transactions under way, and the budget of their bytes.
#[derive(Debug)]
pub(crate) struct Spool {
    open: BTreeMap<u32, Streamed>,
    /// The transaction whose part is being received.
    current: Option<u32>,
    budget: Budget,
}

/// What became of a frame that was shown to the spool.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It does not belong to a streamed transaction.
    Not,
    /// It is kept, or has been acted upon.
    Kept,
    /// It committed a transaction.
    Committed(Replay),
}

impl Spool {
    pub(crate) fn new(options: SpoolOptions) -> Self {
        Self { open: BTreeMap::new(), current: None, budget: Budget::new(options) }
    }

    /// Whether no streamed transaction is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Bytes held in memory and on disk, replays under way included.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.budget.held_bytes()
    }

    pub(crate) fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    /// Looks at a frame: `frame` is the whole of it, `data` what it holds.
    ///
    /// # Errors
    /// `Protocol` for what the protocol does not allow, `Budget` and `Spool` when the bytes find no
    /// place.
    pub(crate) fn take(&mut self, frame: &[u8], data: &XLogData<'_>) -> Result<Taken> {
        let kind = data.payload.first().copied().unwrap_or_default();
        match (self.current, kind) {
            (None, b'S' | b'c' | b'A') | (Some(_), b'E') => self.control(data),
            (None, b'E') => Err(Error::protocol("the end of a part that was not begun")),
            (None, _) => Ok(Taken::Not),
            (Some(top), b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' | b'O') => {
                self.append(top, frame, data)?;
                Ok(Taken::Kept)
            }
            (Some(top), kind) => {
                let kind = char::from(kind);
                Err(Error::protocol(format!("a message {kind:?} in a part of transaction {top}")))
            }
        }
    }

    fn control(&mut self, data: &XLogData<'_>) -> Result<Taken> {
        match pgoutput::decode(data.payload, false, &mut Tuples::default())? {
            Message::StreamStart { xid, first } => self.start(xid, first)?,
            Message::StreamStop => self.current = None,
            Message::StreamAbort { xid, subxid, .. } => self.abort(xid, subxid)?,
            Message::StreamCommit { xid, commit_lsn, end_lsn, commit_micros } => {
                let transaction = self.open.remove(&xid).ok_or_else(|| unknown("commit", xid))?;
                let begin = frame::encode_begin(data, commit_lsn, commit_micros, xid)?;
                let commit = frame::encode_commit(data, commit_lsn, end_lsn, commit_micros)?;
                let text = transaction.into_text(&mut self.budget);
                return Ok(Taken::Committed(Replay::new(begin, text, commit)));
            }
            other => return Err(Error::protocol(format!("{other:?} instead of a stream message"))),
        }
        Ok(Taken::Kept)
    }

    fn start(&mut self, xid: u32, first: bool) -> Result<()> {
        match (first, self.open.contains_key(&xid)) {
            (true, false) => {
                self.open.insert(xid, Streamed::new(xid));
            }
            (false, true) => {}
            (true, true) => return Err(unknown("second beginning", xid)),
            (false, false) => return Err(unknown("later part", xid)),
        }
        self.current = Some(xid);
        Ok(())
    }

    /// The server also tells of aborts of which it has sent nothing.
    fn abort(&mut self, top: u32, sub: u32) -> Result<()> {
        if top == sub {
            if let Some(transaction) = self.open.remove(&top) {
                transaction.into_text(&mut self.budget).clear(&mut self.budget);
            }
            return Ok(());
        }
        match self.open.get_mut(&top) {
            Some(transaction) => transaction.abort(sub, &mut self.budget),
            None => Ok(()),
        }
    }

    fn append(&mut self, top: u32, frame: &[u8], data: &XLogData<'_>) -> Result<()> {
        let transaction = self.open.get_mut(&top).ok_or_else(|| unknown("later part", top))?;
        transaction.append(frame, data, &mut self.budget)?;
        while self.budget.is_memory_over() {
            let biggest = self.open.values_mut().max_by_key(|open| open.memory_bytes());
            match biggest.filter(|open| open.memory_bytes() > 0) {
                Some(transaction) => transaction.move_to_disk(&mut self.budget)?,
                // the rest belongs to replays, which shrink as they are read
                None => break,
            }
        }
        Ok(())
    }
}

#[cold]
fn unknown(what: &str, xid: u32) -> Error {
    Error::protocol(format!("a {what} of streamed transaction {xid}, which is not expected"))
}
