//! A PostgreSQL wire proxy between the daemon and its server: it watches what is confirmed, and it
//! can be a bad network.
//!
//! Every standby status update that the daemon sends is held up until manifest.json has been read
//! from the lake; one that confirms more than the manifest covers is a violation of invariant I1.

mod frames;
mod link;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::{Lsn, Storage, lsn_at};
use crate::pg::Cluster;
use frames::Status;
use link::{Doom, Link};

/// Connections at once; a daemon has a handful.
const LINKS_MAX: usize = 64;
/// Violations that are kept word for word.
const VIOLATIONS_MAX: usize = 20;

/// A running proxy on loopback; it ends with the value.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accept: Option<JoinHandle<()>>,
}

/// What the threads of a proxy share.
struct Shared {
    upstream: u16,
    lake: Storage,
    delay: Mutex<Duration>,
    links: Mutex<Vec<Link>>,
    seen: Mutex<Seen>,
    is_over: AtomicBool,
}

/// What passed so far.
#[derive(Debug, Default)]
struct Seen {
    statuses: u64,
    flushed: Lsn,
    violations: Vec<String>,
    /// When the daemon asked for a replication session.
    streams: Vec<Instant>,
}

impl Proxy {
    /// A proxy before `cluster` that holds what is confirmed against the manifest of a lake.
    pub(crate) fn start(cluster: &Cluster, lake: &Storage) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::new(cluster.port(), lake.clone()));
        let accepting = Arc::clone(&shared);
        let accept = std::thread::Builder::new()
            .name("pg-proxy".into())
            .spawn(move || accepting.accept(&listener))?;
        Ok(Self { port, shared, accept: Some(accept) })
    }

    /// The URL of `database` for the superuser, by way of the proxy.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// From now on each piece of a stream arrives this much later.
    pub(crate) fn set_delay(&self, delay: Duration) {
        *lock(&self.shared.delay) = delay;
    }

    /// Closes every open connection in order; both sides see its end.
    pub(crate) fn cut(&self) {
        self.doom(Doom::Cut);
    }

    /// Breaks every open connection with a reset.
    pub(crate) fn reset(&self) {
        self.doom(Doom::Reset);
    }

    /// Lets nothing pass through the open connections any more and tells nobody: to both sides they
    /// are half-open. New ones work.
    pub(crate) fn silence(&self) {
        self.doom(Doom::Silence);
    }

    fn doom(&self, doom: Doom) {
        for link in lock(&self.shared.links).iter() {
            link.doom(doom);
        }
    }

    /// The highest position that was confirmed as flushed.
    pub(crate) fn flushed(&self) -> Lsn {
        lock(&self.shared.seen).flushed
    }

    /// When each replication session was asked for.
    pub(crate) fn streams(&self) -> Vec<Instant> {
        lock(&self.shared.seen).streams.clone()
    }

    /// How many status updates were held against the manifest; an error if one confirmed too much.
    pub(crate) fn verdict(&self) -> Result<u64> {
        let seen = lock(&self.shared.seen);
        if !seen.violations.is_empty() {
            bail!("I1 is broken:\n  {}", seen.violations.join("\n  "));
        }
        Ok(seen.statuses)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.cut();
        // accept() wakes up for this connection and sees that it is over
        let _ = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(accept) = self.accept.take() {
            let _ = accept.join();
        }
    }
}

impl Shared {
    fn new(upstream: u16, lake: Storage) -> Self {
        Self {
            upstream,
            lake,
            delay: Mutex::default(),
            links: Mutex::default(),
            seen: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let Ok(client) = client else { continue };
            let mut links = lock(&self.links);
            links.retain(Link::is_open);
            if links.len() >= LINKS_MAX {
                // dropped: the daemon is refused, as by a server without a free session
                continue;
            }
            if let Ok(link) = Link::open(client, Arc::clone(self)) {
                links.push(link);
            }
        }
    }

    fn delay(&self) -> Duration {
        *lock(&self.delay)
    }

    /// Takes note of a session's first message.
    fn see_start(&self, is_replication: bool) {
        if is_replication {
            lock(&self.seen).streams.push(Instant::now());
        }
    }

    /// Holds a status update against the manifest as it stands at this moment.
    fn see_status(&self, status: Status) {
        let covered = self.covered();
        let mut seen = lock(&self.seen);
        seen.statuses += 1;
        seen.flushed = seen.flushed.max(status.flushed);
        let broken = match &covered {
            Ok(covered) if status.flushed <= *covered => return,
            Ok(covered) => format!(
                "status {} confirms {:X}, manifest.json covers {covered:X}",
                seen.statuses, status.flushed
            ),
            Err(error) => format!("status {}: {error:#}", seen.statuses),
        };
        if seen.violations.len() < VIOLATIONS_MAX {
            seen.violations.push(broken);
        }
    }

    fn covered(&self) -> Result<Lsn> {
        let manifest = self.lake.read("manifest.json")?.context("there is no manifest.json")?;
        let manifest: Value = serde_json::from_slice(&manifest)?;
        lsn_at(&manifest, "covered_lsn")
    }
}

/// A value behind a lock; that another thread panicked does not make it wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_beyond_the_manifest_is_a_violation() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let shared = Arc::new(Shared::new(0, Storage::Directory(dir.path().to_owned())));
        let proxy = Proxy { port: 0, shared: Arc::clone(&shared), accept: None };
        std::fs::write(dir.path().join("manifest.json"), r#"{"covered_lsn": "0/10"}"#)?;
        shared.see_status(Status { flushed: 0x10 });
        assert_eq!(proxy.verdict()?, 1);
        shared.see_status(Status { flushed: 0x11 });
        assert!(proxy.verdict().is_err());
        Ok(())
    }

    #[test]
    fn a_status_without_a_manifest_is_a_violation() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let shared = Shared::new(0, Storage::Directory(dir.path().to_owned()));
        shared.see_status(Status { flushed: 1 });
        assert_eq!(lock(&shared.seen).violations.len(), 1);
        Ok(())
    }
}
