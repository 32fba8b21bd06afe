//! `live.json`: the daemon's state for whoever reads the lake, written beside the stream.
//!
//! A control session of its own asks the source for the slot; it never holds up the ingest loop, and
//! while it is away the file keeps the last known slot.

use std::sync::Arc;
use std::time::Duration;

use cdc_core::{Epoch, Lsn};
use cdc_manifest::{LIVE_VERSION, Live, LiveSlot, LiveState};
use cdc_wal::{Control, SlotState, Source};
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fence::Breaker;
use crate::lake::Lake;
use crate::meters::level;

/// Longest time one question to the source may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time one write may take: nobody waits for the file, and it is written again soon.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the ingest loop tells.
#[derive(Clone, Debug)]
pub(crate) struct LiveFacts {
    pub(crate) state: LiveState,
    pub(crate) generation: u64,
    pub(crate) epoch: Epoch,
    pub(crate) confirmed_lsn: Lsn,
    pub(crate) received_lsn: Lsn,
    pub(crate) server_wal_end: Lsn,
    pub(crate) covered_lsn: Lsn,
    pub(crate) covered_at: DateTime<Utc>,
    pub(crate) buffer_events: u64,
    pub(crate) buffer_bytes: usize,
    pub(crate) last_error: Option<String>,
    /// Whether no other daemon reads the slot. Until that is known the file may be its words.
    pub(crate) is_alone: bool,
}

/// Writes the file until the daemon stops, and once more then.
pub(crate) struct LiveWriter {
    pub(crate) lake: Lake,
    pub(crate) source: Source,
    pub(crate) slot: String,
    pub(crate) instance: String,
    pub(crate) interval: Duration,
    pub(crate) heartbeat_interval: Option<Duration>,
    pub(crate) guardrail_bytes: Option<u64>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) facts: watch::Receiver<LiveFacts>,
}

/// What the source answered last.
struct Seen {
    slot: LiveSlot,
    oldest_xact_age_seconds: u64,
}

impl LiveWriter {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut control = None;
        let mut seen = Seen { slot: unknown_slot(&self.slot), oldest_xact_age_seconds: 0 };
        let mut last_heartbeat = std::time::Instant::now();
        let mut known_state = self.facts.borrow().state;
        loop {
            if let Some(mut found) = self.ask(&mut control).await {
                found.slot.guardrail_breached = self.watch_guardrail(&seen.slot, &found.slot);
                seen = found;
            }
            self.measure(&seen);
            // a source that is not known to be ours gets no message
            let is_streaming = self.facts.borrow().state == LiveState::Streaming;
            let is_due = |interval| last_heartbeat.elapsed() >= interval;
            if is_streaming && self.heartbeat_interval.is_some_and(is_due) {
                self.heartbeat(&mut control).await;
                last_heartbeat = std::time::Instant::now();
            }
            self.write(&seen).await;
            let interval = self.heartbeat_interval.map_or(self.interval, |h| h.min(self.interval));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(interval) => {}
                changed = self.facts.wait_for(|facts| facts.state != known_state) => {
                    match changed {
                        Ok(facts) => known_state = facts.state,
                        Err(_) => break,
                    }
                }
            }
        }
        seen.slot.active = false;
        self.measure(&seen);
        self.write(&seen).await;
    }

    /// Raises the alarm when the slot begins to keep more WAL than it should. The slot stays: the
    /// operator decides what is dearer.
    fn watch_guardrail(&self, before: &LiveSlot, now: &LiveSlot) -> bool {
        let Some(limit_bytes) = self.guardrail_bytes else { return false };
        let retained_wal_bytes = now.retained_wal_bytes;
        let is_breached = retained_wal_bytes >= limit_bytes;
        let slot = now.name.as_str();
        match (before.guardrail_breached, is_breached) {
            (false, true) => {
                tracing::warn!(slot, retained_wal_bytes, limit_bytes, "slot guardrail breached");
            }
            (true, false) => {
                tracing::info!(slot, retained_wal_bytes, limit_bytes, "slot guardrail held again");
            }
            _ => {}
        }
        is_breached
    }

    async fn ask(&self, control: &mut Option<Control>) -> Option<Seen> {
        let question = async {
            if control.as_ref().is_none_or(Control::is_closed) {
                *control = Some(self.source.connect().await?);
            }
            match control.as_ref() {
                Some(control) => {
                    let slot = control.slot(&self.slot).await?;
                    Ok::<_, cdc_wal::Error>((slot, control.oldest_transaction().await?))
                }
                None => Ok((None, None)),
            }
        };
        match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
            Ok(Ok((slot, oldest))) => {
                let slot = slot.map_or_else(
                    // there is none: what was seen before is no longer true
                    || LiveSlot { wal_status: "not found".into(), ..unknown_slot(&self.slot) },
                    |slot| self.live_slot(&slot),
                );
                let age = oldest.and_then(|oldest| oldest.age);
                Some(Seen { slot, oldest_xact_age_seconds: age.map_or(0, |age| age.as_secs()) })
            }
            Ok(Err(error)) => {
                tracing::debug!(error = cdc_core::chain(&error), "slot not asked");
                *control = None;
                None
            }
            Err(_) => {
                *control = None;
                None
            }
        }
    }

    fn live_slot(&self, slot: &SlotState) -> LiveSlot {
        LiveSlot {
            name: self.slot.clone(),
            active: slot.active,
            confirmed_lsn: slot.confirmed_flush,
            restart_lsn: slot.restart_lsn,
            retained_wal_bytes: slot.retained_bytes,
            wal_status: slot.wal_status.as_str().to_owned(),
            guardrail_breached: false,
            extra: Default::default(),
        }
    }

    async fn heartbeat(&self, control: &mut Option<Control>) {
        let Some(session) = control else { return };
        let error = match tokio::time::timeout(QUESTION_TIMEOUT, session.heartbeat()).await {
            Ok(Ok(_)) => {
                self.lake.meters.heartbeats.inc();
                return;
            }
            Ok(Err(error)) => cdc_core::chain(&error),
            Err(_) => "no answer from the source".to_owned(),
        };
        tracing::warn!(error, "heartbeat failed");
        *control = None;
    }

    /// Shows on `/metrics` what was seen last.
    fn measure(&self, seen: &Seen) {
        let (meters, facts) = (&self.lake.meters, self.facts.borrow());
        let is_ours = facts.state == LiveState::Streaming || facts.state == LiveState::Draining;
        meters.slot_active.set(i64::from(is_ours && seen.slot.active));
        meters.retained_wal_bytes.set(level(seen.slot.retained_wal_bytes));
        meters.guardrail_breach.set(i64::from(seen.slot.guardrail_breached));
        meters.oldest_xact_age_seconds.set(level(seen.oldest_xact_age_seconds));
        let (bytes, seconds) = self.lag(&facts);
        meters.lag_bytes.set(level(bytes));
        meters.lag_seconds.set(seconds);
        meters.up_to_lsn.set(level(facts.covered_lsn.0));
    }

    /// How far the lake is behind what the server last told of itself, in bytes and in seconds.
    fn lag(&self, facts: &LiveFacts) -> (u64, f64) {
        let behind = facts.server_wal_end.0.saturating_sub(facts.covered_lsn.0);
        let seconds = match behind {
            0 => 0.0,
            _ => (self.lake.clock.now() - facts.covered_at).as_seconds_f64().max(0.0),
        };
        (behind, seconds)
    }

    /// Writes the file unless another daemon is at work, whose words ours would hide. Bounded as a
    /// whole: the end of the daemon waits for the last write.
    async fn write(&self, seen: &Seen) {
        let facts = self.facts.borrow().clone();
        if !facts.is_alone {
            return;
        }
        let write = async {
            let found = Live::load(&self.lake.store).await.ok().flatten();
            if found.is_some_and(|found| found.generation > facts.generation) {
                return Ok(());
            }
            self.describe(&facts, seen).write(&self.lake.store).await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = cdc_core::chain(&error), "live.json not written");
            }
            Err(_) => tracing::warn!(error = "no answer from the store", "live.json not written"),
        }
    }

    fn describe(&self, facts: &LiveFacts, seen: &Seen) -> Live {
        let (lag_bytes, lag_seconds) = self.lag(facts);
        Live {
            version: LIVE_VERSION,
            instance: self.instance.clone(),
            generation: facts.generation,
            state: facts.state,
            slot: seen.slot.clone(),
            received_lsn: facts.received_lsn,
            covered_lsn: facts.covered_lsn,
            covered_at: facts.covered_at,
            epoch: facts.epoch,
            lag_bytes,
            lag_seconds,
            buffer_events: facts.buffer_events,
            buffer_bytes: facts.buffer_bytes as u64,
            oldest_xact_age_seconds: seen.oldest_xact_age_seconds,
            cas_conflicts: self.breaker.total(),
            last_error: facts.last_error.clone(),
            written_at: self.lake.clock.now(),
            extra: Default::default(),
        }
    }
}

fn unknown_slot(name: &str) -> LiveSlot {
    LiveSlot {
        name: name.to_owned(),
        active: false,
        confirmed_lsn: Lsn::ZERO,
        restart_lsn: Lsn::ZERO,
        retained_wal_bytes: 0,
        wal_status: "unknown".into(),
        guardrail_breached: false,
        extra: Default::default(),
    }
}
