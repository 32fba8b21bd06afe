//! The progress of a copy or a comparison on stderr: bars for a person, lines for a log.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cdc_core::TableName;
use cdc_pipeline::{InitProgress, VerifyProgress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Progress on stderr.
pub(crate) enum CopyProgress {
    /// One bar per table at work.
    Bars(Bars),
    /// One line per table that is done.
    Lines,
}

/// Bars of the tables, each shown from its first rows on.
pub(crate) struct Bars {
    all: MultiProgress,
    by_table: Mutex<BTreeMap<TableName, Bar>>,
}

struct Bar {
    estimate: Option<u64>,
    bar: Option<ProgressBar>,
}

impl CopyProgress {
    /// Bars if stderr is a terminal.
    pub(crate) fn new() -> Self {
        if std::io::stderr().is_terminal() {
            let by_table = Mutex::new(BTreeMap::new());
            CopyProgress::Bars(Bars { all: MultiProgress::new(), by_table })
        } else {
            CopyProgress::Lines
        }
    }
}

impl Bars {
    fn tables(&self) -> MutexGuard<'_, BTreeMap<TableName, Bar>> {
        // bars are only looked at; a panic elsewhere cannot make them wrong
        self.by_table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, table: &TableName, estimate: Option<u64>) -> ProgressBar {
        let bar = match estimate {
            Some(rows) => ProgressBar::new(rows),
            None => ProgressBar::no_length(),
        };
        let template = match estimate {
            Some(_) => "{prefix} {bar:20} {human_pos}/~{human_len} rows {per_sec}",
            None => "{prefix} {spinner} {human_pos} rows {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(table.to_string());
        self.all.add(bar)
    }
}

impl InitProgress for CopyProgress {
    fn planned(&self, tables: &[(TableName, i64)]) {
        let CopyProgress::Bars(bars) = self else { return };
        let mut by_table = bars.tables();
        for (table, estimate) in tables {
            let estimate = u64::try_from(*estimate).ok().filter(|rows| *rows > 0);
            by_table.insert(table.clone(), Bar { estimate, bar: None });
        }
    }

    fn rows(&self, table: &TableName, rows: u64) {
        let CopyProgress::Bars(bars) = self else { return };
        if let Some(entry) = bars.tables().get_mut(table) {
            let estimate = entry.estimate;
            entry.bar.get_or_insert_with(|| bars.show(table, estimate)).inc(rows);
        }
    }

    fn done(&self, table: &TableName, rows: u64) {
        match self {
            CopyProgress::Lines => tracing::info!(%table, rows, "table copied"),
            CopyProgress::Bars(bars) => {
                if let Some(bar) = bars.tables().remove(table).and_then(|entry| entry.bar) {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

impl VerifyProgress for CopyProgress {
    fn planned(&self, tables: &[(TableName, i64)]) {
        InitProgress::planned(self, tables);
    }

    fn rows(&self, table: &TableName, rows: u64) {
        InitProgress::rows(self, table, rows);
    }

    fn done(&self, table: &TableName, rows: u64) {
        match self {
            CopyProgress::Lines => tracing::info!(%table, rows, "table compared"),
            CopyProgress::Bars(_) => InitProgress::done(self, table, rows),
        }
    }
}
