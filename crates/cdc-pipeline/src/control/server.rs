//! The daemon's end: takes requests from the table and hands them to the ingest loop, one at a time. The
//! answer to an order about a table comes with a flush; others are not kept waiting by it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blocking;
use super::request::Command;
use super::store::{ControlStore, Taken};
use crate::Error;

/// Requests between the server and the ingest loop.
pub(crate) const ASKS_WAITING_MAX: usize = 1;
/// How often the table is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The same while intake is held: the next request is about to come, and the stream waits for it.
const POLL_INTERVAL_HELD: Duration = Duration::from_millis(20);
/// Pause after the table could not be read.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Where the answer to a request goes: its `result`, or why it failed.
pub(crate) type Reply = oneshot::Sender<Result<Value, String>>;

/// A request on its way to the ingest loop.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Its number in the table.
    pub(crate) id: i64,
    /// What is asked for.
    pub(crate) command: Command,
    /// Where the answer goes.
    pub(crate) reply: Reply,
}

/// The task that polls.
#[derive(Clone)]
pub(crate) struct ControlServer {
    store: Arc<ControlStore>,
    asks: mpsc::Sender<Ask>,
}

impl ControlServer {
    /// Opens the table and refuses what an earlier daemon left unanswered. Blocks.
    pub(crate) fn open(state_dir: &Path, asks: mpsc::Sender<Ask>) -> Result<ControlServer, Error> {
        let store = ControlStore::open(state_dir)?;
        store.withdraw(None, "the daemon was started anew")?;
        Ok(ControlServer { store: Arc::new(store), asks })
    }

    /// Serves until `stop`. A table that cannot be read is logged and tried again: the stream does
    /// not depend on it.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut held_until = Instant::now();
        loop {
            let is_held = Instant::now() < held_until;
            let interval = if is_held { POLL_INTERVAL_HELD } else { POLL_INTERVAL };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            match self.serve_one(&stop).await {
                Ok(None) => {}
                Ok(Some(held)) => held_until = Instant::now() + held,
                Err(error) => {
                    tracing::warn!(error = cdc_core::chain(&error), "control requests not read");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(RETRY_INTERVAL) => {}
                    }
                }
            }
        }
    }

    /// Serves the next request, if there is one, and says for how long intake is held now.
    async fn serve_one(&self, stop: &CancellationToken) -> Result<Option<Duration>, Error> {
        let store = Arc::clone(&self.store);
        let Some(Taken { id, command }) = blocking(move || store.take()).await? else {
            return Ok(None);
        };
        if let Ok(command @ Command::Table(_)) = command {
            let (this, stop) = (self.clone(), stop.clone());
            tokio::spawn(async move {
                let answer = this.ask(id, command, &stop).await;
                if let Err(error) = this.answer(id, answer).await {
                    let error = cdc_core::chain(&error);
                    tracing::warn!(error, "control request not answered");
                }
            });
            return Ok(None);
        }
        let held = match &command {
            Ok(Command::Hold { max_millis }) => Duration::from_millis(*max_millis),
            _ => Duration::ZERO,
        };
        let answer = match command {
            Ok(command) => self.ask(id, command, stop).await,
            Err(reason) => Err(format!("the daemon does not know the {reason}")),
        };
        let held = if answer.is_ok() { held } else { Duration::ZERO };
        self.answer(id, answer).await?;
        Ok(Some(held))
    }

    async fn answer(&self, id: i64, answer: Result<Value, String>) -> Result<(), Error> {
        let store = Arc::clone(&self.store);
        blocking(move || store.answer(id, &answer)).await
    }

    async fn ask(
        &self,
        id: i64,
        command: Command,
        stop: &CancellationToken,
    ) -> Result<Value, String> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let gone = || "the session with the source ended before it could answer".to_owned();
            self.asks.send(Ask { id, command, reply }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        tokio::select! {
            answer = asked => answer,
            () = stop.cancelled() => Err("the daemon stops".to_owned()),
        }
    }
}
