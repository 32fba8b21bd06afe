//! Transactions that are received while they are open: nothing of them is seen before they commit,
//! nothing of what they roll back ever, and the disk that they may take is bounded.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Env, Scenario};
use crate::lab::{Daemon, Expected, Lab, Oracle};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    ("savepoints_of_streamed_transactions_leave_no_trace", savepoints),
    ("an_aborted_huge_transaction_is_never_seen", aborted),
    ("a_full_spool_stops_the_daemon_with_a_hint", spool_limit),
];

/// Anything larger than this is streamed.
const SMALL: &str = "logical_decoding_work_mem = '64kB'";

/// A session that stays open between statements.
struct Session(Child);

impl Session {
    fn open(lab: &Lab) -> Result<Self> {
        let mut psql = lab.database().psql()?;
        psql.stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Self(psql.spawn().context("cannot start psql")?))
    }

    fn say(&mut self, sql: &str) -> Result<()> {
        let input = self.0.stdin.as_mut().context("psql has no input")?;
        writeln!(input, "{sql}")?;
        Ok(input.flush()?)
    }

    fn end(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        ensure!(self.0.wait()?.success(), "a session failed");
        Ok(())
    }
}

/// Waits until the server has streamed at least `count` transactions to the daemon.
fn wait_for_streams(lab: &Lab, daemon: &Daemon, count: i64) -> Result<()> {
    let query = format!(
        "SELECT coalesce(sum(stream_txns), 0) FROM pg_stat_replication_slots WHERE slot_name = '{}'",
        lab.slot()
    );
    shell::wait_for("transactions to be streamed", Duration::from_secs(60), || {
        daemon.expect_alive()?;
        Ok((lab.database().number(&query)? >= count).then_some(()))
    })
}

/// Bytes of files that the daemon has open in its spool, which have no name.
fn spooled(lab: &Lab, daemon: &Daemon) -> Result<u64> {
    let spool = lab.dir().join("state/spool");
    let mut bytes = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))? {
        let path = entry?.path();
        let target = std::fs::read_link(&path).unwrap_or_default();
        if target.starts_with(&spool) {
            bytes += std::fs::metadata(&path).map_or(0, |file| file.len());
        }
    }
    Ok(bytes)
}

fn savepoints(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster(SMALL)?;
    let lab = env.lab_on(&cluster)?;
    lab.database().execute(
        "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)",
    )?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    let (mut first, mut second) = (Session::open(&lab)?, Session::open(&lab)?);
    first.say("BEGIN; INSERT INTO a SELECT i, 'first' FROM generate_series(1, 3000) i;")?;
    wait_for_streams(&lab, &daemon, 1)?;
    second.say("BEGIN; INSERT INTO b SELECT i, 'second' FROM generate_series(1, 3000) i;")?;
    wait_for_streams(&lab, &daemon, 2)?;
    second.say(
        "SAVEPOINT s; INSERT INTO b SELECT i, 'dead' FROM generate_series(3001, 6000) i;
         UPDATE b SET v = 'dead'; SAVEPOINT t; DELETE FROM b WHERE id % 2 = 0; RELEASE t;
         ROLLBACK TO s; INSERT INTO b SELECT i, 'alive' FROM generate_series(3001, 5000) i; COMMIT;",
    )?;
    second.end()?;
    first.say(
        "DO $$ BEGIN FOR n IN 5001 .. 6500 LOOP BEGIN
           INSERT INTO a VALUES (n, repeat('x', 100));
           IF n % 3 = 0 THEN RAISE EXCEPTION 'no'; END IF;
         EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$;
         UPDATE a SET v = v || '!' WHERE id % 5 = 0; COMMIT;",
    )?;
    first.end()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    ensure!(spooled(&lab, &daemon)? == 0, "something is left in the spool");
    daemon.stop()
}

fn aborted(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster(SMALL)?;
    let mut lab = env.lab_on(&cluster)?;
    // The spool's memory is a part of the buffers: small ones bring it to disk.
    lab.set("flush.max_bytes", 4_000_000.into())?;
    lab.set("limits.buffer_bytes", 8_000_000.into())?;
    lab.database().execute("CREATE TABLE big (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let daemon = lab.start()?;
    let mut session = Session::open(&lab)?;
    session
        .say("BEGIN; INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 200000) i;")?;
    shell::wait_for("the spool to reach the disk", Duration::from_secs(60), || {
        daemon.expect_alive()?;
        Ok((spooled(&lab, &daemon)? > 0).then_some(()))
    })?;
    lab.settle(&daemon)?;
    let before = lab.query(&["--sql", "SELECT count(*) AS n FROM public.big", "-f", "csv"])?;
    ensure!(before.lines().nth(1) == Some("0"), "an open transaction is seen: {before}");
    session.say("ROLLBACK; INSERT INTO big VALUES (0, 'alive');")?;
    session.end()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::AnyChanges)?;
    let changes =
        lab.query(&["--sql", "SELECT count(*) AS n FROM public.big__changes", "-f", "csv"])?;
    ensure!(changes.lines().nth(1) == Some("1"), "the changelog has {changes}");
    ensure!(spooled(&lab, &daemon)? == 0, "the spool keeps what was aborted");
    daemon.stop()?;
    let left = std::fs::read_dir(lab.dir().join("state/spool"))?.count();
    ensure!(left == 0, "{left} files are left in the spool");
    Ok(())
}

fn spool_limit(env: &Env<'_>) -> Result<()> {
    let cluster = env.own_cluster(SMALL)?;
    let mut lab = env.lab_on(&cluster)?;
    lab.set("flush.max_bytes", 4_000_000.into())?;
    lab.set("limits.buffer_bytes", 8_000_000.into())?;
    lab.set("limits.spool_bytes", 2_000_000.into())?;
    lab.database().execute("CREATE TABLE big (id int PRIMARY KEY, v text)")?;
    lab.init()?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    lab.database().execute(
        "INSERT INTO big VALUES (0, 'small');
         INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 100000) i;",
    )?;
    let code = daemon.wait_for_end(Duration::from_secs(120))?;
    ensure!(code == 1, "the daemon ended with exit {code}");
    ensure!(daemon.log_end().contains("hint: raise limits.spool_bytes"), "{}", daemon.log_end());
    lab.expect_confirmed_is_covered()?;
    lab.set("limits.spool_bytes", 100_000_000.into())?;
    let daemon = lab.start()?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    daemon.stop()
}
