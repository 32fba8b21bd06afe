//! A lab: one source database, one configuration, one lake, and the real binaries between them.
//!
//! The end-to-end tests, the demo and the benchmarks all work in labs, so that they drive the
//! product in one way only: through its command line and its files.

mod daemon;
mod files;
mod lake;
mod metrics;
mod oracle;
mod readers;
mod storage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

pub(crate) use daemon::{Daemon, is_stopped, peak_rss};
pub(crate) use files::files_below;
pub(crate) use lake::{Lsn, lsn_at, parse_lsn};
pub(crate) use oracle::{Counts, Oracle};
pub(crate) use readers::{Expected, compare, compare_with_history};
pub(crate) use storage::{Bucket, Storage};

use crate::pg::Database;
use crate::shell;

/// How long a command that is not the daemon may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// How long the lake may need to catch up with the source.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(180);

/// The table that [`Lab::settle`] changes to have a commit to wait for.
pub(crate) const SENTINEL: &str = "heartbeat";

/// A finished run of one of our binaries.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The command line.
    pub(crate) line: String,
    /// The exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    /// What it wrote for programs.
    pub(crate) stdout: String,
    /// What it wrote for people.
    pub(crate) stderr: String,
}

impl Finished {
    /// Fails unless the exit code is `code`.
    pub(crate) fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "`{}` ended with {}, not {code}\nstdout: {}\nstderr: {}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// Fails unless stderr and stdout together contain each of `words`.
    pub(crate) fn expect_words(self, words: &[&str]) -> Result<Self> {
        for word in words {
            ensure!(
                self.stderr.contains(word) || self.stdout.contains(word),
                "`{}` does not mention {word:?}\nstdout: {}\nstderr: {}",
                self.line,
                self.stdout,
                self.stderr
            );
        }
        Ok(self)
    }

    /// The one JSON document on stdout.
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("`{}` printed no JSON: {}", self.line, self.stdout))
    }
}

/// One source database with the binaries, configuration and lake that belong to it.
pub(crate) struct Lab {
    bins: PathBuf,
    dir: PathBuf,
    database: Database,
    storage: Storage,
    config: Value,
    /// What `PGCDC_FAILPOINT` says to processes that are started from now on.
    failpoint: Option<String>,
    /// Whether objects that no table names are to be expected in the lake.
    may_have_orphans: bool,
}

impl Lab {
    /// A lab in the empty directory `dir` over `database`, its lake in that directory too; writes the
    /// first configuration.
    pub(crate) fn new(bins: &Path, dir: &Path, database: Database) -> Result<Self> {
        Self::with_storage(bins, dir, database, Storage::Directory(dir.join("lake")))
    }

    /// The same with a lake elsewhere.
    pub(crate) fn with_storage(
        bins: &Path,
        dir: &Path,
        database: Database,
        storage: Storage,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let config = json!({
            "source": {"postgres": {"url": database.url(), "schemas": ["public"]}},
            "storage": storage.config(),
            "state": {"path": dir.join("state/state.db")},
            "replication": {
                "publication": format!("pub_{}", database.name()),
                "slot": format!("slot_{}", database.name()),
            },
            "flush": {"interval_sec": 0.5},
            "freshness": {"live_interval_sec": 0.5},
            "metrics": {"listen_addr": "127.0.0.1:0"},
        });
        let (bins, dir) = (bins.to_owned(), dir.to_owned());
        let lab =
            Self { bins, dir, database, storage, config, failpoint: None, may_have_orphans: false };
        lab.write_config()?;
        Ok(lab)
    }

    /// The source.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The directory of everything in this lab.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the lake is.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// An object of the lake; `None` if it does not exist.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.storage.read(key)
    }

    /// The root of a lake in a directory.
    pub(crate) fn lake(&self) -> PathBuf {
        self.dir.join("lake")
    }

    /// The configured state directory.
    pub(crate) fn state_dir(&self) -> PathBuf {
        let file = self.config["state"]["path"].as_str().map(PathBuf::from).unwrap_or_default();
        file.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Points the configuration at the same database on another server.
    pub(crate) fn move_to(&mut self, database: Database) -> Result<()> {
        self.set("source.postgres.url", json!(database.url()))?;
        self.database = database;
        Ok(())
    }

    /// live.json as it is now; null before the first.
    pub(crate) fn live(&self) -> Result<Value> {
        match fs::read(self.lake().join("live.json")) {
            Ok(text) => serde_json::from_slice(&text).context("live.json is not JSON"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until live.json fulfils `condition`, while the daemon lives.
    pub(crate) fn wait_live(
        &self,
        daemon: &Daemon,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        shell::wait_for(what, CATCH_UP_LIMIT, || {
            daemon.expect_alive()?;
            Ok(condition(&self.live()?).then_some(()))
        })
        .with_context(|| format!("end of the daemon's log:\n{}", daemon.log_end()))
    }

    /// The configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join("pgcdc.yml")
    }

    /// The configured slot.
    pub(crate) fn slot(&self) -> String {
        format!("slot_{}", self.database.name())
    }

    /// The configured publication.
    pub(crate) fn publication(&self) -> String {
        format!("pub_{}", self.database.name())
    }

    /// Sets a configuration key (`flush.max_rows`) and writes the file; null removes the key.
    pub(crate) fn set(&mut self, key: &str, value: Value) -> Result<()> {
        let (parents, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut place = &mut self.config;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            place = &mut place[part];
        }
        if value.is_null() {
            place.as_object_mut().with_context(|| format!("{parents} is no mapping"))?.remove(last);
        } else {
            place[last] = value;
        }
        self.write_config()
    }

    /// Arms a failpoint (`s9:kill:3`) in whatever is started from now on, or none; the binaries
    /// must have been built with failpoints.
    pub(crate) fn arm(&mut self, failpoint: Option<&str>) {
        self.failpoint = failpoint.map(str::to_owned);
    }

    /// From now on writers may die in this lab: objects that nothing refers to stay until they are
    /// old enough to be nobody's.
    pub(crate) fn expect_orphans(&mut self) {
        self.may_have_orphans = true;
    }

    fn write_config(&self) -> Result<()> {
        // JSON is YAML, so no second writer is needed.
        fs::write(self.config_file(), serde_json::to_vec_pretty(&self.config)?)?;
        Ok(())
    }

    /// Runs `pgcdc <args>` to its end.
    pub(crate) fn pgcdc(&self, args: &[&str]) -> Result<Finished> {
        self.run("pgcdc", args)
    }

    /// Runs `pgcdc init` and fails unless it succeeds.
    pub(crate) fn init(&self) -> Result<Finished> {
        self.pgcdc(&["init"])?.expect_code(0)
    }

    /// Runs `pgcdc-serve query <args>` and fails unless it succeeds.
    pub(crate) fn query(&self, args: &[&str]) -> Result<String> {
        let mut words = vec!["query"];
        words.extend(args);
        Ok(self.run("pgcdc-serve", &words)?.expect_code(0)?.stdout)
    }

    /// Runs one of the binaries with this lab's configuration.
    pub(crate) fn run(&self, binary: &str, args: &[&str]) -> Result<Finished> {
        let mut command = self.command(binary, args);
        let line = shell::describe(&command);
        let (out, err) = (self.dir.join("last.stdout"), self.dir.join("last.stderr"));
        command.stdin(Stdio::null());
        command.stdout(fs::File::create(&out)?).stderr(fs::File::create(&err)?);
        let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let ended =
            shell::wait_for(&format!("`{line}` to end"), COMMAND_LIMIT, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let read = |file: &Path| fs::read(file).map(|b| String::from_utf8_lossy(&b).into_owned());
        let (stdout, stderr) = (read(&out)?, read(&err)?);
        let status = ended.with_context(|| format!("stdout: {stdout}\nstderr: {stderr}"))?;
        Ok(Finished { line, code: status.code().unwrap_or(-1), stdout, stderr })
    }

    /// A command of one of the binaries with this lab's configuration and nothing started yet.
    pub(crate) fn command(&self, binary: &str, args: &[&str]) -> Command {
        let mut command = shell::command(self.bins.join(binary));
        command.args(args).arg("--config").arg(self.config_file());
        command.current_dir(&self.dir).envs(self.storage.environment());
        command.env_remove("PGCDC_FAILPOINT");
        if let Some(failpoint) = &self.failpoint {
            command.env("PGCDC_FAILPOINT", failpoint);
        }
        command
    }

    /// Starts the daemon and waits until it streams.
    pub(crate) fn start(&self) -> Result<Daemon> {
        let daemon = self.spawn()?;
        let slot = self.slot();
        let query = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
        shell::wait_for("the daemon to attach to its slot", CATCH_UP_LIMIT, || {
            daemon.expect_alive()?;
            Ok((self.database.value(&query)? == "t").then_some(()))
        })?;
        Ok(daemon)
    }

    /// Starts a daemon that must end by itself with exit 1, naming each of `words`.
    pub(crate) fn expect_failed_start(&self, limit: Duration, words: &[&str]) -> Result<()> {
        let daemon = self.spawn()?;
        daemon.expect_failure(limit, words)
    }

    /// Starts the daemon and returns at once.
    pub(crate) fn spawn(&self) -> Result<Daemon> {
        Daemon::spawn(self.command("pgcdc", &["start"]), self.dir.join("daemon.log"))
    }

    /// Starts an init and returns at once; it is watched and ended as a daemon is.
    pub(crate) fn spawn_init(&self) -> Result<Daemon> {
        Daemon::spawn(self.command("pgcdc", &["init"]), self.dir.join("init.log"))
    }

    /// Starts `reconcile --force` and returns at once; it is watched and ended as a daemon is.
    pub(crate) fn spawn_reconcile(&self) -> Result<Daemon> {
        Daemon::spawn(
            self.command("pgcdc", &["reconcile", "--force"]),
            self.dir.join("reconcile.log"),
        )
    }

    /// Makes the table that [`Self::settle`] needs; call it before `init`.
    pub(crate) fn create_sentinel(&self) -> Result<()> {
        self.database.execute(&format!(
            "CREATE TABLE {SENTINEL} (id int PRIMARY KEY, n bigint NOT NULL);
             INSERT INTO {SENTINEL} VALUES (1, 0);"
        ))?;
        Ok(())
    }

    /// Waits until everything committed so far is in the lake.
    ///
    /// A commit after the current position is made for the purpose: once it is in, all before is.
    pub(crate) fn settle(&self, daemon: &Daemon) -> Result<Duration> {
        let started = Instant::now();
        let position = self.position()?;
        self.database.execute(&format!("UPDATE {SENTINEL} SET n = n + 1"))?;
        self.wait_for_cut_above(daemon, position)?;
        Ok(started.elapsed())
    }

    /// The write position of the source.
    pub(crate) fn position(&self) -> Result<Lsn> {
        parse_lsn(&self.database.value("SELECT pg_current_wal_insert_lsn()")?)
    }

    /// Waits until the committed cut is above `position`.
    pub(crate) fn wait_for_cut_above(&self, daemon: &Daemon, position: Lsn) -> Result<()> {
        self.wait_until(daemon, "the lake to catch up", |manifest| {
            Ok(lake::lsn_at(manifest, "commit_lsn")? > position)
        })
    }

    /// Waits until the manifest fulfils `condition`, while the daemon lives.
    pub(crate) fn wait_until(
        &self,
        daemon: &Daemon,
        what: &str,
        condition: impl Fn(&Value) -> Result<bool>,
    ) -> Result<()> {
        shell::wait_for(what, CATCH_UP_LIMIT, || {
            daemon.expect_alive()?;
            Ok(condition(&self.manifest()?)?.then_some(()))
        })
        .with_context(|| format!("end of the daemon's log:\n{}", daemon.log_end()))
    }

    /// manifest.json as it is now.
    pub(crate) fn manifest(&self) -> Result<Value> {
        let text = self.object("manifest.json")?.context("there is no manifest.json")?;
        serde_json::from_slice(&text).context("manifest.json is not JSON")
    }

    /// The active tables, as the manifest spells them.
    pub(crate) fn active_tables(&self) -> Result<Vec<String>> {
        let manifest = self.manifest()?;
        Ok(lake::active_tables(&manifest)?.iter().map(|table| table.name.to_owned()).collect())
    }

    /// Compares every active table but quarantined ones with its source through pyiceberg and DuckDB.
    pub(crate) fn expect_equal(&self, expected: Expected<'_>) -> Result<u64> {
        compare(self, expected)
    }

    /// Fails when the slot was confirmed beyond what the manifest covers.
    pub(crate) fn expect_confirmed_is_covered(&self) -> Result<()> {
        let confirmed = parse_lsn(&self.database.value(&format!(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
            self.slot()
        ))?)?;
        // Read after the slot: the manifest only moves forward.
        let covered = lake::lsn_at(&self.manifest()?, "covered_lsn")?;
        ensure!(confirmed <= covered, "confirmed {confirmed:X}, covered only {covered:X}");
        Ok(())
    }

    /// Fails when the slot or the publication is still on the source.
    pub(crate) fn expect_nothing_on_source(&self) -> Result<()> {
        let count = |query: String| self.database.number(&query);
        let slots = count(format!(
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'",
            self.slot()
        ))?;
        let publications = count(format!(
            "SELECT count(*) FROM pg_publication WHERE pubname = '{}'",
            self.publication()
        ))?;
        if slots + publications > 0 {
            bail!("left behind on the source: {slots} slot, {publications} publication");
        }
        Ok(())
    }
}
