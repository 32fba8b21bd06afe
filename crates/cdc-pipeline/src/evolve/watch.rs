//! The regular look at the catalog: finds what no Relation message tells, because no row of the table
//! comes behind the change, or because the message does not have it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{Lsn, TableName, TableSchema};
use cdc_wal::TableShape;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::{Evolution, SchemaCatalog, TableAt};
use crate::Error;
use crate::meters::Meters;
use crate::settings::TypeSettings;

/// Findings between the task and the ingest loop.
const FOUND_WAITING_MAX: usize = 64;
/// How often the age of the last look is shown.
const TICK: Duration = Duration::from_secs(5);

/// A table as the ingest loop has it.
#[derive(Clone, Debug)]
pub(crate) struct KnownTable {
    pub(crate) oid: u32,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) filenode: Option<u64>,
}

/// All tables that are written.
pub(crate) type Known = BTreeMap<TableName, KnownTable>;

/// A table that is not as known: what it is exactly at a position.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) table: TableName,
    pub(crate) shape: TableShape,
    pub(crate) at: Lsn,
    pub(crate) publishes_generated: bool,
}

/// The ingest loop's ends.
pub(crate) struct WatchEnds {
    pub(crate) known: watch::Sender<Known>,
    pub(crate) found: mpsc::Receiver<Found>,
    /// Has the task look at once.
    pub(crate) look: Arc<Notify>,
}

/// The task.
pub(crate) struct SchemaWatch {
    catalog: Box<dyn SchemaCatalog>,
    types: TypeSettings,
    interval: Duration,
    known: watch::Receiver<Known>,
    found: mpsc::Sender<Found>,
    look: Arc<Notify>,
    meters: Meters,
}

impl SchemaWatch {
    /// A task that looks at once and then every `interval`.
    pub(crate) fn new(
        catalog: Box<dyn SchemaCatalog>,
        types: TypeSettings,
        interval: Duration,
        meters: Meters,
    ) -> (SchemaWatch, WatchEnds) {
        let (known, known_here) = watch::channel(Known::new());
        let (found_here, found) = mpsc::channel(FOUND_WAITING_MAX);
        let look = Arc::new(Notify::new());
        let ends = WatchEnds { known, found, look: Arc::clone(&look) };
        let task = SchemaWatch {
            catalog,
            types,
            interval,
            known: known_here,
            found: found_here,
            look,
            meters,
        };
        (task, ends)
    }

    /// Looks until the ingest loop is gone. What fails is tried again at the next look: the stream
    /// does not depend on it.
    pub(crate) async fn run(mut self) {
        let mut last = Instant::now();
        let mut next = last;
        loop {
            tokio::select! {
                biased;
                () = self.found.closed() => return,
                () = self.look.notified() => next = Instant::now(),
                () = tokio::time::sleep_until(next.min(Instant::now() + TICK)) => {}
            }
            self.meters.reconcile_staleness.set(last.elapsed().as_secs_f64());
            if Instant::now() < next {
                continue;
            }
            match self.look().await {
                Ok(()) => last = Instant::now(),
                Err(error) => {
                    tracing::warn!(error = cdc_core::chain(&error), "schemas not compared");
                }
            }
            self.meters.reconcile_staleness.set(last.elapsed().as_secs_f64());
            next = Instant::now() + self.interval;
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let known = self.known.borrow_and_update().clone();
        let oids: Vec<u32> = known.values().map(|table| table.oid).collect();
        if oids.is_empty() {
            return Ok(());
        }
        let publishes_generated = self.catalog.publishes_generated().await?;
        let shapes = self.catalog.shapes(&oids).await?;
        for (table, known) in &known {
            let Some(shape) = shapes.iter().find(|shape| shape.table.oid == known.oid) else {
                tracing::debug!(%table, "table is gone on the source");
                continue;
            };
            let evolution = Evolution { types: &self.types, publishes_generated };
            if !differs(&evolution, known, shape) {
                continue;
            }
            match self.catalog.shape_at(known.oid).await {
                Ok(Some((shape, at))) => {
                    let found = Found { table: table.clone(), shape, at, publishes_generated };
                    if self.found.send(found).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(None) => {}
                // somebody is changing it right now
                Err(error) => {
                    let error = cdc_core::chain(&error);
                    tracing::debug!(%table, error, "table not looked at");
                }
            }
        }
        Ok(())
    }
}

/// Whether the catalog has anything about a table that is not known.
fn differs(evolution: &Evolution<'_>, known: &KnownTable, shape: &TableShape) -> bool {
    let schema = evolution.schema(&known.schema, &TableAt::exactly(shape), None);
    shape.table.name != known.schema.table
        || known.filenode != Some(shape.filenode)
        || !matches!(schema, Ok(None))
}
