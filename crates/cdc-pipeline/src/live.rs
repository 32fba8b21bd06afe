//! `live.json`: the daemon's state for whoever reads the lake, written beside the stream.
//!
//! A control session of its own asks the source for the slot; it never holds up the ingest loop, and
//! while it is away the file keeps the last known slot.

use std::time::Duration;

use cdc_core::{Epoch, Lsn};
use cdc_manifest::{LIVE_VERSION, Live, LiveSlot, LiveState};
use cdc_wal::{Control, Source};
use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::lake::Lake;

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
}

/// Writes the file until the daemon stops, and once more then.
pub(crate) struct LiveWriter {
    pub(crate) lake: Lake,
    pub(crate) source: Source,
    pub(crate) slot: String,
    pub(crate) instance: String,
    pub(crate) interval: Duration,
    pub(crate) heartbeat_interval: Option<Duration>,
    pub(crate) facts: watch::Receiver<LiveFacts>,
}

impl LiveWriter {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut control = None;
        let mut slot = unknown_slot(&self.slot);
        let mut last_heartbeat = std::time::Instant::now();
        let mut known_state = self.facts.borrow().state;
        loop {
            if let Some(found) = self.ask(&mut control).await {
                slot = found;
            }
            if self.heartbeat_interval.is_some_and(|interval| last_heartbeat.elapsed() >= interval)
            {
                self.heartbeat(&mut control).await;
                last_heartbeat = std::time::Instant::now();
            }
            self.write(&slot).await;
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
        slot.active = false;
        self.write(&slot).await;
    }

    async fn ask(&self, control: &mut Option<Control>) -> Option<LiveSlot> {
        let question = async {
            if control.as_ref().is_none_or(Control::is_closed) {
                *control = Some(self.source.connect().await?);
            }
            match control.as_ref() {
                Some(control) => control.slot(&self.slot).await,
                None => Ok(None),
            }
        };
        match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
            Ok(Ok(Some(state))) => Some(LiveSlot {
                name: self.slot.clone(),
                active: state.active,
                confirmed_lsn: state.confirmed_flush,
                restart_lsn: state.restart_lsn,
                retained_wal_bytes: state.retained_bytes,
                wal_status: state.wal_status.as_str().to_owned(),
                extra: Default::default(),
            }),
            Ok(Ok(None)) => None,
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

    async fn heartbeat(&self, control: &mut Option<Control>) {
        if let Some(session) = control
            && let Ok(Err(error)) =
                tokio::time::timeout(QUESTION_TIMEOUT, session.heartbeat()).await
        {
            tracing::warn!(error = cdc_core::chain(&error), "heartbeat failed");
            *control = None;
        }
    }

    async fn write(&self, slot: &LiveSlot) {
        let facts = self.facts.borrow().clone();
        let now = self.lake.clock.now();
        let behind = facts.server_wal_end.0.saturating_sub(facts.covered_lsn.0);
        let seconds = match behind {
            0 => 0.0,
            _ => (now - facts.covered_at).as_seconds_f64().max(0.0),
        };
        let live = Live {
            version: LIVE_VERSION,
            instance: self.instance.clone(),
            generation: facts.generation,
            state: facts.state,
            slot: slot.clone(),
            received_lsn: facts.received_lsn,
            covered_lsn: facts.covered_lsn,
            covered_at: facts.covered_at,
            epoch: facts.epoch,
            lag_bytes: behind,
            lag_seconds: seconds,
            buffer_events: facts.buffer_events,
            buffer_bytes: facts.buffer_bytes as u64,
            oldest_xact_age_seconds: 0,
            last_error: facts.last_error,
            written_at: now,
            extra: Default::default(),
        };
        match tokio::time::timeout(WRITE_TIMEOUT, live.write(&self.lake.store)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = cdc_core::chain(&error), "live.json not written");
            }
            Err(_) => tracing::warn!(error = "no answer from the store", "live.json not written"),
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
        extra: Default::default(),
    }
}
