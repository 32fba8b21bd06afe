//! Scenarios run: one server for each major, all majors beside each other. A scenario waits more than it
//! works.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{EachMajor, Env, Needed, Once, Scenario};
use crate::pg::{Cluster, Tuning};
use crate::s3::S3Server;
use crate::setup::Majors;

/// What all scenarios of a run have in common.
pub(super) struct Run {
    pub(super) bins: PathBuf,
    pub(super) s3: SharedS3,
    pub(super) outage: Duration,
    pub(super) full: bool,
}

/// The S3 server of a run, started for the first scenario that asks.
#[derive(Default)]
pub(super) struct SharedS3 {
    server: Mutex<Option<Arc<S3Server>>>,
}

impl SharedS3 {
    pub(super) fn server(&self) -> Result<Arc<S3Server>> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = &*server {
            return Ok(Arc::clone(server));
        }
        Ok(Arc::clone(server.insert(Arc::new(S3Server::start()?))))
    }
}

impl Run {
    /// How many passed, and the names of those that failed. With `once`, what does not depend on the
    /// server's version runs on whichever major has time for it.
    pub(super) fn on_majors(
        &self,
        majors: &Majors,
        chosen: &[(Needed, Scenario)],
        once: bool,
    ) -> Result<(usize, Vec<String>)> {
        let with = |wanted: Needed| {
            chosen
                .iter()
                .filter(move |(needed, _)| *needed == wanted)
                .map(|(_, scenario)| *scenario)
        };
        let shared = Mutex::new(if once { with(Once).collect() } else { VecDeque::new() });
        let (mut passed, mut failed) = (0, Vec::new());
        thread::scope(|scope| {
            let on_major = |major: u32| {
                let of_each = chosen.iter().filter(|(needed, _)| !once || *needed == EachMajor);
                let own: Vec<Scenario> = of_each.map(|(_, scenario)| *scenario).collect();
                let shared = &shared;
                scope.spawn(move || self.on_major(major, own, shared))
            };
            let threads: Vec<_> = majors.iter().map(on_major).collect();
            for thread in threads {
                let Ok(outcome) = thread.join() else { bail!("the runner of a major panicked") };
                let (ok, not_ok) = outcome?;
                passed += ok;
                failed.extend(not_ok);
            }
            Ok(())
        })?;
        Ok((passed, failed))
    }

    /// The scenarios of a major, then of those that any may run.
    fn on_major(
        &self,
        major: u32,
        own: Vec<Scenario>,
        shared: &Mutex<VecDeque<Scenario>>,
    ) -> Result<(usize, Vec<String>)> {
        let cluster = Cluster::start(major, Tuning::Tests, "")?;
        let mut own = own.into_iter();
        let (mut passed, mut failed) = (0, Vec::new());
        let next_shared = || shared.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some(scenario) = own.next().or_else(next_shared) {
            match self.one(scenario, &cluster) {
                true => passed += 1,
                false => failed.push(format!("{major}/{}", scenario.0)),
            }
        }
        Ok((passed, failed))
    }

    fn one(&self, (name, scenario): Scenario, cluster: &Cluster) -> bool {
        let major = cluster.major();
        let started = Instant::now();
        let outcome = tempfile::Builder::new()
            .prefix(&format!("pgcdc-{major}-{name}-"))
            .tempdir()
            .context("no temporary directory")
            .and_then(|dir| {
                let env = Env {
                    cluster,
                    bins: &self.bins,
                    dir: dir.path().join("lab"),
                    name,
                    s3: &self.s3,
                    outage: self.outage,
                    full: self.full,
                };
                let outcome = scenario(&env);
                if outcome.is_err() {
                    println!("     kept: {}", dir.keep().display());
                }
                outcome
            });
        let seconds = started.elapsed().as_secs_f64();
        match &outcome {
            Ok(()) => println!("test {major}/{name} ... ok ({seconds:.1} s)"),
            Err(error) => {
                println!("test {major}/{name} ... FAILED ({seconds:.1} s)\n     {error:#}");
            }
        }
        outcome.is_ok()
    }
}
