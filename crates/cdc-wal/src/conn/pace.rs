//! Read coalescing: leaving the socket alone for a few milliseconds so that it fills.
//!
//! The server sends one packet per row and every packet would wake us. Letting them gather makes
//! receiving 1.3 to 1.9 times as fast and takes less processor time on both ends. On a Unix
//! socket it would be five times slower, because the kernel bounds what may queue there.

use std::time::Duration;

use tokio::time::Instant;

/// A read of this size or more means that data waits already.
const FULL_READ: usize = 64 * 1024;
/// Reads further apart than this are an idle stream, which is read at once.
const ACTIVE_GAP: Duration = Duration::from_millis(50);
/// Wakes measured before the two ways of reading are compared.
const TRIAL_WAKES: u32 = 48;
/// How long a verdict against coalescing holds.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Below this rate a comparison of rates says nothing.
const BUSY_BYTES_PER_SECOND: f64 = 8e6;

/// How long to leave the socket alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Naps {
    /// While following the stream.
    pub(crate) following: Duration,
    /// While far behind.
    pub(crate) behind: Duration,
}

impl Naps {
    pub(crate) const PLAIN: Naps =
        Naps { following: Duration::from_millis(5), behind: Duration::from_millis(20) };
    /// Below 10 ms coalescing gains nothing under TLS.
    pub(crate) const TLS: Naps =
        Naps { following: Duration::from_millis(10), behind: Duration::from_millis(20) };
}

/// Decides after each read whether and how long to wait before the next one, and checks by
/// measuring that waiting helps.
#[derive(Debug)]
pub(crate) struct Pacer {
    naps: Option<Naps>,
    behind: bool,
    last_read: Option<Instant>,
    phase: Phase,
    baseline: Sample,
    current: Sample,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Reading at once, to know what waiting is compared with.
    Baseline,
    /// Waiting, and being measured.
    Trial,
    /// Waiting.
    On,
    /// Not waiting until then.
    OffUntil(Instant),
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    wakes: u32,
    bytes: usize,
    time: Duration,
}

impl Sample {
    fn bytes_per_wake(self) -> f64 {
        self.bytes as f64 / f64::from(self.wakes.max(1))
    }

    fn rate(self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(1e-6)
    }
}

impl Pacer {
    /// A pacer that never waits.
    pub(crate) fn off() -> Self {
        Self {
            naps: None,
            behind: false,
            last_read: None,
            phase: Phase::Baseline,
            baseline: Sample::default(),
            current: Sample::default(),
        }
    }

    pub(crate) fn new(naps: Naps) -> Self {
        Self { naps: Some(naps), ..Self::off() }
    }

    pub(crate) fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// Takes note of a read of `bytes` and answers how long to wait before the next.
    pub(crate) fn after_read(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let naps = self.naps?;
        let gap = self.last_read.replace(now).map(|last| now.saturating_duration_since(last));
        let gap = gap.filter(|gap| *gap < ACTIVE_GAP)?;
        let waits = self.measure(bytes, gap, now);
        let nap = if self.behind { naps.behind } else { naps.following };
        (waits && bytes < FULL_READ).then_some(nap)
    }

    /// Whether the phase after this read waits.
    fn measure(&mut self, bytes: usize, gap: Duration, now: Instant) -> bool {
        match self.phase {
            Phase::On => return true,
            Phase::OffUntil(until) if now < until => return false,
            Phase::OffUntil(_) => {
                self.phase = Phase::Baseline;
                self.current = Sample::default();
            }
            Phase::Baseline | Phase::Trial => {}
        }
        self.current.bytes += bytes;
        self.current.time += gap;
        // a full read is followed by another without a nap: one wake
        if bytes < FULL_READ {
            self.current.wakes += 1;
        }
        if self.current.wakes >= TRIAL_WAKES {
            self.conclude(now);
        }
        matches!(self.phase, Phase::Trial | Phase::On)
    }

    fn conclude(&mut self, now: Instant) {
        let measured = std::mem::take(&mut self.current);
        self.phase = if self.phase == Phase::Baseline {
            self.baseline = measured;
            Phase::Trial
        } else if self.helps(measured) {
            Phase::On
        } else {
            tracing::debug!("read coalescing does not help here, reading at once");
            Phase::OffUntil(now + RETRY_AFTER)
        };
    }

    fn helps(&self, trial: Sample) -> bool {
        let fuller = trial.bytes_per_wake() > 1.3 * self.baseline.bytes_per_wake();
        let busy = self.baseline.rate() > BUSY_BYTES_PER_SECOND;
        fuller && (!busy || trial.rate() > 0.8 * self.baseline.rate())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a source of `rate` bytes a second whose kernel buffer holds `cap`; returns the share
    /// of wakes that waited at the end.
    fn run(pacer: &mut Pacer, rate: f64, cap: usize) -> usize {
        let mut now = Instant::now();
        let mut waited = 0;
        let mut nap = None;
        for wake in 0..400 {
            let pause: Duration = nap.unwrap_or(Duration::from_micros(20));
            now += pause;
            let bytes = ((rate * pause.as_secs_f64()) as usize).clamp(100, cap);
            nap = pacer.after_read(bytes, now);
            waited += usize::from(wake >= 300 && nap.is_some());
        }
        waited
    }

    #[test]
    fn a_busy_socket_is_left_to_fill() {
        assert!(run(&mut Pacer::new(Naps::PLAIN), 10e6, 1 << 20) > 90);
    }

    #[test]
    fn a_socket_that_blocks_its_sender_is_read_at_once() {
        assert_eq!(run(&mut Pacer::new(Naps::PLAIN), 50e6, 1200), 0);
    }

    #[test]
    fn an_idle_stream_is_read_at_once() {
        let mut pacer = Pacer::new(Naps::PLAIN);
        let mut now = Instant::now();
        for _ in 0..200 {
            now += Duration::from_millis(60);
            assert_eq!(pacer.after_read(300, now), None);
        }
    }

    #[test]
    fn a_full_read_is_followed_by_another() {
        let mut pacer = Pacer { phase: Phase::On, ..Pacer::new(Naps::PLAIN) };
        let now = Instant::now();
        pacer.after_read(10, now);
        assert_eq!(pacer.after_read(FULL_READ, now), None);
        assert_eq!(pacer.after_read(10, now), Some(Naps::PLAIN.following));
        pacer.set_behind(true);
        assert_eq!(pacer.after_read(10, now), Some(Naps::PLAIN.behind));
    }
}
