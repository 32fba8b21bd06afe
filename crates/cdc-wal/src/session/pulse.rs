//! When to send a status message, and whether the server is shutting down.
//!
//! A server that shuts down waits until everything it sent is confirmed, and asks for a reply in
//! an endless loop meanwhile: hundreds of thousands of times if each is answered at once.

use std::time::Duration;

use cdc_core::Lsn;
use tokio::time::Instant;

/// A raised position is sent after this time at the latest.
const ACK_DELAY: Duration = Duration::from_secs(1);
/// Requests for a reply closer together than this, without data between, count as one series.
const SERIES_GAP: Duration = Duration::from_secs(1);
/// A series of this length is a server that is shutting down. A running one asks once in half a
/// `wal_sender_timeout`, and never if status messages come on time.
const SERIES_DRAIN: u32 = 3;
/// Shortest time between replies within a series.
const REPLY_DELAY: Duration = Duration::from_millis(100);

/// The clock of one stream's status messages.
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    last_sent: Instant,
    sent_durable: Lsn,
    durable: Lsn,
    reply_at: Option<Instant>,
    series: Series,
    drain_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Series {
    wal_end: Lsn,
    requests: u32,
    last: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(interval: Duration, resume: Lsn, now: Instant) -> Self {
        Self {
            interval,
            last_sent: now,
            sent_durable: Lsn::ZERO,
            durable: resume,
            reply_at: Some(now),
            series: Series { wal_end: Lsn::ZERO, requests: 0, last: None },
            drain_since: None,
        }
    }

    pub(super) fn on_data(&mut self) {
        self.series.requests = 0;
        self.drain_since = None;
    }

    pub(super) fn on_keepalive(&mut self, wal_end: Lsn, reply_requested: bool, now: Instant) {
        if wal_end != self.series.wal_end {
            self.series = Series { wal_end, requests: 0, last: None };
            self.drain_since = None;
        }
        if !reply_requested {
            return;
        }
        let close = |last: Instant| now.saturating_duration_since(last) < SERIES_GAP;
        let goes_on = self.series.last.is_some_and(close);
        self.series.requests = if goes_on { self.series.requests.saturating_add(1) } else { 1 };
        self.series.last = Some(now);
        if self.series.requests >= SERIES_DRAIN && self.drain_since.is_none() {
            self.drain_since = Some(now);
        }
        let earliest = if self.series.requests < SERIES_DRAIN {
            now
        } else {
            (self.last_sent + REPLY_DELAY).max(now)
        };
        self.reply_at.get_or_insert(earliest);
    }

    pub(super) fn on_durable(&mut self, durable: Lsn) {
        self.durable = self.durable.max(durable);
    }

    /// Since when the server waits for an acknowledgement in order to stop, and of what.
    pub(super) fn draining(&self) -> Option<(Instant, Lsn)> {
        self.drain_since.map(|since| (since, self.series.wal_end))
    }

    /// When the next status message is due.
    pub(super) fn next_at(&self) -> Instant {
        let mut at = self.last_sent + self.interval;
        if let Some(reply_at) = self.reply_at {
            at = at.min(reply_at);
        }
        if self.durable > self.sent_durable {
            let delay = if self.drain_since.is_some() { Duration::ZERO } else { ACK_DELAY };
            at = at.min(self.last_sent + delay);
        }
        at
    }

    /// Takes note of a status message; answers the durable position it must carry.
    pub(super) fn send(&mut self, received: Lsn, now: Instant) -> Lsn {
        // acknowledging more than was received would make the server skip commits for ever
        let durable = self.durable.min(received);
        self.last_sent = now;
        self.sent_durable = self.durable;
        self.reply_at = None;
        durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn pulse(now: Instant) -> Pulse {
        let mut pulse = Pulse::new(INTERVAL, Lsn(1), now);
        assert_eq!(pulse.next_at(), now);
        pulse.send(Lsn(1), now);
        pulse
    }

    #[test]
    fn a_raised_position_is_sent_within_a_second() {
        let now = Instant::now();
        let mut pulse = pulse(now);
        assert_eq!(pulse.next_at(), now + INTERVAL);
        pulse.on_durable(Lsn(5));
        assert_eq!(pulse.next_at(), now + ACK_DELAY);
    }

    #[test]
    fn trap_01_no_more_than_received_is_acknowledged() {
        let now = Instant::now();
        let mut pulse = pulse(now);
        pulse.on_durable(Lsn(50));
        assert_eq!(pulse.send(Lsn(20), now), Lsn(20));
    }

    #[test]
    fn trap_07_a_series_of_requests_is_a_drain_and_is_answered_slowly() {
        let mut now = Instant::now();
        let mut pulse = pulse(now);
        let mut replies = 0;
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            pulse.on_keepalive(Lsn(9), true, now);
            if pulse.next_at() <= now {
                pulse.send(Lsn(9), now);
                replies += 1;
            }
        }
        assert!(pulse.draining().is_some_and(|(_, wal_end)| wal_end == Lsn(9)));
        assert!((8..=14).contains(&replies), "{replies}");
        pulse.on_durable(Lsn(9));
        assert!(pulse.next_at() <= now, "the acknowledgement waits for nothing");
        pulse.on_data();
        assert_eq!(pulse.draining(), None);
    }

    #[test]
    fn trap_07_pings_of_a_running_server_are_no_drain() {
        let mut now = Instant::now();
        let mut pulse = pulse(now);
        for _ in 0..20 {
            now += Duration::from_secs(2);
            pulse.on_keepalive(Lsn(9), true, now);
            assert!(pulse.next_at() <= now);
            pulse.send(Lsn(9), now);
        }
        assert_eq!(pulse.draining(), None);
    }
}
