//! The time from the start of the daemon after a crash to its first new commit, on a big table.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Options;
use super::measure::{Cost, cpu_seconds};
use super::report::{Report, Section};
use super::source::{self, LAST_ID, TABLE};
use crate::lab::{Lab, lsn_at, parse_lsn};
use crate::pg::{Cluster, Tuning};
use crate::shell;

/// How long a start may take before it is given up.
const LIMIT: Duration = Duration::from_secs(600);

pub(super) fn run(options: &Options, bins: &Path) -> Result<Report> {
    let cluster = Cluster::start(options.pg, Tuning::Bench, "")?;
    let dir = tempfile::Builder::new().prefix("pgcdc-bench-").tempdir()?;
    let mut lab = source::lab(&cluster, bins, &dir.path().join("lab"), "bench", options.rows)?;
    lab.set("flush.interval_sec", 1.into())?;
    lab.init()?;
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let at = u64::try_from(round)? * 2;
        kept.push(crash_and_start(&lab, at, |_| Ok(()))?);
        lost.push(crash_and_start(&lab, at + 1, lose_index)?);
    }
    let costs = vec![
        ("start to first commit".to_owned(), Cost::median(kept)?),
        ("the same, key index lost".to_owned(), Cost::median(lost)?),
    ];
    Ok(Report {
        title: format!(
            "restart after SIGKILL, PostgreSQL {}, flush.interval_sec 1, median of {}",
            options.pg, options.rounds
        ),
        sections: vec![Section::new("one table", options.rows, 0, costs)],
    })
}

/// One life of the daemon that ends in the middle of its work, and the start of the next up to the
/// commit of a row that was written in between.
fn crash_and_start(
    lab: &Lab,
    round: u64,
    between: impl FnOnce(&Lab) -> Result<()>,
) -> Result<Cost> {
    let daemon = lab.start()?;
    let scattered = |set: &str| {
        lab.database()
            .execute(&format!("UPDATE {TABLE} SET {set} WHERE id % 101 = {}", round * 7 % 101))
    };
    scattered("quantity = quantity + 1")?;
    lab.settle(&daemon)?;
    scattered("status = 'paid'")?;
    daemon.kill()?;
    between(lab)?;
    let row = LAST_ID - i64::try_from(round)?;
    lab.database().execute(&format!("INSERT INTO {TABLE} (id) VALUES ({row})"))?;
    let written = parse_lsn(&lab.database().value("SELECT pg_current_wal_insert_lsn()")?)?;
    // the log goes on behind the row, or the commit would not be told from what covers it
    lab.database().execute("SELECT pg_logical_emit_message(true, 'bench', 'end')")?;
    let began = Instant::now();
    let daemon = lab.spawn()?;
    shell::wait_for("the first commit after the crash", LIMIT, || {
        daemon.expect_alive()?;
        Ok((lsn_at(&lab.manifest()?, "covered_lsn")? >= written).then_some(()))
    })?;
    let cost = Cost {
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(daemon.pid())?,
        peak_rss_bytes: daemon.peak_rss()?,
    };
    daemon.stop()?;
    Ok(cost)
}

/// Removes the key indexes, as a lost state directory would.
fn lose_index(lab: &Lab) -> Result<()> {
    Ok(std::fs::remove_dir_all(lab.state_dir().join("index"))?)
}
