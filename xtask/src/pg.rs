//! A private PostgreSQL: its own data directory, port and socket, gone when the value is dropped.
//!
//! PostgreSQL refuses to run as root, so for root the server runs as the account `postgres`, else
//! `nobody`. It also ends with this process, however this process ends.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::setup::{self, Client};
use crate::shell;

/// How long a server may take to accept connections, or to stop.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

/// The settings under which PostgreSQL renders values as text, on every session of ours.
pub(crate) const PINNED_OPTIONS: &str = "-c DateStyle=ISO -c IntervalStyle=iso_8601 \
    -c TimeZone=UTC -c extra_float_digits=3 -c bytea_output=hex -c lc_monetary=C";

/// What a cluster is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// Small and without fsync: many of them on one machine.
    Tests,
    /// 1 GB of shared buffers, no background noise: comparisons of speed.
    Bench,
}

/// A running PostgreSQL server of our own.
pub(crate) struct Cluster {
    major: u32,
    port: u16,
    bin: PathBuf,
    dir: TempDir,
    owner: Option<Owner>,
    server: Option<Child>,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Cluster {
    /// Makes a cluster of `major` and starts it; `extra` is appended to postgresql.conf.
    pub(crate) fn start(major: u32, tuning: Tuning, extra: &str) -> Result<Self> {
        let owner = if shell::is_root() { Some(account()?) } else { None };
        let dir = tempfile::Builder::new().prefix("pgcdc-pg").tempdir()?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(dir.path(), Some(owner.uid), Some(owner.gid))?;
        }
        let bin = setup::server_bin(major)?;
        let port = free_port()?;
        let mut cluster = Self { major, port, bin, dir, owner, server: None };
        cluster.initialise(tuning, extra)?;
        cluster.boot()?;
        Ok(cluster)
    }

    /// The major version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// The TCP port on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of `database` for the superuser, over TCP without TLS.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The URL of `database` for `user`, which may be `user:password`.
    pub(crate) fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Makes an empty database and returns a handle to it.
    pub(crate) fn create_database(&self, name: &str) -> Result<Database> {
        let admin = self.database("postgres");
        admin.execute(&format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.database(name))
    }

    /// A handle to a database that exists.
    pub(crate) fn database(&self, name: &str) -> Database {
        Database { name: name.to_owned(), url: self.url(name), port: self.port }
    }

    /// Stops the server the way an operator does, and says how long it took.
    pub(crate) fn stop_fast(&mut self, limit: Duration) -> Result<Duration> {
        let started = std::time::Instant::now();
        let mut stop = self.as_owner(self.bin.join("pg_ctl"));
        stop.arg("-D").arg(self.data()).args(["-m", "fast", "-w", "-t"]);
        stop.arg(limit.as_secs().to_string()).arg("stop");
        // The server is our child: until it is reaped, pg_ctl sees its process and goes on waiting.
        let mut waiting = stop.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let server = self.server.as_mut().context("the server is not running")?;
        shell::wait_for("pg_ctl stop -m fast", limit, || Ok(server.try_wait()?.map(|_| ())))?;
        let took = started.elapsed();
        self.server = None;
        ensure!(waiting.wait()?.success(), "pg_ctl stop -m fast failed");
        Ok(took)
    }

    /// Ends the server in the middle of whatever it does, as a power cut does; it recovers when it
    /// is started again.
    pub(crate) fn stop_immediately(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the server is not running")?;
        // The postmaster kills its children; killed outright itself, it would leave them behind.
        shell::run(Command::new("kill").args(["-QUIT", &server.id().to_string()]))?;
        shell::wait_for("an immediate stop", SERVER_PATIENCE, || Ok(server.try_wait()?.map(drop)))
    }

    /// A stopped copy of this stopped server: the same system and slots, on a port of its own.
    pub(crate) fn copy(&self) -> Result<Self> {
        ensure!(self.server.is_none(), "a running server cannot be copied");
        let dir = tempfile::Builder::new().prefix("pgcdc-pg").tempdir()?;
        let target = dir.path().join("data");
        shell::run(Command::new("cp").arg("-a").arg(self.data()).arg(&target))?;
        if let Some(owner) = self.owner {
            std::os::unix::fs::chown(dir.path(), Some(owner.uid), Some(owner.gid))?;
        }
        let (bin, owner) = (self.bin.clone(), self.owner);
        let port = free_port()?;
        let copy = Self { major: self.major, port, bin, dir, owner, server: None };
        copy.configure(&format!(
            "port = {port}\nunix_socket_directories = '{}'",
            copy.dir.path().display()
        ))?;
        Ok(copy)
    }

    /// Makes the next start end on a timeline of its own, as after a restore or a promotion.
    pub(crate) fn leave_timeline(&self) -> Result<()> {
        self.configure("restore_command = 'false'")?;
        let signal = self.data().join("recovery.signal");
        fs::write(&signal, "")?;
        if let Some(owner) = self.owner {
            std::os::unix::fs::chown(&signal, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(())
    }

    /// Adds lines to postgresql.conf, where the last of two settings wins.
    fn configure(&self, lines: &str) -> Result<()> {
        let file = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, format!("{text}\n{lines}\n"))?;
        Ok(())
    }

    /// Kills the postmaster and all its children outright, as a crash of the machine would.
    pub(crate) fn kill_hard(&mut self) -> Result<()> {
        let mut server = self.server.take().context("the server is not running")?;
        let family = children(server.id())?;
        for pid in std::iter::once(server.id()).chain(family.iter().copied()) {
            // a child that has ended meanwhile is fine
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
        server.wait()?;
        // a child that is still there would keep the shared memory, and the next start from working
        shell::wait_for("the children of the server to end", SERVER_PATIENCE, || {
            let left = family.iter().any(|pid| {
                let status = fs::read_to_string(format!("/proc/{pid}/status"));
                status.is_ok_and(|status| !status.contains("State:\tZ"))
            });
            Ok((!left).then_some(()))
        })
    }

    /// Stops all processes of the server with SIGSTOP, and lets them go on after `duration`.
    pub(crate) fn freeze(&self, duration: Duration) -> Result<()> {
        let server = self.server.as_ref().context("the server is not running")?;
        let mut family = children(server.id())?;
        family.push(server.id());
        let tell = |signal: &str| {
            for pid in &family {
                // a child that has ended meanwhile is fine
                let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
            }
        };
        tell("-STOP");
        std::thread::sleep(duration);
        tell("-CONT");
        Ok(())
    }

    /// Starts the server again after it was stopped or killed.
    pub(crate) fn boot(&mut self) -> Result<()> {
        let log = File::create(self.dir.path().join("server.log"))?;
        let mut server = self.as_owner(self.bin.join("postgres"));
        server.arg("-D").arg(self.data()).stdin(Stdio::null());
        server.stdout(log.try_clone()?).stderr(log);
        self.server = Some(server.spawn().context("cannot start postgres")?);
        let admin = self.database("postgres");
        shell::wait_for("PostgreSQL to accept connections", SERVER_PATIENCE, || {
            if let Some(status) = self.server.as_mut().and_then(|s| s.try_wait().ok().flatten()) {
                bail!("postgres ended with {status}:\n{}", self.log());
            }
            Ok(admin.execute("SELECT 1").ok().map(drop))
        })
    }

    /// What the server has logged since it was started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn initialise(&self, tuning: Tuning, extra: &str) -> Result<()> {
        let mut initdb = self.as_owner(self.bin.join("initdb"));
        initdb.arg("-D").arg(self.data());
        initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]);
        initdb.arg("--locale=C");
        shell::stdout(&mut initdb)?;
        let tuned = match tuning {
            Tuning::Tests => "shared_buffers = 64MB\n",
            Tuning::Bench => {
                "shared_buffers = 1GB\nautovacuum = off\nmax_wal_size = 16GB\n\
                 checkpoint_timeout = 1h\n"
            }
        };
        let config = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n\
             wal_level = logical\nmax_replication_slots = 200\nmax_wal_senders = 200\n\
             max_connections = 120\nfsync = off\nsynchronous_commit = off\n\
             full_page_writes = off\nmax_prepared_transactions = 4\n{tuned}{extra}\n",
            self.port,
            self.dir.path().display(),
        );
        self.configure(&config)
    }

    /// Replaces pg_hba.conf and makes the server read it.
    pub(crate) fn set_access_rules(&self, rules: &str) -> Result<()> {
        fs::write(self.data().join("pg_hba.conf"), rules)?;
        self.database("postgres").execute("SELECT pg_reload_conf()").map(|_| ())
    }

    /// A command that runs as the owner of the cluster and dies with this process.
    fn as_owner(&self, program: PathBuf) -> Command {
        let mut command = match shell::find_program("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "QUIT", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        command.current_dir(self.dir.path()).env("LC_ALL", "C");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Immediate shutdown; a postmaster killed outright would leave its children behind.
            let _ = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

/// A database of a [`Cluster`], reached through `psql` in a session with pinned settings.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    name: String,
    url: String,
    port: u16,
}

impl Database {
    /// The name of the database.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The URL that the programs under test are given.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Runs a script, each statement in its own transaction unless it says otherwise.
    pub(crate) fn execute(&self, sql: &str) -> Result<String> {
        let out = self.pipe(sql)?;
        if !out.status.success() {
            bail!("SQL failed in {}: {}", self.name, shell::talk(&out));
        }
        Ok(String::from_utf8(out.stdout)?)
    }

    /// The one value that a query gives.
    pub(crate) fn value(&self, query: &str) -> Result<String> {
        let text = self.execute(query)?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// The one number that a query gives.
    pub(crate) fn number(&self, query: &str) -> Result<i64> {
        let text = self.value(query)?;
        text.parse().with_context(|| format!("`{query}` gave {text:?}, not a number"))
    }

    /// Writes `COPY (query) TO STDOUT` to `file`, in text format.
    pub(crate) fn copy_to_file(&self, query: &str, file: &Path) -> Result<()> {
        let mut psql = self.psql()?;
        psql.arg("-c").arg(format!("COPY ({query}) TO STDOUT"));
        psql.stdout(File::create(file)?).stderr(Stdio::piped());
        let out = psql.spawn()?.wait_with_output()?;
        ensure!(out.status.success(), "COPY of `{query}` failed: {}", shell::talk(&out));
        Ok(())
    }

    /// A psql process that reads its script from `stdin`; for load beside other work.
    pub(crate) fn psql(&self) -> Result<Command> {
        let mut psql = Command::new(setup::client(Client::Psql)?);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url]);
        psql.env("PGOPTIONS", PINNED_OPTIONS).env("PGCLIENTENCODING", "UTF8");
        Ok(psql)
    }

    /// Runs pgbench against this database and fails when any transaction failed.
    pub(crate) fn pgbench(&self, args: &[&str]) -> Result<String> {
        let mut pgbench = Command::new(setup::client(Client::Pgbench)?);
        pgbench.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]);
        pgbench.args(args).arg(&self.name);
        shell::stdout(&mut pgbench)
    }

    fn pipe(&self, sql: &str) -> Result<Output> {
        use std::io::Write;
        let mut psql = self.psql()?;
        psql.args(["-f", "-"]);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().context("cannot start psql")?;
        let mut stdin = child.stdin.take().context("psql has no stdin")?;
        let script = sql.to_owned();
        let writer = std::thread::spawn(move || {
            // psql that stopped at an error closes its end; its exit code tells the story.
            let _ = stdin.write_all(script.as_bytes());
        });
        let out = child.wait_with_output()?;
        writer.join().ok().context("the thread that feeds psql panicked")?;
        Ok(out)
    }
}

/// The processes whose parent is `pid`.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // a process that ends while we look is no child any more
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if parent.and_then(|text| text.trim().parse::<u32>().ok()) == Some(pid) {
            found.push(child);
        }
    }
    Ok(found)
}

/// The account that owns the server when we are root.
fn account() -> Result<Owner> {
    for name in ["postgres", "nobody"] {
        let id = |flag: &str| -> Option<u32> {
            shell::stdout(Command::new("id").args([flag, name])).ok()?.trim().parse().ok()
        };
        if let (Some(uid), Some(gid)) = (id("-u"), id("-g")) {
            return Ok(Owner { uid, gid });
        }
    }
    bail!("PostgreSQL refuses to run as root, and there is no account postgres or nobody")
}

/// A TCP port on loopback that nothing listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
