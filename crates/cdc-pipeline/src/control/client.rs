//! The other end: sends a request and waits for its answer, as long as there is a daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::blocking;
use super::request::Command;
use super::store::ControlStore;
use crate::Error;
use crate::lease::Lease;

/// How often the answer is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How often it is looked whether the daemon still lives.
const LIFE_INTERVAL: Duration = Duration::from_secs(1);

/// A way to the daemon that holds the lease of a state directory.
pub(crate) struct ControlClient {
    store: Arc<ControlStore>,
    state_dir: PathBuf,
}

/// The answer to a request, with the number that the request had.
pub(crate) struct Answered<T> {
    pub(crate) id: i64,
    pub(crate) value: T,
}

impl ControlClient {
    /// Opens the table. Blocks.
    pub(crate) fn open(state_dir: &Path) -> Result<ControlClient, Error> {
        let store = Arc::new(ControlStore::open(state_dir)?);
        Ok(ControlClient { store, state_dir: state_dir.to_owned() })
    }

    /// Asks and waits for the answer at most for `patience`. A request that nobody has answered by
    /// then is withdrawn, so that it does not surprise the daemon later.
    ///
    /// # Errors
    /// [`Error::Refused`] with the daemon's reason, [`Error::NoAnswer`].
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        command: Command,
        patience: Duration,
    ) -> Result<Answered<T>, Error> {
        let store = Arc::clone(&self.store);
        let id = blocking(move || store.submit(&command, Utc::now())).await?;
        let deadline = Instant::now() + patience;
        let mut next_look = Instant::now() + LIFE_INTERVAL;
        loop {
            let store = Arc::clone(&self.store);
            match blocking(move || store.answered(id)).await? {
                Some(Ok(value)) => {
                    let value = serde_json::from_value(value)
                        .map_err(|source| Error::Request { source })?;
                    return Ok(Answered { id, value });
                }
                Some(Err(reason)) => return Err(Error::Refused { reason }),
                None => {}
            }
            let mut is_over = Instant::now() >= deadline;
            if Instant::now() >= next_look {
                next_look += LIFE_INTERVAL;
                is_over |= !Lease::is_held(&self.state_dir);
            }
            if is_over {
                let store = Arc::clone(&self.store);
                blocking(move || store.withdraw(Some(id), "nobody waits any more")).await?;
                return Err(Error::NoAnswer);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
