//! The copies of one session: which wait, and the one that is at work. A copy that failed for a reason
//! that may pass is tried again; with the session all of them end, and the manifest names them to the
//! next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{ErrorKind, Lsn, TableName, TableSchema};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::copy::{self, Copied, CopyContext, CopyOrder};
use crate::Error;
use crate::commit::CommitState;
use crate::quarantine::explain;

/// Events that wait for the ingest loop.
const EVENTS_MAX: usize = 4;
/// Delay before a copy is tried again; doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Longest delay between two tries.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// Tries of a copy whose table changed meanwhile.
const CHANGED_TRIES_MAX: u32 = 10;

/// What a copy tells the ingest loop.
pub(crate) enum CopyEvent {
    /// The schema is known: changes are to be deferred from now on.
    Planned(Planned),
    /// The position of the copy is known.
    Begun(Lsn),
}

/// A table whose changes are to be deferred.
pub(crate) struct Planned {
    pub(crate) oid: u32,
    pub(crate) schema: Arc<TableSchema>,
    /// Says that they are, and how far the stream had been received by then.
    pub(crate) go: oneshot::Sender<Lsn>,
}

/// What the ingest loop hears.
pub(crate) enum CopyNews {
    /// Of the copy at work.
    Event(CopyEvent),
    /// It is in the Iceberg tables.
    Copied(Box<Copied>),
    /// It did not come to its end.
    Failed(Error),
    /// A copy that waited may be tried again.
    Due,
}

/// The copies of one session.
pub(crate) struct Copies {
    /// `None` where there is no source to copy from.
    context: Option<Arc<CopyContext>>,
    waiting: VecDeque<Waiting>,
    running: Option<Running>,
    /// Tells events of the copy at work from those of one that was ended.
    number: u64,
    events_in: mpsc::Sender<(u64, CopyEvent)>,
    events: mpsc::Receiver<(u64, CopyEvent)>,
}

/// From a copy to the ingest loop.
pub(super) struct Line {
    number: u64,
    events: mpsc::Sender<(u64, CopyEvent)>,
}

impl Line {
    /// Tells something. A session that is over does not want to know.
    pub(super) async fn tell(&self, event: CopyEvent) {
        let _ = self.events.send((self.number, event)).await;
    }
}

struct Waiting {
    table: TableName,
    tries: Tries,
    not_before: Instant,
}

/// Tries that failed.
#[derive(Clone, Copy, Default)]
struct Tries {
    /// Since the table changed.
    changed: u32,
    /// For whatever reason.
    all: u32,
}

struct Running {
    table: TableName,
    tries: Tries,
    /// None once its end was told.
    job: Option<JoinHandle<Result<Copied, Error>>>,
}

impl Copies {
    pub(crate) fn new(context: Option<CopyContext>) -> Copies {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        Copies {
            context: context.map(Arc::new),
            waiting: VecDeque::new(),
            running: None,
            number: 0,
            events_in,
            events,
        }
    }

    /// Has a table copied, once those before it are.
    pub(crate) fn want(&mut self, table: TableName) {
        if !self.waiting.iter().any(|waiting| waiting.table == table) {
            self.waiting.push_back(Waiting {
                table,
                tries: Tries::default(),
                not_before: Instant::now(),
            });
        }
    }

    /// Starts the next copy if none is at work. Its table is not written, the manifest says so; one that
    /// `is_busy` waits.
    pub(crate) fn start_next(
        &mut self,
        state: &CommitState,
        is_busy: impl Fn(&TableName) -> bool,
    ) -> Result<(), Error> {
        let Some(context) = self.context.as_ref().filter(|_| self.running.is_none()) else {
            return Ok(());
        };
        let now = Instant::now();
        let is_next = |waiting: &Waiting| waiting.not_before <= now && !is_busy(&waiting.table);
        let Some(at) = self.waiting.iter().position(is_next) else { return Ok(()) };
        let Some(Waiting { table, tries, .. }) = self.waiting.remove(at) else { return Ok(()) };
        let order = CopyOrder::of(&table, &state.manifest.value)?;
        self.number += 1;
        let line = Line { number: self.number, events: self.events_in.clone() };
        let context = Arc::clone(context);
        tracing::info!(%table, tries = tries.all, "table copy started");
        let job = tokio::spawn(async move { copy::run(&context, order, &line).await });
        self.running = Some(Running { table, tries, job: Some(job) });
        Ok(())
    }

    /// The table that is being copied.
    pub(crate) fn at_work(&self) -> Option<&TableName> {
        self.running.as_ref().map(|running| &running.table)
    }

    /// The copy at work is taken over, or has ended; gives its table.
    pub(crate) fn ended(&mut self) -> Option<TableName> {
        self.running.take().map(|running| running.table)
    }

    /// The copy at work failed: it is tried again, or the reason comes back for which it is not.
    pub(crate) fn failed(&mut self, error: Error) -> Option<(TableName, String)> {
        let Running { table, mut tries, .. } = self.running.take()?;
        if !is_tried_again(&error, tries) {
            let (reason, hint) = explain(&table, &error);
            let runbook = "table-quarantined";
            tracing::error!(%table, reason, hint, runbook, "table copy failed");
            return Some((table, reason));
        }
        let text = cdc_core::chain(&error);
        let delay = RETRY_DELAY.saturating_mul(1 << tries.all.min(16)).min(RETRY_DELAY_MAX);
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let failed = tries.all;
        tracing::warn!(%table, tries = failed, delay_ms, error = text, "table copy failed, tried again");
        let not_before = Instant::now() + delay;
        tries.all = failed.saturating_add(1);
        if matches!(error, Error::SchemaChanged { .. }) {
            tries.changed += 1;
        }
        self.waiting.push_back(Waiting { table, tries, not_before });
        None
    }

    /// Ends the copy at work for a reason of ours, which is judged as its own would be.
    pub(crate) async fn give_up(&mut self, error: Error) -> Option<(TableName, String)> {
        if let Some(running) = &mut self.running {
            self.number += 1;
            running.abort().await;
        }
        self.failed(error)
    }

    /// Ends the copy of a table, wherever it is.
    pub(crate) async fn cancel(&mut self, table: &TableName) {
        self.waiting.retain(|waiting| waiting.table != *table);
        if self.at_work() == Some(table) {
            self.settle().await;
        }
    }

    /// Ends the copy at work and waits for that.
    pub(crate) async fn settle(&mut self) {
        if let Some(mut running) = self.running.take() {
            self.number += 1;
            running.abort().await;
        }
    }

    /// The next news. Cancel safe.
    pub(crate) async fn next_news(&mut self) -> CopyNews {
        let next = self.waiting.iter().map(|waiting| waiting.not_before).min();
        let due = next.filter(|due| self.running.is_none() && *due > Instant::now());
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(due);
        let running = &mut self.running;
        loop {
            tokio::select! {
                biased;
                event = self.events.recv() => match event {
                    Some((number, event)) if number == self.number => {
                        return CopyNews::Event(event);
                    }
                    Some(_) => {}
                    // a sender of ours lives as long as we do
                    None => std::future::pending().await,
                },
                // behind the events, all of which it had told before
                ended = ended(running) => return match ended {
                    Ok(copied) => CopyNews::Copied(Box::new(copied)),
                    Err(error) => CopyNews::Failed(error),
                },
                () = &mut due => return CopyNews::Due,
            }
        }
    }
}

impl Running {
    /// Ends the copy, unless it has ended by itself.
    async fn abort(&mut self) {
        if let Some(job) = self.job.take() {
            job.abort();
            // how it ended is of no interest
            let _ = job.await;
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if let Some(job) = self.running.as_ref().and_then(|running| running.job.as_ref()) {
            job.abort();
        }
    }
}

/// The end of the copy at work, once. Cancel safe.
async fn ended(running: &mut Option<Running>) -> Result<Copied, Error> {
    let Some(place) = running.as_mut().map(|running| &mut running.job) else {
        return std::future::pending().await;
    };
    let Some(job) = place else { return std::future::pending().await };
    let ended = job.await;
    *place = None;
    ended.map_err(|source| Error::Worker { task: "table copy", source })?
}

/// Whether another try may do better.
fn is_tried_again(error: &Error, tries: Tries) -> bool {
    match error {
        Error::SchemaChanged { .. } => tries.changed < CHANGED_TRIES_MAX,
        _ => error.is_retried() || error.kind() == ErrorKind::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        TableName::new("public", "t")
    }

    #[test]
    fn a_copy_is_tried_again_where_that_may_do_better() {
        let changed = || Error::SchemaChanged { table: table(), detail: "why".into() };
        let often = |changed| Tries { changed, all: 1000 };
        assert!(is_tried_again(&changed(), often(CHANGED_TRIES_MAX - 1)));
        assert!(!is_tried_again(&changed(), often(CHANGED_TRIES_MAX)));
        let passing = [
            Error::StreamEnded,
            Error::TableMoved { table: table() },
            Error::OutcomeUnknown { table: table() },
        ];
        assert!(passing.iter().all(|error| is_tried_again(error, often(0))));
        let refused = Error::TableRefused {
            table: table(),
            reason: "no replica identity".into(),
            hint: "add a primary key".into(),
        };
        let full = Error::DeferredFull { table: table(), bytes_max: 7 };
        let first = Tries::default();
        assert!(!is_tried_again(&refused, first) && !is_tried_again(&full, first));
        assert_eq!(explain(&table(), &refused).0, "no replica identity");
    }

    #[tokio::test]
    async fn a_table_waits_once_and_not_after_it_is_cancelled() {
        let mut copies = Copies::new(None);
        copies.want(table());
        copies.want(table());
        assert_eq!((copies.waiting.len(), copies.at_work()), (1, None));
        copies.cancel(&table()).await;
        assert!(copies.waiting.is_empty());
    }
}
