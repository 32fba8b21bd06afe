//! One trial: a fresh source and lake, a death at one point, a successor, and the proof that nothing
//! was lost, nothing doubled and nothing left behind.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::points::{Kind, Point, Store};
use super::workload::{Workload, copy_base, make_bases};
use crate::lab::{Bucket, Daemon, Expected, Lab, Storage, files_below, is_stopped};
use crate::pg::{Cluster, Tuning};
use crate::proxy::Proxy;
use crate::s3::{BUCKETS, Fault, FaultProxy, Rule, S3Server, Which};
use crate::shell;

/// How long a process may take to reach its point, or to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rounds of work in which a point must have been reached.
const ROUNDS_MAX: u64 = 60;
/// The same where a point lies in compaction, which comes now and then.
const COMPACTION_ROUNDS_MAX: u64 = 300;

/// Where a lake is, and the proxy before it.
type Place = (Storage, Option<FaultProxy>);

/// What a trial is about.
pub(super) struct Trial<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) bins: &'a Path,
    pub(super) point: Point,
    pub(super) kind: Kind,
    /// The S3 server that holds the lake; none for a directory.
    pub(super) s3: Option<Arc<S3Server>>,
    /// Calls of all trials that met a fault of the store.
    pub(super) faults: &'a AtomicU64,
    /// How often the daemon dies before the successor that lives.
    pub(super) lives: u64,
}

impl Trial<'_> {
    /// A name for its database and directory.
    pub(super) fn name(&self) -> String {
        format!("{}_{}_{}", self.point.name, self.kind, self.store().word())
    }

    pub(super) fn store(&self) -> Store {
        if self.s3.is_some() { Store::S3 } else { Store::Filesystem }
    }

    /// Runs it below the empty directory `dir`.
    pub(super) fn run(&self, dir: &Path) -> Result<()> {
        if self.point.is_server() {
            return self.server_dies(dir);
        }
        let storage = self.storage(dir)?;
        let outcome = self.daemon_or_init_dies(dir, &storage);
        self.count_faults(&storage)?;
        outcome
    }

    fn daemon_or_init_dies(&self, dir: &Path, storage: &Place) -> Result<()> {
        let mut lab = self.lab(self.cluster, dir, storage)?;
        let mut work = Workload::new(&lab, self.point.in_parts);
        if self.point.is_init() {
            self.init_dies(&mut lab)?;
        } else {
            lab.init()?;
            for life in 0..self.lives {
                self.daemon_dies(&mut lab, &mut work, self.point.hit + life % 5)
                    .with_context(|| format!("life {}", life + 1))?;
            }
        }
        let daemon = lab.start()?;
        work.round()?;
        work.settle(&lab, &daemon)?;
        daemon.stop()?;
        expect_whole(&lab, &work)
    }

    /// The place of the lake, and the proxy that lives as long.
    fn storage(&self, dir: &Path) -> Result<Place> {
        let Some(server) = &self.s3 else {
            return Ok((Storage::Directory(dir.join("lake")), None));
        };
        let proxy = FaultProxy::start(server.port(), self.seed())?;
        proxy.set(vec![
            Rule::some(Which::All, Fault::Refuse(503), 2),
            Rule::some(Which::Writes, Fault::ResetAfter, 4),
        ])?;
        let bucket = Bucket {
            server: Arc::clone(server),
            endpoint: proxy.endpoint(),
            name: BUCKETS[0].to_owned(),
            prefix: format!("kill/{}/{}", self.cluster.major(), self.name()),
        };
        Ok((Storage::S3(bucket), Some(proxy)))
    }

    fn count_faults(&self, (_, proxy): &Place) -> Result<()> {
        let Some(proxy) = proxy else { return Ok(()) };
        self.faults.fetch_add(proxy.done()?.values().sum(), Ordering::Relaxed);
        Ok(())
    }

    fn lab(&self, cluster: &Cluster, dir: &Path, (storage, _): &Place) -> Result<Lab> {
        let database = copy_base(cluster, &self.name(), self.point.in_parts)?;
        let mut lab = Lab::with_storage(self.bins, dir, database, storage.clone())?;
        lab.set("flush.interval_sec", 0.1.into())?;
        if self.point.is_compaction() {
            lab.set("compaction.interval_sec", 1.into())?;
        }
        lab.expect_orphans();
        Ok(lab)
    }

    /// Rounds of load within which the point must be hit.
    fn rounds_max(&self) -> u64 {
        if self.point.is_compaction() { COMPACTION_ROUNDS_MAX } else { ROUNDS_MAX }
    }

    /// Each trial meets other faults, and the same ones each time.
    fn seed(&self) -> u64 {
        let bytes = self.name().into_bytes();
        bytes.iter().fold(self.cluster.major().into(), |seed, byte| {
            seed.wrapping_mul(31).wrapping_add((*byte).into())
        })
    }

    fn failpoint(&self, hit: u64) -> String {
        format!("{}:{}:{hit}", self.point.name, self.kind)
    }

    /// What the process says when it is there.
    fn word(&self) -> String {
        format!("failpoint {}: {}", self.point.name, self.kind)
    }

    fn signal(&self) -> Option<i32> {
        match self.kind {
            Kind::Kill | Kind::Late => Some(9),
            Kind::Abort => Some(6),
            Kind::Error | Kind::Stop => None,
        }
    }

    /// An init that dies, and the next one, which must not find anything in its way.
    fn init_dies(&self, lab: &mut Lab) -> Result<()> {
        lab.arm(Some(&self.failpoint(self.point.hit)));
        let init = lab.spawn_init()?;
        lab.arm(None);
        if self.kind == Kind::Stop {
            self.wait_for_stop(lab, &init)?;
            let second = lab.pgcdc(&["init"])?.expect_code(1)?;
            second.expect_words(&["held by another process"])?;
            init.signal("CONT")?;
        }
        let status = shell::wait_for("init to end", PATIENCE, || init.try_wait())
            .with_context(|| init.log_end())?;
        ensure!(init.log().contains(&self.word()), "never hit:\n{}", init.log_end());
        ensure!(!init.log().contains("panicked"), "init panicked:\n{}", init.log_end());
        match self.signal() {
            Some(signal) => ensure!(status.signal() == Some(signal), "init ended with {status}"),
            None => ensure!(status.code().is_some_and(|code| code <= 2), "init ended: {status}"),
        }
        if status.success() {
            return Ok(());
        }
        let was_done = lab.object("manifest.json")?.is_some();
        if self.kind == Kind::Error {
            ensure!(!was_done, "an init that failed left its manifest");
            lab.expect_nothing_on_source()?;
        }
        let began = SystemTime::now();
        lab.init()?;
        if !was_done && self.s3.is_none() {
            expect_all_newer(&lab.lake(), began)?;
        }
        lab.expect_equal(Expected::AnyChanges).map(|_| ())
    }

    /// A daemon that works until it reaches its point.
    fn daemon_dies(&self, lab: &mut Lab, work: &mut Workload, hit: u64) -> Result<()> {
        lab.arm(Some(&self.failpoint(hit)));
        let daemon = lab.spawn()?;
        lab.arm(None);
        // the log is appended to by every life
        let before = daemon.log().matches(&self.word()).count();
        let is_hit = |daemon: &Daemon| daemon.log().matches(&self.word()).count() > before;
        let first = work.rounds();
        while !is_hit(&daemon) && daemon.try_wait()?.is_none() {
            let tried = work.rounds() - first;
            ensure!(
                tried < self.rounds_max(),
                "never hit in {tried} rounds:\n{}",
                daemon.log_end()
            );
            work.round()?;
        }
        ensure!(is_hit(&daemon), "ended before its point:\n{}", daemon.log_end());
        match self.kind {
            Kind::Kill | Kind::Late | Kind::Abort => {
                let status = shell::wait_for("the death", PATIENCE, || daemon.try_wait())?;
                ensure!(status.signal() == self.signal(), "the daemon ended with {status}");
            }
            Kind::Error => {
                work.round()?;
                if work.settle(lab, &daemon).is_ok() {
                    daemon.stop()?;
                } else {
                    let code = daemon.wait_for_end(PATIENCE)?;
                    ensure!(code == 1 || code == 2, "exit {code}:\n{}", daemon.log_end());
                }
            }
            Kind::Stop => {
                self.wait_for_stop(lab, &daemon)?;
                let second = lab.pgcdc(&["start"])?;
                ensure!(second.code == 1, "a second daemon ended with {}", second.code);
                second.expect_words(&["held by another process"])?;
                work.round()?;
                daemon.signal("CONT")?;
                work.settle(lab, &daemon)?;
                daemon.stop()?;
            }
        }
        let log = fs::read_to_string(lab.dir().join("daemon.log"))?;
        ensure!(!log.contains("panicked"), "a thread of the daemon panicked:\n{log}");
        lab.expect_confirmed_is_covered()?;
        work.round()
    }

    fn wait_for_stop(&self, lab: &Lab, process: &Daemon) -> Result<()> {
        shell::wait_for("the process to stop", PATIENCE, || {
            if let Some(status) = process.try_wait()? {
                bail!("it ended with {status} and never stopped:\n{}", process.log_end());
            }
            Ok(is_stopped(process.pid())?.then_some(()))
        })?;
        // whatever it had sent before is confirmed already
        if lab.object("manifest.json")?.is_some() && !self.point.is_init() {
            lab.expect_confirmed_is_covered()?;
        }
        Ok(())
    }

    /// The server dies right behind a status update, on a cluster of its own.
    fn server_dies(&self, dir: &Path) -> Result<()> {
        let mut cluster = Cluster::start(self.cluster.major(), Tuning::Tests, "")?;
        make_bases(&cluster)?;
        let storage = self.storage(dir)?;
        let mut lab = self.lab(&cluster, dir, &storage)?;
        let mut work = Workload::new(&lab, false);
        lab.init()?;
        let proxy = Proxy::start(&cluster, lab.storage())?;
        lab.set("source.postgres.url", proxy.url(lab.database().name()).into())?;
        let daemon = lab.start()?;
        for _ in 0..self.lives {
            let before = proxy.flushed();
            let first = work.rounds();
            while proxy.flushed() == before {
                ensure!(work.rounds() - first < ROUNDS_MAX, "no status:\n{}", daemon.log_end());
                work.round()?;
            }
            match self.kind {
                Kind::Kill | Kind::Late => cluster.kill_hard()?,
                Kind::Abort => cluster.stop_immediately()?,
                Kind::Error => proxy.reset(),
                Kind::Stop => cluster.freeze(Duration::from_secs(3))?,
            }
            if matches!(self.kind, Kind::Kill | Kind::Late | Kind::Abort) {
                cluster.boot()?;
            }
            work.round()?;
        }
        work.settle(&lab, &daemon)?;
        daemon.stop()?;
        self.count_faults(&storage)?;
        ensure!(proxy.verdict()? > 0, "the proxy saw no status update");
        expect_whole(&lab, &work)
    }
}

/// Everything that must hold once the successor has drained.
fn expect_whole(lab: &Lab, work: &Workload) -> Result<()> {
    lab.expect_equal(Expected::Changes(work.counts()))?;
    lab.expect_confirmed_is_covered()?;
    let slots = lab
        .database()
        .number("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")?;
    ensure!(slots == 1, "{slots} slots instead of one");
    lab.expect_no_leftovers()?;
    let refs = lab.object("refs.json")?.context("there is no refs.json")?;
    let refs: serde_json::Value = serde_json::from_slice(&refs)?;
    let epoch = &lab.manifest()?["epoch"];
    ensure!(refs["refs"]["main"]["epoch"] == *epoch, "main is not the newest epoch, {epoch}");
    Ok(())
}

/// A failed init leaves no object: all that is there was made after it. The lock file stays.
fn expect_all_newer(lake: &Path, began: SystemTime) -> Result<()> {
    for file in files_below(lake)? {
        let is_lock = file.file_name().is_some_and(|name| name == ".pgcdc-lock#0");
        let modified = fs::metadata(&file)?.modified()?;
        // the file system's clock ticks more slowly than ours
        let is_older = modified + Duration::from_millis(20) < began;
        ensure!(is_lock || !is_older, "the failed init left {}", file.display());
    }
    Ok(())
}
