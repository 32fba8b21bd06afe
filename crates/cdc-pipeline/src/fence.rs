//! Who may commit: the generation that this daemon raised when it took the lake over, and the breaker
//! that ends a contest of two writers.
//!
//! A daemon that was stopped and wakes after another one took over finds a higher generation in the
//! manifest, or in a property of the table it wants to commit to, and gives up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cdc_manifest::{Live, Manifest, Swap, Versioned};

use crate::Error;
use crate::lake::Lake;

/// Pause before a compare-and-swap that lost is tried again.
pub(crate) const CONFLICT_PAUSE: Duration = Duration::from_millis(10);

/// `flush.cas_breaker_*`.
#[derive(Clone, Copy, Debug)]
pub struct BreakerSettings {
    /// So many conflicts in the window are tolerated; one more ends the daemon.
    pub threshold: u32,
    /// The window.
    pub window: Duration,
}

/// The right to commit, shared by all sessions of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Fence {
    /// The generation of this daemon.
    pub(crate) generation: u64,
    /// Counts the manifests lost to other writers.
    pub(crate) breaker: Arc<Breaker>,
}

/// Counts conflicts over manifest.json. Once tripped it stays so until the process ends.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: BreakerSettings,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    recent: VecDeque<Instant>,
    total: u64,
    is_tripped: bool,
}

impl Breaker {
    pub(crate) fn new(settings: BreakerSettings) -> Breaker {
        Breaker { settings, state: Mutex::default() }
    }

    /// Notes a conflict with another writer.
    ///
    /// # Errors
    /// [`Error::BreakerTripped`] if it is one too many, and for every later one.
    pub(crate) fn conflict(&self, now: Instant) -> Result<(), Error> {
        let BreakerSettings { threshold, window } = self.settings;
        // nothing in here panics, and a count stays right whoever panicked
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total += 1;
        state.recent.push_back(now);
        while state.recent.front().is_some_and(|at| now.saturating_duration_since(*at) > window) {
            state.recent.pop_front();
        }
        let conflicts = u32::try_from(state.recent.len()).unwrap_or(u32::MAX);
        state.is_tripped |= conflicts > threshold;
        if state.is_tripped {
            // the window is bounded by the threshold from here on
            state.recent.truncate(threshold as usize + 1);
            return Err(Error::BreakerTripped { conflicts, seconds: window.as_secs() });
        }
        Ok(())
    }

    /// Conflicts since the process began.
    pub(crate) fn total(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

/// Takes the lake over: raises the generation in the manifest, whoever else writes to it.
pub(crate) async fn raise_generation(
    lake: &Lake,
    mut manifest: Versioned<Manifest>,
    breaker: &Arc<Breaker>,
) -> Result<(Versioned<Manifest>, Fence), Error> {
    loop {
        let mut next = manifest.value.clone();
        next.generation += 1;
        next.updated_at = lake.clock.now();
        match lake.manifests.commit(&manifest, &next).await? {
            Swap::Stored(version) => {
                let generation = next.generation;
                tracing::debug!(generation, "generation raised");
                let fence = Fence { generation, breaker: Arc::clone(breaker) };
                return Ok((Versioned { value: next, version }, fence));
            }
            // a generation found there may be somebody else's, so it is never taken for ours
            Swap::Conflict => breaker.conflict(Instant::now())?,
            Swap::Unknown(error) => {
                tracing::warn!(error = cdc_core::chain(&error), "manifest write unknown");
                breaker.conflict(Instant::now())?;
            }
        }
        tokio::time::sleep(CONFLICT_PAUSE).await;
        manifest = lake.manifests.require().await?;
    }
}

/// The error of a daemon that was overtaken, naming the one that did.
pub(crate) async fn fenced(lake: &Lake, found: u64, ours: u64) -> Error {
    let live = Live::load(&lake.store).await.ok().flatten();
    let holder = live.filter(|live| live.generation == found).map(|live| live.instance);
    let holder = holder.unwrap_or_else(|| "another daemon".to_owned());
    Error::Fenced { found, ours, holder }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings { threshold: 3, window: Duration::from_secs(60) })
    }

    #[test]
    fn one_conflict_more_than_tolerated_in_the_window_trips() {
        let (breaker, start) = (breaker(), Instant::now());
        for second in [0, 20, 59] {
            breaker.conflict(start + Duration::from_secs(second)).unwrap();
        }
        let error = breaker.conflict(start + Duration::from_secs(60)).unwrap_err();
        assert!(matches!(error, Error::BreakerTripped { conflicts: 4, seconds: 60 }));
        assert!(error.to_string().starts_with("cas breaker tripped"), "{error}");
        assert_eq!(error.kind(), cdc_core::ErrorKind::Conflict);
    }

    #[test]
    fn conflicts_that_are_further_apart_do_not_add_up() {
        let (breaker, start) = (breaker(), Instant::now());
        for at in 0..50 {
            breaker.conflict(start + Duration::from_secs(at * 21)).unwrap();
        }
        assert_eq!(breaker.total(), 50);
    }

    #[test]
    fn a_tripped_breaker_stays_tripped() {
        let (breaker, start) = (breaker(), Instant::now());
        for _ in 0..3 {
            breaker.conflict(start).unwrap();
        }
        breaker.conflict(start).unwrap_err();
        breaker.conflict(start + Duration::from_secs(3600)).unwrap_err();
    }
}
