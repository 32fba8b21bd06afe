//! `start`: one process, one lease, and sessions of the ingest loop until it is told to stop.

use std::time::Duration;

use cdc_core::{ErrorKind, Lsn};
use cdc_manifest::{LiveState, Manifest};
use cdc_wal::{ResumePoint, Source, StreamOptions, WalStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Error;
use crate::batch::reconnect_delay;
use crate::commit::CommitState;
use crate::control::{ASKS_WAITING_MAX, Ask, ControlServer};
use crate::ingest::{Ingest, Start};
use crate::lake::Lake;
use crate::lanes::Lanes;
use crate::lease::Lease;
use crate::live::{LiveFacts, LiveWriter};
use crate::open_lane::LaneOpener;
use crate::recover::{committed_state, furthest_beyond};
use crate::refs::make_up_refs;
use crate::settings::DaemonSettings;

/// Reconnects without progress before the daemon gives up.
const RECONNECTS_MAX: u32 = 10;
/// Bytes between the WAL reader and the ingest loop, at most this part of the byte budget.
const STREAM_BUFFER_PART: usize = 8;
/// Lower bound of the same.
const STREAM_BUFFER_BYTES_MIN: usize = 4 * 1024 * 1024;

/// Follows the source until `stop` is cancelled and the drain is complete.
///
/// # Errors
/// See [`Error`]; nothing is confirmed beyond the committed manifest. A drain that outlasts its
/// deadline is [`Error::DrainTimeout`].
pub async fn run(
    settings: &DaemonSettings,
    source: &Source,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let lake = Lake::open(&settings.lake)?;
    let _lease = Lease::take(&settings.lake.state_dir)?;
    crate::spool::clear(&settings.lake.state_dir)?;
    let manifest =
        lake.manifests.load().await?.ok_or_else(|| Error::NotInitialised {
            root: lake.store.location().root().to_owned(),
        })?;
    check_source_names(settings, &manifest.value)?;
    make_up_refs(&lake, &manifest.value, settings.refs).await;
    let mut state =
        committed_state(lake.clone(), manifest, settings.refs, settings.flush.parallel_workers)
            .await?;
    state.raise_generation().await?;
    let (asks_in, asks) = mpsc::channel(ASKS_WAITING_MAX);
    let control = ControlServer::open(&settings.lake.state_dir, asks_in)?;
    let facts = first_facts(&state.manifest.value);
    let (live, live_facts) = watch::channel(facts);
    let live_stop = CancellationToken::new();
    let writer = LiveWriter {
        lake: lake.clone(),
        source: source.clone(),
        slot: settings.replication.slot.clone(),
        instance: instance(),
        interval: settings.live_interval,
        heartbeat_interval: settings.heartbeat_interval,
        facts: live_facts,
    };
    let writer = tokio::spawn(writer.run(live_stop.clone()));
    let control = tokio::spawn(control.run(live_stop.clone()));
    let mut ends = Ends { live, asks };
    let result = sessions(settings, source, lake, state, stop, &mut ends).await;
    ends.live.send_modify(|facts| {
        facts.state = if result.is_ok() { LiveState::Stopped } else { LiveState::Failed };
        facts.last_error = result.as_ref().err().map(|error| cdc_core::chain(error));
    });
    live_stop.cancel();
    writer.await.map_err(|source| Error::Worker { task: "live.json", source })?;
    control.await.map_err(|source| Error::Worker { task: "control requests", source })?;
    result
}

/// Where sessions tell how they are, and where they are asked.
struct Ends {
    live: watch::Sender<LiveFacts>,
    asks: mpsc::Receiver<Ask>,
}

/// One session after the other; each starts from what is durable.
async fn sessions(
    settings: &DaemonSettings,
    source: &Source,
    lake: Lake,
    first: CommitState,
    stop: &CancellationToken,
    ends: &mut Ends,
) -> Result<(), Error> {
    let mut ready = Some(first);
    let mut pace = Pace::default();
    loop {
        let one = async {
            let state = match ready.take() {
                Some(state) => state,
                None => tokio::select! {
                    state = reload(settings, &lake) => state?,
                    () = stop.cancelled() => return Ok(()),
                },
            };
            pace.reached(state.manifest.value.covered_lsn);
            session(settings, source, state, stop, ends).await
        };
        let error = match one.await {
            Ok(()) => return Ok(()),
            Err(error) if !is_retried(&error) => return Err(error),
            Err(error @ Error::DrainTimeout { .. }) => return Err(error),
            Err(error) => error,
        };
        if stop.is_cancelled() {
            // what was not flushed is replayed at the next start
            tracing::warn!(error = cdc_core::chain(&error), "source lost while draining");
            return Ok(());
        }
        let (error, delay) = pace.after(error)?;
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            attempt = pace.attempts,
            delay_ms,
            error = cdc_core::chain(&error),
            "reconnecting"
        );
        ends.live.send_modify(|facts| {
            facts.state = LiveState::Starting;
            facts.last_error = Some(cdc_core::chain(&error));
        });
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Whether another session may do better. A server that refuses connections may be restarting.
fn is_retried(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Transient => true,
        ErrorKind::Unreachable => matches!(error, Error::Source(_)),
        _ => false,
    }
}

/// The committed state anew, from what is durable.
async fn reload(settings: &DaemonSettings, lake: &Lake) -> Result<CommitState, Error> {
    let manifest = lake.manifests.require().await?;
    let workers = settings.flush.parallel_workers;
    committed_state(lake.clone(), manifest, settings.refs, workers).await
}

/// How sessions follow each other. A source that is away is given up after
/// [`RECONNECTS_MAX`] attempts without progress; a store or catalog that is away is waited for, since
/// nothing is lost meanwhile and nobody else would do better.
#[derive(Default)]
struct Pace {
    /// Sessions since the covered position moved.
    attempts: u32,
    /// Those of them that the source ended.
    of_source: u32,
    covered: Lsn,
}

impl Pace {
    fn reached(&mut self, covered: Lsn) {
        if covered > self.covered {
            *self = Self { covered, ..Self::default() };
        }
    }

    /// The error to report and the delay before the next session, or why there is none.
    fn after(&mut self, error: Error) -> Result<(Error, Duration), Error> {
        let is_of_source = matches!(error, Error::Source(_) | Error::StreamEnded);
        if is_of_source && self.of_source >= RECONNECTS_MAX {
            return Err(match error {
                Error::Source(source) => {
                    Error::ReconnectsExhausted { attempts: self.of_source, source }
                }
                other => other,
            });
        }
        let delay = reconnect_delay(self.attempts, jitter()).max(least_delay(&error));
        self.attempts = self.attempts.saturating_add(1);
        self.of_source += u32::from(is_of_source);
        Ok((error, delay))
    }
}

async fn session(
    settings: &DaemonSettings,
    source: &Source,
    state: CommitState,
    stop: &CancellationToken,
    ends: &mut Ends,
) -> Result<(), Error> {
    let manifest = &state.manifest.value;
    let at = ResumePoint {
        system_id: manifest.source.system_identifier,
        timeline: manifest.source.timeline,
        slot: manifest.source.slot.clone(),
        lsn: manifest.covered_lsn,
    };
    let mut options = StreamOptions::new(&manifest.source.publication);
    options.buffer_bytes = options
        .buffer_bytes
        .min(settings.buffer_bytes_max / STREAM_BUFFER_PART)
        .max(STREAM_BUFFER_BYTES_MIN);
    options.spool = crate::spool::options(settings)?;
    let stream = tokio::select! {
        stream = WalStream::open(source.connector(), at, options) => stream?,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::info!(slot = manifest.source.slot, lsn = %manifest.covered_lsn, "streaming started");
    ends.live.send_modify(|facts| {
        facts.state = LiveState::Streaming;
        facts.last_error = None;
    });
    let opener = LaneOpener {
        lake: state.lake.clone(),
        lake_id: manifest.lake_id.clone(),
        state_dir: settings.lake.state_dir.clone(),
        policy: settings.replication.types.policy.unrepresentable,
        compression: settings.lake.compression,
        buffer_bytes_max: settings.buffer_bytes_max,
    };
    let catch_up = furthest_beyond(&state);
    let lanes = Lanes::new(opener, settings.replication.types.on_error, &state);
    let start = Start { stream, state, lanes, catch_up };
    let ingest =
        Ingest::new(settings, start, stop.clone(), ends.live.clone()).answering(&mut ends.asks);
    let drain_timeout = settings.flush.drain_timeout;
    tokio::select! {
        ended = ingest.run() => ended,
        () = deadline(stop, drain_timeout) => {
            Err(Error::DrainTimeout { seconds: drain_timeout.as_secs() })
        }
    }
}

/// Ends when a drain has taken too long.
async fn deadline(stop: &CancellationToken, timeout: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(timeout).await;
}

/// A server that shuts down must not be called again at once.
fn least_delay(error: &Error) -> Duration {
    match error {
        Error::Source(source) if matches!(**source, cdc_wal::Error::Draining { .. }) => {
            Duration::from_secs(10)
        }
        _ => Duration::ZERO,
    }
}

/// The slot and the publication are the lake's; another name in the configuration is a mistake.
fn check_source_names(settings: &DaemonSettings, manifest: &Manifest) -> Result<(), Error> {
    let configured = &settings.replication;
    let pairs = [
        ("replication.slot", &configured.slot, &manifest.source.slot),
        ("replication.publication", &configured.publication, &manifest.source.publication),
    ];
    for (key, found, expected) in pairs {
        if found != expected {
            return Err(Error::OtherName { key, found: found.clone(), expected: expected.clone() });
        }
    }
    Ok(())
}

fn first_facts(manifest: &Manifest) -> LiveFacts {
    LiveFacts {
        state: LiveState::Starting,
        generation: manifest.generation,
        epoch: manifest.epoch,
        confirmed_lsn: manifest.covered_lsn,
        received_lsn: manifest.covered_lsn,
        server_wal_end: manifest.covered_lsn,
        covered_lsn: manifest.covered_lsn,
        covered_at: manifest.covered_at,
        buffer_events: 0,
        buffer_bytes: 0,
        last_error: None,
    }
}

/// Tells this daemon from others: process and start.
fn instance() -> String {
    format!("{}-{}", std::process::id(), &Uuid::now_v7().to_string()[..8])
}

/// A number in 0–1 that differs between daemons; no secret depends on it.
fn jitter() -> f64 {
    f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0
}
