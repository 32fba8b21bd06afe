//! `start`: one process, one lease, and sessions of the ingest loop until it is told to stop.
//!
//! ```text
//! session: read manifest and tables ─> open the stream (is it still our source?) ─> raise the
//!          generation (once) ─> complete changelogs ─> lanes ─> ingest
//! ```
//! Nothing is written before the source was found to be the one that the lake belongs to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cdc_core::{Clock, ErrorKind, Lsn};
use cdc_manifest::{LiveState, Manifest};
use cdc_wal::{Connector, ResumePoint, Source, StreamOptions, WalStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Error;
use crate::batch::reconnect_delay;
use crate::commit::CommitState;
use crate::control::{ASKS_WAITING_MAX, Ask, ControlServer};
use crate::evolve::{OpenCatalog, SchemaWatch, SourceCatalog};
use crate::fence::{Breaker, Fence, fenced, raise_generation};
use crate::ingest::{Ingest, Schemas, Start};
use crate::lake::{Components, Lake};
use crate::lanes::Lanes;
use crate::lease::{Lease, host};
use crate::live::{LiveFacts, LiveWriter};
use crate::meters::Meters;
use crate::open_lane::LaneOpener;
use crate::promotion::adopt_staging;
use crate::recover::{committed_state, complete_changelogs, complete_fills, furthest_beyond};
use crate::refs::make_up_refs;
use crate::settings::DaemonSettings;
use crate::table_ops::CopyContext;

/// How long somebody is waited for who holds the lease for a moment.
const LEASE_PATIENCE: Duration = Duration::from_secs(30);
/// Reconnects without progress before the daemon gives up.
const RECONNECTS_MAX: u32 = 10;
/// A stream that lasted this long counts as progress, also where an idle source moved nothing.
const PROGRESS_AFTER: Duration = Duration::from_secs(60);
/// Bytes between the WAL reader and the ingest loop, at most this part of the byte budget.
const STREAM_BUFFER_PART: usize = 8;
/// Lower bound of the same.
const STREAM_BUFFER_BYTES_MIN: usize = 4 * 1024 * 1024;

/// Follows the source until `stop` is cancelled and the drain is complete, and counts in `meters`
/// what it does.
///
/// # Errors
/// See [`Error`]; nothing is confirmed beyond the committed manifest. A drain that outlasts its
/// deadline is [`Error::DrainTimeout`].
pub async fn run(
    settings: &DaemonSettings,
    source: &Source,
    stop: &CancellationToken,
    meters: Meters,
) -> Result<(), Error> {
    let lake = Lake::open_metered(&settings.lake, meters)?;
    let _lease = Lease::take_after(&settings.lake.state_dir, LEASE_PATIENCE).await?;
    crate::spool::clear(&settings.lake.state_dir)?;
    crate::compact::clear_patches(&settings.lake.state_dir)?;
    let manifest = manifest_of(settings, &lake).await?;
    let (asks_in, asks) = mpsc::channel(ASKS_WAITING_MAX);
    let control = ControlServer::open(&settings.lake.state_dir, asks_in)?;
    let breaker = Arc::new(Breaker::new(settings.breaker));
    let (live, live_facts) = watch::channel(first_facts(&manifest));
    let live_stop = CancellationToken::new();
    let writer = LiveWriter {
        lake: lake.clone(),
        source: source.clone(),
        slot: settings.replication.slot.clone(),
        instance: instance(),
        interval: settings.live_interval,
        heartbeat_interval: settings.heartbeat_interval,
        guardrail_bytes: settings.guardrail_bytes,
        breaker: Arc::clone(&breaker),
        facts: live_facts,
    };
    let writer = tokio::spawn(writer.run(live_stop.clone()));
    let control = tokio::spawn(control.run(live_stop.clone()));
    let mut ends = Ends { live, asks };
    let catalogs = SourceCatalog::of(source);
    let copied_from = Some(source.clone());
    let source = source.connector();
    let (fence, cut_before) = (None, None);
    let mut daemon =
        Daemon { settings, source, catalogs, copied_from, lake, breaker, stop, fence, cut_before };
    let result = daemon.sessions(&mut ends).await;
    if let Err(error) = &result {
        tell_end(settings, &daemon.lake.meters, error);
    }
    ends.live.send_modify(|facts| {
        facts.state = if result.is_ok() { LiveState::Stopped } else { LiveState::Failed };
        facts.last_error = result.as_ref().err().map(|error| cdc_core::chain(error));
        facts.is_alone |= result.as_ref().err().is_some_and(|error| !is_slot_busy(error));
    });
    live_stop.cancel();
    writer.await.map_err(|source| Error::Worker { task: "live.json", source })?;
    control.await.map_err(|source| Error::Worker { task: "control requests", source })?;
    result
}

/// Follows the source as [`run`] does, over components that the caller made: no lease is taken, no
/// `live.json` written and nothing asked from outside. `catalogs` tells what the source's tables are.
///
/// # Errors
/// As [`run`].
pub async fn follow(
    settings: &DaemonSettings,
    source: &Connector,
    catalogs: OpenCatalog,
    components: Components,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let deletes = settings.lake.deletes;
    let lake = Lake { deletes, ..Lake::over(components, Meters::default()) };
    let manifest = manifest_of(settings, &lake).await?;
    let breaker = Arc::new(Breaker::new(settings.breaker));
    let (live, _) = watch::channel(first_facts(&manifest));
    let (_nobody, asks) = mpsc::channel(ASKS_WAITING_MAX);
    let (copied_from, fence, cut_before) = (None, None, None);
    let mut daemon =
        Daemon { settings, source, catalogs, copied_from, lake, breaker, stop, fence, cut_before };
    daemon.sessions(&mut Ends { live, asks }).await
}

/// The manifest that the last daemon left, found to be of this configuration.
async fn manifest_of(settings: &DaemonSettings, lake: &Lake) -> Result<Manifest, Error> {
    let manifest =
        lake.manifests.load().await?.ok_or_else(|| Error::NotInitialised {
            root: lake.store.location().root().to_owned(),
        })?;
    check_source_names(settings, &manifest.value)?;
    Ok(manifest.value)
}

/// Where sessions tell how they are, and where they are asked.
struct Ends {
    live: watch::Sender<LiveFacts>,
    asks: mpsc::Receiver<Ask>,
}

/// The records that runbooks are keyed on, before the last word of the process.
fn tell_end(settings: &DaemonSettings, meters: &Meters, error: &Error) {
    let slot = settings.replication.slot.as_str();
    let text = cdc_core::chain(error);
    match error {
        Error::BreakerTripped { .. } => {
            meters.breaker_tripped.set(1);
            tracing::error!(runbook = "manifest-conflicts", error = text, "cas breaker tripped");
        }
        _ if error.kind() == ErrorKind::Gap => {
            tracing::error!(runbook = "slot-gap", slot, error = text, "gap detected");
        }
        _ => {}
    }
}

/// What all sessions of one process share.
struct Daemon<'d> {
    settings: &'d DaemonSettings,
    source: &'d Connector,
    catalogs: OpenCatalog,
    /// Where tables are copied from; without it none is.
    copied_from: Option<Source>,
    lake: Lake,
    breaker: Arc<Breaker>,
    stop: &'d CancellationToken,
    /// Raised by the first session whose stream could be opened.
    fence: Option<Fence>,
    /// A transaction before which the next session ends an epoch.
    cut_before: Option<Lsn>,
}

impl Daemon<'_> {
    /// One session after the other; each starts from what is durable.
    async fn sessions(&mut self, ends: &mut Ends) -> Result<(), Error> {
        let mut pace = Pace::default();
        loop {
            let began = Instant::now();
            let error = match self.session(&mut pace, ends).await {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_retried() => return Err(error),
                Err(error @ Error::DrainTimeout { .. }) => return Err(error),
                Err(error) => error,
            };
            if self.stop.is_cancelled() {
                // what was not flushed is replayed at the next start
                tracing::warn!(error = cdc_core::chain(&error), "source lost while draining");
                return Ok(());
            }
            if let Error::CutNeeded { final_lsn, .. } = &error {
                self.cut_before = Some(*final_lsn);
            }
            let has_streamed = ends.live.borrow().state == LiveState::Streaming;
            if has_streamed && began.elapsed() >= PROGRESS_AFTER {
                pace.progressed();
            }
            let (error, delay) = pace.after(error, &self.lake.clock)?;
            self.lake.meters.reconnects_after(&error);
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
                facts.is_alone |= !is_slot_busy(&error);
            });
            tokio::select! {
                biased;
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn session(&mut self, pace: &mut Pace, ends: &mut Ends) -> Result<(), Error> {
        let mut state = tokio::select! {
            biased;
            state = self.load() => state?,
            () = self.stop.cancelled() => return Ok(()),
        };
        pace.reached(state.manifest.value.covered_lsn);
        let stream = tokio::select! {
            biased;
            stream = self.open(&state) => stream?,
            () = self.stop.cancelled() => return Ok(()),
        };
        if self.fence.is_none() {
            self.take_over(&mut state).await?;
        }
        if stream.timeline() != state.manifest.value.source.timeline {
            state.set_timeline(stream.timeline()).await?;
        }
        adopt_staging(&mut state).await?;
        complete_changelogs(&mut state).await?;
        complete_fills(&mut state).await?;
        let (settings, manifest) = (self.settings, &state.manifest.value);
        let (slot, lsn) = (&manifest.source.slot, manifest.covered_lsn);
        tracing::info!(slot, %lsn, "streaming started");
        ends.live.send_modify(|facts| {
            facts.state = LiveState::Streaming;
            facts.generation = state.fence.generation;
            facts.last_error = None;
            facts.is_alone = true;
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
        if let Some(furthest) = catch_up {
            let (commit_lsn, furthest) = (manifest.commit_lsn, furthest.lsn);
            tracing::info!(%commit_lsn, %furthest, "tables stand ahead of the manifest");
        }
        let copies = self.copies(&state, &opener);
        let lanes = Lanes::new(opener, settings.replication.types.on_error, &state);
        let schemas = self.schemas(manifest, &lanes);
        let start = Start { stream, state, lanes, catch_up, schemas, copies };
        let ingest = Ingest::new(settings, start, self.stop.clone(), ends.live.clone())
            .answering(&mut ends.asks)
            .cutting_before(self.cut_before);
        let drain_timeout = settings.flush.drain_timeout;
        tokio::select! {
            biased;
            ended = ingest.run() => ended,
            () = deadline(self.stop, drain_timeout) => {
                Err(Error::DrainTimeout { seconds: drain_timeout.as_secs() })
            }
        }
    }

    /// What follows changes of tables, with a regular look at the catalog beside it.
    fn schemas(&self, manifest: &Manifest, lanes: &Lanes) -> Schemas {
        let publication = manifest.source.publication.as_str();
        let schemas = Schemas::new((self.catalogs)(publication));
        let Some(interval) = self.settings.flush.schema_reconcile_interval else { return schemas };
        let catalog = (self.catalogs)(publication);
        let types = self.settings.replication.types.clone();
        let (task, ends) = SchemaWatch::new(catalog, types, interval, self.lake.meters.clone());
        ends.known.send_replace(lanes.known());
        // it ends with the ingest loop's ends of its channels
        tokio::spawn(task.run());
        schemas.watching(ends)
    }

    /// What copies of single tables need.
    fn copies(&self, state: &CommitState, opener: &LaneOpener) -> Option<CopyContext> {
        let manifest = &state.manifest.value;
        Some(CopyContext {
            source: self.copied_from.clone()?,
            lake: state.lake.clone(),
            settings: self.settings.lake.clone(),
            replication: self.settings.replication.clone(),
            opener: opener.clone(),
            lake_id: manifest.lake_id.clone(),
            namespace: manifest.catalog.database.clone(),
            generation: state.fence.generation,
            workers: self.settings.copy_workers.max(1),
        })
    }

    /// The lake as it is, read only.
    async fn load(&self) -> Result<CommitState, Error> {
        let manifest = self.lake.manifests.require().await?;
        let found = manifest.value.generation;
        let fence = match &self.fence {
            Some(fence) if found > fence.generation => {
                return Err(fenced(&self.lake, found, fence.generation).await);
            }
            Some(fence) => fence.clone(),
            None => Fence { generation: found, breaker: Arc::clone(&self.breaker) },
        };
        let (refs, workers) = (self.settings.refs, self.settings.flush.parallel_workers);
        committed_state(self.lake.clone(), fence, manifest, refs, workers).await
    }

    /// Opens the stream where the manifest stands; refused if that would lose anything.
    async fn open(&self, state: &CommitState) -> Result<WalStream, Error> {
        let manifest = &state.manifest.value;
        let at = ResumePoint {
            system_id: manifest.source.system_identifier,
            timeline: manifest.source.timeline,
            slot: manifest.source.slot.clone(),
            lsn: manifest.covered_lsn,
        };
        let mut options = StreamOptions::new(&manifest.source.publication);
        options.held = furthest_beyond(state).map_or(Lsn::ZERO, |furthest| furthest.lsn);
        let written = manifest.tables.values().filter(|entry| entry.is_written());
        options.followed = written.filter_map(|entry| entry.source_oid).collect();
        options.buffer_bytes = options
            .buffer_bytes
            .min(self.settings.buffer_bytes_max / STREAM_BUFFER_PART)
            .max(STREAM_BUFFER_BYTES_MIN);
        options.spool = crate::spool::options(self.settings)?;
        Ok(WalStream::open(self.source, at, options).await?)
    }

    /// Raises the generation: from now on a daemon of an older one cannot commit. That the slot is
    /// ours by now does not keep one from it that holds changes it received before.
    async fn take_over(&mut self, state: &mut CommitState) -> Result<(), Error> {
        let before = (state.manifest.value.epoch, state.manifest.value.covered_lsn);
        let (manifest, fence) =
            raise_generation(&self.lake, state.manifest.clone(), &self.breaker).await?;
        self.fence = Some(fence.clone());
        if (manifest.value.epoch, manifest.value.covered_lsn) != before {
            return Err(Error::LakeMoved);
        }
        state.fence = fence;
        state.manifest = manifest;
        make_up_refs(&self.lake, &state.manifest.value, self.settings.refs).await;
        Ok(())
    }
}

/// Whether somebody else reads the slot, most likely another daemon on this lake.
fn is_slot_busy(error: &Error) -> bool {
    let (Error::Source(source) | Error::ReconnectsExhausted { source, .. }) = error else {
        return false;
    };
    matches!(**source, cdc_wal::Error::SlotBusy { .. })
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

    /// What was achieved is not seen in a position.
    fn progressed(&mut self) {
        *self = Self { covered: self.covered, ..Self::default() };
    }

    /// The error to report and the delay before the next session, or why there is none.
    fn after(&mut self, error: Error, clock: &Arc<dyn Clock>) -> Result<(Error, Duration), Error> {
        let is_of_source = matches!(error, Error::Source(_) | Error::StreamEnded);
        if is_of_source && self.of_source >= RECONNECTS_MAX {
            return Err(match error {
                Error::Source(source) => {
                    Error::ReconnectsExhausted { attempts: self.of_source, source }
                }
                other => other,
            });
        }
        let delay = reconnect_delay(self.attempts, jitter(clock)).max(least_delay(&error));
        self.attempts = self.attempts.saturating_add(1);
        self.of_source += u32::from(is_of_source);
        Ok((error, delay))
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
        is_alone: false,
    }
}

/// Tells this daemon from others: host, process and start.
fn instance() -> String {
    format!("{}-{}-{}", host(), std::process::id(), &Uuid::now_v7().to_string()[..8])
}

/// A number in 0–1 that differs between daemons: what the clock shows below a second.
fn jitter(clock: &Arc<dyn Clock>) -> f64 {
    f64::from(clock.now().timestamp_subsec_millis().min(999)) / 999.0
}
