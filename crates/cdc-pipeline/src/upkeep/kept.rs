//! Which snapshots a table keeps when it is committed to: the newest, and what live refs name.

use std::time::Duration;

use cdc_core::TableName;
use cdc_iceberg::Retention;
use cdc_manifest::{Manifest, Pins};
use tokio::time::Instant;

use crate::lake::Lake;

/// How long what the refs name is taken as known. Our own refs are noted as they are made; what
/// others do in between only pins what was pinned already.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The snapshots to keep, as far as known.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// `catalog.snapshot_retain_count`.
    count: usize,
    pins: Pins,
    /// When the refs were read; without it nothing is forgotten.
    refreshed: Option<Instant>,
}

impl Kept {
    /// Keeps the `count` newest; nothing is known of the refs yet.
    pub(crate) fn newest(count: usize) -> Kept {
        Kept { count, ..Kept::default() }
    }

    /// Reads what the refs name, if it was not read lately. While that fails, no snapshot goes.
    pub(crate) async fn refresh(&mut self, lake: &Lake) {
        if self.refreshed.is_some_and(|at| at.elapsed() < REFRESH_INTERVAL) {
            return;
        }
        match lake.refs.refresh_pins(&mut self.pins).await {
            Ok(()) => self.refreshed = Some(Instant::now()),
            Err(error) => {
                self.refreshed = None;
                tracing::warn!(
                    error = cdc_core::chain(&error),
                    "refs not read, no snapshot expires"
                );
            }
        }
    }

    /// Notes the cut that is in the manifest now: a ref may name it.
    pub(crate) fn note(&mut self, manifest: &Manifest) {
        self.pins.note(manifest);
    }

    /// What the current state of a table keeps besides its newest snapshots; `None` to keep all.
    pub(crate) fn of_current(&self, table: &TableName, manifest: &Manifest) -> Option<Retention> {
        self.refreshed?;
        let mut pinned = self.pins.current(table);
        pinned.extend(manifest.tables.get(table).and_then(|entry| entry.snapshot_id));
        Some(Retention { keep: self.count, pinned })
    }

    /// The same of its changelog.
    pub(crate) fn of_changes(&self, table: &TableName, manifest: &Manifest) -> Option<Retention> {
        self.refreshed?;
        let mut pinned = self.pins.changes(table);
        pinned.extend(manifest.tables.get(table).and_then(|entry| entry.changes_snapshot_id));
        Some(Retention { keep: self.count, pinned })
    }
}
