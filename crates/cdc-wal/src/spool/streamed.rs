//! One transaction that is being streamed.

use super::subxacts::Subxacts;
use super::text::{Budget, Text};
use crate::session::frame::{self, XLogData};
use crate::{Error, Result};

/// Its frames so far, without those of aborted subtransactions.
#[derive(Debug)]
pub(super) struct Streamed {
    xid: u32,
    subxacts: Subxacts,
    /// Bytes of `subxacts` that the budget knows of.
    charged: usize,
    text: Text,
}

impl Streamed {
    pub(super) fn new(xid: u32) -> Self {
        Self { xid, subxacts: Subxacts::default(), charged: 0, text: Text::default() }
    }

    /// Bytes of text in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.text.memory_bytes()
    }

    /// Adds a frame as it would be without streaming.
    pub(super) fn append(
        &mut self,
        frame: &[u8],
        data: &XLogData<'_>,
        budget: &mut Budget,
    ) -> Result<()> {
        let offset = self.text.len();
        // the origin alone names no transaction: it is that of the whole
        if data.payload.first() == Some(&b'O') {
            return self.text.append(&[frame], budget);
        }
        let (tag_and_xid, rest) = data
            .payload
            .split_first_chunk::<5>()
            .ok_or_else(|| Error::protocol("a streamed message ends too early"))?;
        let [tag, xid @ ..] = *tag_and_xid;
        let xid = u32::from_be_bytes(xid);
        if xid != self.xid {
            self.subxacts.note(xid, offset);
            self.charge(budget);
        }
        let header = frame::encode_header(data, tag, rest.len())?;
        self.text.append(&[&header, rest], budget)
    }

    /// Cuts a subtransaction off. One without frames changes nothing.
    pub(super) fn abort(&mut self, sub: u32, budget: &mut Budget) -> Result<()> {
        let Some(offset) = self.subxacts.offset_of(sub) else { return Ok(()) };
        self.subxacts.cut(offset);
        self.charge(budget);
        self.text.cut(offset, budget)
    }

    pub(super) fn move_to_disk(&mut self, budget: &mut Budget) -> Result<()> {
        self.text.move_to_disk(budget)
    }

    /// The text of the transaction, which has committed.
    pub(super) fn into_text(self, budget: &mut Budget) -> Text {
        budget.recharge(self.charged, 0);
        self.text
    }

    fn charge(&mut self, budget: &mut Budget) {
        let now = self.subxacts.memory_bytes();
        budget.recharge(std::mem::replace(&mut self.charged, now), now);
    }
}
