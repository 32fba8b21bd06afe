//! The exact cut that `verify` asks for, as the ingest loop sees it.
//!
//! ```text
//! Free ── hold ──> Held ── cut at L ──> Sought ── nothing below L is to come ──> Closing ── committed ──> Free
//!                   └── its time is over, release, drain ──> Free
//! ```
//! Intake may stop between any two blocks, also inside a transaction: what has arrived was in the log
//! before the hold, so its commit records lie below every position that is made afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use cdc_core::Lsn;
use cdc_manifest::{Manifest, TableState};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::control::{Ask, Cut, Held, Reply, TableCut};

/// The longest hold that is granted, whatever was asked for.
const HOLD_MAX: Duration = Duration::from_secs(30);

/// The cut under way, and where requests come from.
pub(crate) struct CutState<'s> {
    asks: Option<&'s mut mpsc::Receiver<Ask>>,
    stage: Stage,
}

enum Stage {
    Free,
    Held { id: i64, until: Instant },
    Sought { at: Lsn, reply: Reply },
    Closing { at: Lsn, reply: Reply },
}

impl<'s> CutState<'s> {
    /// Nothing under way; without `asks` nobody can ask.
    pub(crate) fn new(asks: Option<&'s mut mpsc::Receiver<Ask>>) -> CutState<'s> {
        CutState { asks, stage: Stage::Free }
    }

    /// The next request; pending while there is none. Cancel safe.
    pub(crate) async fn next_ask(&mut self) -> Ask {
        if let Some(asks) = &mut self.asks
            && let Some(ask) = asks.recv().await
        {
            return ask;
        }
        std::future::pending().await
    }

    /// Whether nothing may be taken from the stream.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Held { .. })
    }

    /// When a hold ends by itself.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        match self.stage {
            Stage::Held { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Holds intake, unless another cut is under way.
    pub(crate) fn hold(&mut self, id: i64, longest: Duration, received: Lsn, reply: Reply) {
        if !matches!(self.stage, Stage::Free) {
            refuse(reply, "another verify is at work");
            return;
        }
        tracing::debug!(request = id, %received, "intake held for a cut");
        self.stage = Stage::Held { id, until: Instant::now() + longest.min(HOLD_MAX) };
        grant(reply, &Held { received });
    }

    /// Lets intake go on to the cut at `at`.
    pub(crate) fn seek(&mut self, hold: i64, at: Lsn, reply: Reply) {
        match self.stage {
            Stage::Held { id, .. } if id == hold => self.stage = Stage::Sought { at, reply },
            _ => refuse(reply, "the hold was over before the cut was told"),
        }
    }

    /// Ends a hold early.
    pub(crate) fn release(&mut self, hold: i64, reply: Reply) {
        if matches!(self.stage, Stage::Held { id, .. } if id == hold) {
            self.stage = Stage::Free;
        }
        grant(reply, &Value::Null);
    }

    /// Ends a hold whose time is over.
    pub(crate) fn expire(&mut self) {
        if let Stage::Held { id, until } = self.stage
            && until <= Instant::now()
        {
            tracing::warn!(request = id, "hold was not followed by a cut, intake goes on");
            self.stage = Stage::Free;
        }
    }

    /// Ends whatever is under way, because the stream is not followed to its cut any more.
    pub(crate) fn abandon(&mut self, reason: &str) {
        match std::mem::replace(&mut self.stage, Stage::Free) {
            Stage::Free | Stage::Held { .. } => {}
            Stage::Sought { reply, .. } => refuse(reply, reason),
            closing @ Stage::Closing { .. } => self.stage = closing,
        }
    }

    /// Nothing below `reached` is to come any more: gives the cut if it is reached by that, once.
    pub(crate) fn reached(&mut self, reached: Lsn) -> Option<Lsn> {
        match std::mem::replace(&mut self.stage, Stage::Free) {
            Stage::Sought { at, reply } if reached >= at => {
                self.stage = Stage::Closing { at, reply };
                Some(at)
            }
            other => {
                self.stage = other;
                None
            }
        }
    }

    /// The flush of the cut is in the manifest: answers with what it names.
    pub(crate) fn committed(&mut self, manifest: &Manifest) {
        match std::mem::replace(&mut self.stage, Stage::Free) {
            Stage::Closing { at, reply } if manifest.covered_lsn == at => {
                tracing::debug!(lsn = %at, epoch = manifest.epoch.0, "cut committed");
                grant(reply, &cut_of(manifest));
            }
            Stage::Closing { at, reply } => {
                let found = manifest.covered_lsn;
                refuse(reply, &format!("the lake stands at {found}, not at the cut {at}"));
            }
            other => self.stage = other,
        }
    }
}

/// What a manifest names of the tables that follow the stream, for the one who asked for its cut.
pub(crate) fn cut_of(manifest: &Manifest) -> Cut {
    let tables: BTreeMap<String, TableCut> = manifest
        .active_tables()
        .filter(|(_, entry)| matches!(entry.state, Some(TableState::Streaming) | None))
        .map(|(table, entry)| {
            let cut = TableCut {
                metadata_location: entry.metadata_location.clone(),
                snapshot_id: entry.snapshot_id.map(|id| id.to_string()),
                schema_version: entry.schema_version,
            };
            (table.to_string(), cut)
        })
        .collect();
    Cut { lsn: manifest.covered_lsn, epoch: manifest.epoch.0, tables }
}

/// Answers; one who is gone does not want to know.
pub(crate) fn grant(reply: Reply, answer: &impl Serialize) {
    let _ = reply.send(serde_json::to_value(answer).map_err(|error| error.to_string()));
}

/// Refuses; one who is gone does not want to know.
pub(crate) fn refuse(reply: Reply, reason: &str) {
    let _ = reply.send(Err(reason.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;
    use tokio::sync::oneshot::Receiver;

    type Answer = Receiver<Result<Value, String>>;

    fn reply() -> (Reply, Answer) {
        oneshot::channel()
    }

    fn answer(mut from: Answer) -> Option<Result<Value, String>> {
        from.try_recv().ok()
    }

    fn held(longest: Duration) -> CutState<'static> {
        let mut cut = CutState::new(None);
        let (to, from) = reply();
        cut.hold(7, longest, Lsn(0x10), to);
        assert_eq!(answer(from), Some(Ok(serde_json::json!({"received": "0/10"}))));
        cut
    }

    #[test]
    fn a_cut_is_reached_once_nothing_below_it_is_to_come() {
        let mut cut = held(Duration::from_secs(9));
        assert!(cut.is_held() && cut.held_until().is_some());
        let (to, from) = reply();
        cut.seek(7, Lsn(0x20), to);
        assert!(!cut.is_held());
        assert_eq!(cut.reached(Lsn(0x1F)), None);
        assert_eq!(cut.reached(Lsn(0x20)), Some(Lsn(0x20)));
        assert_eq!(cut.reached(Lsn(0x30)), None);
        assert_eq!(answer(from), None);
    }

    #[test]
    fn a_hold_that_is_over_refuses_its_cut() {
        let mut cut = held(Duration::ZERO);
        cut.expire();
        assert!(!cut.is_held());
        let (to, from) = reply();
        cut.seek(7, Lsn(0x20), to);
        assert!(answer(from).unwrap().unwrap_err().contains("over"));
    }

    #[test]
    fn one_hold_at_a_time_and_only_its_owner_goes_on() {
        let mut cut = held(Duration::from_secs(9));
        let (to, from) = reply();
        cut.hold(8, Duration::from_secs(9), Lsn(0x11), to);
        assert!(answer(from).unwrap().is_err());
        let (to, from) = reply();
        cut.seek(8, Lsn(0x20), to);
        assert!(answer(from).unwrap().is_err());
        let (to, from) = reply();
        cut.release(8, to);
        assert!(answer(from).unwrap().is_ok() && cut.is_held());
    }

    #[test]
    fn a_drain_ends_a_hold_and_refuses_a_cut_that_is_sought() {
        let mut cut = held(Duration::from_secs(9));
        cut.abandon("drain");
        assert!(!cut.is_held());
        let mut cut = held(Duration::from_secs(9));
        let (to, from) = reply();
        cut.seek(7, Lsn(0x20), to);
        cut.abandon("drain");
        assert_eq!(answer(from), Some(Err("drain".into())));
        assert_eq!(cut.reached(Lsn(0x30)), None);
    }
}
