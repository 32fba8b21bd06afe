//! The life of one seed: a source at work, daemons that come and go, and at the end quiet, in which
//! the lake must catch up and be right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{ErrorKind, LakeLocation, Lsn};
use cdc_governance::{RuleText, TableRules};
use cdc_iceberg::{Catalog, DeleteEncoding, MemoryCatalog, TableNaming};
use cdc_manifest::{LakeStore, PromotionMode, RawRetention, StorageSpec};
use cdc_pipeline::{
    BreakerSettings, CompactionSettings, Components, Compression, DaemonSettings, Error, Failover,
    FlushSettings, LakeSettings, RefSettings, ReplicationSettings, Streaming, TruncateMode,
    TypeSettings,
};
use cdc_wal::{Connector, Endpoint};
use object_store::memory::InMemory;
use tokio_util::sync::CancellationToken;

use crate::catalog::FaultCatalog;
use crate::check::{Judge, Watch, watch};
use crate::gate::GatedRuntime;
use crate::lake::{self, FIRST_LSN};
use crate::rng::Rng;
use crate::schemas::catalogs;
use crate::server::{PUBLICATION, Postgres, SLOT, SimDialer};
use crate::store::{Disk, FaultStore};
use crate::workload::Database;
use crate::world::{Faults, Life, SimClock, World, sleep_ms};

/// Virtual seconds of quiet within which the lake must have everything.
const CATCH_UP_SECONDS: u64 = 240;
/// Virtual hours after which a seed counts as hung.
const HUNG_HOURS: u64 = 6;

/// What a seed was.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
    /// Hash over the event log: the same for the same seed.
    pub(crate) log_hash: u64,
    pub(crate) log_lines: u64,
    pub(crate) log_tail: Vec<String>,
    pub(crate) transactions: usize,
    pub(crate) epochs: u64,
    pub(crate) daemons: u32,
    pub(crate) virtual_seconds: u64,
}

/// What a seed decided before it began.
#[derive(Clone, Debug)]
struct Plan {
    faults: Faults,
    kills: u32,
    server_mean_ms: Option<u64>,
    bulk_rows: u64,
    flush: FlushSettings,
    /// Between two runs of compaction.
    compaction: Option<Duration>,
    /// How deleted rows are recorded.
    deletes: DeleteEncoding,
}

impl Plan {
    fn new(rng: &mut Rng) -> Plan {
        let is_calm = rng.percent(10);
        let mut rate =
            |most: u64| if is_calm || rng.percent(40) { 0 } else { rng.between(1, most) };
        let faults = Faults {
            store_before: rate(15_000),
            store_after: rate(15_000),
            store_late: rate(8_000),
            store_twice: rate(15_000),
            catalog_before: rate(40_000),
            catalog_after: rate(40_000),
            catalog_late: rate(20_000),
            catalog_twice: rate(40_000),
            cut: rate(2_500),
        };
        Plan {
            faults,
            kills: if is_calm { 0 } else { u32::try_from(rng.below(8)).unwrap_or(0) },
            server_mean_ms: (!is_calm && rng.percent(40)).then(|| rng.between(8_000, 60_000)),
            bulk_rows: match rng.below(100) {
                0..85 => 300,
                85..98 => 4_000,
                _ => 40_000,
            },
            flush: FlushSettings {
                interval: Duration::from_millis(rng.between(200, 6_000)),
                min_interval: Duration::from_millis(rng.between(10, 500)),
                max_rows: rng.between(5, 400),
                max_bytes: usize::try_from(rng.between(2_000, 400_000)).unwrap_or(2_000),
                parallel_workers: rng.index(4) + 1,
                drain_timeout: Duration::from_secs(30),
                schema_reconcile_interval: None,
            },
            compaction: None,
            deletes: DeleteEncoding::Position,
        }
    }
}

/// Runs a seed on this thread.
pub(crate) fn run(seed: u64, transactions: usize) -> std::io::Result<Outcome> {
    let directory = scratch(seed)?;
    let runtime = GatedRuntime::new()?;
    let outcome = runtime.block_on(live(seed, transactions, directory.path()));
    drop(runtime);
    outcome.ok_or_else(|| std::io::Error::other("the runtime was gone"))
}

/// A directory in memory where there is one: the key index is the only thing that is on a disk.
fn scratch(seed: u64) -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix(&format!("pgcdc-sim-{seed}-")).tempdir_in(base)
}

async fn live(seed: u64, transactions: usize, directory: &Path) -> Outcome {
    let mut rng = Rng::new(seed);
    let mut plan = Plan::new(&mut rng);
    // not drawn: a seed without it is the seed that it was before there was compaction
    plan.compaction = seed.is_multiple_of(2).then(|| Duration::from_secs(1 + seed % 20));
    if seed % 3 == 1 {
        // the tables begin with position deletes, so this is also a switch of a live table
        plan.deletes = DeleteEncoding::Vector;
    }
    let world = World::new(rng.fork());
    world.log(format_args!("{plan:?}"));
    let mut theatre = Theatre::new(plan, world, &mut rng, directory);
    let hung = Duration::from_secs(HUNG_HOURS * 3600);
    let played = tokio::time::timeout(hung, theatre.play(transactions, &mut rng)).await;
    let failure = match played {
        Err(_) => Some(format!("hung: not over after {HUNG_HOURS} virtual hours")),
        Ok(Err(failure)) => Some(failure),
        Ok(Ok(())) => None,
    };
    let world = &theatre.world;
    Outcome {
        failure: world.violated().or(failure),
        log_hash: world.log_hash(),
        log_lines: world.log_lines(),
        log_tail: world.log_tail(),
        transactions: theatre.server.state().db.tape.len(),
        epochs: theatre.watch.epochs(),
        daemons: theatre.daemons,
        virtual_seconds: world.millis() / 1000,
    }
}

/// Everything that takes part.
struct Theatre {
    plan: Plan,
    world: Arc<World>,
    watch: Arc<Watch>,
    disk: Disk,
    catalog: Arc<MemoryCatalog>,
    server: Arc<Postgres>,
    directory: PathBuf,
    daemons: u32,
}

/// How a daemon came to its end.
enum End {
    Stopped,
    Killed,
    Failed(Error),
}

impl Theatre {
    fn new(plan: Plan, world: Arc<World>, rng: &mut Rng, directory: &Path) -> Theatre {
        let watch = watch();
        let db = Database::new(rng.fork(), FIRST_LSN, plan.bulk_rows);
        let objects = Arc::new(InMemory::new());
        Theatre {
            disk: Disk { objects, world: Arc::clone(&world), watch: Arc::clone(&watch) },
            server: Postgres::new(Arc::clone(&world), Arc::clone(&watch), db, rng.fork()),
            catalog: Arc::new(MemoryCatalog::new()),
            plan,
            world,
            watch,
            directory: directory.to_owned(),
            daemons: 0,
        }
    }

    async fn play(&mut self, transactions: usize, rng: &mut Rng) -> Result<(), String> {
        let first_rows = self.server.state().db.rows.clone();
        let tables = self.server.state().db.tables.clone();
        // init happens in good weather
        let good = self.store(&Life::new(0, 0));
        let clock = Arc::new(SimClock::new(self.world.start));
        let catalog: Arc<dyn Catalog> = Arc::clone(&self.catalog) as Arc<dyn Catalog>;
        let created = lake::create(&good, catalog, clock, &tables, &first_rows).await;
        created.map_err(|error| format!("the lake cannot be made: {error}"))?;
        self.world.set_faults(self.plan.faults);
        let work = tokio::spawn(Arc::clone(&self.server).work(transactions, rng.fork()));
        let trouble = self.plan.server_mean_ms.map(|mean_ms| {
            tokio::spawn(Arc::clone(&self.server).go_down_sometimes(mean_ms, rng.fork()))
        });
        let mut kills = self.plan.kills;
        while !work.is_finished() && self.world.violated().is_none() {
            let is_last = kills == 0;
            self.one_daemon(!is_last, &work, rng).await?;
            kills = kills.saturating_sub(1);
        }
        if let Some(trouble) = trouble {
            trouble.abort();
            self.server.come_up();
        }
        self.quiet(rng).await?;
        self.judge(first_rows, rng).await
    }

    /// A daemon from its start to its end, whatever that is.
    async fn one_daemon(
        &mut self,
        is_killed: bool,
        work: &tokio::task::JoinHandle<()>,
        rng: &mut Rng,
    ) -> Result<(), String> {
        let fuse = if is_killed && rng.percent(70) { rng.between(1, 1_500) } else { 0 };
        let by_time = is_killed.then(|| rng.between(10, 40_000));
        let is_stopped = is_killed && rng.percent(25);
        let life = self.next_life(fuse);
        let stop = CancellationToken::new();
        let mut daemon = self.start(&life, &stop, rng);
        let patience = async {
            match by_time {
                Some(millis) => sleep_ms(millis).await,
                None => {
                    while !work.is_finished() {
                        sleep_ms(500).await;
                    }
                }
            }
        };
        let end = tokio::select! {
            biased;
            () = life.died() => End::Killed,
            ended = &mut daemon => ended_as(ended)?,
            () = patience => {
                if is_stopped || by_time.is_none() {
                    stop.cancel();
                    tokio::select! {
                        biased;
                        () = life.died() => End::Killed,
                        ended = &mut daemon => ended_as(ended)?,
                    }
                } else {
                    self.world.log(format_args!("kill {} at a moment", life.number));
                    End::Killed
                }
            }
        };
        life.kill();
        daemon.abort();
        self.note(&life, end, self.is_calm())?;
        // what a supervisor waits
        sleep_ms(rng.between(10, 3_000)).await;
        Ok(())
    }

    fn is_calm(&self) -> bool {
        self.plan.server_mean_ms.is_none() && self.plan.faults == Faults::default()
    }

    /// Good weather: the lake must catch up in bounded time.
    async fn quiet(&mut self, rng: &mut Rng) -> Result<(), String> {
        self.world.set_faults(Faults::default());
        self.world.log(format_args!("quiet"));
        let goal = self.server.state().db.tape.last().map_or(FIRST_LSN, |txn| txn.end_lsn);
        let until = tokio::time::Instant::now() + Duration::from_secs(CATCH_UP_SECONDS);
        while self.world.violated().is_none() {
            let life = self.next_life(0);
            let stop = CancellationToken::new();
            let mut daemon = self.start(&life, &stop, rng);
            let caught_up = async {
                while self.watch.covered() < Lsn(goal) || self.server.state().slot.confirmed < goal
                {
                    sleep_ms(100).await;
                }
            };
            let end = tokio::select! {
                biased;
                ended = &mut daemon => Some(ended_as(ended)?),
                () = caught_up => None,
                () = tokio::time::sleep_until(until) => {
                    return Err(format!(
                        "liveness: {} of {} after {CATCH_UP_SECONDS} s of quiet, slot at {}",
                        self.watch.covered(),
                        Lsn(goal),
                        Lsn(self.server.state().slot.confirmed)
                    ));
                }
            };
            match end {
                // the last late request of the storm may still cost a start
                Some(end) => self.note(&life, end, false)?,
                None => {
                    stop.cancel();
                    let end = ended_as((&mut daemon).await)?;
                    return self.note(&life, end, true);
                }
            }
            life.kill();
            sleep_ms(1_000).await;
        }
        Ok(())
    }

    async fn judge(&self, first_rows: crate::tape::Rows, rng: &mut Rng) -> Result<(), String> {
        if self.world.violated().is_some() {
            return Ok(());
        }
        let store = LakeStore::new(Arc::clone(&self.disk.objects) as _, location());
        let server = Arc::clone(&self.server);
        // the source is at rest: its state is taken out for the judge
        let db =
            std::mem::replace(&mut server.state().db, Database::new(Rng::new(0), FIRST_LSN, 0));
        let judge = Judge { lake: store, watch: &self.watch, db: &db, first_rows };
        let judged = judge.judge(rng).await;
        server.state().db = db;
        judged
    }

    /// An end that may not be is a failure of the seed.
    fn note(&self, life: &Life, end: End, must_be_well: bool) -> Result<(), String> {
        let number = life.number;
        match end {
            End::Stopped => self.world.log(format_args!("daemon {number} stopped")),
            End::Killed => self.world.log(format_args!("daemon {number} was killed")),
            End::Failed(error) => {
                let (chain, kind) = (cdc_core::chain(&error), error.kind());
                self.world.log(format_args!("daemon {number} failed ({kind:?}): {chain}"));
                let may_be = matches!(
                    kind,
                    ErrorKind::Transient | ErrorKind::Conflict | ErrorKind::Unreachable
                );
                if !may_be || must_be_well {
                    return Err(format!("daemon {number} failed ({kind:?}): {chain}"));
                }
            }
        }
        Ok(())
    }

    /// The next process, with what the last one left of its local state.
    fn next_life(&mut self, fuse: u64) -> Arc<Life> {
        self.daemons += 1;
        Life::new(self.daemons, fuse)
    }

    fn state_dir(&self, number: u32) -> PathBuf {
        self.directory.join(format!("state-{number}"))
    }

    fn store(&self, life: &Arc<Life>) -> LakeStore {
        let store = FaultStore::new(self.disk.clone(), Arc::clone(life));
        LakeStore::new(Arc::new(store), location())
    }

    fn start(
        &self,
        life: &Arc<Life>,
        stop: &CancellationToken,
        rng: &mut Rng,
    ) -> tokio::task::JoinHandle<Result<(), Error>> {
        let number = life.number;
        let state_dir = self.state_dir(number);
        let fate = inherit(&self.state_dir(number - 1), &state_dir, rng);
        self.world.log(format_args!("daemon {number} starts, local state {fate}"));
        let settings = self.settings(state_dir);
        let components = Components {
            store: self.store(life),
            catalog: Arc::new(FaultCatalog::new(
                Arc::clone(&self.catalog),
                Arc::clone(&self.world),
                Arc::clone(life),
            )),
            clock: Arc::new(SimClock::new(self.world.start)),
        };
        let dialer = SimDialer { server: Arc::clone(&self.server), life: Arc::clone(life) };
        let stop = stop.clone();
        tokio::spawn(async move {
            let url = "postgresql://cdc@sim:5432/shop?sslmode=disable".to_owned();
            let endpoint = Endpoint::parse(&url.into())?;
            let connector = Connector::new(endpoint).with_dialer(Arc::new(dialer));
            cdc_pipeline::follow(&settings, &connector, catalogs(), components, &stop).await
        })
    }

    fn settings(&self, state_dir: PathBuf) -> DaemonSettings {
        let rules = TableRules::new(&RuleText::default()).unwrap_or_default();
        DaemonSettings {
            lake: LakeSettings {
                storage: StorageSpec::Memory,
                state_dir,
                database: None,
                naming: TableNaming::Bare,
                compression: Compression::None,
                deletes: self.plan.deletes,
                promotion: PromotionMode::Auto,
            },
            replication: ReplicationSettings {
                schemas: vec!["public".into()],
                publication: PUBLICATION.into(),
                slot: SLOT.into(),
                failover: Failover::Auto,
                rules,
                types: TypeSettings::default(),
                truncate: TruncateMode::Apply,
                streaming: Streaming::Off,
            },
            flush: self.plan.flush.clone(),
            refs: RefSettings {
                snapshots_kept: 8,
                inline_raw: 3,
                retention: RawRetention::default(),
            },
            buffer_bytes_max: 64 << 20,
            copy_workers: 1,
            live_interval: Duration::from_secs(10),
            heartbeat_interval: None,
            spool_bytes_max: 64 << 20,
            guardrail_bytes: None,
            breaker: BreakerSettings { threshold: 10, window: Duration::from_secs(60) },
            compaction: CompactionSettings {
                interval: self.plan.compaction,
                ..CompactionSettings::default()
            },
        }
    }
}

fn location() -> LakeLocation {
    LakeLocation::from_uri("memory://lake")
}

fn ended_as(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> Result<End, String> {
    match ended {
        Ok(Ok(())) => Ok(End::Stopped),
        Ok(Err(error)) => Ok(End::Failed(error)),
        Err(error) => Err(format!("the daemon panicked: {error}")),
    }
}

/// The local state of the process before: kept, lost, or without what was written last.
fn inherit(from: &Path, to: &Path, rng: &mut Rng) -> &'static str {
    let fate = rng.below(100);
    if std::fs::create_dir_all(to).is_err() || fate < 10 {
        return "lost";
    }
    let mut files = Vec::new();
    copy(from, to, &mut files);
    if fate >= 20 || files.is_empty() {
        return "kept";
    }
    files.sort();
    let torn = &files[rng.index(files.len())];
    let length = std::fs::metadata(torn).map_or(0, |meta| meta.len());
    let cut = std::fs::OpenOptions::new()
        .write(true)
        .open(torn)
        .and_then(|file| file.set_len(rng.below(length.max(1))));
    if cut.is_ok() { "torn" } else { "kept" }
}

fn copy(from: &Path, to: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            let _ = std::fs::create_dir_all(&target);
            copy(&entry.path(), &target, files);
        } else if std::fs::copy(entry.path(), &target).is_ok() {
            files.push(target);
        }
    }
}
