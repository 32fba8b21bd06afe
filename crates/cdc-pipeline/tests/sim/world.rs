//! What outlives every daemon of a seed: the event log, the faults in force and the time of day.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_core::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rng::Rng;

/// Lines of the log that are kept for a report.
const TAIL_LINES: usize = 400;

/// How often things go wrong, in a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Store requests that fail without effect.
    pub(crate) store_before: u64,
    /// Store writes that take effect and then fail.
    pub(crate) store_after: u64,
    /// Store writes that fail and take effect later.
    pub(crate) store_late: u64,
    /// Store writes that a client library sends twice.
    pub(crate) store_twice: u64,
    /// The same four for the catalog's swap.
    pub(crate) catalog_before: u64,
    pub(crate) catalog_after: u64,
    pub(crate) catalog_late: u64,
    pub(crate) catalog_twice: u64,
    /// Frames after which the source cuts the connection.
    pub(crate) cut: u64,
}

/// One daemon process, as its ports see it.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) number: u32,
    /// Port operations left until it is killed; 0 is never.
    fuse: AtomicU64,
    dead: CancellationToken,
}

/// The shared state of a seed.
pub(crate) struct World {
    pub(crate) start: Instant,
    log: Mutex<Log>,
    faults: Mutex<Faults>,
    rng: Mutex<Rng>,
}

#[derive(Default)]
struct Log {
    hasher: DefaultHasher,
    lines: u64,
    tail: VecDeque<String>,
    violation: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(crate) fn new(rng: Rng) -> Arc<World> {
        Arc::new(World {
            start: Instant::now(),
            log: Mutex::default(),
            faults: Mutex::default(),
            rng: Mutex::new(rng),
        })
    }

    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn log(&self, line: fmt::Arguments<'_>) {
        let line = format!("{:>8} {}", self.millis(), without_chance_names(&line.to_string()));
        let mut log = lock(&self.log);
        log.hasher.write(line.as_bytes());
        log.lines += 1;
        if log.tail.len() == TAIL_LINES {
            log.tail.pop_front();
        }
        log.tail.push_back(line);
    }

    /// Something that must never be. The first one counts.
    pub(crate) fn violation(&self, text: String) {
        self.log(format_args!("VIOLATION {text}"));
        lock(&self.log).violation.get_or_insert(text);
    }

    pub(crate) fn violated(&self) -> Option<String> {
        lock(&self.log).violation.clone()
    }

    pub(crate) fn log_hash(&self) -> u64 {
        lock(&self.log).hasher.finish()
    }

    pub(crate) fn log_lines(&self) -> u64 {
        lock(&self.log).lines
    }

    pub(crate) fn log_tail(&self) -> Vec<String> {
        lock(&self.log).tail.iter().cloned().collect()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    pub(crate) fn faults(&self) -> Faults {
        *lock(&self.faults)
    }

    /// One draw for all that happens at the ports.
    pub(crate) fn chance<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut lock(&self.rng))
    }
}

/// Ids made by chance are no part of what happened: `uuid`s become `~`, numbers of 15 digits and
/// more `#`.
fn without_chance_names(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c: char| !(c.is_ascii_hexdigit() || c == '-')).unwrap_or(rest.len());
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let is_uuid = run >= 36 && rest.as_bytes()[8] == b'-' && rest.as_bytes()[13] == b'-';
        let taken = if is_uuid {
            out.push('~');
            36
        } else if digits >= 15 {
            out.push('#');
            digits
        } else {
            out.push(first);
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    out
}

impl Life {
    pub(crate) fn new(number: u32, fuse: u64) -> Arc<Life> {
        Arc::new(Life { number, fuse: AtomicU64::new(fuse), dead: CancellationToken::new() })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// From now on nothing that the daemon does has an effect, and nothing is answered.
    pub(crate) fn kill(&self) {
        self.dead.cancel();
    }

    pub(crate) async fn died(&self) {
        self.dead.cancelled().await;
    }

    /// Counts a port operation down; true if it is the one that the daemon does not survive.
    pub(crate) fn burns_down(&self) -> bool {
        let counted =
            self.fuse.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        counted == Ok(1)
    }

    /// Where each port operation begins and ends: a dead daemon gets no further.
    pub(crate) async fn pass(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// Virtual time as the time of day.
pub(crate) struct SimClock {
    start: Instant,
}

impl SimClock {
    pub(crate) fn new(start: Instant) -> SimClock {
        SimClock { start }
    }
}

/// Microseconds since 1970 at which every seed begins: 2026-05-04 12:00 UTC.
pub(crate) const START_MICROS: i64 = 1_777_896_000_000_000;

impl Clock for SimClock {
    fn now(&self) -> DateTime<Utc> {
        let elapsed = TimeDelta::from_std(self.start.elapsed()).unwrap_or_default();
        DateTime::from_timestamp_micros(START_MICROS).unwrap_or_default() + elapsed
    }
}

pub(crate) async fn sleep_ms(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
