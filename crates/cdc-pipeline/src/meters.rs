//! What the write plane counts about itself: the metrics of the daemon, by their names on
//! `/metrics`. Kept per flush or per state, never per change, so that they cost the stream nothing.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use cdc_core::TableName;
use cdc_manifest::{Manifest, TableState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};
use siphasher::sip::SipHasher24;

use crate::Error;

/// The states of a table that is followed, as `manifest.json` spells them.
const STATES: [(TableState, &str); 5] = [
    (TableState::Streaming, "streaming"),
    (TableState::Snapshotting, "snapshotting"),
    (TableState::Resyncing, "resyncing"),
    (TableState::Paused, "paused"),
    (TableState::Quarantined, "quarantined"),
];

/// How tables appear in labels (`metrics.table_labels`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableLabels {
    /// By name.
    #[default]
    Full,
    /// By a hash of the name, the same in every process.
    Hashed,
    /// Not at all: metrics by table stay empty.
    Off,
}

/// The label of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfTable {
    table: String,
}

/// The labels of a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfColumn {
    table: String,
    column: String,
}

/// The labels of a change of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    table: String,
    kind: &'static str,
}

/// The labels of a table's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfState {
    table: String,
    state: &'static str,
}

/// Why a session ended that another one follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// How a flush ended: `committed` or `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    result: &'static str,
}

/// A part of a flush: `encode`, `publish`, `fence`, `commit` or `refs`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Stage {
    stage: &'static str,
}

/// What an unknown outcome turned out to be: `committed` or `not_committed`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Resolved {
    resolved: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;
type Stages = Family<Stage, Histogram, fn() -> Histogram>;

/// The metrics of one process; what each means stands where it is registered. Clones count into the
/// same.
#[derive(Clone, Debug)]
pub struct Meters {
    labels: TableLabels,
    pub(crate) slot_active: Gauge,
    pub(crate) lag_seconds: Seconds,
    pub(crate) lag_bytes: Gauge,
    pub(crate) up_to_lsn: Gauge,
    pub(crate) oldest_xact_age_seconds: Gauge,
    pub(crate) retained_wal_bytes: Gauge,
    pub(crate) guardrail_breach: Gauge,
    pub(crate) heartbeats: Counter,
    pub(crate) reconnects: Family<Reason, Counter>,
    pub(crate) events_per_sec: Seconds,
    pub(crate) replayed_events: Counter,
    pub(crate) buffer_depth: Gauge,
    pub(crate) buffer_bytes: Gauge,
    pub(crate) spool_bytes: Gauge,
    pub(crate) deferred_bytes: Gauge,
    pub(crate) channel_full: Counter,
    pub(crate) channel_blocked_seconds: Counter<f64, AtomicU64>,
    pub(crate) sink_latency: Histogram,
    pub(crate) sink_errors: Counter,
    pub(crate) flushes: Family<Outcome, Counter>,
    pub(crate) flush_duration: Stages,
    pub(crate) flush_workers_used: Gauge,
    pub(crate) commit_to_visible: Histogram,
    pub(crate) commit_unknown: Family<Resolved, Counter>,
    pub(crate) conflicts_resolved: Counter,
    pub(crate) breaker_tripped: Gauge,
    pub(crate) raw_tags_pruned: Counter,
    pub(crate) table_latest_epoch: Family<OfTable, Gauge>,
    pub(crate) table_state: Family<OfState, Gauge>,
    pub(crate) events_flushed: Family<OfTable, Counter>,
    pub(crate) snapshots: Family<OfTable, Gauge>,
    pub(crate) truncates: Family<OfTable, Counter>,
    pub(crate) toast_carried: Family<OfTable, Counter>,
    pub(crate) lossy_values: Family<OfColumn, Counter>,
    pub(crate) foreign_commits: Family<OfTable, Counter>,
    pub(crate) snapshots_expired: Family<OfTable, Counter>,
    pub(crate) small_files: Family<OfTable, Gauge>,
    pub(crate) live_delete_rows: Family<OfTable, Gauge>,
    pub(crate) orphans_removed: Counter,
    pub(crate) compact_duration: Histogram,
    pub(crate) compact_staleness: Seconds,
    pub(crate) schema_reconciles: Family<OfKind, Counter>,
    pub(crate) reconcile_staleness: Seconds,
}

/// Counted and shown nowhere.
impl Default for Meters {
    fn default() -> Self {
        Meters::new(TableLabels::default(), &mut Registry::default())
    }
}

/// 10 ms to 3 hours.
fn run_durations() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 21))
}

/// 1 ms to 65 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

impl Meters {
    /// All at zero, with tables labelled as told, and added to `registry`, whose prefix should be
    /// `pgcdc`.
    pub fn new(labels: TableLabels, registry: &mut Registry) -> Meters {
        let mut add = Adding(registry);
        Meters {
            labels,
            slot_active: add.zero("slot_active", "Whether the slot exists and we are attached"),
            lag_seconds: add.zero("replication_lag_seconds", "WAL tip against what is durable"),
            lag_bytes: add.zero("replication_lag_bytes", "WAL tip against what is durable"),
            up_to_lsn: add.zero("up_to_lsn", "Position up to which the lake has everything"),
            oldest_xact_age_seconds: add.zero(
                "source_oldest_xact_age_seconds",
                "Age of the oldest open client transaction on the source, 0 for none",
            ),
            retained_wal_bytes: add.zero("slot_retained_wal_bytes", "WAL kept by the slot"),
            guardrail_breach: add.zero(
                "slot_guardrail_breach",
                "Whether the slot keeps more WAL than guardrail.max_retained_wal_bytes",
            ),
            heartbeats: add.zero("heartbeat", "Heartbeat messages emitted"),
            reconnects: add.zero("reconnects", "Sessions that ended and were followed by another"),
            events_per_sec: add.zero("events_per_sec", "Changes per second of the last flush"),
            replayed_events: add
                .zero("replayed_events", "Changes received again that their table had already"),
            buffer_depth: add.zero("buffer_depth", "Changes that wait for their flush"),
            buffer_bytes: add.zero("buffer_bytes", "Bytes of the same"),
            spool_bytes: add.zero("spool_bytes", "Bytes of transactions in progress"),
            deferred_bytes: add
                .zero("deferred_bytes", "Bytes of changes that wait for the copy of their table"),
            channel_full: add.zero("event_channel_full", "Times that intake found no room"),
            channel_blocked_seconds: add
                .zero("event_channel_blocked_seconds", "Seconds that intake waited for room"),
            sink_latency: add.metric(
                "sink_latency_seconds",
                "Duration of one storage write",
                durations(),
            ),
            sink_errors: add.zero("sink_errors", "Failed storage writes"),
            flushes: add.zero("flushes", "Flushes by result"),
            flush_duration: add.metric(
                "flush_duration_seconds",
                "Duration of a part of a flush",
                Stages::new_with_constructor(durations),
            ),
            flush_workers_used: add
                .zero("flush_parallel_workers_used", "Tables at work at once in the last flush"),
            commit_to_visible: add.metric(
                "commit_to_visible_seconds",
                "From the commit on the source of a flush's last transaction to its epoch",
                durations(),
            ),
            commit_unknown: add.zero("commit_unknown", "Commits whose outcome had to be read back"),
            conflicts_resolved: add
                .zero("manifest_conflicts_resolved", "Manifest writes that won after a conflict"),
            breaker_tripped: add
                .zero("cas_breaker_tripped", "Whether conflicts over the manifest end this daemon"),
            raw_tags_pruned: add.zero("refs_raw_tags_pruned", "Raw tags removed"),
            table_latest_epoch: add.zero("table_latest_epoch", "Newest epoch of a table"),
            table_state: add.zero("table_state", "1 for the state that a table has"),
            events_flushed: add.zero("events_flushed", "Changes in committed epochs"),
            snapshots: add.zero("iceberg_snapshot_count", "Snapshots of a table"),
            truncates: add.zero("truncates", "Truncations taken over"),
            toast_carried: add
                .zero("toast_carried_columns", "Unchanged values taken from the row before"),
            lossy_values: add.zero("lossy_values", "Values replaced as declared"),
            foreign_commits: add.zero("foreign_commits", "Commits of others found on a table"),
            schema_reconciles: add
                .zero("schema_reconciles", "Changes of a table on the source taken over, by kind"),
            reconcile_staleness: add.zero(
                "reconcile_staleness_seconds",
                "Seconds since the tables were last compared with the catalog",
            ),
            snapshots_expired: add.zero("iceberg_snapshots_expired", "Snapshots forgotten"),
            small_files: add.zero("small_files", "Small data files of a table, as last looked"),
            live_delete_rows: add.zero(
                "live_delete_rows",
                "Deleted rows in the data files of a table, as last looked",
            ),
            orphans_removed: add.zero("orphans_removed", "Objects without a reference removed"),
            compact_duration: add.metric(
                "compact_duration_seconds",
                "Duration of a compaction run",
                run_durations(),
            ),
            compact_staleness: add.zero(
                "compact_staleness_seconds",
                "Time since the last compaction run without a failure",
            ),
        }
    }

    /// The label of a table, if tables are labelled.
    pub(crate) fn of(&self, table: &TableName) -> Option<OfTable> {
        Some(OfTable { table: self.table_label(table)? })
    }

    /// The labels of a column, if tables are labelled.
    pub(crate) fn of_column(&self, table: &TableName, column: &str) -> Option<OfColumn> {
        Some(OfColumn { table: self.table_label(table)?, column: column.to_owned() })
    }

    /// The labels of a change of a table, if tables are labelled.
    pub(crate) fn of_kind(&self, table: &TableName, kind: &'static str) -> Option<OfKind> {
        Some(OfKind { table: self.table_label(table)?, kind })
    }

    /// Shows the state of each table, 1 for the one that it has.
    pub(crate) fn table_states(&self, manifest: &Manifest) {
        for (table, entry) in &manifest.tables {
            let Some(label) = self.table_label(table) else { return };
            let now = if entry.is_active() { entry.state } else { None };
            for (state, word) in STATES {
                let of = OfState { table: label.clone(), state: word };
                self.table_state.get_or_create(&of).set(i64::from(now == Some(state)));
            }
        }
    }

    fn table_label(&self, table: &TableName) -> Option<String> {
        match self.labels {
            TableLabels::Full => Some(table.to_string()),
            TableLabels::Hashed => {
                let hash = SipHasher24::new().hash(table.to_string().as_bytes());
                Some(format!("{hash:016x}"))
            }
            TableLabels::Off => None,
        }
    }

    /// Notes how long a part of a flush took.
    pub(crate) fn stage(&self, stage: &'static str, took: Duration) {
        self.flush_duration.get_or_create(&Stage { stage }).observe(took.as_secs_f64());
    }

    /// Counts the end of a flush.
    pub(crate) fn flushed(&self, is_committed: bool) {
        let result = if is_committed { "committed" } else { "failed" };
        self.flushes.get_or_create(&Outcome { result }).inc();
    }

    /// Counts an unknown outcome that was read back.
    pub(crate) fn resolved(&self, is_committed: bool) {
        let resolved = if is_committed { "committed" } else { "not_committed" };
        self.commit_unknown.get_or_create(&Resolved { resolved }).inc();
    }

    /// Counts a commit of somebody else that was found on a table.
    pub(crate) fn foreign_commit(&self, table: &TableName) {
        if let Some(label) = self.of(table) {
            self.foreign_commits.get_or_create(&label).inc();
        }
    }

    /// Counts a session that ended by this error.
    pub(crate) fn reconnects_after(&self, error: &Error) {
        let reason = match error {
            Error::StreamEnded => "stream_ended",
            Error::Source(_) => "source",
            _ => "lake",
        };
        self.reconnects.get_or_create(&Reason { reason }).inc();
    }
}

struct Adding<'r>(&'r mut Registry);

impl Adding<'_> {
    fn zero<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.metric(name, help, M::default())
    }

    fn metric<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

/// A count as a gauge shows it.
pub(crate) fn level(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// Times the parts of something, one after the other.
pub(crate) struct StopWatch(Instant);

impl StopWatch {
    pub(crate) fn start() -> StopWatch {
        StopWatch(Instant::now())
    }

    /// The time since the start or the last lap.
    pub(crate) fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(std::mem::replace(&mut self.0, now))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::expect_file;
    use prometheus_client::encoding::prometheus_text;

    use super::*;

    fn table() -> TableName {
        TableName::new("public", "items")
    }

    fn text_of(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_text::encode(&mut text, registry).unwrap();
        text
    }

    /// Gives every family a member, so that it is shown.
    fn touched() -> Registry {
        let mut registry = Registry::with_prefix("pgcdc");
        let meters = Meters::new(TableLabels::Full, &mut registry);
        let label = meters.of(&table()).unwrap();
        for family in [
            &meters.table_latest_epoch,
            &meters.snapshots,
            &meters.small_files,
            &meters.live_delete_rows,
        ] {
            drop(family.get_or_create(&label));
        }
        for family in [
            &meters.events_flushed,
            &meters.truncates,
            &meters.toast_carried,
            &meters.foreign_commits,
            &meters.snapshots_expired,
        ] {
            drop(family.get_or_create(&label));
        }
        let state = OfState { table: table().to_string(), state: "streaming" };
        drop(meters.table_state.get_or_create(&state));
        drop(meters.lossy_values.get_or_create(&meters.of_column(&table(), "c").unwrap()));
        drop(meters.schema_reconciles.get_or_create(&meters.of_kind(&table(), "add").unwrap()));
        meters.flushed(true);
        meters.resolved(true);
        meters.stage("refs", Duration::from_millis(1));
        meters.reconnects_after(&Error::StreamEnded);
        registry
    }

    /// A line of the documentation for each metric, by its `HELP`, `TYPE` and labels.
    fn lines(text: &str) -> String {
        let mut out = String::from(
            "# Metrics\n\nWhat `GET /metrics` on `metrics.listen_addr` shows of the daemon, beside `pgcdc_build_info{version,git_sha}`.\n\n| name | type | labels | meaning |\n|---|---|---|---|\n",
        );
        let mut help = "";
        for line in text.lines() {
            if let Some(found) = line.strip_prefix("# HELP ") {
                help = found.split_once(' ').map_or("", |(_, help)| help).trim_end_matches('.');
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                let samples = [format!("{name}{{"), format!("{name}_count{{")];
                let sample = text.lines().find(|l| samples.iter().any(|s| l.starts_with(s)));
                let inside = sample.and_then(|l| l.split_once('{')?.1.split_once('}'));
                let labels: Vec<&str> = inside
                    .map_or("", |(labels, _)| labels)
                    .split(',')
                    .filter_map(|label| Some(label.split_once('=')?.0))
                    .collect();
                writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
            }
        }
        out
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        let shown = lines(&text_of(&touched()));
        expect_file!["../../../docs/reference/metrics.md"].assert_eq(&shown);
    }

    #[test]
    fn tables_are_labelled_as_told() {
        let label =
            |labels| Meters::new(labels, &mut Registry::default()).of(&table()).map(|of| of.table);
        assert_eq!(label(TableLabels::Full).as_deref(), Some("public.items"));
        assert_eq!(label(TableLabels::Hashed).map(|hash| hash.len()), Some(16));
        assert_eq!(label(TableLabels::Hashed), label(TableLabels::Hashed));
        assert_eq!(label(TableLabels::Off), None);
    }
}
