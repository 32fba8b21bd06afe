//! A streamed transaction that has committed, on its way to the consumer.

use bytes::Bytes;

use super::text::{Budget, Text};
use crate::Result;

/// Begin, the frames, Commit, in pieces of whole frames.
#[derive(Debug)]
pub(crate) struct Replay {
    begin: Option<Bytes>,
    text: Text,
    commit: Option<Bytes>,
}

impl Replay {
    pub(super) fn new(begin: Bytes, text: Text, commit: Bytes) -> Self {
        Self { begin: Some(begin), text, commit: Some(commit) }
    }

    /// The size of the next piece; 0 at the end.
    pub(crate) fn next_len(&self) -> usize {
        let bytes = |frame: &Option<Bytes>| frame.as_ref().map_or(0, Bytes::len);
        match (bytes(&self.begin), self.text.next_len()) {
            (0, 0) => bytes(&self.commit),
            (0, piece) => piece,
            (begin, _) => begin,
        }
    }

    /// The next piece, `None` after the last.
    ///
    /// # Errors
    /// `Spool` if it cannot be read from disk.
    pub(crate) fn next(&mut self, budget: &mut Budget) -> Result<Option<Bytes>> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        match self.text.next(budget)? {
            Some(piece) => Ok(Some(piece)),
            None => Ok(self.commit.take()),
        }
    }
}
