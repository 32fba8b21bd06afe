//! `reconcile`: the schemas of the lake against the source's catalog, as a plan or applied.
//!
//! ```text
//! plan:   catalog now, manifest now ─> steps by table
//! force:  a daemon runs ─> it is asked to look now, and awaited
//!         none          ─> exact look at L; nothing of ours may be left in the log below L ─> commit
//! ```
//! A schema is right for one place in the stream, so nobody but whoever stands there may apply it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{Epoch, Lsn, SchemaStep, TableName, TableSchema};
use cdc_manifest::{Manifest, TableEntry, TableState};
use cdc_wal::{Source, TableShape};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Error;
use crate::commit::{BatchName, CommitState, EpochContent};
use crate::compact::{CompactionSettings, Workshop};
use crate::control::{Command, ControlClient};
use crate::evolve::{Evolution, OlderRows, SchemaCatalog, SourceCatalog, TableAt};
use crate::fence::{Breaker, BreakerSettings, Fence};
use crate::fill::{Filling, fill};
use crate::lake::Lake;
use crate::lease::Lease;
use crate::recover::{committed_state, complete_fills, furthest_beyond};
use crate::settings::{LakeSettings, RefSettings, ReplicationSettings};
use crate::verify::expect_nothing_pending;

/// How often the manifest is looked at while a daemon is at work.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// What `reconcile` is told.
#[derive(Clone, Debug)]
pub struct ReconcileSettings {
    /// The lake.
    pub lake: LakeSettings,
    /// What is replicated.
    pub replication: ReplicationSettings,
    /// Refs.
    pub refs: RefSettings,
    /// When conflicts over the manifest are too many.
    pub breaker: BreakerSettings,
    /// How older rows are written anew that get the value of a new column.
    pub compaction: CompactionSettings,
    /// The byte budget, of which that takes a part.
    pub buffer_bytes_max: usize,
    /// Only these tables; all if empty.
    pub tables: Vec<TableName>,
    /// Whether the plan is applied.
    pub force: bool,
    /// Longest time that the applying may take.
    pub patience: Duration,
}

/// What differs, by table.
#[derive(Clone, Debug, Default)]
pub struct ReconcileReport {
    /// All tables looked at.
    pub tables: BTreeMap<TableName, TablePlan>,
}

/// What differs in one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablePlan {
    /// The differences; none is no change.
    pub steps: Vec<SchemaStep>,
    /// The version of the schema before.
    pub from: u32,
    /// And behind the change.
    pub to: u32,
    /// Why the change cannot be followed, or the table is not followed at all.
    pub blocked: Option<String>,
    /// Whether the lake has the change now.
    pub applied: bool,
}

impl ReconcileReport {
    /// Whether something could not be applied.
    pub fn is_blocked(&self) -> bool {
        self.tables.values().any(|table| table.blocked.is_some())
    }
}

/// Compares, and with `force` applies.
///
/// # Errors
/// [`Error::NotInitialised`], [`Error::UnknownTable`], [`Error::BehindSchema`] without a daemon,
/// [`Error::NotReconciled`] if a daemon did not apply it in time; else what source or lake said.
pub async fn reconcile(
    settings: &ReconcileSettings,
    source: &Source,
) -> Result<ReconcileReport, Error> {
    let lake = Lake::open(&settings.lake)?;
    let job = Job { settings, source, lake };
    let mut report = job.plan().await?.report();
    if !settings.force {
        return Ok(report);
    }
    let deadline = Instant::now() + settings.patience;
    loop {
        let plan = job.plan().await?;
        if plan.pending().next().is_none() {
            plan.note_applied(&mut report);
            return Ok(report);
        }
        if Instant::now() >= deadline {
            let seconds = settings.patience.as_secs();
            return Err(Error::NotReconciled { seconds });
        }
        job.apply(plan).await?;
    }
}

struct Job<'a> {
    settings: &'a ReconcileSettings,
    source: &'a Source,
    lake: Lake,
}

/// What is pending, exactly.
struct Exactly {
    content: EpochContent,
    fillings: Vec<Filling>,
    /// The position up to which it holds.
    until: Lsn,
}

/// A plan with what it was made from.
struct Plan {
    tables: BTreeMap<TableName, Planned>,
}

struct Planned {
    oid: Option<u32>,
    plan: TablePlan,
    version: u32,
}

impl Job<'_> {
    async fn manifest(&self) -> Result<Manifest, Error> {
        let root = || self.lake.store.location().root().to_owned();
        let found = self.lake.manifests.load().await?;
        Ok(found.ok_or_else(|| Error::NotInitialised { root: root() })?.value)
    }

    async fn plan(&self) -> Result<Plan, Error> {
        let manifest = self.manifest().await?;
        let wanted = self.wanted(&manifest)?;
        let mut catalog = SourceCatalog::new(self.source.clone(), &manifest.source.publication);
        let publishes_generated = catalog.publishes_generated().await?;
        let oids: Vec<u32> = wanted.iter().filter_map(|(_, entry)| entry.source_oid).collect();
        let shapes = catalog.shapes(&oids).await?;
        let evolution = Evolution { types: &self.settings.replication.types, publishes_generated };
        let mut tables = BTreeMap::new();
        for (table, entry) in wanted {
            let schema = manifest.table_schema(table)?;
            let shape = shapes.iter().find(|shape| Some(shape.table.oid) == entry.source_oid);
            let plan = plan_table(&evolution, entry, &schema, shape);
            let version = schema.version;
            tables.insert(table.clone(), Planned { oid: entry.source_oid, plan, version });
        }
        Ok(Plan { tables })
    }

    fn wanted<'m>(
        &self,
        manifest: &'m Manifest,
    ) -> Result<Vec<(&'m TableName, &'m TableEntry)>, Error> {
        let asked: BTreeSet<&TableName> = self.settings.tables.iter().collect();
        let active: BTreeMap<_, _> = manifest.active_tables().collect();
        if let Some(table) = asked.iter().find(|table| !active.contains_key(**table)) {
            return Err(Error::UnknownTable { table: (*table).clone() });
        }
        let is_wanted = |table: &TableName| asked.is_empty() || asked.contains(table);
        Ok(active.into_iter().filter(|(table, _)| is_wanted(table)).collect())
    }

    /// Has whoever stands at the end of the stream apply what is pending.
    async fn apply(&self, plan: Plan) -> Result<(), Error> {
        match Lease::take_briefly(&self.settings.lake.state_dir) {
            Ok(lease) => {
                self.apply_alone(plan).await?;
                drop(lease);
                Ok(())
            }
            Err(Error::Leased { .. }) => {
                let client = ControlClient::open(&self.settings.lake.state_dir)?;
                match client.ask::<()>(Command::Reconcile, self.settings.patience).await {
                    // a daemon that is between two sessions, or has ended: look again
                    Ok(_) | Err(Error::NoAnswer | Error::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(POLL_INTERVAL).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Without a daemon: the lake must stand where the catalog is read.
    async fn apply_alone(&self, plan: Plan) -> Result<(), Error> {
        let found = self.lake.manifests.require().await?;
        let (generation, manifest) = (found.value.generation, found.value.clone());
        let fence = Fence { generation, breaker: Arc::new(Breaker::new(self.settings.breaker)) };
        let lake = self.lake.clone();
        let mut state = committed_state(lake, fence, found, self.settings.refs, 1).await?;
        let behind = || Error::BehindSchema { covered: manifest.covered_lsn };
        if furthest_beyond(&state).is_some() {
            return Err(behind());
        }
        complete_fills(&mut state).await?;
        let Exactly { content, fillings, until } = self.exactly(&plan, &state).await?;
        if content.evolved.is_empty() && state.ahead_in_schema().is_empty() {
            // it changed again since the plan was made
            tokio::time::sleep(POLL_INTERVAL).await;
            return Ok(());
        }
        let until = until.max(manifest.covered_lsn);
        match expect_nothing_pending(self.source, &manifest, until).await {
            Err(Error::Behind { .. }) => return Err(behind()),
            other => other?,
        }
        let name = BatchName {
            id: Uuid::now_v7(),
            epoch: Epoch(manifest.epoch.0 + 1),
            lsn_from: manifest.covered_lsn,
            lsn_to: manifest.covered_lsn,
            commit_micros: manifest.commit_ts.timestamp_micros(),
        };
        let lake = &self.settings.lake;
        let (how, bytes) = (&self.settings.compaction, self.settings.buffer_bytes_max);
        let workshop = Workshop::new(lake, how, bytes);
        for filling in fillings {
            fill(&mut state, &workshop, filling, &CancellationToken::new()).await?;
        }
        state.commit(&name, &content).await?;
        Ok(())
    }

    /// The pending tables as they are at one position.
    async fn exactly(&self, plan: &Plan, state: &CommitState) -> Result<Exactly, Error> {
        let manifest = &state.manifest.value;
        let mut catalog = SourceCatalog::new(self.source.clone(), &manifest.source.publication);
        let publishes_generated = catalog.publishes_generated().await?;
        let evolution = Evolution { types: &self.settings.replication.types, publishes_generated };
        let (mut content, mut fillings) = (EpochContent::default(), Vec::new());
        let mut until = Lsn::ZERO;
        let policy = self.settings.replication.types.policy.unrepresentable;
        for (table, planned) in plan.pending() {
            let Some(committed) = state.tables.get(table) else { continue };
            let Some(oid) = planned.oid else { continue };
            let Some((shape, at)) = catalog.shape_at(oid).await? else { continue };
            until = until.max(at);
            let entry = manifest.tables.get(table);
            let older = older_rows(entry.and_then(|entry| entry.source_filenode), &shape);
            let (schema, ahead) = (&committed.schema, committed.ahead.as_deref());
            let at = TableAt::exactly(&shape);
            let Ok(Some(next)) = evolution.next(schema, &at, &shape, older, ahead) else {
                continue;
            };
            let mut schema = Arc::new(next.schema);
            if !next.fills.is_empty() {
                let filling = Filling::of((*schema).clone(), &next.fills, policy)?;
                schema = Arc::clone(&filling.schema);
                fillings.push(filling);
            }
            content.evolved.push(schema);
            content.filenodes.push((table.clone(), Some(shape.filenode)));
        }
        Ok(Exactly { content, fillings, until })
    }
}

impl Plan {
    /// What is to be applied.
    fn pending(&self) -> impl Iterator<Item = (&TableName, &Planned)> {
        self.tables
            .iter()
            .filter(|(_, planned)| !planned.plan.steps.is_empty() && planned.plan.blocked.is_none())
    }

    fn report(self) -> ReconcileReport {
        let plans = self.tables.into_iter().map(|(table, planned)| (table, planned.plan));
        ReconcileReport { tables: plans.collect() }
    }

    /// Notes in an earlier report what the manifest has by now.
    fn note_applied(&self, report: &mut ReconcileReport) {
        for (table, plan) in &mut report.tables {
            let Some(now) = self.tables.get(table) else { continue };
            plan.applied = !plan.steps.is_empty() && now.plan.steps.is_empty();
            if plan.applied {
                plan.to = now.version;
            }
            if plan.blocked.is_none() {
                plan.blocked.clone_from(&now.plan.blocked);
            }
        }
    }
}

fn plan_table(
    evolution: &Evolution<'_>,
    entry: &TableEntry,
    schema: &TableSchema,
    shape: Option<&TableShape>,
) -> TablePlan {
    let plan = TablePlan { from: schema.version, to: schema.version, ..TablePlan::default() };
    let blocked = |reason: String| TablePlan { blocked: Some(reason), ..plan.clone() };
    if entry.state != Some(TableState::Streaming) {
        let reason = entry.reason.as_deref().unwrap_or("it is not followed now");
        return blocked(reason.to_owned());
    }
    let Some(shape) = shape else { return blocked("it is gone on the source".into()) };
    if shape.table.name != schema.table {
        return blocked(format!("it is now named {} on the source", shape.table.name));
    }
    let at = TableAt::exactly(shape);
    let next = match evolution.schema(schema, &at, None) {
        Ok(None) => return plan,
        Ok(Some(next)) => next,
        Err(reason) => return blocked(reason),
    };
    let older = older_rows(entry.source_filenode, shape);
    let judged = evolution.next(schema, &at, shape, older, None);
    TablePlan { steps: schema.steps_to(&next), to: next.version, blocked: judged.err(), ..plan }
}

fn older_rows(known: Option<u64>, shape: &TableShape) -> OlderRows {
    match known {
        Some(known) if known == shape.filenode => OlderRows::Untouched,
        Some(_) => OlderRows::Rewritten,
        None => OlderRows::Unknown,
    }
}
