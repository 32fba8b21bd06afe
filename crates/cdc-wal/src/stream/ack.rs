//! Acknowledgement: the only way to move the slot's confirmed position.
//!
//! PostgreSQL accepts the acknowledgement of a position that it has not sent yet and then silently
//! skips every commit below it. So a position can be acknowledged only by a token that was made
//! from something received.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cdc_core::Lsn;
use tokio::sync::Notify;

/// Leave to acknowledge one position. Made by `Commit::token` and `IdleMark::token` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckToken(Lsn);

impl AckToken {
    pub(super) fn new(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// The position it stands for.
    pub fn lsn(self) -> Lsn {
        self.0
    }
}

/// Tells the stream what is durable. Cheap to clone; works from any thread; harmless after the
/// stream has ended.
#[derive(Clone, Debug)]
pub struct Acker {
    state: Arc<AckState>,
}

impl Acker {
    pub(super) fn new(state: Arc<AckState>) -> Self {
        Self { state }
    }

    /// Everything delivered up to and including the token's event is durable and need never be
    /// sent again. The highest token counts, in whatever order they come.
    ///
    /// Sent to the server within a second, at once when it waits for it.
    pub fn durable(&self, token: AckToken) {
        let before = self.state.durable.fetch_max(token.0.0, Ordering::AcqRel);
        if before < token.0.0 {
            self.state.raised.notify_one();
        }
    }
}

/// What the acker and the reader share.
#[derive(Debug)]
pub(crate) struct AckState {
    durable: AtomicU64,
    /// Signalled when the position has risen.
    pub(crate) raised: Notify,
}

impl AckState {
    pub(crate) fn new(resume: Lsn) -> Self {
        Self { durable: AtomicU64::new(resume.0), raised: Notify::new() }
    }

    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_token_does_not_move_the_position_back() {
        let state = Arc::new(AckState::new(Lsn(5)));
        let acker = Acker::new(Arc::clone(&state));
        for (token, expected) in [(3, 5), (9, 9), (7, 9)] {
            acker.durable(AckToken::new(Lsn(token)));
            assert_eq!(state.durable(), Lsn(expected));
        }
    }
}
